"""A stream of bytes into messages, for the protocols between our own programs: a length of 4 bytes, big-endian, and msgpack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from budao.model import LocalWireError, RemoteWireError

M = TypeVar("M")

LENGTH_BYTES: Final = 4
HELLO_BYTES_MAX: Final = 4096
"""Before it is known who speaks, a frame is at most this long."""
FRAME_BYTES_MAX: Final = 64 * 1024 * 1024
"""No frame is longer, whichever way it goes."""


def format_frame(payload: bytes) -> bytes:
    """A whole frame.

    Raises:  LocalWireError if it would be too long.
    """
    if len(payload) > FRAME_BYTES_MAX:
        raise LocalWireError(f"a frame of {len(payload)} bytes, the bound is {FRAME_BYTES_MAX}")
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


class Decoder(Generic[M]):
    """Cuts a stream of bytes, which may come in any pieces, into messages.

    Cost:    bytes are held only until their frame is whole, so memory is bounded by `frame_bytes_max` and one piece.
    """

    def __init__(self, protocol: str, parse: Callable[[bytes], M], frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._protocol = protocol
        self._parse = parse
        self.frame_bytes_max = frame_bytes_max
        """A longer frame is garbage. May be changed between two pieces."""
        self._held = bytearray()

    @property
    def is_between(self) -> bool:
        """Whether no frame is half there."""
        return not self._held

    def feed(self, piece: bytes) -> list[M]:
        """The messages that are whole now.

        Raises:  RemoteWireError for garbage. The decoder is of no use after that.
        """
        held = self._held
        held += piece
        messages: list[M] = []
        at = 0
        while len(held) - at >= LENGTH_BYTES:
            size = int.from_bytes(held[at : at + LENGTH_BYTES], "big")
            if not 0 < size <= self.frame_bytes_max:
                raise RemoteWireError(
                    f"a frame of {size} bytes, the bound is {self.frame_bytes_max}: {_looks_like(bytes(held[at : at + 8]), self._protocol)}"
                )
            end = at + LENGTH_BYTES + size
            if end > len(held):
                break
            messages.append(self._parse(bytes(held[at + LENGTH_BYTES : end])))
            at = end
        del held[:at]
        return messages


def _looks_like(raw: bytes, protocol: str) -> str:
    if raw[:2] == b"\x16\x03":
        return "the other side begins with TLS, and this one does not"
    if raw[:2] == b"\x15\x03":
        return "the other side speaks TLS, and this one does not"
    if raw[:4] in {b"GET ", b"POST", b"PUT ", b"HEAD", b"HTTP", b"PRI "}:
        return "the other side speaks HTTP"
    return f"the other side does not speak {protocol}, it says {raw!r}"
