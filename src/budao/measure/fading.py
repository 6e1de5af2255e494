"""A level that fades."""

from __future__ import annotations

from math import exp2, inf

from budao.measure.instant import Instant
from budao.model import Checks, Mono


class Fading:
    """A level that halves every `half_life_s`, so that old news counts for little and never needs to be deleted.

    Added to at a steady `r` per second, the level settles at `r * half_life_s / log(2)`.

    Units:  `half_life_s` in seconds; the level in whatever is added.
    Raises: BadSettings if `half_life_s` is not a finite number above 0.
    Cost:   two floats; one `exp2` for each look and each addition.
    """

    __slots__ = ("_level", "_since", "half_life_s")

    def __init__(self, *, half_life_s: float) -> None:
        check = Checks("fading")
        check.number("half_life_s", half_life_s, 0.0, open_low=True)
        check.need(half_life_s != inf, "half_life_s", "a level that never fades is a plain sum")
        check.done()
        self.half_life_s = half_life_s
        self._level = 0.0
        self._since = -inf

    def at(self, now: Instant) -> float:
        """The level at `now`."""
        elapsed_s = now - self._since
        return self._level if elapsed_s <= 0.0 else self._level * exp2(-elapsed_s / self.half_life_s)

    def add(self, amount: float, now: Instant) -> None:
        """Raise the level by `amount`, or lower it if that is negative."""
        self._level = self.at(now) + amount
        self._since = max(self._since, now)

    def merge(self, other: Fading) -> None:
        """Become the level that would stand here had all of `other`'s additions been made here too."""
        assert other.half_life_s == self.half_life_s, "levels that fade differently cannot be added"
        if other._level:  # so `other` was told an instant, and one of the two below is not "long ago"
            since = Mono(max(self._since, other._since))
            self._level = self.at(since) + other.at(since)
            self._since = since
