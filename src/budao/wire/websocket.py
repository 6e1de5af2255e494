"""WebSocket: the handshake, and frames out of bytes and into bytes, for either side.

Source:  RFC 6455, and RFC 7692 for what `deflate` adds.
"""

from __future__ import annotations

import re
from base64 import b64encode
from codecs import utf_8_decode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha1
from struct import Struct
from typing import Final, Protocol

from budao.model import LocalWireError, RemoteWireError
from budao.wire.http1 import BadRequest, BadResponse, Request, Response, format_request
from budao.wire.http1_fields import TOKEN, tokens

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

CONTROL_BYTES_MAX: Final = 125
REASON_BYTES_MAX: Final = 123
SUBPROTOCOLS_MAX: Final = 16

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")
_NEEDS: Final = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13"}


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What a client asks for."""

    key: str
    subprotocols: tuple[str, ...] = ()
    extensions: str = ""
    """The text of Sec-WebSocket-Extensions: see `deflate.accept`."""


def accept_key(key: str) -> str:
    """What answers a key, to show that somebody read it (section 4.2.2)."""
    return b64encode(sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def check_upgrade(request: Request) -> Upgrade:
    """A request that opens a WebSocket (section 4.2.1).

    Raises:  BadRequest: 400, or 426 for another version or for a request that asks for no WebSocket.
    """
    headers = request.headers
    if not request.wants_upgrade or request.method != "GET":
        raise BadRequest(426, "this place is for WebSockets: a GET that asks for an upgrade", headers=_NEEDS)
    version, key = headers.get("sec-websocket-version"), headers.get("sec-websocket-key")
    if version != "13":
        raise BadRequest(426, f"the version of WebSocket must be 13, not {str(version)[:20]}", headers=_NEEDS)
    if request.body_bytes != 0:
        raise BadRequest(400, "a request to upgrade has a body")
    if key is None or _KEY.fullmatch(key) is None:
        raise BadRequest(400, "Sec-WebSocket-Key must be 16 bytes in base64")
    asked = headers.get("sec-websocket-protocol")
    subprotocols = () if asked is None else tuple([name.strip(" \t") for name in asked.split(",")])
    if len(subprotocols) > SUBPROTOCOLS_MAX or not all(map(TOKEN.fullmatch, subprotocols)):
        raise BadRequest(400, f"Sec-WebSocket-Protocol must name up to {SUBPROTOCOLS_MAX} subprotocols")
    return Upgrade(key, subprotocols, headers.get("sec-websocket-extensions", ""))


def accept(key: str, *, subprotocol: str = "", extensions: str = "") -> bytes:
    """The answer 101, whole. Subprotocol and extensions are of those that were offered."""
    if subprotocol:
        subprotocol = f"\r\nSec-WebSocket-Protocol: {subprotocol}"
    if extensions:
        extensions = f"\r\nSec-WebSocket-Extensions: {extensions}"
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(key)}{subprotocol}{extensions}\r\n\r\n"
    ).encode()


def ask(
    host: str,
    target: str,
    nonce: bytes,
    *,
    subprotocols: tuple[str, ...] = (),
    extensions: str = "",
    headers: Mapping[str, str] | None = None,
) -> tuple[bytes, str]:
    """A client's request to open a WebSocket, and the key that `check_answer` wants. `nonce` is 16 random bytes.

    Raises:  LocalWireError for what would break the head.
    """
    key = b64encode(nonce).decode()
    fields = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Version": "13",
        **({"Sec-WebSocket-Protocol": ", ".join(subprotocols)} if subprotocols else {}),
        **({"Sec-WebSocket-Extensions": extensions} if extensions else {}),
        **(headers or {}),
    }
    return format_request("GET", target, fields), key


def check_answer(response: Response, key: str, subprotocols: tuple[str, ...] = ()) -> tuple[str, str]:
    """At a client: the subprotocol that was chosen, or "", and the text of the extensions (section 4.1).

    Raises:  BadResponse for anything but a WebSocket, whatever the status.
    """
    headers = response.headers
    if response.status != 101:
        raise BadResponse(f"the server answered {response.status} instead of opening a WebSocket")
    if headers.get("upgrade", "").lower() != "websocket" or "upgrade" not in tokens(headers.get("connection", "")):
        raise BadResponse("the server changed to another protocol than WebSocket")
    if headers.get("sec-websocket-accept") != accept_key(key):
        raise BadResponse("the server did not answer the key of this handshake")
    chosen = headers.get("sec-websocket-protocol", "")
    if chosen and chosen not in subprotocols:
        raise BadResponse(f"the server chose the subprotocol {chosen[:60]!r}, which was not offered")
    return chosen, headers.get("sec-websocket-extensions", "")


# -------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Text:
    """A message of text."""

    data: bytes
    """UTF-8, checked."""


@dataclass(frozen=True, slots=True)
class Binary:
    """A message of bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class WsPing:
    """To be answered with a pong of the same payload."""

    data: bytes


