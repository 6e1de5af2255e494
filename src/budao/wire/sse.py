"""Server-sent events: values into the lines of a `text/event-stream`, and those lines into events again.

Source:  WHATWG HTML, section 9.2 "Server-sent events".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from budao.model import LocalWireError, RemoteWireError

CONTENT_TYPE: Final = "text/event-stream"
BEAT: Final = b":\n\n"
"""A comment, which no reader sees: it keeps a connection from looking dead."""

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_RETRY_DIGITS_MAX: Final = 12
_BOM: Final = b"\xef\xbb\xbf"


def event(data: bytes, *, id: str | None = None, event: str | None = None, retry_s: float | None = None) -> bytes:  # noqa: A002
    """One event. Lines of the data come back joined by newlines, whatever ended them.

    Raises:  LocalWireError for an id or a name that would end its line, which would be another event.
    """
    lines = _LINE_END.split(data) if b"\n" in data or b"\r" in data else (data,)
    head = b""
    if id is not None:
        head = b"id: %b\n" % _one_line("the id of an event", id)
    if event is not None:
        head += b"event: %b\n" % _one_line("the name of an event", event)
    if retry_s is not None:
        head += b"retry: %d\n" % round(retry_s * 1000)
    return b"%bdata: %b\n\n" % (head, b"\ndata: ".join(lines))


def retry(after_s: float) -> bytes:
    """How long a browser waits before it connects again."""
    return b"retry: %d\n\n" % round(after_s * 1000)


def _one_line(what: str, text: str) -> bytes:
    if "\n" in text or "\r" in text or "\0" in text:
        raise LocalWireError(f"{what} is one line without NUL, not {text[:60]!r}")
    return text.encode()


@dataclass(frozen=True, slots=True)
class Event:
    """What a stream said."""

    data: bytes
    event: str = "message"
    id: str = ""
    """The last id that was said up to here."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How long to wait before connecting again."""

    after_s: float


class Reader:
    """Pieces of a stream into events, as a browser reads them. An event is bounded; comments are skipped."""

    __slots__ = ("_bytes", "_data", "_event", "_event_bytes_max", "_has_begun", "_id", "_skips_newline", "_tail")

    def __init__(self, event_bytes_max: int, *, last_id: str = "") -> None:
        self._event_bytes_max = event_bytes_max
        self._tail = bytearray()
        """A line that is not whole; it holds no line end."""
        self._data: list[bytes] = []
        self._bytes = 0
        """Of the lines of the event so far."""
        self._event = ""
        self._id = last_id
        self._skips_newline = False
        """After a CR that ended a piece: a newline now would belong to it."""
        self._has_begun = False

    @property
    def last_id(self) -> str:
        """What `Last-Event-ID` should say after a reconnect."""
        return self._id

    def feed(self, data: bytes) -> list[Event | Retry]:
        """The events that are whole now.

        Raises:  RemoteWireError for an event or a line that is longer than allowed, then and ever after.
        """
        found: list[Event | Retry] = []
        if not data:
            return found
        if self._skips_newline and data[0] == 0x0A:
            data = data[1:]
        if not self._has_begun and (data := self._without_mark(data)) == b"":
            return found
        self._skips_newline = data.endswith(b"\r")
        lines = _LINE_END.split(data) if b"\r" in data else data.split(b"\n")
        if len(lines) > 1:
            if self._tail:
                lines[0] = bytes(self._tail) + lines[0]
                self._tail.clear()
            for line in lines[:-1]:
                self._line(line, found)
        self._tail += lines[-1]
        if self._bytes + len(self._tail) > self._event_bytes_max:
            raise self._too_large()
        return found

    def _without_mark(self, data: bytes) -> bytes:
        """The beginning of a stream without its byte order mark; nothing while that is not known."""
        data = bytes(self._tail) + data
        self._tail.clear()
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._tail += data
            return b""
        self._has_begun = True
        return data.removeprefix(_BOM)

    def _too_large(self) -> RemoteWireError:
        bound, self._event_bytes_max = self._event_bytes_max, -1  # whatever follows is refused, too
        return RemoteWireError(
            f"an event of a stream has more than {bound} bytes; connect again from {self._id[:100]!r}"
        )

    def _line(self, line: bytes, found: list[Event | Retry]) -> None:
        if not line:
            self._dispatch(found)
            return
        self._bytes += len(line) + 1
        if self._bytes > self._event_bytes_max:
            raise self._too_large()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._event = value.decode(errors="replace")
        elif field == b"id":
            if b"\0" not in value:
                self._id = value.decode(errors="replace")
        elif field == b"retry" and value.isdigit() and len(value) <= _RETRY_DIGITS_MAX:
            found.append(Retry(int(value) / 1000))

    def _dispatch(self, found: list[Event | Retry]) -> None:
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            found.append(Event(data, self._event or "message", self._id))
            self._data = []
        self._event, self._bytes = "", 0
