"""The client's side of the NATS protocol: lines and payloads into values, and requests into bytes.

Source:  the protocol pages of the NATS documentation, and `INFO` of servers 2.9 to 2.15.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from budao.model import LocalWireError, RemoteWireError
from budao.wire.decoding import Decoder as FrameDecoder

PORT: Final = 4222
LINE_BYTES_MAX: Final = 64 * 1024
"""The longest line is an INFO that names the servers of a large cluster."""
PAYLOAD_BYTES_MAX: Final = 64 * 1024 * 1024
"""What a server can be configured to allow at most."""
VERSION_LINE: Final = b"NATS/1.0"
PING: Final = b"PING\r\n"
PONG: Final = b"PONG\r\n"
NO_RESPONDERS: Final = 503
NOT_FOUND: Final = 404


@dataclass(frozen=True, slots=True)
class Info:
    """What a server says of itself: first of all, and again when its cluster changes."""

    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message of a subscription. `headers` are still bytes; `parse_headers` reads them."""

    sid: int
    subject: str
    reply: str
    headers: bytes
    data: bytes

    @property
    def status(self) -> int:
        """What a server says instead of a message, such as 404; 0 for a message."""
        said = self.headers[len(VERSION_LINE) + 1 : len(VERSION_LINE) + 4]
        return int(said) if said.isdigit() else 0


@dataclass(frozen=True, slots=True)
class Pinged:
    """To be answered with `PONG`."""


@dataclass(frozen=True, slots=True)
class Ponged:
    """The answer to a `PING`."""


@dataclass(frozen=True, slots=True)
class Complained:
    """`-ERR`: after most of them the server hangs up."""

    problem: str


Said = Info | Delivered | Pinged | Ponged | Complained


class Decoder(FrameDecoder[Said]):
    """Cuts what a server sends, which may come in any pieces, into what it said.

    Cost:    bytes are held only until their line or payload is whole, so memory is bounded by the largest payload and one piece.
    """

    def __init__(self) -> None:
        super().__init__("NATS", _unframed)

    def feed(self, piece: bytes) -> list[Said]:
        """Raises:  RemoteWireError for garbage. The decoder is of no use after that."""
        held = self._held
        held += piece
        said: list[Said] = []
        at = 0
        while (end := held.find(b"\r\n", at)) >= 0:
            if end - at > LINE_BYTES_MAX:
                raise RemoteWireError(f"a line of {end - at} bytes, the bound is {LINE_BYTES_MAX}")
            line = bytes(held[at:end])
            after = end + 2
            if line.startswith((b"MSG ", b"HMSG ")):
                stop, each = _delivered(line, held, after)
                if each is None:
                    break
                said.append(each)
                at = stop
                continue
            at = after
            if (other := _line(line)) is not None:
                said.append(other)
        else:
            if len(held) - at > LINE_BYTES_MAX:
                raise RemoteWireError(f"a line of more than {LINE_BYTES_MAX} bytes; this is no NATS server")
        del held[:at]
        return said


def _unframed(_: bytes) -> Said:
    raise RemoteWireError("NATS has no frames")


def _delivered(line: bytes, held: bytearray, after: int) -> tuple[int, Delivered | None]:
    words = line.split()
    has_headers = words[0] == b"HMSG"
    numbers = 2 if has_headers else 1
    if len(words) - numbers not in (3, 4):
        raise RemoteWireError(f"not a message: {line[:80]!r}")
    head_bytes = _number(words[-2]) if has_headers else 0
    size = _number(words[-1])
    if not head_bytes <= size <= PAYLOAD_BYTES_MAX:
        raise RemoteWireError(f"a message of {size} bytes with {head_bytes} bytes of headers")
    stop = after + size
    if len(held) < stop + 2:
        return after, None
    if held[stop : stop + 2] != b"\r\n":
        raise RemoteWireError("a payload does not end where it says")
    reply = words[3] if len(words) - numbers == 4 else b""
    subject = words[1].decode(errors="replace")
    headers, data = bytes(held[after : after + head_bytes]), bytes(held[after + head_bytes : stop])
    return stop + 2, Delivered(_number(words[2]), subject, reply.decode(errors="replace"), headers, data)


def _line(line: bytes) -> Said | None:
    word, _, rest = line.partition(b" ")
    word = word.upper()
    if word == b"PING":
        return Pinged()
    if word == b"PONG":
        return Ponged()
    if word == b"+OK":
        return None
    if word == b"-ERR":
        return Complained(rest.decode(errors="replace").strip().strip("'")[:500])
    if word == b"INFO":
        return parse_info(line)
    raise RemoteWireError(f"no line of NATS: {line[:40]!r}")


def parse_info(line: bytes) -> Info:
    """The first line of a server.

    Raises:  RemoteWireError if it is something else.
    """
    word, _, rest = line.partition(b" ")
    if word.upper() != b"INFO":
        raise RemoteWireError(f"it does not begin as a NATS server does, but with {line[:40]!r}")
    try:
        fields = json.loads(rest)
    except (ValueError, RecursionError) as problem:
        raise RemoteWireError("INFO is followed by something that is not JSON") from problem
    if not isinstance(fields, dict):
        raise RemoteWireError("INFO is followed by JSON that is no object")
    return Info(fields)


def _number(word: bytes) -> int:
    if not word.isdigit() or len(word) > 19:
        raise RemoteWireError(f"no number: {word[:40]!r}")
    return int(word)


# ------------------------------------------------------------------------------------------------------ headers


def format_headers(headers: Mapping[str, str]) -> bytes:
    """Headers as they go before a payload.

    Raises:  LocalWireError for what would end its line.
    """
    lines = [VERSION_LINE, *(f"{name}: {value}".encode() for name, value in headers.items()), b"", b""]
    if any(b"\r" in line or b"\n" in line for line in lines):
        raise LocalWireError("a header of NATS holds the end of a line")
    return b"\r\n".join(lines)


def parse_headers(raw: bytes) -> dict[str, str]:
    """Headers by name, of which the first of its kind counts.

    Raises:  RemoteWireError.
    """
    if not raw:
        return {}
    lines = raw.split(b"\r\n")
    if not lines[0].startswith(VERSION_LINE):
        raise RemoteWireError(f"headers begin with {lines[0][:20]!r}")
    found: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            found.setdefault(name.decode(errors="replace"), value.strip().decode(errors="replace"))
    return found


# ----------------------------------------------------------------------------------------------------- requests


def connect(options: Mapping[str, Any]) -> bytes:
    """The first line of a client."""
    return b"CONNECT " + json.dumps(options, separators=(",", ":")).encode() + b"\r\n"


def publish(subject: str, data: bytes, *, reply: str = "", headers: bytes = b"") -> bytes:
    """A message. Subjects are checked by whoever makes them."""
    to = f"{subject} {reply} " if reply else f"{subject} "
    if headers:
        return b"HPUB %s%d %d\r\n%s%s\r\n" % (to.encode(), len(headers), len(headers) + len(data), headers, data)
    return b"PUB %s%d\r\n%s\r\n" % (to.encode(), len(data), data)


def subscribe(subject: str, sid: int) -> bytes:
    """What is published to a subject comes with this number."""
    return f"SUB {subject} {sid}\r\n".encode()


def unsubscribe(sid: int) -> bytes:
    """No more of it."""
    return f"UNSUB {sid}\r\n".encode()