@dataclass(frozen=True, slots=True)
class WsPong:
    """The answer to a ping, or a beat."""

    data: bytes


@dataclass(frozen=True, slots=True)
class WsClose:
    """The last frame. Answer with the same code unless a close was sent already. Nothing is read after it."""

    code: int
    """1005 if none was said."""
    reason: str = ""


Event = Text | Binary | WsPing | WsPong | WsClose


class BadFrame(RemoteWireError):
    """The other side broke the protocol. Send a close frame with `code`, and end the connection.

    `before` holds the events of the same piece that came before it.
    """

    def __init__(self, code: int, problem: str, before: tuple[Event, ...] = ()) -> None:
        super().__init__(code, problem)
        self.code = code
        self.problem = problem
        self.before = before

    def __str__(self) -> str:
        return f"{self.code}: {self.problem}"


class Inflater(Protocol):
    """What turns the pieces of a compressed message into bytes; `budao.wire.deflate.Inflate` is one."""

    def feed(self, data: bytes) -> bytes: ...

    def end(self) -> bytes: ...


class Reader:
    """Pieces of a connection into messages and control frames.

    `message_bytes_max` bounds a message, whole and inflated. `is_server` says which side this is: a server reads masked frames, a
    client plain ones. `inflate` reads compressed messages, where that was agreed on; it has the same bound.
    """

    __slots__ = (
        "_checked",
        "_compressed",
        "_fin",
        "_inflate",
        "_is_server",
        "_left",
        "_mask",
        "_message",
        "_message_bytes_max",
        "_opcode",
        "_over",
        "_tail",
    )

    def __init__(self, message_bytes_max: int, *, is_server: bool, inflate: Inflater | None = None) -> None:
        self._message_bytes_max = message_bytes_max
        self._is_server = is_server
        self._inflate = inflate
        self._tail = b""
        """A head, or a control frame, that is not whole."""
        self._opcode = 0
        """Of the message that has begun; 0 between messages."""
        self._compressed = False
        self._message: bytearray | None = None
        """What there is of the message, unmasked and inflated."""
        self._checked = 0
        """How much of it is known to be UTF-8."""
        self._left = -1
        """Bytes of this data frame that have not come yet; -1 between frames."""
        self._mask = b""
        self._fin = False
        self._over = False

    @property
    def is_mid_message(self) -> bool:
        """Whether a message or a frame has begun and not ended."""
        return bool(self._tail or self._opcode)

    def unread(self) -> bytes | None:
        """What another reader must be fed to stand where this one does; None amid a compressed message, and after the end."""
        if self._over or (self._opcode and self._compressed):
            return None
        if not self._opcode:
            return self._tail
        zero = b"\0\0\0\0" if self._is_server else None
        said = frame(self._opcode, bytes(self._message or b""), mask=zero, fin=False)
        if self._left >= 0:
            begun = frame(CONTINUATION, bytes(self._left), mask=self._mask if self._is_server else None, fin=self._fin)
            said += begun[: -self._left or None]
        return said + self._tail

    def feed(self, data: bytes) -> list[Event]:
        """What is whole now.

        Raises:  BadFrame with 1002 (protocol), 1007 (no UTF-8, no deflate) or 1009 (too large); nothing is read afterwards.
        """
        found: list[Event] = []
        if self._over:
            return found
        try:
            self._frames(data, found)
        except BadFrame as bad:
            self._over = True
            self._tail, self._message, self._left = b"", None, -1
            bad.before = tuple(found)
            raise
        return found

    def _frames(self, data: bytes, found: list[Event]) -> None:  # noqa: C901, PLR0912 - a call costs more than a branch
        if self._tail:
            data = self._tail + data
            self._tail = b""
        at, size = 0, len(data)
        if self._left >= 0:
            at = self._payload(data, 0, found)
        is_server, mask = self._is_server, b""
        while at + 2 <= size:
            first, second = data[at], data[at + 1]
            begin, length = at + 2, second & 0x7F
            if (second > 0x7F) != is_server:
                raise BadFrame(1002, "a client must mask its frames, and a server must not")
            if first != 0x81 and first != 0x82:  # noqa: PLR1714 - a tuple costs twice as much
                self._check_first(first, length)
            elif self._opcode:
                raise BadFrame(1002, "a new message began within another")
            if length > CONTROL_BYTES_MAX:
                begin += 2 if length == 126 else 8
                if begin > size:
                    break
                length = _long_length(data, at + 2, begin)
            if is_server:
                mask = data[begin : begin + 4]
                begin += 4
                if begin > size:
                    break
            end = begin + length
            opcode = first & 0x0F
            if opcode > 7:
                if end > size:
                    break
                self._control(opcode, unmask(data[begin:end], mask) if is_server else data[begin:end], found)
                if self._over:
                    return
                at = end
            elif end <= size and (first == 0x81 or first == 0x82):  # noqa: PLR1714
                if length > self._message_bytes_max:
                    raise self._too_large(length)
                payload = unmask(data[begin:end], mask) if is_server else data[begin:end]
                if opcode == BINARY:
                    found.append(Binary(payload))
                else:
                    if not payload.isascii():
                        _check_text(payload)
                    found.append(Text(payload))
                at = end
            else:
                self._begin(first, length, mask)
                at = self._payload(data, begin, found)
        if at < size:
            self._tail = data[at:]

    def _check_first(self, first: int, length: int) -> None:
        """What a first byte may be here, and a control frame's length (section 5.2 to 5.5)."""
        opcode = first & 0x0F
        if opcode not in _OPCODES:
            raise BadFrame(1002, f"the opcode {opcode:#x} has no meaning")
        if first & 0x70 and (first & 0x70 != 0x40 or self._inflate is None or not 0 < opcode < 8):
            raise BadFrame(1002, "a reserved bit is set that nobody agreed on")
        if opcode > 7:
            if first < 0x80 or length > CONTROL_BYTES_MAX:
                raise BadFrame(1002, "a control frame is whole, and has at most 125 bytes")
        elif opcode and self._opcode:
            raise BadFrame(1002, "a new message began within another")
        elif not opcode and not self._opcode:
            raise BadFrame(1002, "a message goes on that never began")

    def _too_large(self, size: int) -> BadFrame:
        return BadFrame(1009, f"a message of {size} bytes or more, and at most {self._message_bytes_max} are read")

    def _begin(self, first: int, length: int, mask: bytes) -> None:
        """Begins a data frame that is a fragment, compressed, or not here in full."""
        if first & 0x0F:
            self._opcode = first & 0x0F
            self._compressed = bool(first & 0x40)
            self._message = bytearray()
            self._checked = 0
        assert self._message is not None
        if not self._compressed and len(self._message) + length > self._message_bytes_max:
            raise self._too_large(len(self._message) + length)
        self._fin = first > 0x7F
        self._left, self._mask = length, mask

    def _payload(self, data: bytes, at: int, found: list[Event]) -> int:
        """Takes what there is of a data frame; says where it ended."""
        message = self._message
        assert message is not None
        piece = data[at : at + self._left]
        size = len(piece)
        if self._is_server and size:
            piece = unmask(piece, self._mask)
            turn = size & 3
            self._mask = self._mask[turn:] + self._mask[:turn]
        self._left -= size
        is_last = not self._left and self._fin
        if self._compressed:
            assert self._inflate is not None
            piece = self._inflate.feed(piece)
            if is_last:
                piece += self._inflate.end()
        message += piece
        if self._opcode == TEXT:
            # As early as can be known: a reader of a long message would else wait for the end of what nobody may read.
            self._checked += _check_text(memoryview(message)[self._checked :], is_whole=is_last)
        if is_last:
            kind = Text if self._opcode == TEXT else Binary
            found.append(kind(bytes(message)))
            self._opcode, self._message = 0, None
        if not self._left:
            self._left = -1
        return at + size

    def _control(self, opcode: int, payload: bytes, found: list[Event]) -> None:
        if opcode == PING:
            found.append(WsPing(payload))
        elif opcode == PONG:
            found.append(WsPong(payload))
        else:
            found.append(_parse_close(payload))
            self._over = True
            self._message, self._opcode = None, 0


