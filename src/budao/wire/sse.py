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

    __slots__ = ("_begun", "_bytes", "_data", "_event", "_event_bytes_max", "_id", "_skips_newline", "_tail")

    def __init__(self, event_bytes_max: int) -> None:
        self._event_bytes_max = event_bytes_max
        self._tail = bytearray()
        self._data: list[bytes] = []
        self._bytes = 0
        self._event = ""
        self._id = ""
        self._skips_newline = False
        self._begun = False

    @property
    def last_id(self) -> str:
        """What `Last-Event-ID` should say after a reconnect."""
        return self._id

    def feed(self, data: bytes) -> list[Event | Retry]:
        """The events that are whole now.

        Raises:  RemoteWireError for an event or a line that is longer than allowed.
        """
        raise NotImplementedError
