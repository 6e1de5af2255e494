"""A clock that moves only when it is told to."""

from __future__ import annotations

from math import isfinite


class FakeClock:
    """Stands still until `advance` is called: `Guard("stock", clock=FakeClock())`.

    A guard reads it through a filter that makes no two readings equal, so the instants it tells may lie a few units of
    the last binary digit above `now`.

    Units:   seconds.
    """

    __slots__ = ("now",)

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def __repr__(self) -> str:
        return f"FakeClock(now={self.now!r})"

    def advance(self, span_s: float) -> float:
        """Lets time pass, and returns the new instant.

        Raises: ValueError for a span that is negative or no span at all; to go back in time, set `now`.
        """
        if not isfinite(span_s) or span_s < 0:
            raise ValueError(f"{span_s!r} is not a span of time that can pass")
        self.now += span_s
        return self.now
