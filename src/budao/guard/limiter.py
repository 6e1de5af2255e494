"""How many calls may be in flight, found by watching what concurrency does to latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import inf, sqrt

from budao.measure import nearest_rank
from budao.model import LimitPolicy, Mono

SAMPLES_MIN = 30
"""Fewer calls have no typical latency; those of a quiet fold wait for more."""

SAMPLES_MAX = 1000
"""More calls say the same: every second, third, ... of them is looked at."""

USED_SHARE = 0.9
"""A limit used less than this is not in the way, so nothing is known about a higher one."""

IDLE_SHARE = 0.5
"""A limit used less than this has no part in the latency, so it is not lowered for it."""

FAILED_SHARE = 0.05
"""From this share of failures that look like overload on, a used limit is lowered whatever the latency."""

RUSH_SHARE = 0.7
"""A limit that had to fall, or fell for nothing, grows fast up to this share of where it was before."""

LOOK_SHARE = 0.5
"""To look at the floor, the limit is lowered to this share of itself for about two folds."""

COMPARED_SHARE = 0.55
"""Two folds tell something about each other if one had at most this share of the other's calls in flight."""

SAME_SHARE = 0.7
"""If latency at the lower concurrency is still this share of what it was, concurrency was not what made it."""

LOOK_FOLDS_MAX = 5
"""A look ends after so many folds, answered or not: calls that take longer than a fold may keep it waiting."""

PROPORTION = 1.05
"""Latency that falls in proportion to the calls in flight, or nearly, still has a queue in it: a look goes deeper."""

MOVED_SHARE = 0.1
"""A look that changes the floor by more than this share has news."""

LOOK_AGAIN_SHARE = 0.1
"""After a look with news the next one comes after this share of `floor_window_s`."""


class Step(Enum):
    """What the limiter did last. The value begins the reason a person reads."""

    FIRST = "nothing measured yet"
    FAILED = "lowered, as calls fail as they do under overload"
    QUEUED = "lowered, as calls take longer than without a queue"
    GROWN = "raised, as calls take no longer than without a queue"
    HELD = "held, as latency and room for a short queue balance"
    UNUSED = "held, as fewer calls are in flight than allowed"
    LOOKING = "lowered for a moment, to see how long calls take without a queue"


@dataclass(frozen=True, slots=True)
class LimiterView:
    """A limiter at one moment. Times are None until enough calls were measured."""

    calls_max: int
    floor_s: float | None
    typical_s: float | None
    is_looking: bool
    reason: str


