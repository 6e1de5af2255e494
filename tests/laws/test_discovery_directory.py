"""A directory over random histories: the truth and what is published never differ by more than a hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from budao.discovery import Address, Changed, DirectoryMachine, DirectoryPolicy, Instance, Listed, WentAway
from budao.discovery.directory import Publish
from budao.model import Mono, Stage

HOLD_S, WINDOW_S = 20.0, 5.0
POLICY = DirectoryPolicy(doubt_hold_s=HOLD_S, doubt_window_s=WINDOW_S)

NAMES = st.sampled_from("abcdefgh")
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, 2.0, 6.0, 25.0]),
        st.one_of(
            st.tuples(st.just("put"), st.dictionaries(NAMES, st.sampled_from(Stage), min_size=1)),
            st.tuples(st.just("gone"), st.sets(NAMES, min_size=1)),
            st.tuples(st.just("away"), st.just(None)),
            st.tuples(st.just("list"), st.booleans()),
        ),
    ),
    max_size=40,
)


def instance(name: str, stage: Stage) -> Instance:
    return Instance(service="s", id=name, addresses={"tcp": Address("h", 1)}, stage=stage)


class World:
    """The store as it is, the directory that hears of it, and what it was told when."""

    def __init__(self) -> None:
        self.machine = DirectoryMachine("s", POLICY)
        self.now = Mono(0.0)
        self.revision = 1
        self.truth: dict[str, Instance] = {}
        self.told: dict[str, Instance] = {}
        """What the directory was told; differs from the truth while the source is away."""
        self.gone_s: dict[str, float] = {}
        """For how long the directory has known that somebody is gone, with the source there."""
        self.left: set[str] = set()
        """Those who were draining when last seen."""
        self.is_away = False
        self.deliver(Listed(1, ()))

    def deliver(self, fact: Listed | Changed | WentAway) -> None:
        before = self.machine.roster
        published = [effect for effect in self.machine.handle(fact, self.now) if isinstance(effect, Publish)]
        if not isinstance(fact, Listed):
            assert self.machine.roster.revision >= before.revision
        assert all(effect.roster.service == "s" for effect in published)

    def pass_time(self, span_s: float) -> None:
        until = self.now + span_s
        while (due := self.machine.wake_at()) is not None and due <= until:
            self.elapse(max(0.0, due - self.now))
            self.now = max(self.now, due)
            self.machine.wake(self.now)
        self.elapse(until - self.now)
        self.now = Mono(until)

    def elapse(self, span_s: float) -> None:
        if not self.is_away:
            self.gone_s = {name: gone_s + span_s for name, gone_s in self.gone_s.items()}

    def step(self, kind: str, what: object) -> None:
        if kind == "put":
            assert isinstance(what, dict)
            self.truth |= {name: instance(name, stage) for name, stage in what.items()}
        elif kind == "gone":
            assert isinstance(what, set)
            for name in what:
                self.truth.pop(name, None)
        elif kind == "away" and not self.is_away:
            self.is_away = True
            self.deliver(WentAway("no route"))
        elif kind == "list":
            # A store that lost its memory starts again at a low revision.
            self.revision = 1 if what else self.revision + 1
            self.is_away = False
            self.deliver(Listed(self.revision, tuple(self.truth.values())))
            self.note()
        if kind in {"put", "gone"} and not self.is_away:
            self.revision += 1
            put = tuple(each for name, each in self.truth.items() if self.told.get(name) != each)
            gone = tuple(self.told.keys() - self.truth.keys())
            self.deliver(Changed(self.revision, put, gone))
            self.note()

    def note(self) -> None:
        for name in self.told.keys() - self.truth.keys():
            self.gone_s[name] = 0.0
            if self.told[name].stage is not Stage.READY:
                self.left.add(name)
        for name in self.truth:
            self.gone_s.pop(name, None)
            self.left.discard(name)
        self.told = dict(self.truth)

    def check(self) -> None:
        roster = self.machine.roster
        shown = {each.id: each for each in roster.instances}
        assert [each.id for each in roster.instances] == sorted(shown)
        assert (roster.stale_since is not None) == self.is_away
        for name, each in self.told.items():
            assert shown.get(name) == each, "nobody who is there is ever missing"
            assert name not in roster.doubted
        for name in shown.keys() - self.told.keys():
            assert name in roster.doubted, "whoever is gone and still shown is doubted"
            assert self.gone_s[name] < HOLD_S, "whoever is gone is let go within the hold"
            assert name not in self.left, "whoever left on purpose is not kept"
        assert roster.doubted <= shown.keys()


@given(STEPS)
def test_nobody_present_is_missing_and_nobody_gone_stays_longer_than_the_hold(
    history: list[tuple[float, tuple[str, object]]],
) -> None:
    world = World()
    for pause_s, (kind, what) in history:
        world.pass_time(pause_s)
        world.step(kind, what)
        world.check()
    if world.is_away:
        world.step("list", what=False)
    world.pass_time(HOLD_S)
    assert {each.id for each in world.machine.roster.instances} == world.truth.keys()


@given(
    st.integers(2, 12),
    st.lists(st.floats(0.0, WINDOW_S), min_size=12, max_size=12),
    st.booleans(),
)
def test_a_mass_expiry_within_the_window_leaves_everybody_pickable_until_the_hold_ends(
    count: int, offsets: list[float], at_once: bool
) -> None:
    world = World()
    world.step("put", {chr(97 + index): Stage.READY for index in range(count)})
    start = world.now
    ends = {chr(97 + index): start if at_once else start + offsets[index] for index in range(count)}
    for name in sorted(ends, key=lambda each: ends[each]):
        world.pass_time(ends[name] - world.now)
        world.step("gone", {name})
        world.check()
        # Never fewer than the share the guard lets go, and never nobody.
        assert len(world.machine.roster.endpoints()) >= max(1, 0.7 * count - 1)
    assert len(world.machine.roster.endpoints()) == count
    world.pass_time(min(ends.values()) + HOLD_S - world.now - 0.001)
    assert len(world.machine.roster.endpoints()) == count
    world.pass_time(WINDOW_S + 0.002)
    assert world.machine.roster.instances == ()
