"""Laws of a drain, over random histories: whatever happens, in whatever order, and however late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from budao.discovery import Drain, DrainPolicy
from budao.discovery.draining import (
    Asked,
    CloseIdle,
    Counted,
    Cut,
    Effect,
    Fact,
    Finish,
    Phase,
    Published,
    Revoke,
    Revoked,
    StopAccepting,
    StoreFailed,
    Watched,
)
from budao.model import Mono

NAMES = st.sampled_from(["a", "b", "c"])
FACTS = st.one_of(
    st.just(Published(5)),
    st.builds(Watched, st.dictionaries(NAMES, st.integers(3, 7), max_size=3)),
    st.builds(lambda n: Counted(n, n, 0), st.integers(0, 3)),
    st.just(StoreFailed("away")),
    st.just(Revoked()),
)
STEPS = st.lists(st.tuples(st.floats(0.0, 8.0), FACTS), max_size=30)
POLICIES = st.builds(
    lambda grace, lag: DrainPolicy.of(grace, lag_s=grace * lag), st.floats(1.0, 60.0), st.floats(0.0, 0.5)
)


class World:
    """Steps a drain exactly as its shell does: time passes before news is read."""

    def __init__(self, drain: Drain) -> None:
        self.drain = drain
        self.now = 0.0
        self.log: list[tuple[float, Effect]] = []

    def until(self, instant: float) -> None:
        while (due := self.drain.wake_at()) is not None and due <= instant:
            self.now = max(self.now, due)
            self._carry(self.drain.wake(Mono(self.now)))
        self.now = instant

    def tell(self, fact: Fact) -> None:
        self._carry(self.drain.handle(fact, Mono(self.now)))

    def _carry(self, effects: tuple[Effect, ...]) -> None:
        self.log += [(self.now, effect) for effect in effects]

    def when(self, kind: type) -> list[float]:
        return [instant for instant, effect in self.log if isinstance(effect, kind)]


def played(drain: Drain, steps: list[tuple[float, Fact]]) -> World:
    world = World(drain)
    world.tell(Asked())
    for pause_s, fact in steps:
        world.until(world.now + pause_s)
        world.tell(fact)
    world.until(1_000.0)
    return world


@given(POLICIES, STEPS, st.booleans())
def test_it_always_ends_once_and_within_the_grace(
    policy: DrainPolicy, steps: list[tuple[float, Fact]], registered: bool
) -> None:
    drain = Drain(policy, registered=registered)
    world = played(drain, steps)
    (end,) = world.when(Finish)
    assert end <= policy.grace_s
    assert drain.phase is Phase.GONE
    assert len(world.when(StopAccepting)) == len(world.when(CloseIdle)) == 1


@given(POLICIES, STEPS)
def test_it_never_closes_before_everyone_acknowledged_or_the_bound(
    policy: DrainPolicy, steps: list[tuple[float, Fact]]
) -> None:
    """The twin is slow and obvious: it looks at the whole history when the listener closes."""
    world = played(Drain(policy), steps)
    (closed,) = world.when(StopAccepting)
    if closed >= policy.accept_s:
        return
    instant, published_at, live = 0.0, None, None
    for pause_s, fact in steps:
        instant += pause_s
        if instant > closed:
            break
        if isinstance(fact, Published) and published_at is None:
            published_at = instant
        if isinstance(fact, Watched):
            live = fact.revisions
    assert published_at is not None
    assert live is not None
    assert all(revision >= 5 for revision in live.values())
    assert closed >= published_at + policy.linger_s - 1e-9


@given(POLICIES, STEPS, st.booleans())
def test_it_accepts_no_longer_than_its_share_and_cuts_no_sooner_than_it_must(
    policy: DrainPolicy, steps: list[tuple[float, Fact]], registered: bool
) -> None:
    world = played(Drain(policy, registered=registered), steps)
    assert world.when(StopAccepting)[0] <= policy.accept_s + 1e-9
    assert all(cut >= policy.cut_s - 1e-9 for cut in world.when(Cut))


@given(POLICIES, STEPS)
def test_the_lease_goes_last_of_all(policy: DrainPolicy, steps: list[tuple[float, Fact]]) -> None:
    kinds = [type(effect) for _, effect in played(Drain(policy), steps).log]
    assert kinds.index(StopAccepting) < kinds.index(CloseIdle) < kinds.index(Revoke) < kinds.index(Finish)


@given(POLICIES, STEPS)
def test_the_spans_of_the_proof_add_up(policy: DrainPolicy, steps: list[tuple[float, Fact]]) -> None:
    world = played(Drain(policy), steps)
    (finish,) = [effect for _, effect in world.log if isinstance(effect, Finish)]
    assert abs(sum(span for _, span in finish.proof.spans) - finish.proof.took_s) < 1e-6
