"""The degradation ladder: direct, then cache, then template, then empty.

A rung is what a call is answered with when everything above it failed or was refused. Which rungs there are, how old
an answer may be, and how long a rung may take is said once, where the function is protected.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from budao.model import Checks


class Nothing(Enum):
    """A type of its own, since None is a fine answer."""

    HERE = "nothing here"


NOTHING = Nothing.HERE
"""What a cache rung returns when it has no answer."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One rung: what gives the answer, how old that may be, and how long it may take.

    `answer` is a value, or a function (sync or async) of the call's own arguments.
    Units: `stale_s` says how old an answer is at most, for people and metrics; `deadline_s` bounds an async rung.
    """

    answer: Any
    stale_s: float = 0.0
    deadline_s: float = 1.0

    def __post_init__(self) -> None:
        check = Checks("rung")
        check.number("stale_s", self.stale_s, 0.0)
        check.number("deadline_s", self.deadline_s, 0.0, 3_600.0, open_low=True)
        check.done()


class Remembered:
    """A cache rung in this process: the last good direct answers, by the arguments of the call.

    An answer is fresh for `fresh_s` (at least a minute) and may be given out up to `stale_s` after it was remembered.
    Arguments that cannot be hashed are not remembered.
    """

    __slots__ = ("_kept", "fresh_s", "size_max", "stale_s")

    def __init__(self, *, fresh_s: float = 60.0, stale_s: float = 3_600.0, size_max: int = 1024) -> None:
        check = Checks("remembered")
        check.number("fresh_s", fresh_s, 60.0)
        check.number("stale_s", stale_s, 0.0)
        check.count("size_max", size_max, 1)
        if not check.problems:
            check.need(stale_s >= fresh_s, "stale_s", f"{stale_s:g} s is shorter than fresh_s, {fresh_s:g} s")
        check.done()
        self.fresh_s = fresh_s
        self.stale_s = stale_s
        self.size_max = size_max
        self._kept: OrderedDict[Hashable, tuple[Any, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: Hashable, value: object, now: float) -> None:
        """Remembers an answer; the one remembered longest ago makes room."""
        self._kept[key] = (value, now)
        self._kept.move_to_end(key)
        while len(self._kept) > self.size_max:
            self._kept.popitem(last=False)

    def get(self, key: Hashable, now: float) -> tuple[Any, float] | None:
        """The remembered answer and its age in seconds, if it is not too old."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        value, at = kept
        age_s = max(0.0, now - at)
        return (value, age_s) if age_s <= self.stale_s else None


@dataclass(frozen=True, slots=True)
class Ladder:
    """The rungs below the direct call, in their order. NOTHING for a rung that is not there."""

    cache: Any = NOTHING
    template: Any = NOTHING
    empty: Any = NOTHING

    def rungs(self) -> list[tuple[str, Rung]]:
        """The rungs that are there, by name, from the top down."""
        named = (("cache", self.cache), ("template", self.template), ("empty", self.empty))
        return [(name, rung if isinstance(rung, Rung) else Rung(rung)) for name, rung in named if rung is not NOTHING]


def key_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable | None:
    """The arguments of a call as a key, or None if they cannot be hashed."""
    key = args, tuple(sorted(kwargs.items()))
    try:
        hash(key)
    except Exception:  # noqa: BLE001 - a hash of the user's own may raise anything, and must not fail the call
        return None
    return key


def answer_of(rung: Rung, args: tuple[Any, ...], kwargs: dict[str, Any], now: float) -> Any:
    """What a rung says, NOTHING if it has no answer. May be an awaitable, which an async shell awaits.

    Raises: whatever the rung's function raises; the shell then goes down to the next one.
    """
    answer: Callable[..., Any] | Any = rung.answer
    if isinstance(answer, Remembered):
        key = key_of(args, kwargs)
        kept = answer.get(key, now) if key is not None else None
        return NOTHING if kept is None else kept[0]
    return answer(*args, **kwargs) if callable(answer) else answer