_OPCODES: Final = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))


def _long_length(data: bytes, begin: int, end: int) -> int:
    length = int.from_bytes(data[begin:end], "big")
    # Section 5.2: the fewest bytes that can say it, and the highest bit is 0.
    if length < (126 if end - begin == 2 else 0x10000) or length >> 63:
        raise BadFrame(1002, "a length is not said in the fewest bytes")
    return length


def _check_text(data: bytes | memoryview, *, is_whole: bool = True) -> int:
    """How many of these bytes are characters: all, but for the beginning of one at the end of a part.

    Raises:  BadFrame.
    """
    try:
        return utf_8_decode(data, "strict", is_whole)[1]
    except UnicodeDecodeError:
        raise BadFrame(1007, "a text is not UTF-8") from None


def _parse_close(payload: bytes) -> WsClose:
    """Section 5.5.1, and 7.4 for the codes."""
    if not payload:
        return WsClose(1005)
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not may_be_sent(code):
        raise BadFrame(1002, "a close frame has no code that may be sent")
    try:
        return WsClose(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise BadFrame(1007, "the reason of a close frame is not UTF-8") from None


def may_be_sent(code: int) -> bool:
    """Whether a close frame may carry this code: what RFC 6455 and its registry name, and 3000 to 4999."""
    return (1000 <= code <= 1014 and code not in {1004, 1005, 1006}) or 3000 <= code <= 4999


# -------------------------------------------------------------------------------------------------- frames

_MEDIUM: Final = Struct(">BBH")
_LONG: Final = Struct(">BBQ")
_UNMASK_WHOLE_BYTES_MAX: Final = 4096
"""Up to here one exclusive-or of two long numbers is faster, and beyond it four translations."""
_XOR: Final = tuple(bytes(one ^ other for other in range(256)) for one in range(256))


def unmask(payload: bytes, mask: bytes) -> bytes:
    """Masks, or takes the mask away again (section 5.3).

    Cost:    0.3 µs for 32 bytes, 1.9 µs for 1 KiB, 1 GB/s for long ones.
    """
    size = len(payload)
    if size <= _UNMASK_WHOLE_BYTES_MAX:
        key = (mask * ((size + 3) >> 2))[:size]
        return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")
    done = bytearray(size)
    for lane in range(4):
        done[lane::4] = payload[lane::4].translate(_XOR[mask[lane]])
    return bytes(done)


def frame(opcode: int, payload: bytes, *, mask: bytes | None = None, fin: bool = True, rsv1: bool = False) -> bytes:
    """One frame. A client masks each with 4 bytes that nobody can foresee (section 5.3); a server masks none."""
    first = opcode | 0x80 if fin else opcode
    if rsv1:
        first |= 0x40
    size = len(payload)
    bit = 0
    if mask is not None:
        bit, payload = 0x80, mask + unmask(payload, mask)
    if size <= CONTROL_BYTES_MAX:
        return bytes((first, bit | size)) + payload
    if size <= 0xFFFF:
        return _MEDIUM.pack(first, bit | 126, size) + payload
    return _LONG.pack(first, bit | 127, size) + payload


def close_frame(code: int, reason: str = "", *, mask: bytes | None = None) -> bytes:
    """A close frame; a reason is cut to the 123 bytes that fit. Code 1005 sends none.

    Raises:  LocalWireError for a code that may not be sent.
    """
    if code == 1005:
        return frame(CLOSE, b"", mask=mask)
    if not may_be_sent(code):
        raise LocalWireError(f"no close frame may carry the code {code}")
    said = reason.encode(errors="replace")
    if len(said) > REASON_BYTES_MAX:
        said = said[:REASON_BYTES_MAX].decode(errors="ignore").encode()
    return frame(CLOSE, code.to_bytes(2, "big") + said, mask=mask)
