"""Calls made through compiled functions leave the counts and states that feeding the breaker by hand leaves.

The interpreted twin tells a breaker each ending at once, knows no quiet path, no batch and no instant that stands for a
generation: every call simply keeps the permit it was given.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from math import inf
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from budao.guard import Breaker, KeyView, Permit, State
from budao.model import BreakerPolicy, CallRefused, Dropped, GuardPolicy, Mode, Mono, Outcome, Refusal, Why
from budao.protect import Guard

SEED = 20
NEVER = -1.0
TICK_S = 2.0**-20  # each reading of the clock is later than the one before, and sums stay exact

# A quiet call is counted in the bucket in which somebody folds, so the window is longer than any history here: which
# bucket forgets it is left to tests/unit.
POLICIES = st.builds(
    BreakerPolicy,
    failed_share=st.sampled_from([0.25, 0.5]),
    slow_share=st.sampled_from([0.25, 0.5]),
    slow_s=st.sampled_from([1.0, inf]),
    calls_min=st.sampled_from([2, 5]),
    window_s=st.just(80_000.0),
    rest_s=st.sampled_from([2.0, 5.0]),
    rest_growth=st.sampled_from([1.0, 2.0]),
    rest_max_s=st.just(30.0),
    probes_max=st.sampled_from([1, 2]),
    probes_good=st.sampled_from([1, 2]),
    ramp_s=st.sampled_from([0.0, 4.0]),
    mode=st.sampled_from(
        [Mode.ENFORCING, Mode.ENFORCING, Mode.ENFORCING, Mode.SHADOW, Mode.DISABLED, Mode.FORCED_OPEN]
    ),
)
KEYS = st.sampled_from(["", "", "a", "b"])
ENDINGS = st.sampled_from(["ok", "ok", "ok", "failed", "failed", "cancelled", "refused further in"])
RAISED = {"failed": ValueError, "cancelled": asyncio.CancelledError, "refused further in": CallRefused}
SPANS = st.sampled_from([0.0, 0.0, 0.01, 0.25, 1.0, 1.5, 4.0])


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.readings: list[float] = []

    def __call__(self) -> float:
        self.now += TICK_S
        self.readings.append(self.now)
        return self.now


@dataclass
class Interpreted:
    """One resource, the slow way."""

    policy: BreakerPolicy
    created: float
    rng: Random
    breaker: Breaker = field(init=False)
    fold_at: float = field(init=False)
    in_flight: dict[float, Permit | None] = field(default_factory=dict)
    born: dict[float, int] = field(default_factory=dict)
    """The generation each call in flight was let in by; a shadow lets calls in that teach nothing, but may hang."""
    counts: Counter[str] = field(default_factory=Counter)
    refused: Counter[Why] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.breaker = Breaker(self.policy, Mono(self.created))
        self.fold_at = self.created + 1.0

    def fold(self, now: Mono) -> None:
        """Once a second at most, calls in flight are looked at."""
        self.fold_at = now + 1.0
        if self.policy.mode is not Mode.DISABLED:
            mine = [at for at in self.in_flight if self.born[at] == self.breaker.generation]
            self.breaker.look(sum(1 for at in mine if now - at > self.policy.slow_s), now)

    def enter(self, now: Mono) -> Refusal | None:
        is_resting = self.breaker.state is State.OPEN and now < self.breaker.rests_until
        if now >= self.fold_at and not (is_resting and self.policy.mode is Mode.ENFORCING):
            self.fold(now)
        if self.policy.mode is Mode.FORCED_OPEN:
            self.refused[Why.FORCED_OPEN] += 1
            return Refusal(Why.FORCED_OPEN, self.policy.rest_s)
        if self.policy.mode is Mode.DISABLED:
            # Its breaker is not asked, but if it is switched on again meanwhile, the call belongs to the present.
            self.in_flight[now] = Permit(self.breaker.generation, now)
            self.born[now] = self.breaker.generation
            return None
        answer = self.breaker.admit(now, self.rng)
        self.born[now] = self.breaker.generation
        if isinstance(answer, Permit):
            self.in_flight[now] = answer
            return None
        self.refused[answer.why] += 1
        if self.policy.mode is Mode.SHADOW:
            self.in_flight[now] = None
            return None
        return answer

    def leave(self, started: float, how: str, now: Mono) -> None:
        permit = self.in_flight.pop(started)
        if now >= self.fold_at:
            self.fold(now)
        if how in {"cancelled", "refused further in"}:
            self.counts["dropped"] += 1
            if permit is not None:
                self.breaker.settle(permit, Dropped.CANCELLED, now)
            return
        took_s = now - started
        failed = how == "failed"
        self.counts["failed" if failed else "slow" if took_s > self.policy.slow_s else "ok"] += 1
        if self.policy.mode is Mode.DISABLED:
            return
        is_stale = permit is None or permit.generation != self.breaker.generation
        self.counts["stale"] += is_stale
        if permit is not None:
            self.breaker.settle(permit, Outcome(took_s, failed), now)

    def obey(self, policy: BreakerPolicy, now: Mono) -> None:
        self.fold(now)
        self.policy = policy
        self.breaker.obey(policy, now)
        self.fold_at = now


class Pause:
    def __await__(self) -> Generator[None, str, str]:
        return (yield)


def end(how: str) -> str:
    if how == "failed":
        raise ValueError(how)
    if how == "cancelled":
        raise asyncio.CancelledError
    if how == "refused further in":
        raise CallRefused("database", Refusal(Why.NO_ROOM))
    return how


class CompiledAgainstInterpreted(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.started = NEVER
        self.out: list[tuple[str, float, Any]] = []
        self.twins: dict[str, Interpreted] = {}

    @initialize(policy=POLICIES)
    def start(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.guard = Guard(
            "inventory", policy=GuardPolicy(breaker=policy, retry=None), clock=self.clock, rng=Random(SEED)
        )
        self.rng = Random(SEED)
        self.twins[""] = Interpreted(policy, self.clock.readings[-1], self.rng)
        guard, entered = self.guard, self.entered

        async def suspending(key: str) -> str:
            entered()
            return end(await Pause())

        def at_once(key: str, span_s: float, how: str) -> str:
            entered()
            self.clock.now += span_s
            return end(how)

        self.suspending, self.at_once = guard(suspending), guard(at_once)
        self.keyed_suspending = guard(key=lambda key: key)(suspending)
        self.keyed_at_once = guard(key=lambda key, span_s, how: key)(at_once)

    def entered(self) -> None:
        self.started = self.clock.readings[-1]

    def twin(self, key: str) -> Interpreted:
        """The twin of a key, made when the guard meets the key: one reading before the call's own."""
        return self.twins[key]

    def meet(self, key: str) -> None:
        if key not in self.twins:
            self.twins[key] = Interpreted(self.policy, self.clock.now + TICK_S, self.rng)

    def let_in(self, key: str, error: CallRefused | None, reading: int) -> None:
        """The twin is asked at the instant of the last reading before the body ran, or before the refusal."""
        started = self.started if error is None else self.clock.readings[-1]
        wanted = self.twin(key).enter(Mono(started))
        assert (error.refusal if error is not None else None) == wanted
        assert len(self.clock.readings) - reading <= 3

    @rule(span_s=SPANS)
    def time_passes(self, span_s: float) -> None:
        self.clock.now += span_s

    @rule(key=KEYS, span_s=SPANS, how=ENDINGS, times=st.integers(1, 6))
    def call_at_once(self, key: str, span_s: float, how: str, times: int) -> None:
        call = self.keyed_at_once if key else self.at_once
        for _ in range(times):
            self.meet(key)
            self.started = NEVER
            reading = len(self.clock.readings)
            error: BaseException | None = None
            try:
                assert call(key, span_s, how) == "ok"
            except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - which one is the question
                error = raised
            if self.started == NEVER:
                assert isinstance(error, CallRefused)
                self.let_in(key, error, reading)
            else:
                assert type(error) is RAISED.get(how, type(None))
                self.let_in(key, None, reading)
                self.twin(key).leave(self.started, how, Mono(self.clock.readings[-1]))

    @rule(key=KEYS, times=st.integers(1, 4))
    def call_and_suspend(self, key: str, times: int) -> None:
        for _ in range(times):
            self.meet(key)
            self.started = NEVER
            reading = len(self.clock.readings)
            coroutine: Any = self.keyed_suspending(key) if key else self.suspending(key)
            try:
                coroutine.send(None)
            except CallRefused as error:
                self.let_in(key, error, reading)
            else:
                self.let_in(key, None, reading)
                self.out.append((key, self.started, coroutine))

    @precondition(lambda self: self.out)
    @rule(data=st.data(), how=ENDINGS)
    def one_comes_back(self, data: st.DataObject, how: str) -> None:
        self.comes_back(data.draw(st.integers(0, len(self.out) - 1), label="which"), how)

    def comes_back(self, which: int, how: str) -> None:
        key, started, coroutine = self.out.pop(which)
        with pytest.raises(RAISED.get(how, StopIteration)):
            coroutine.send(how)
        self.twin(key).leave(started, how, Mono(self.clock.readings[-1]))

    @precondition(lambda self: self.out)
    @rule()
    def one_is_abandoned(self) -> None:
        key, started, coroutine = self.out.pop(0)
        coroutine.close()
        self.twin(key).leave(started, "cancelled", Mono(self.clock.readings[-1]))

    @rule(policy=POLICIES)
    def settings_are_swapped(self, policy: BreakerPolicy) -> None:
        before = self.guard.policy
        self.guard.obey(replace(before, breaker=policy))
        if policy != before.breaker:
            self.policy = policy
            for twin in self.twins.values():
                twin.obey(policy, Mono(self.clock.readings[-1]))

    @rule()
    def a_person_resets(self) -> None:
        self.guard.reset()
        for twin in self.twins.values():
            twin.breaker.reset(Mono(self.clock.readings[-1]))

    @rule()
    def somebody_looks(self) -> None:
        views = self.guard.snapshot().keys
        now = Mono(self.clock.readings[-1])
        assert {view.key for view in views} == set(self.twins)
        for view in views:
            self.twin(view.key).fold(now)
            self.compare(view, self.twin(view.key), now)

    def a_long_history(self, rng: Random) -> None:
        """Like the rules above, but with the weights of a service that is ill now and then."""
        first = self.policy
        swapped = [
            first,
            first,
            replace(first, calls_min=1),
            replace(first, mode=Mode.SHADOW),
            replace(first, rest_s=3.0),
        ]
        for _ in range(4):
            badness = rng.choice([0.05, 0.3, 0.9])
            for _ in range(40):
                key, is_bad = rng.choice(["", "", "a"]), rng.random() < badness
                how = "failed" if is_bad else rng.choice(["ok"] * 8 + ["cancelled", "refused further in"])
                match rng.randrange(12):
                    case 0 | 1:
                        self.time_passes(rng.choice([0.01, 0.25, 1.0, 1.5, 4.0]))
                    case 2 | 3:
                        self.call_and_suspend(key, rng.randrange(1, 4))
                    case 4 | 5 | 6 if self.out:
                        self.comes_back(rng.randrange(len(self.out)), how)
                    case 7 if rng.random() < 0.3:
                        self.somebody_looks()
                    case _:
                        self.call_at_once(key, rng.choice([0.0, 0.0, 0.01, 0.25]), how, rng.randrange(1, 5))
            self.settings_are_swapped(rng.choice(swapped))
            if rng.random() < 0.2:
                self.a_person_resets()
        self.teardown()

    def compare(self, view: KeyView, twin: Interpreted, now: Mono) -> None:
        breaker = twin.breaker
        assert (view.state, view.generation, view.since) == (breaker.state_at(now), breaker.generation, breaker.since)
        assert (view.window_ok, view.window_failed, view.window_slow) == breaker.counts_at(now)
        assert view.in_flight == len(twin.in_flight)
        counted = {name: getattr(view, name) for name in ("ok", "failed", "slow", "dropped", "stale")}
        assert counted == {name: twin.counts[name] for name in counted}
        assert Counter(view.refused) == twin.refused
        measured = sum(count for _, count in view.latency.occupied) if view.latency is not None else 0
        assert measured == view.ok + view.slow

    @invariant()
    def what_is_in_flight_is_known(self) -> None:
        assert len(self.out) == sum(len(twin.in_flight) for twin in self.twins.values())

    def teardown(self) -> None:
        while self.out:
            self.one_is_abandoned()
        if self.twins:
            self.somebody_looks()


@given(policy=POLICIES, seed=st.integers(0, 1 << 32))
def test_a_long_history_with_good_and_bad_times_ends_alike(policy: BreakerPolicy, seed: int) -> None:
    machine = CompiledAgainstInterpreted()
    machine.start(replace(policy, mode=Mode.ENFORCING))
    machine.a_long_history(Random(seed))


TestCompiledAgainstInterpreted = CompiledAgainstInterpreted.TestCase
TestCompiledAgainstInterpreted.settings = settings(settings.default, stateful_step_count=60)
