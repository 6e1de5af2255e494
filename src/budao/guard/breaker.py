"""The circuit breaker: a machine that keeps calls away from something that is ill, and finds the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import inf, log
from random import Random
from types import MappingProxyType

from budao.measure import Window
from budao.model import BreakerPolicy, Dropped, Ending, Mono, Refusal, Why


class State(Enum):
    """Where a breaker is."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"
    RAMPING = "ramping"


class Move(Enum):
    """What can happen to a breaker."""

    TRIP = "too many calls failed or were slow"
    REST = "the rest is over"
    PASS = "enough probes were good"
    FAIL = "a probe was bad"
    RAMP = "the ramp is over"
    RESET = "a person closed it"


MOVES: Mapping[tuple[State, Move], State] = MappingProxyType({
    (State.CLOSED, Move.TRIP): State.OPEN,
    (State.OPEN, Move.REST): State.PROBING,
    (State.PROBING, Move.PASS): State.RAMPING,
    (State.PROBING, Move.FAIL): State.OPEN,
    (State.RAMPING, Move.TRIP): State.OPEN,
    (State.RAMPING, Move.RAMP): State.CLOSED,
    (State.OPEN, Move.RESET): State.CLOSED,
    (State.PROBING, Move.RESET): State.CLOSED,
    (State.RAMPING, Move.RESET): State.CLOSED,
})  # fmt: skip
"""The legal moves. The diagram in the docs is drawn from this table."""

OK, FAILED, SLOW = range(3)
"""The columns of the window. A call that failed slowly is counted as failed."""

RAMP_SHARE_MIN = 0.1
"""A ramp starts with this share of the calls, or it would have nothing to learn from."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to make one call. Settled exactly once.

    `generation` is the breaker's when the call was admitted: what an older generation brings back teaches nothing.
    """

    generation: int
    at: Mono
    is_probe: bool = False


@dataclass(frozen=True, slots=True)
class Moved:
    """A breaker went from one state to another. `reason` is a sentence with the numbers that decided."""

    before: State
    after: State
    move: Move
    reason: str
    at: Mono


