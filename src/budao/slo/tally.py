"""Good and bad calls counted by the calendar: a bounded ring of slices that forgets the oldest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor

from budao.model import Wall


@dataclass(frozen=True, slots=True)
class Counts:
    """Events, not ratios: two counts from different hours may be added, their ratios may not."""

    good: int
    bad: int

    @property
    def total(self) -> int:
        return self.good + self.bad


class Tally:
    """Counts events over the last `window_s`, in slices.

    Every event of the window is counted, and events up to one slice older may be as well: the counts cover at least
    `window_s` and at most `window_s * (1 + 1 / slices)`. Holds at most twice `slices` slices, whatever the clock does:
    a clock that jumps ahead and returns costs nothing but the events counted in between.
    """

    __slots__ = ("_bad", "_good", "_slices", "slice_s", "window_s")

    def __init__(self, window_s: float, slices: int) -> None:
        assert window_s > 0, "a window has a length"
        assert slices >= 1, "a window has at least one slice"
        self.window_s = window_s
        self.slice_s = window_s / slices
        self._slices = slices
        self._good: dict[int, int] = {}
        self._bad: dict[int, int] = {}

    def add(self, good: int, bad: int, now: Wall) -> None:
        """Count this many events as having ended at `now`. Cost: constant, over many calls."""
        assert min(good, bad) >= 0, "events are counted, never taken back"
        number = floor(now / self.slice_s)
        if number not in self._good and len(self._good) >= 2 * self._slices:
            self._forget_all_but_near(number)
        self._good[number] = self._good.get(number, 0) + good
        self._bad[number] = self._bad.get(number, 0) + bad

    def at(self, now: Wall) -> Counts:
        """What the window that ends at `now` holds. Reading changes nothing. Cost: linear in the slices."""
        newest = floor(now / self.slice_s)
        numbers = range(newest - self._slices, newest + 1)
        return Counts(
            good=sum(self._good.get(number, 0) for number in numbers),
            bad=sum(self._bad.get(number, 0) for number in numbers),
        )

    def kept(self) -> tuple[tuple[float, int, int], ...]:
        """Every slice as (its start, good, bad), oldest first: what a restart must save."""
        return tuple((n * self.slice_s, self._good[n], self._bad[n]) for n in sorted(self._good))

    def restore(self, kept: Iterable[tuple[float, int, int]]) -> None:
        """Add slices saved by `kept`, from a tally of the same shape."""
        for start, good, bad in kept:
            self.add(good, bad, Wall(start + self.slice_s / 2))  # the middle, out of reach of rounding

    def _forget_all_but_near(self, number: int) -> None:
        # Both sides are kept, one slice short of the bound: after a jump ahead and back, the past is still there.
        near = range(number - self._slices, number + self._slices)
        self._good = {n: count for n, count in self._good.items() if n in near}
        self._bad = {n: count for n, count in self._bad.items() if n in near}
