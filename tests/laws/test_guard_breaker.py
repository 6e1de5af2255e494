"""A breaker over random histories does what a slow twin does, which keeps every outcome and recounts them all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import floor, inf
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from budao.guard import MOVES, Breaker, Move, Moved, Permit, State
from budao.model import BreakerPolicy, Dropped, Ending, Mono, Outcome, Refusal, Why

# Instants are multiples of a quarter and growth is whole, so that sums, differences and products are exact.
POLICIES = st.builds(
    BreakerPolicy,
    failed_share=st.sampled_from([0.25, 0.5, 1.0]),
    slow_share=st.sampled_from([0.25, 0.5, 1.0]),
    slow_s=st.sampled_from([1.0, 2.0, inf]),
    calls_min=st.sampled_from([1, 2, 4, 8]),
    window_s=st.sampled_from([4.0, 8.0]),
    buckets=st.sampled_from([1, 4, 8]),
    rest_s=st.sampled_from([2.0, 5.0]),
    rest_growth=st.sampled_from([1.0, 2.0, 3.0]),
    rest_max_s=st.sampled_from([5.0, 30.0]),
    probes_max=st.sampled_from([1, 2, 3]),
    probes_good=st.sampled_from([1, 2, 3]),
    ramp_s=st.sampled_from([0.0, 4.0]),
)
STEPS = st.sampled_from([0.0, 0.25, 0.25, 0.5, 1.0, 2.0, 5.0, 12.0, 100.0])
GOOD: list[Ending] = [*[Outcome(0.25)] * 5, Outcome(1.0), *Dropped]
BAD: list[Ending] = [*[Outcome(0.25, failed=True)] * 3, Outcome(1.25), Outcome(2.25), Outcome(50.0, failed=True)]
ENDINGS = st.sampled_from(GOOD + BAD)


@dataclass
class Held:
    """A permit as the twin sees it."""

    generation: int
    at: float
    is_probe: bool


class Twin:
    """Remembers every outcome of its generation with its instant, and looks at all of them to decide anything."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.state = State.CLOSED
        self.generation = 0
        self.since = 0.0
        self.trips = 0
        self.rest_s = policy.rest_s
        self.outcomes: list[tuple[float, str]] = []
        self.probes: list[Held] = []
        self.good = 0

    def counts(self, now: float) -> tuple[int, int, int]:
        bucket_s = self.policy.window_s / self.policy.buckets
        first = floor(now / bucket_s) - self.policy.buckets + 1
        recent = [kind for at, kind in self.outcomes if floor(at / bucket_s) >= first]
        return recent.count("ok"), recent.count("failed"), recent.count("slow")

    def admit(self, now: float, die: float) -> Held | Refusal:
        self.wake(now)
        if self.state is State.OPEN:
            return Refusal(Why.BREAKER_OPEN, self.since + self.rest_s - now)
        if self.state is State.PROBING:
            if len(self.probes) >= self.policy.probes_max:
                return Refusal(Why.PROBES_TAKEN, self.probe_s())
            self.probes.append(Held(self.generation, now, is_probe=True))
            return self.probes[-1]
        if self.state is State.RAMPING:
            passed = (now - self.since) / self.policy.ramp_s
            if die > max(0.1, passed):
                return Refusal(Why.RAMPING, self.since + self.policy.ramp_s - now)
        return Held(self.generation, now, is_probe=False)

    def settle(self, held: Held, ending: Ending, now: float) -> Move | None:
        if held.generation != self.generation:
            return None
        self.probes = [probe for probe in self.probes if probe is not held]
        if isinstance(ending, Dropped):
            return None
        kind = "failed" if ending.failed else "slow" if ending.took_s > self.policy.slow_s else "ok"
        if self.state is State.PROBING:
            if kind != "ok":
                return self.trip(Move.FAIL, now)
            self.good += 1
            return self.move(Move.PASS, now) if self.good >= self.policy.probes_good else None
        self.outcomes.append((now, kind))
        return self.judge(0, now) if kind != "ok" else None

    def look(self, stuck: int, now: float) -> Move | None:
        moved = self.wake(now)
        if self.state is State.PROBING:
            if [probe for probe in self.probes if now - probe.at > self.probe_s()]:
                return self.trip(Move.FAIL, now)
        elif self.state is not State.OPEN and stuck:
            return self.judge(stuck, now) or moved
        return moved

    def judge(self, stuck: int, now: float) -> Move | None:
        ok, failed, slow = self.counts(now)
        slow += stuck
        total = ok + failed + slow
        policy = self.policy
        is_ill = (
            failed / total >= policy.failed_share
            or slow / total >= policy.slow_share
            or (failed + slow) / total >= max(policy.failed_share, policy.slow_share)
        )
        return self.trip(Move.TRIP, now) if total >= policy.calls_min and is_ill else None

    def wake(self, now: float) -> Move | None:
        if self.state is State.OPEN and now - self.since >= self.rest_s:
            return self.move(Move.REST, now)
        if self.state is State.RAMPING and now - self.since >= self.policy.ramp_s:
            return self.move(Move.RAMP, now)
        return None

    def reset(self, now: float) -> Move | None:
        self.trips = 0
        if self.state is State.CLOSED:
            self.outcomes.clear()
            return None
        return self.move(Move.RESET, now)

    def obey(self, policy: BreakerPolicy, now: float) -> None:
        if (policy.window_s, policy.buckets) != (self.policy.window_s, self.policy.buckets):
            ok, failed, slow = self.counts(now)
            self.outcomes = [(now, "ok")] * ok + [(now, "failed")] * failed + [(now, "slow")] * slow
        self.policy = policy
        self.rest_s = self.rest_after(self.trips)

    def trip(self, move: Move, now: float) -> Move:
        was_well = self.state is State.CLOSED and (self.trips == 0 or now - self.since > self.rest_s)
        self.trips = 1 if was_well else self.trips + 1
        self.rest_s = self.rest_after(self.trips)
        return self.move(move, now)

    def rest_after(self, trips: int) -> float:
        rest_s = self.policy.rest_s
        for _ in range(trips - 1):
            rest_s = min(self.policy.rest_max_s, rest_s * self.policy.rest_growth)
        return rest_s

    def probe_s(self) -> float:
        return self.policy.rest_s if self.policy.slow_s == inf else self.policy.slow_s

    def move(self, move: Move, now: float) -> Move:
        self.state = MOVES[self.state, move]
        self.since = now
        if move is not Move.RAMP:
            self.generation += 1
            self.outcomes, self.probes, self.good = [], [], 0
        if self.state is State.RAMPING and self.policy.ramp_s == 0:
            self.state = State.CLOSED
        return move