class Breaker:
    """Opens on failed, slow and stuck calls; rests; probes; ramps up; closes.

    `admit` and `settle` are for calls that hold a permit. While the breaker is closed, calls that went well may be
    counted in bulk through `learn_ok`, and calls still in flight are looked at through `look`.
    """

    __slots__ = (
        "_probes",
        "_probes_good",
        "_rest_s",
        "_window",
        "generation",
        "policy",
        "since",
        "slow_s",
        "state",
        "trips",
    )

    def __init__(self, policy: BreakerPolicy, now: Mono) -> None:
        self.policy = policy
        self.slow_s = policy.slow_s
        """The line between fast and slow in force; whoever learns it from measurements may move it."""
        self.state = State.CLOSED
        self.generation = 0
        self.since = now
        """When this state began."""
        self.trips = 0
        """Trips that followed each other too closely to count as new illnesses."""
        self._rest_s = policy.rest_s
        self._probes: list[Mono] = []
        self._probes_good = 0
        self._window = _window(policy)

    # -- asking

    def admit(self, now: Mono, rng: Random) -> Permit | Refusal:
        """Whether a call may be made. May first move on, since a rest or a ramp ends by time alone."""
        self.wake(now)
        match self.state:
            case State.CLOSED:
                return Permit(self.generation, now)
            case State.OPEN:
                return Refusal(Why.BREAKER_OPEN, max(0.0, self.since + self._rest_s - now))
            case State.PROBING:
                if len(self._probes) >= self.policy.probes_max:
                    return Refusal(Why.PROBES_TAKEN, self._probe_s())
                self._probes.append(now)
                return Permit(self.generation, now, is_probe=True)
            case State.RAMPING:
                # Multiplied rather than divided: a ramp of 0 s may be obeyed in the middle of one.
                passed_s, ramp_s = now - self.since, self.policy.ramp_s
                if rng.random() * ramp_s <= max(RAMP_SHARE_MIN * ramp_s, passed_s):
                    return Permit(self.generation, now)
                return Refusal(Why.RAMPING, max(0.0, self.since + self.policy.ramp_s - now))

    def state_at(self, now: Mono) -> State:
        """The state in force at an instant, without changing anything."""
        if self.state is State.OPEN and now >= self.since + self._rest_s:
            return State.PROBING
        if self.state is State.RAMPING and now >= self.since + self.policy.ramp_s:
            return State.CLOSED
        return self.state

    def counts_at(self, now: Mono) -> tuple[int, int, int]:
        """Calls in the window that were ok, failed, and slow."""
        ok, failed, slow = self._window.totals(now)
        return ok, failed, slow

    @property
    def rests_until(self) -> Mono:
        """When an open breaker starts to probe."""
        return Mono(self.since + self._rest_s)

    @property
    def probes_in_flight(self) -> int:
        """Probes that have not come back."""
        return len(self._probes)

    # -- learning

    def settle(self, permit: Permit, ending: Ending, now: Mono) -> Moved | None:
        """Gives a permit back and learns from how the call ended."""
        if permit.generation != self.generation:
            return None
        if permit.is_probe:
            if permit.at not in self._probes:  # given by a breaker that was switched off and replaced since
                return None
            self._probes.remove(permit.at)
        if isinstance(ending, Dropped):
            return None
        bad = ending.failed or ending.took_s > self.slow_s
        if self.state is State.PROBING:
            if bad:
                happened = "failed" if ending.failed else f"took {ending.took_s:.3g} s"
                return self._trip(Move.FAIL, f"a probe {happened}", now)
            self._probes_good += 1
            if self._probes_good >= self.policy.probes_good:
                return self._move(Move.PASS, f"{self._probes_good} probes in a row were good", now)
            return None
        self._window.add(FAILED if ending.failed else SLOW if bad else OK, 1, now)
        return self._judge(0, now) if bad else None

    def learn_ok(self, calls: int, now: Mono) -> None:
        """Counts calls of this generation that went well, many at once."""
        if calls:
            self._window.add(OK, calls, now)

    def look(self, stuck: int, now: Mono) -> Moved | None:
        """Judges again, with `stuck` calls still in flight that have already taken too long."""
        moved = self.wake(now)
        if self.state is State.PROBING:
            limit_s = self._probe_s()
            if any(now - at > limit_s for at in self._probes):
                return self._trip(Move.FAIL, f"a probe has been in flight for more than {limit_s:.3g} s", now)
            return moved
        return (self._judge(stuck, now) if stuck else None) or moved

    def wake(self, now: Mono) -> Moved | None:
        """Makes the moves that time alone brings."""
        if self.state is State.OPEN and now >= self.since + self._rest_s:
            return self._move(Move.REST, f"rested for {self._rest_s:.3g} s", now)
        if self.state is State.RAMPING and now >= self.since + self.policy.ramp_s:
            return self._move(Move.RAMP, "every call is let through again", now)
        return None

    def reset(self, now: Mono) -> Moved | None:
        """A person knows better: closes the breaker and forgets what it counted."""
        self.trips = 0
        if self.state is State.CLOSED:
            self._window.clear(now)
            return None
        return self._move(Move.RESET, "reset by a person", now)

    def obey(self, policy: BreakerPolicy, now: Mono) -> None:
        """Takes new settings while calls run. The state stays, and so do the counts if the window keeps its shape."""
        old, self.policy = self.policy, policy
        self.slow_s = policy.slow_s
        if (old.window_s, old.buckets) != (policy.window_s, policy.buckets):
            counts = self._window.totals(now)
            self._window = _window(policy)
            for column, amount in enumerate(counts):
                self._window.add(column, amount, now)
        self._rest_s = self._rest_for(self.trips)

    # -- moving

    def _judge(self, stuck: int, now: Mono) -> Moved | None:
        if self.state not in {State.CLOSED, State.RAMPING}:
            return None
        ok, failed, slow = self._window.totals(now)
        slow += stuck
        total = ok + failed + slow
        policy = self.policy
        if total < policy.calls_min:
            return None
        # 0.07 * 100 is 7.000000000000001; a hair makes it the 7 that was meant.
        failed_max, slow_max = policy.failed_share * total - 1e-9, policy.slow_share * total - 1e-9
        if failed < failed_max and slow < slow_max and failed + slow < max(failed_max, slow_max):
            return None
        still = f" ({stuck} of them still in flight)" if stuck else ""
        what = f"{failed} failed and {slow} slow{still} of {total} calls in {policy.window_s:g} s"
        return self._trip(Move.TRIP, what, now)

    def _trip(self, move: Move, reason: str, now: Mono) -> Moved:
        # A trip soon after the last one is the same illness: the rest grows. A long healthy time starts afresh.
        healthy = self.state is State.CLOSED and (self.trips == 0 or now - self.since > self._rest_s)
        self.trips = 1 if healthy else self.trips + 1
        self._rest_s = self._rest_for(self.trips)
        return self._move(move, reason, now)

    def _rest_for(self, trips: int) -> float:
        policy, steps = self.policy, max(trips - 1, 0)
        # Compared as logarithms, since a growth of 100 would overflow a float near 150 steps.
        if steps * log(policy.rest_growth) >= log(policy.rest_max_s / policy.rest_s):
            return policy.rest_max_s if steps else policy.rest_s
        return policy.rest_s * policy.rest_growth**steps

    def _probe_s(self) -> float:
        """How long a probe may take before it counts as bad, so that three lost probes cannot wedge the breaker."""
        return self.slow_s if self.slow_s != inf else self.policy.rest_s

    def _move(self, move: Move, reason: str, now: Mono) -> Moved:
        before, self.state = self.state, MOVES[self.state, move]
        self.since = now
        if move is not Move.RAMP:
            # A ramp's calls are news about the side that came back. All other counts belong to another time.
            self.generation += 1
            self._probes.clear()
            self._probes_good = 0
            self._window.clear(now)
        if self.state is State.RAMPING and self.policy.ramp_s == 0.0:
            self.state = MOVES[self.state, Move.RAMP]
        return Moved(before, self.state, move, reason, now)


def _window(policy: BreakerPolicy) -> Window:
    return Window(("ok", "failed", "slow"), window_s=policy.window_s, buckets=policy.buckets)
