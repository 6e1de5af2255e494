"""Repeats as a share of calls."""

from __future__ import annotations

from math import floor

from budao.measure.instant import Instant
from budao.measure.window import Window
from budao.model import Checks

_CALLS, _SPENDS = 0, 1


class Budget:
    """How many repeats the calls of the last `window_s` pay for: a share of them, and a floor for quiet times.

    When a spend is granted, the window that ends with it holds at most `share * calls + floor_per_s * window_s` of
    them. Over any `m` buckets in a row that means: spends are at most `share` of the calls in those buckets and in the
    `buckets - 1` before them, plus `floor_per_s * window_s` for each window begun, `ceil(m / buckets)` times. The
    buckets before count because a call pays for a repeat until the window forgets it; no call pays twice.

    Units:  `share` is repeats per call; `floor_per_s` repeats per second. A floor that comes to less than one repeat
            in a window adds to what calls pay for, and grants nothing alone.
    Raises: BadSettings if the share is not from 0 to 1, the floor is negative, or the window is impossible.
    Cost:   one `Window` of two columns.
    """

    __slots__ = ("_floor", "_window", "floor_per_s", "share")

    def __init__(
        self, *, share: float = 0.1, window_s: float = 10.0, floor_per_s: float = 1.0, buckets: int = 10
    ) -> None:
        self._window = Window(("calls", "spends"), window_s=window_s, buckets=buckets)
        self.retune(share=share, floor_per_s=floor_per_s)

    @property
    def window_s(self) -> float:
        """How long a call pays, in seconds."""
        return self._window.window_s

    def deposit(self, calls: int, now: Instant) -> None:
        """Count calls, one or many at once."""
        self._window.add(_CALLS, calls, now)

    def left(self, now: Instant) -> int:
        """How many spends would be granted at `now`."""
        calls, spends = self._window.totals(now)
        # 0.29 * 100 is 28.999999999999996; a hair makes it the 29 that was meant.
        allowed = floor(self.share * calls + self._floor + 1e-9)
        return max(0, allowed - spends)

    def can_spend(self, now: Instant) -> bool:
        """Whether `spend` would be granted."""
        return self.left(now) > 0

    def spend(self, now: Instant) -> bool:
        """Pay for one repeat, or answer no."""
        if self.left(now) == 0:
            return False
        self._window.add(_SPENDS, 1, now)
        return True

    def retune(self, *, share: float, floor_per_s: float) -> None:
        """Go on with another share and floor; the window stays.

        Raises: BadSettings like the constructor, and then nothing has changed.
        """
        check = Checks("budget")
        check.number("share", share, 0.0, 1.0)
        check.number("floor_per_s", floor_per_s, 0.0, 1e6)
        check.done()
        self.share, self.floor_per_s = share, floor_per_s
        self._floor = floor_per_s * self.window_s  # in repeats per window