class Die(Random):
    """Falls as it is told."""

    def __init__(self, falls: float) -> None:
        super().__init__()
        self.falls = falls

    def random(self) -> float:
        return self.falls


def everything(breaker: Breaker, now: Mono) -> dict[str, Any]:
    """All there is to know, copied."""
    plain = {name: getattr(breaker, name) for name in Breaker.__slots__ if name not in {"_window", "_probes"}}
    return plain | {"probes": list(breaker._probes), "counts": breaker.counts_at(now)}


class BreakerAgainstTwin(RuleBasedStateMachine):
    """Both are told the same and must agree, on answers and on everything that can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.now = Mono(0.0)
        self.held: list[tuple[Permit, Held]] = []
        self.probes_max = 0
        self.told = 0

    @initialize(policy=POLICIES)
    def start(self, policy: BreakerPolicy) -> None:
        self.breaker = Breaker(policy, self.now)
        self.twin = Twin(policy)
        self.probes_max = policy.probes_max

    def agree(self, moved: Moved | None, move: Move | None) -> None:
        assert (moved.move if moved is not None else None) is move
        if moved is not None:
            assert moved.at == self.now
            assert moved.reason
            assert moved.before is not moved.after
            assert moved.after is self.breaker.state

    @rule(step=STEPS)
    def time_passes(self, step: float) -> None:
        self.now = Mono(self.now + step)

    @rule(late=st.sampled_from([-0.25, 0.0, 0.0, 0.0, 0.25]))
    def time_passes_to_an_edge(self, late: float) -> None:
        """To the end of what is going on: a rest, a ramp, the patience with a probe."""
        twin = self.twin
        edges = {State.OPEN: twin.rest_s, State.RAMPING: twin.policy.ramp_s, State.PROBING: twin.probe_s()}
        if twin.state in edges:
            self.now = Mono(max(self.now, twin.since + edges[twin.state] + late))

    @rule(die=st.sampled_from([0.0, 0.05, 0.3, 0.6, 0.9]), calls=st.integers(1, 8))
    def ask(self, die: float, calls: int) -> None:
        for _ in range(calls):
            answer, wanted = self.breaker.admit(self.now, Die(die)), self.twin.admit(self.now, die)
            if isinstance(wanted, Refusal):
                assert answer == wanted
                assert wanted.retry_after_s >= 0.0
            else:
                assert isinstance(answer, Permit)
                assert (answer.generation, answer.at, answer.is_probe) == (
                    wanted.generation,
                    wanted.at,
                    wanted.is_probe,
                )
                self.held.append((answer, wanted))

    @rule(endings=st.lists(ENDINGS, min_size=1, max_size=8), die=st.sampled_from([0.0, 0.3]))
    def call_after_call(self, endings: list[Ending], die: float) -> None:
        for ending in endings:
            held = len(self.held)
            self.ask(die, 1)
            if len(self.held) > held:
                permit, mine = self.held.pop()
                self.agree(self.breaker.settle(permit, ending, self.now), self.twin.settle(mine, ending, self.now))

    @rule(data=st.data(), ending=ENDINGS)
    def one_comes_back(self, data: st.DataObject, ending: Ending) -> None:
        if self.held:
            self.comes_back(data.draw(st.integers(0, len(self.held) - 1), label="which"), ending)

    def comes_back(self, which: int, ending: Ending) -> None:
        permit, held = self.held.pop(which)
        before = everything(self.breaker, self.now)
        is_stale = permit.generation != self.breaker.generation
        self.agree(self.breaker.settle(permit, ending, self.now), self.twin.settle(held, ending, self.now))
        after = everything(self.breaker, self.now)
        if is_stale:
            assert after == before, "what an older generation brings back teaches nothing"
        elif isinstance(ending, Dropped):
            assert len(after.pop("probes")) == len(before.pop("probes")) - permit.is_probe
            assert after == before, "a dropped call gives its place back and teaches nothing"

    @rule(ending=ENDINGS)
    def all_come_back(self, ending: Ending) -> None:
        for permit, held in self.held:
            self.agree(self.breaker.settle(permit, ending, self.now), self.twin.settle(held, ending, self.now))
        self.held.clear()
        assert self.breaker.probes_in_flight == 0, "whoever took a place has given it back"

    @rule(calls=st.integers(0, 5))
    def quiet_calls_are_counted(self, calls: int) -> None:
        if self.breaker.state is not State.CLOSED:
            return
        self.breaker.learn_ok(calls, self.now)
        self.twin.outcomes += [(self.now, "ok")] * calls

    @rule(stuck=st.sampled_from([0, 0, 1, 3, 9]))
    def calls_in_flight_are_looked_at(self, stuck: int) -> None:
        self.agree(self.breaker.look(stuck, self.now), self.twin.look(stuck, self.now))

    @rule()
    def time_does_its_part(self) -> None:
        self.agree(self.breaker.wake(self.now), self.twin.wake(self.now))

    @rule(data=st.data(), what=st.sampled_from(["nothing", "nothing", "all settings", "one setting", "reset"]))
    def a_person_steps_in(self, data: st.DataObject, what: str) -> None:
        if what == "all settings":
            self.swap(data.draw(POLICIES, label="policy"))
        elif what == "one setting":  # the window keeps its shape, and so it keeps every bucket
            self.swap(replace(self.twin.policy, calls_min=self.twin.policy.calls_min % 8 + 1))
        elif what == "reset":
            self.agree(self.breaker.reset(self.now), self.twin.reset(self.now))
            assert self.breaker.state is State.CLOSED
            assert self.breaker.counts_at(self.now) == (0, 0, 0)

    def a_long_history(self, rng: Random) -> None:
        """Like the rules above, but with the weights of a service that is ill now and then."""
        first = self.twin.policy
        swapped = [first, replace(first, calls_min=1), replace(first, window_s=6.0), replace(first, rest_s=3.0)]
        for _ in range(4):
            badness = rng.choice([0.05, 0.3, 0.9])
            for _ in range(60):
                match rng.randrange(10):
                    case 0:
                        self.time_passes(rng.choice([0.0, 0.25, 0.5, 1.0, 2.0, 5.0]))
                    case 1:
                        self.time_passes_to_an_edge(rng.choice([-0.25, 0.0, 0.0, 0.25]))
                    case 2:
                        self.calls_in_flight_are_looked_at(rng.choice([0, 0, 0, 1, 9]))
                    case 3:
                        self.quiet_calls_are_counted(rng.randrange(4))
                    case 4 | 5:
                        self.ask(rng.random(), rng.randrange(1, 4))
                    case 6 | 7 if self.held:
                        ending = rng.choice(BAD if rng.random() < badness else GOOD)
                        self.comes_back(rng.randrange(len(self.held)), ending)
                    case _:
                        ending = rng.choice(BAD if rng.random() < badness else GOOD)
                        self.call_after_call([ending] * rng.randrange(1, 4), rng.random())
                self.both_look_alike()
                self.no_more_probes_than_allowed_are_out()
            self.swap(rng.choice(swapped))
            self.all_come_back(Outcome(0.25))

    def swap(self, policy: BreakerPolicy) -> None:
        before = everything(self.breaker, self.now)
        self.breaker.obey(policy, self.now)
        self.twin.obey(policy, self.now)
        after = everything(self.breaker, self.now)
        for name in ("state", "generation", "since", "trips", "probes", "counts"):
            assert after[name] == before[name]
        self.probes_max = max(policy.probes_max, len(self.twin.probes))

    @invariant()
    def both_look_alike(self) -> None:
        breaker, twin = self.breaker, self.twin
        assert breaker.state is twin.state
        assert breaker.generation == twin.generation
        assert breaker.since == twin.since
        assert breaker.trips == twin.trips
        assert breaker.counts_at(self.now) == twin.counts(self.now)
        assert breaker.rests_until == twin.since + twin.rest_s
        assert breaker.slow_s == twin.policy.slow_s

    @invariant()
    def no_more_probes_than_allowed_are_out(self) -> None:
        assert self.breaker.probes_in_flight == len(self.twin.probes) <= self.probes_max
        assert self.breaker.state is State.PROBING or self.breaker.probes_in_flight == 0

    @invariant()
    def generations_only_grow(self) -> None:
        assert self.breaker.generation >= self.told
        self.told = self.breaker.generation

    @invariant()
    def looking_ahead_changes_nothing_and_tells_the_truth(self) -> None:
        before = everything(self.breaker, self.now)
        for ahead in (0.0, 1.0, 1000.0):
            shown, twin = self.breaker.state_at(Mono(self.now + ahead)), self.twin
            rested = twin.state is State.OPEN and self.now + ahead - twin.since >= twin.rest_s
            ramped = twin.state is State.RAMPING and self.now + ahead - twin.since >= twin.policy.ramp_s
            assert shown is (State.PROBING if rested else State.CLOSED if ramped else twin.state)
        assert everything(self.breaker, self.now) == before


@given(policy=POLICIES, seed=st.integers(0, 1 << 32))
def test_a_long_history_with_good_and_bad_times_ends_alike(policy: BreakerPolicy, seed: int) -> None:
    machine = BreakerAgainstTwin()
    machine.start(policy)
    machine.a_long_history(Random(seed))


TestBreakerAgainstTwin = BreakerAgainstTwin.TestCase
TestBreakerAgainstTwin.settings = settings(settings.default, stateful_step_count=60)
