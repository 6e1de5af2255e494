"""A waiting room over random histories: what its slow twin says happens, and each number ends exactly once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import inf, sqrt

from hypothesis import example, given
from hypothesis import strategies as st

from budao.guard.waiting import Placed, TurnedAway, WaitingRoom
from budao.model import BulkheadPolicy, Mono, Priority, Refusal, Why

# Instants are multiples of a quarter, so that sums and differences are exact.
POLICIES = st.builds(
    BulkheadPolicy,
    waiting_max=st.sampled_from([0, 1, 2, 5, 30]),
    wait_max_s=st.sampled_from([0.0, 2.0, 20.0, 100.0]),
    sojourn_target_s=st.sampled_from([0.25, 1.0, 4.0]),
    sojourn_interval_s=st.sampled_from([0.5, 2.0, 8.0]),
)
STEPS = st.sampled_from([0.0, 0.0, 0.25, 0.25, 0.5, 1.0, 3.0, 10.0, 200.0])
JOINS = st.tuples(st.just("join"), st.sampled_from(Priority), st.sampled_from([0.0, 0.25, 1.0, 6.0, 30.0, inf]))
LEAVES = st.tuples(st.just("leave"), st.sampled_from(Priority), st.sampled_from([0.0, 1.0, 2.0, 5.0]))
NEXTS = st.tuples(st.just("next"), st.just(Priority.HIGH), st.just(0.0))
WAKES = st.tuples(st.just("wake"), st.just(Priority.HIGH), st.just(0.0))
Event = tuple[float, tuple[str, Priority, float]]
HISTORIES: st.SearchStrategy[list[Event]] = st.lists(
    st.tuples(STEPS, st.one_of(JOINS, JOINS, JOINS, LEAVES, NEXTS, NEXTS, WAKES)), max_size=120
)


@dataclass
class Caller:
    number: int
    priority: Priority
    since: float
    until: float
    gone: float = inf

    @property
    def rank(self) -> int:
        return self.priority.value


class Twin:
    """Remembers every caller there ever was, and looks at all of them to decide anything."""

    def __init__(self, policy: BulkheadPolicy) -> None:
        self.policy = policy
        self.callers: list[Caller] = []
        self.is_dropping = False
        self.drop_at = -inf
        self.count = self.count_first = 0

    def inside(self) -> list[Caller]:
        return [caller for caller in self.callers if caller.gone == inf]

    def oldest_s(self, now: float) -> float:
        return max((now - caller.since for caller in self.inside()), default=0.0)

    def is_standing(self, now: float) -> bool:
        """Whether the times in which each caller was too old cover the whole of the last interval."""
        covered = now - self.policy.sojourn_interval_s
        for caller in sorted(self.callers, key=lambda caller: caller.since):
            if caller.since + self.policy.sojourn_target_s <= covered:
                covered = max(covered, caller.gone)
        return covered > now

    def end(self, caller: Caller, why: Why, now: float) -> TurnedAway:
        refusal = Refusal(why, self.oldest_s(now))
        caller.gone = now
        return TurnedAway(caller.number, refusal)

    def wake(self, now: float) -> list[TurnedAway]:
        late = sorted((each for each in self.inside() if each.until <= now), key=lambda each: each.until)
        return [self.end(caller, Why.WAITED_OUT, now) for caller in late]

    def join(self, number: int, priority: Priority, until: float, now: float) -> list[TurnedAway]:
        effects = self.wake(now)
        until = min(until, now + self.policy.wait_max_s)
        if until <= now:
            return [*effects, TurnedAway(number, Refusal(Why.WAITED_OUT, self.oldest_s(now)))]
        if len(self.inside()) >= self.policy.waiting_max:
            less = [each for each in self.inside() if each.rank > priority.value]
            if not less:
                return [*effects, TurnedAway(number, Refusal(Why.NO_ROOM, self.oldest_s(now)))]
            least = max(each.rank for each in less)
            effects.append(self.end([each for each in less if each.rank == least][-1], Why.SHED, now))
        self.callers.append(Caller(number, priority, now, until))
        return effects

    def leave(self, number: int, now: float) -> bool:
        found = [each for each in self.inside() if each.number == number]
        for caller in found:
            caller.gone = now
        return bool(found)

    def next(self, now: float) -> list[Placed | TurnedAway]:
        effects: list[Placed | TurnedAway] = [*self.wake(now), *self.drop(now)]
        if inside := self.inside():
            best = min(each.rank for each in inside)
            equals = [each for each in inside if each.rank == best]
            chosen = equals[-1] if self.is_standing(now) else equals[0]
            chosen.gone = now
            effects.append(Placed(chosen.number, now - chosen.since))
        return effects

    def drop(self, now: float) -> list[TurnedAway]:
        """RFC 8289, section 5.6, line by line; "ok to drop" is a standing queue of more than one."""
        effects: list[TurnedAway] = []

        def is_ok() -> bool:
            return len(self.inside()) > 1 and self.is_standing(now)

        def drop_one() -> None:
            least = max(each.rank for each in self.inside())
            effects.append(self.end(next(each for each in self.inside() if each.rank == least), Why.SHED, now))

        def control_law(instant: float) -> float:
            return instant + self.policy.sojourn_interval_s / sqrt(self.count)

        if self.is_dropping:
            if not is_ok():
                self.is_dropping = False
            while self.is_dropping and now >= self.drop_at:
                if not is_ok():
                    self.is_dropping = False
                else:
                    drop_one()
                    self.count += 1
                    self.drop_at = control_law(self.drop_at)
        elif is_ok():
            drop_one()
            self.is_dropping = True
            delta = self.count - self.count_first
            self.count = 1
            if delta > 1 and now - self.drop_at < 16 * self.policy.sojourn_interval_s:
                self.count = delta
            self.drop_at = control_law(now)
            self.count_first = self.count
        return effects


# A queue that stands, is dropped from, and drains.
BUSY: list[Event] = [
    *((0.25, ("join", Priority(number % 4), inf)) for number in range(20)),
    *((0.5, ("next", Priority.HIGH, 0.0)) for _ in range(30)),
]


@given(POLICIES, HISTORIES)
@example(BulkheadPolicy(waiting_max=30, wait_max_s=100.0, sojourn_target_s=0.25, sojourn_interval_s=0.5), BUSY * 3)
@example(BulkheadPolicy(waiting_max=5, wait_max_s=20.0, sojourn_target_s=1.0, sojourn_interval_s=2.0), BUSY * 3)
def test_a_waiting_room_is_its_slow_twin_and_each_number_ends_once(
    policy: BulkheadPolicy, history: list[Event]
) -> None:
    room, twin = WaitingRoom(policy), Twin(policy)
    joined = 0
    ended: Counter[int] = Counter()
    now = 0.0
    for step_s, (name, priority, amount) in history:
        now += step_s
        effects: tuple[Placed | TurnedAway, ...] = ()
        expected: list[Placed | TurnedAway] = []
        if name == "join":
            until = now + amount
            effects = room.join(joined, priority, Mono(until), Mono(now))
            expected += twin.join(joined, priority, until, now)
            joined += 1
        elif name == "leave":
            number = joined - 1 - int(amount)
            left = room.leave(number, Mono(now))
            assert left == twin.leave(number, now)
            ended.update([number] if left else [])
        elif name == "next":
            effects = room.next(Mono(now))
            expected += twin.next(now)
        else:
            effects = room.wake(Mono(now))
            expected += twin.wake(now)
        assert list(effects) == expected
        ended.update(each.number for each in effects)
        assert len(room) == len(twin.inside()) <= policy.waiting_max
        assert room.wake_at() == min((each.until for each in twin.inside()), default=None)
        for later in (now, now + 1.0, now + 8.0, now + 12.0):
            assert room.is_standing(Mono(later)) == twin.is_standing(later)
    ended.update(each.number for each in room.wake(Mono(now + 1e9)))
    assert ended == dict.fromkeys(range(joined), 1)
