"""What a channel may be called, and patterns over such names.

A name is text of one or more parts, which `.`, `:` or `/` separate: `news`, `room:42`, `shop/orders.new`. In a pattern, `*`
stands for one part or the rest of one, and `**` at the end for any number of parts.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from budao.model import RemoteWireError

CHANNEL_BYTES_MAX: Final = 200
"""A name is at most this long, as UTF-8: it becomes part of a file, of a subject of a broker, and of a header."""

SEPARATORS: Final = ".:/"
SHOWN_CHARACTERS: Final = 60


def check_channel(name: object) -> str:
    """The name itself, if it may be one.

    Raises:  RemoteWireError, saying what is wrong with it and what is allowed.
    """
    if not isinstance(name, str):
        raise RemoteWireError(f"the name of a channel is text, not {type(name).__name__}")
    shown = repr(name if len(name) <= SHOWN_CHARACTERS else name[:SHOWN_CHARACTERS] + "…")
    if not name:
        raise RemoteWireError("the name of a channel is empty")
    if len(name.encode(errors="surrogatepass")) > CHANNEL_BYTES_MAX:
        raise RemoteWireError(f"the channel {shown} has more than {CHANNEL_BYTES_MAX} bytes")
    if "*" in name:
        raise RemoteWireError(f"the channel {shown} holds '*', which only patterns may")
    if not name.isprintable() or " " in name:
        raise RemoteWireError(f"the channel {shown} holds a space, or a character that cannot be printed")
    if (
        name[0] in SEPARATORS
        or name[-1] in SEPARATORS
        or any(a in SEPARATORS and b in SEPARATORS for a, b in pairwise(name))
    ):
        raise RemoteWireError(
            f"the channel {shown} has an empty part; parts are separated by one of {' '.join(SEPARATORS)}"
        )
    return name
