"""permessage-deflate: agreeing on it, and messages through it.

What goes out is compressed without a memory of earlier messages, so that a frame is compressed once for all its readers. What
comes in may keep one, where the policy allows that much memory for a connection.

Source:  RFC 7692.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Final

from budao.model import RemoteWireError
from budao.wire.http1 import BadRequest
from budao.wire.websocket import BadFrame

NAME: Final = "permessage-deflate"
OFFERS_MAX: Final = 16
ENDS_MAX: Final = 16
"""Streams that one message may consist of; ordinary ones have none that ends."""

_TAIL: Final = b"\x00\x00\xff\xff"
_PARAMETER: Final = re.compile(r'([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)(?:[ \t]*=[ \t]*(?:"([!-~]+)"|([!#-~]+)))?')
_BITS: Final = {str(bits): bits for bits in range(8, 16)}

Offer = dict[str, int | None]


@dataclass(frozen=True, slots=True)
class Agreed:
    """What both sides agreed on, seen from this side."""

    header: str
    """What the answer's Sec-WebSocket-Extensions says."""
    out_window_bits: int = 15
    """How far back what this side sends may point: give it to `compress`."""
    in_window_bits: int = 15
    """How far back what the other side sends may point."""
    in_takeover: bool = False
    """Whether the other side may point into earlier messages, which keeps a window in memory."""

    def inflate(self, bytes_max: int) -> Inflate:
        """What reads the other side's messages."""
        return Inflate(bytes_max, window_bits=self.in_window_bits, takeover=self.in_takeover)


def accept(offers: str, *, in_takeover: bool = False, out_window_bits_min: int = 8) -> Agreed | None:
    """The first offer of a client that can be met; None for going without (section 5).

    `in_takeover` lets the client keep its memory, which costs up to 32 KiB here for each connection. An offer that asks for smaller
    windows than `out_window_bits_min` is not met, so that one compressed frame fits all readers.

    Raises:  BadRequest for a header that cannot be read.
    """
    for name, parameters in _parse(offers):
        if name != NAME:
            continue
        offer = _checked(parameters, {"client_max_window_bits"})
        if offer is None or (offer.get("server_max_window_bits") or 15) < out_window_bits_min:
            continue
        said = [NAME, "server_no_context_takeover"]
        out_bits = offer.get("server_max_window_bits")
        if out_bits is not None:
            said.append(f"server_max_window_bits={out_bits}")
        takeover = in_takeover and "client_no_context_takeover" not in offer
        if not takeover:
            said.append("client_no_context_takeover")
        in_bits = offer.get("client_max_window_bits")
        if in_bits is not None and in_bits < 15:
            said.append(f"client_max_window_bits={in_bits}")
        return Agreed("; ".join(said), out_bits or 15, in_bits or 15, takeover)
    return None


def offer() -> str:
    """What a client offers: no memory of earlier messages on either side."""
    return f"{NAME}; client_no_context_takeover; server_no_context_takeover; client_max_window_bits"


def agreed(header: str) -> Agreed | None:
    """At a client that sent `offer()`: what the server made of it; None for going without (section 5.1).

    Raises:  RemoteWireError for what was not offered.
    """
    try:
        answers = _parse(header)
    except BadRequest as bad:
        raise RemoteWireError(bad.problem) from None
    if not answers:
        return None
    name, parameters = answers[0]
    answer = _checked(parameters, set()) if name == NAME and len(answers) == 1 else None
    if answer is None or "server_no_context_takeover" not in answer:
        raise RemoteWireError(f"the server answered {header[:100]!r} to {offer()!r}")
    in_bits, out_bits = answer.get("server_max_window_bits"), answer.get("client_max_window_bits")
    return Agreed(header, out_bits or 15, in_bits or 15)


def _parse(header: str) -> list[tuple[str, list[tuple[str, str | None]]]]:
    """Extensions with their parameters, in order (RFC 6455, section 9.1)."""
    found = []
    for each in header.split(",") if header.strip(" \t") else ():
        names = []
        for part in each.split(";"):
            read = _PARAMETER.fullmatch(part.strip(" \t"))
            if read is None:
                raise BadRequest(400, f"Sec-WebSocket-Extensions cannot be read at {part[:40]!r}")
            names.append((read[1].lower(), read[2] or read[3]))
        found.append((names[0][0], names[1:]))
    if len(found) > OFFERS_MAX:
        raise BadRequest(400, f"Sec-WebSocket-Extensions names more than {OFFERS_MAX} extensions")
    return found


def _checked(parameters: list[tuple[str, str | None]], bare: set[str]) -> Offer | None:
    """The parameters as numbers of bits; None where one is unknown, doubled or out of bounds (section 7.1).

    A name in `bare` may stand without a number; it then leaves 15 to us.
    """
    read: Offer = {}
    for name, value in parameters:
        if name in read:
            return None
        if name in {"server_no_context_takeover", "client_no_context_takeover"}:
            if value is not None:
                return None
            read[name] = None
        elif name in {"server_max_window_bits", "client_max_window_bits"}:
            bits = 15 if value is None and name in bare else _BITS.get(value or "")
            if bits is None:
                return None
            read[name] = bits
        else:
            return None
    return read


def compress(payload: bytes, *, window_bits: int = 15, level: int = 1) -> bytes:
    """The payload of one compressed message, which needs nothing that came before: send it with `rsv1=True` (section 7.2.1)."""
    # zlib knows no window of 256 bytes here, but never points further back than its window less 262: 250 for one of 512.
    packer = zlib.compressobj(level, zlib.DEFLATED, -max(window_bits, 9), 8)
    packed = packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH)
    return packed[:-4]


class Inflate:
    """Reads compressed messages, none of them larger than `bytes_max` once inflated (section 7.2.2).

    However small what comes in, what comes out is bounded before it is made: a megabyte of zeros is a kilobyte on the wire.
    """

    __slots__ = ("_bits", "_bytes_max", "_ends", "_room", "_takeover", "_unpacker")

    def __init__(self, bytes_max: int, *, window_bits: int = 15, takeover: bool = False) -> None:
        self._bytes_max = bytes_max
        self._bits = -window_bits
        self._takeover = takeover
        self._room = bytes_max
        self._ends = 0
        self._unpacker: zlib._Decompress | None = None

    def feed(self, data: bytes) -> bytes:
        """What a piece of a message gives.

        Raises:  BadFrame with 1007 or 1009.
        """
        parts = []
        while data:
            unpacker = self._unpacker
            if unpacker is None:
                unpacker = self._unpacker = zlib.decompressobj(self._bits)
            try:
                part = unpacker.decompress(data, self._room + 1)
            except zlib.error:
                raise BadFrame(1007, "a compressed message is no deflate stream") from None
            self._room -= len(part)
            if self._room < 0:
                raise BadFrame(1009, f"a compressed message has more than {self._bytes_max} bytes")
            parts.append(part)
            data = b""
            if unpacker.eof:
                # A block may be the last of its stream, and another stream follow (section 7.2.3.4). Each costs an allocation.
                self._ends += 1
                if self._ends > ENDS_MAX:
                    raise BadFrame(1007, f"a compressed message ends more than {ENDS_MAX} times")
                data, self._unpacker = unpacker.unused_data, None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def end(self) -> bytes:
        """The rest of the message; the next one may follow.

        Raises:  BadFrame.
        """
        rest = b"" if self._unpacker is None else self.feed(_TAIL)
        self._room, self._ends = self._bytes_max, 0
        if not self._takeover:
            self._unpacker = None
        return rest
