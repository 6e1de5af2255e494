"""Patterns over the names of channels: `*` is one part or the rest of one, `**` at the end is everything that follows.

`room:*` holds `room:42` and not `room:42:typing`; `room:**` holds both, and not `room`; `log.err*` holds `log.error`;
`**` holds every channel. A separator in a pattern stands for itself. A `*` is always the last of its part, so a name
is compared from left to right once, whatever the pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from budao.model import RemoteWireError
from budao.push.names import CHANNEL_BYTES_MAX, SEPARATORS, SHOWN_CHARACTERS, check_channel

PATTERNS_MAX: Final = 64
"""Patterns of one kind that one grant may hold."""

_STARS: Final = re.compile(r"\*+")
_REMEMBERED_MAX: Final = 1024


def check_pattern(pattern: object) -> str:
    """The pattern itself, if it may be one.

    Raises:  RemoteWireError, saying what is wrong with it.
    """
    if not isinstance(pattern, str):
        raise RemoteWireError(f"a pattern of channels is text, not {type(pattern).__name__}")
    return _checked(pattern)


@lru_cache(maxsize=_REMEMBERED_MAX)
def _checked(pattern: str) -> str:
    # The same few patterns come with every token, and this is a third of what a token costs.
    if len(pattern) > CHANNEL_BYTES_MAX:
        raise RemoteWireError(f"the pattern {pattern[:SHOWN_CHARACTERS]!r}… is longer than {CHANNEL_BYTES_MAX}")
    for found in _STARS.finditer(pattern):
        ends_part = found.end() == len(pattern) or pattern[found.end()] in SEPARATORS
        is_part = ends_part and (found.start() == 0 or pattern[found.start() - 1] in SEPARATORS)
        if found.group() == "*" and not ends_part:
            raise RemoteWireError(f"the pattern {pattern!r} has '*' before the end of a part")
        if found.group() != "*" and not (found.group() == "**" and is_part and found.end() == len(pattern)):
            raise RemoteWireError(f"the pattern {pattern!r} has '**' elsewhere than as its whole last part")
    check_channel(_STARS.sub("x", pattern))
    return pattern


def check_patterns(patterns: Iterable[object]) -> tuple[str, ...]:
    """Patterns that one grant may hold, each once and in order.

    Raises:  RemoteWireError for one that is no pattern, and for more than `PATTERNS_MAX`.
    """
    checked = tuple(dict.fromkeys(check_pattern(pattern) for pattern in patterns))
    if len(checked) > PATTERNS_MAX:
        raise RemoteWireError(f"{len(checked)} patterns of channels; at most {PATTERNS_MAX} are allowed")
    return checked


def holds(pattern: str, channel: str) -> bool:
    """Whether a checked pattern holds a checked channel."""
    star = pattern.find("*")
    if star < 0:
        return pattern == channel
    if not channel.startswith(pattern[:star]):
        return False
    if star == len(pattern) - 1:
        return not any(separator in channel[star:] for separator in SEPARATORS)
    if pattern[star + 1] == "*":
        return True  # no name ends with a separator, so something follows
    return _expression(pattern).fullmatch(channel) is not None


def any_holds(patterns: Iterable[str], channel: str) -> bool:
    """Whether one of them holds the channel."""
    for pattern in patterns:  # noqa: SIM110 - a generator would cost more than the comparison
        if holds(pattern, channel):
            return True
    return False


@lru_cache(maxsize=_REMEMBERED_MAX)
def _expression(pattern: str) -> re.Pattern[str]:
    written = {"*": r"[^.:/]*", "**": ".+"}
    return re.compile(
        "".join(written.get(piece) or re.escape(piece) for piece in re.split(r"(\*+)", pattern)), re.DOTALL
    )
