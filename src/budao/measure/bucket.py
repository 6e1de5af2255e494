"""So many per second, and a few at once."""

from __future__ import annotations

from functools import lru_cache
from math import inf, ulp

from budao.measure.instant import Instant
from budao.model import Checks

# Once this many tokens were taken since the anchor, the anchor moves: far enough apart for the rounding of moving it
# to vanish beside the tokens taken, near enough for a fraction of a token to keep nine digits.
_TAKEN_MAX = 2.0**20


class TokenBucket:
    """A bucket that fills at `rate_per_s` up to `burst`, from which calls take tokens. It starts full.

    In any span of `t` seconds at most `burst + rate_per_s * t` tokens are taken.

    The level is never carried from step to step, where years of small steps would add up their rounding. It is worked
    out from an anchor instead: the level at one instant, less all that was taken since, plus one multiplication.

    Units:  tokens may be fractions; `rate_per_s` is tokens per second.
    Raises: BadSettings if the rate or the burst is not a finite number above 0.
    Cost:   three floats; no cost for time that passes.
    """

    __slots__ = ("_anchor", "_last", "_level", "burst", "rate_per_s")

    def __init__(self, *, rate_per_s: float, burst: float) -> None:
        _check(rate_per_s, burst)
        self.rate_per_s, self.burst = rate_per_s, burst
        self._level = burst  # at the anchor, less what was taken since: may be far below 0
        self._anchor = -inf
        self._last = -inf

    def level_at(self, now: Instant) -> float:
        """How many tokens there are at `now`: never below 0, never above `burst`."""
        return max(0.0, self._filled(max(now, self._last)))

    def take(self, amount: float, now: Instant) -> bool:
        """Take `amount` tokens if there are as many, or none."""
        assert amount >= 0.0, "tokens are taken, not put"
        last = self._last
        if now > last:
            last = self._last = now
        level = self._level + (last - self._anchor) * self.rate_per_s
        if level >= self.burst:
            self._level = level = self.burst
            self._anchor = last
        if amount > level:
            return False
        if amount - self._level > _TAKEN_MAX:
            self._level, self._anchor = level, last
        self._level -= amount
        return True

    def ready_in_s(self, amount: float, now: Instant) -> float:
        """How long until `take(amount, ...)` succeeds if nobody else takes: 0.0 for now, inf for never."""
        if amount > self.burst:
            return inf
        now_s = max(now, self._last)
        level = self._filled(now_s)
        if level >= amount:
            return 0.0
        wait_s = (amount - level) / self.rate_per_s
        # Whoever waits as told must not come a rounding error too early.
        step_s = ulp(now_s + wait_s)
        while self._filled(now_s + wait_s) < amount:
            wait_s += step_s
            step_s *= 2.0
        return wait_s

    def retune(self, now: Instant, *, rate_per_s: float, burst: float) -> None:
        """Go on at another rate and burst from the level of `now`.

        Raises: BadSettings like the constructor, and then nothing has changed.
        """
        _check(rate_per_s, burst)
        self._level = min(burst, self.level_at(now))
        self._anchor = self._last = max(now, self._last)
        self.rate_per_s, self.burst = rate_per_s, burst

    def _filled(self, now: float) -> float:
        return min(self.burst, self._level + (now - self._anchor) * self.rate_per_s)


@lru_cache(maxsize=64, typed=True)  # thousands of sessions with the same limits may begin in one moment
def _check(rate_per_s: float, burst: float) -> None:
    check = Checks("token_bucket")
    check.number("rate_per_s", rate_per_s, 0.0, 1e12, open_low=True)
    check.number("burst", burst, 0.0, 1e12, open_low=True)
    check.done()
