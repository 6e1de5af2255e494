"""Which calls to turn away while this process itself is the bottleneck."""

from __future__ import annotations

from math import inf
from random import Random

from budao.model import Mono, Priority, Refusal, ShedPolicy, Why

LEVEL_MAX = float(len(Priority))
"""At this level everything is shed that ever is."""

CRITICAL_KEPT_SHARE = 0.1
"""Critical calls that are served whatever happens: without any, nobody would learn that the overload is over."""

PATIENCE_S = 5.0
"""A level raised by an observation stands this long without another one. Then whoever observes is taken for dead."""

RISE_AT_ONCE_S = 0.25
"""One observation raises the level by this many seconds' worth at most: one call that blocked the loop for a second is
not a second of overload."""

RETRY_AFTER_MAX_S = 60.0
"""Nobody is told to stay away for longer, however slowly the level falls."""


class Shedder:
    """A level that rises while the process is overloaded and falls afterwards, and the calls shed at that level.

    Each whole step of the level is one priority: from 0 to 1 a growing share of SHEDDABLE calls is shed, from 1 to 2 all
    of those and a growing share of LOW ones, and so on. CRITICAL calls are touched last, above level 3, when nothing
    else is left to shed, and a tenth of them is served even at the top.

    Units:  the level has no unit; spans in seconds. `observe` wants to be called every `RISE_AT_ONCE_S` or more often;
            called less often it raises the level more slowly.
    Source: Google's SRE book, chapter 21, "Criticality".
    """

    __slots__ = ("_falls_from", "_level", "_observed_at", "policy")

    def __init__(self, policy: ShedPolicy) -> None:
        self.policy = policy
        self._level = 0.0
        self._falls_from = -inf  # the level stands until then
        self._observed_at = -inf

    def observe(self, lag_s: float, standing_queue: bool, now: Mono) -> None:
        """Takes notice of the event loop's lag, and of whether calls wait in a queue that does not drain."""
        level = self.level_at(now)
        if standing_queue or lag_s > self.policy.lag_target_s:
            # The first observation has nothing to reach back to and only starts the clock.
            since_s = now - self._observed_at if self._observed_at != -inf else 0.0
            raised = level + self.policy.rise_per_s * min(max(since_s, 0.0), RISE_AT_ONCE_S)
            self._level = min(LEVEL_MAX, raised)
            self._falls_from = now + PATIENCE_S
        else:
            self._level, self._falls_from = level, now
        self._observed_at = now

    def level_at(self, now: Mono) -> float:
        """How much is shed, from 0.0 (nothing) to `LEVEL_MAX`."""
        return max(0.0, self._level - self.policy.fall_per_s * max(0.0, now - self._falls_from))

    def share_at(self, priority: Priority, now: Mono) -> float:
        """The share of calls of that priority that is shed at `now`."""
        share = min(1.0, max(0.0, self.level_at(now) - _starts_at(priority)))
        return share * (1.0 - CRITICAL_KEPT_SHARE) if priority is Priority.CRITICAL else share

    def refuses(self, priority: Priority, now: Mono, rng: Random) -> Refusal | None:
        """Whether a call is shed. The die is rolled only if there is a choice."""
        if self._level == 0.0:
            return None
        share = self.share_at(priority, now)
        if share == 0.0 or (share < 1.0 and rng.random() >= share):
            return None
        # Falling from now on, the level leaves this priority alone after that long.
        falls_s = (self.level_at(now) - _starts_at(priority)) / self.policy.fall_per_s
        return Refusal(Why.SHED, min(RETRY_AFTER_MAX_S, falls_s))

    def obey(self, policy: ShedPolicy, now: Mono) -> None:
        """Takes new settings while calls run; the level stays."""
        self._level, self._falls_from = self.level_at(now), max(self._falls_from, now)
        self.policy = policy


def _starts_at(priority: Priority) -> int:
    """The level above which a priority is shed."""
    return len(Priority) - 1 - priority.value