class Limiter:
    """Keeps the number of calls in flight where the other side is busy and its queue is short.

    Once per fold it compares how long calls typically take with how long they take without a queue, the floor:

        limit <- (1 - smoothing) * limit + smoothing * (limit * clamp(tolerance * floor / typical, 0.5, 1) + headroom)

    The headroom is the square root of the limit, a queue short enough for any size. Until the first sign of a queue,
    and on the way back to near where the limit was before it fell, it is the limit itself, or finding a thousand places
    would take minutes. The limit is raised only if it was used, and lowered only if at least half of it was. A fold in
    which many calls failed as they do under overload lowers it by the share that failed, by half at most.

    Typical is the median. The floor is the lowest median, not the fastest call: calls differ, and the fastest one of a
    minute is no sign of a queue in all others. A lower median moves it half of the way, so that luck counts little.

    The floor must rise when the other side becomes slower, and must not when our own calls queue. Time alone cannot
    tell the two apart: a floor that is forgotten after a minute of queueing rises, the queue with it, and so on without
    end. So concurrency is what is varied. When at most `COMPARED_SHARE` of the calls were in flight and latency stayed
    as it was, then concurrency was not the cause and the floor rises to it; in a queue, latency would have fallen with
    concurrency. Traffic and the limit's own descent give that comparison for nothing. Where they do not, and a floor has
    kept a used limit down for `floor_window_s`, the limit is halved for about two folds to get it. A limit too small
    to be halved forgets the floor instead.

    Units:  seconds; `calls_max` is calls in flight.
    Cost:   per fold a sort of at most `SAMPLES_MAX` numbers; between folds one attribute is read.
    Source: Netflix concurrency-limits, Gradient2 (the formula); Jacobson et al., BBR, IETF draft, "ProbeRTT" (lowering
            the load to see the floor); Uber Cinnamon and failsafe-go (latency that does not follow concurrency).
    """

    __slots__ = (
        "_floor_s", "_limit", "_look_at", "_look_folds", "_mark_at", "_mark_calls", "_mark_s", "_peak", "_pool", "_pool_at",
        "_rush", "_step", "_typical_s", "calls_max", "policy",
    )  # fmt: skip

    def __init__(self, policy: LimitPolicy) -> None:
        self.policy = policy
        self.calls_max = policy.calls_first
        """How many calls may be in flight now. Whoever admits calls reads this and nothing else."""
        self._limit = float(policy.calls_first)
        self._rush = inf  # below this the limit grows fast
        self._floor_s = 0.0  # 0.0 for "not known yet", as for the next one
        self._typical_s = 0.0
        self._step = Step.FIRST
        self._pool: list[float] = []  # of folds with too few samples
        self._pool_at = -inf  # the first of those folds
        self._peak = 0  # of the same folds
        self._mark_calls = 0  # the most calls in flight, and
        self._mark_s = 0.0  # the highest latency, since
        self._mark_at = -inf  # the last comparison
        self._look_at = -inf  # no look before this
        self._look_folds = 0  # folds left of a look; 0 if there is none

    def learn(self, samples: Sequence[float], in_flight_max: int, failed: int, now: Mono) -> None:
        """Takes notice of one fold: about a second, or about a thousand calls.

        Shapes: `samples` has the seconds of each call that was answered. How long a failed call took says nothing about
                the other side's queue, and one refused at once would look like an empty one: leave those out.
        Units:  `in_flight_max` is the most calls in flight at any moment of the fold; `failed` counts the failures that
                look like overload (timeouts, dropped and refused connections, "try later"), not those of the caller.
        """
        if failed and failed >= FAILED_SHARE * (failed + len(samples)):
            self._fall(failed / (failed + len(samples)), in_flight_max)
            return
        if not samples:
            return
        if now - self._pool_at > self.policy.floor_window_s:
            self._pool, self._peak = [], 0  # too old to be put together with these
        if not self._pool:
            self._pool_at = now
        self._pool += samples[:: 1 + len(samples) // SAMPLES_MAX]
        self._peak = max(self._peak, in_flight_max)
        if len(self._pool) < SAMPLES_MIN:
            return
        typical_s, peak = sorted(self._pool)[nearest_rank(0.5, len(self._pool)) - 1], self._peak
        self._pool, self._peak = [], 0
        if not 0.0 < typical_s < inf:  # a clock that stood still
            return
        self._typical_s = typical_s
        self._follow(typical_s, peak, now)
        if not self._look_folds:
            self._steer(typical_s, peak, now)

    def view(self) -> LimiterView:
        """What is in force, and why."""
        floor_s, typical_s = self._floor_s or None, self._typical_s or None
        reason = self._step.value
        if floor_s is not None and typical_s is not None and self._step is not Step.FAILED:
            reason += f": typically {typical_s:.3g} s, without a queue {floor_s:.3g} s"
        return LimiterView(self.calls_max, floor_s, typical_s, self._look_folds > 0, reason)

    def obey(self, policy: LimitPolicy) -> None:
        """Takes new settings while calls run; what was found stays, within the new bounds."""
        self.policy = policy
        self._look_folds = 0
        self._set(self._limit)

    # -- the floor

    def _follow(self, typical_s: float, peak: int, now: Mono) -> None:
        """Moves the floor, and takes a look further or ends it."""
        before_s = self._floor_s
        is_fresh = now - self._mark_at <= self.policy.floor_window_s
        is_compared = is_fresh and 0 < peak <= COMPARED_SHARE * self._mark_calls
        latency_share = typical_s / self._mark_s if is_compared else 1.0
        calls_share = peak / self._mark_calls if is_compared else 1.0
        if before_s == 0.0 or (is_compared and (typical_s < before_s or latency_share >= SAME_SHARE)):
            self._floor_s = typical_s
            if typical_s > before_s > 0.0:
                # The limit came down for nothing, so it may go back up quickly.
                self._rush = max(self._rush, RUSH_SHARE * self._mark_calls)
        elif typical_s < before_s:
            self._floor_s = (before_s + typical_s) / 2.0
        if is_compared or not is_fresh:
            self._mark_calls, self._mark_s, self._mark_at = peak, typical_s, now
        else:
            self._mark_calls, self._mark_s = max(self._mark_calls, peak), max(self._mark_s, typical_s)
        if not self._look_folds:
            return
        self._look_folds -= 1
        # In proportion means that the queue is not empty yet.
        if is_compared and latency_share <= PROPORTION * calls_share and self._lower():
            return
        if is_compared or not self._look_folds:
            has_moved = abs(self._floor_s - before_s) > MOVED_SHARE * before_s
            self._look_folds = 0
            self._look_at = now + self.policy.floor_window_s * (LOOK_AGAIN_SHARE if has_moved else 1.0)
            self._set(self._limit)

    def _look(self, peak: int, now: Mono) -> None:
        """Begins to look at the floor, or, where the limit cannot be halved, takes what is there for the floor."""
        if self._lower():
            self._step = Step.LOOKING
            self._mark_calls, self._mark_s, self._mark_at = peak, self._typical_s, now
        else:
            if self._look_at != -inf:  # the first time it has not been known for long
                self._floor_s = self._typical_s
            self._look_at = now + self.policy.floor_window_s

    def _lower(self) -> bool:
        calls = int(self.calls_max * LOOK_SHARE)
        if calls < self.policy.calls_min:
            return False
        self.calls_max = calls
        self._look_folds = LOOK_FOLDS_MAX
        return True

    # -- the limit

    def _steer(self, typical_s: float, peak: int, now: Mono) -> None:
        limit, policy = self._limit, self.policy
        if peak < IDLE_SHARE * self.calls_max:
            self._step = Step.UNUSED
            return
        gradient = min(1.0, max(0.5, policy.tolerance * self._floor_s / typical_s))
        if gradient < 1.0:
            self._rush = min(self._rush, limit)
        headroom = limit if limit < self._rush else sqrt(limit)
        wanted = (1.0 - policy.smoothing) * limit + policy.smoothing * (limit * gradient + headroom)
        is_used = peak >= USED_SHARE * self.calls_max
        if wanted > limit and not is_used:
            self._step = Step.UNUSED
            return
        before = self.calls_max
        self._set(wanted)
        change = self.calls_max - before
        self._step = Step.QUEUED if change < 0 else Step.GROWN if change > 0 else Step.HELD
        if gradient < 1.0 and is_used and now >= self._look_at:
            self._look(peak, now)

    def _fall(self, failed_share: float, in_flight_max: int) -> None:
        """Lowers the limit by the share that failed, at most by half: what did not fail was not too much."""
        self._pool, self._peak = [], 0  # those that were answered in between are the lucky ones
        if in_flight_max < IDLE_SHARE * self.calls_max:
            self._step = Step.UNUSED
            return
        if self._limit >= self._rush or self._rush == inf:
            self._rush = RUSH_SHARE * self._limit
        self._look_folds = 0
        self._set(self._limit * max(0.5, 1.0 - failed_share))
        self._step = Step.FAILED

    def _set(self, limit: float) -> None:
        self._limit = min(float(self.policy.calls_max), max(float(self.policy.calls_min), limit))
        self.calls_max = int(self._limit)
