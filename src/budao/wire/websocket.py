"""WebSocket: the handshake, and frames out of bytes and into bytes, for either side.

Source:  RFC 6455, and RFC 7692 for what `deflate` adds.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha1
from typing import Final, Protocol

from budao.model import RemoteWireError
from budao.wire.http1 import Request

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


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
    """A request that opens a WebSocket.

    Raises:  BadRequest: 400, or 426 for another version or for a request that wants no upgrade at all.
    """
    raise NotImplementedError


def accept(key: str, *, subprotocol: str = "", extensions: str = "") -> bytes:
    """The answer 101, whole."""
    raise NotImplementedError


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
    client plain ones. `inflate` reads compressed messages, where that was agreed on.
    """

    def __init__(self, message_bytes_max: int, *, is_server: bool, inflate: Inflater | None = None) -> None:
        self._message_bytes_max = message_bytes_max
        self._is_server = is_server
        self._inflate = inflate

    def feed(self, data: bytes) -> list[Event]:
        """What is whole now.

        Raises:  BadFrame with 1002 (protocol), 1007 (no UTF-8, no deflate) or 1009 (too large); nothing can be read afterwards.
        """
        raise NotImplementedError


def frame(opcode: int, payload: bytes, *, mask: bytes | None = None, fin: bool = True, rsv1: bool = False) -> bytes:
    """One frame. A client masks each with 4 bytes that nobody can foresee (section 5.3); a server masks none."""
    raise NotImplementedError


def close_frame(code: int, reason: str = "", *, mask: bytes | None = None) -> bytes:
    """A close frame; a reason is cut to the 123 bytes that fit. Code 1005 sends none.

    Raises:  LocalWireError for a code that may not be sent.
    """
    raise NotImplementedError
