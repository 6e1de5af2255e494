"""permessage-deflate: agreeing on it, and messages through it.

What a server sends is compressed without a memory of earlier messages, so that a frame is compressed once for all readers.

Source:  RFC 7692.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NAME: Final = "permessage-deflate"


@dataclass(frozen=True, slots=True)
class Agreed:
    """What both sides agreed on, seen from this side."""

    header: str
    """What the answer's Sec-WebSocket-Extensions says."""
    out_window_bits: int = 15
    """How far back what this side sends may point."""
    in_window_bits: int = 15
    """How far back what the other side sends may point."""
    in_takeover: bool = False
    """Whether the other side may point into earlier messages, which keeps a window in memory."""


def accept(offers: str, *, in_takeover: bool = False, out_window_bits_min: int = 9) -> Agreed | None:
    """The first offer of a client that can be met; None for going without.

    Raises:  BadRequest for a header that cannot be read.
    """
    raise NotImplementedError


def offer() -> str:
    """What a client offers: no memory of earlier messages on either side."""
    raise NotImplementedError


def agreed(header: str) -> Agreed | None:
    """At a client that sent `offer()`: what the server made of it; None for going without.

    Raises:  RemoteWireError for what was not offered.
    """
    raise NotImplementedError


def compress(payload: bytes, *, window_bits: int = 15) -> bytes:
    """The payload of one compressed message, which needs nothing that came before: send it with `rsv1=True`."""
    raise NotImplementedError


class Inflate:
    """Reads compressed messages, none of them larger than `bytes_max`."""

    def __init__(self, bytes_max: int, *, window_bits: int = 15, takeover: bool = False) -> None:
        self._bytes_max = bytes_max

    def feed(self, data: bytes) -> bytes:
        """What a piece of a message gives.

        Raises:  BadFrame with 1007 or 1009.
        """
        raise NotImplementedError

    def end(self) -> bytes:
        """The rest of the message."""
        raise NotImplementedError
