"""A registration against a small honest store over random faults: it never takes a living id, and it gets there in the end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from budao.discovery import Address, Instance, RegistrarPolicy, Registration
from budao.discovery.registration import (
    Answer,
    AskedFor,
    AskedToLeave,
    Away,
    Effect,
    Grant,
    Granted,
    Holder,
    KeepAlive,
    KeptAlive,
    LeaseLost,
    Order,
    PutInstance,
    Revoked,
    TellDuplicate,
    TellLeft,
    TellPublished,
    WasPut,
    WasRefused,
)
from budao.model import Mono, Stage

TTL_S = 30.0
MINE = Instance(service="s", id="a", addresses={"tcp": Address("h", 1)}, incarnation="mine")
THEIRS = replace(MINE, incarnation="theirs")


@dataclass
class Store:
    """One key, some leases, and faults."""

    revision: int = 1
    leases: dict[int, float] = field(default_factory=dict)
    entry: tuple[Instance, int, int] | None = None
    """The instance, its lease, and the revision of its put."""
    next_lease: int = 100

    def expire(self, now: float) -> None:
        for lease in [each for each, ends in self.leases.items() if ends <= now]:
            self.end(lease)

    def end(self, lease: int) -> None:
        self.leases.pop(lease, None)
        if self.entry is not None and self.entry[1] == lease:
            self.entry = None
            self.revision += 1

    def ask(self, order: Order, now: float) -> Answer:
        self.expire(now)
        if isinstance(order, Grant):
            self.next_lease += 1
            self.leases[self.next_lease] = now + TTL_S
            return Granted(self.next_lease, TTL_S)
        if order.lease not in self.leases:
            return LeaseLost()
        if isinstance(order, KeepAlive):
            self.leases[order.lease] = now + TTL_S
            return KeptAlive()
        if isinstance(order, PutInstance):
            return self.put(order, now)
        self.end(order.lease)
        return Revoked()

    def put(self, order: PutInstance, now: float) -> Answer:
        if (0 if self.entry is None else self.entry[2]) == order.after:
            assert self.entry is None or self.entry[0].incarnation == "mine", "a living id is never taken"
            self.revision += 1
            self.entry = (order.instance, order.lease, self.revision)
            return WasPut(self.revision)
        if self.entry is None:
            return WasRefused(None)
        instance, lease, modified = self.entry
        return WasRefused(Holder(instance, modified, lease, self.leases[lease] - now, TTL_S))


FAULTS = st.sampled_from(["fine", "fine", "fine", "no answer, done", "no answer, not done"])
HAPPENINGS = st.sampled_from(["nothing"] * 6 + ["drain", "ready", "forget all", "stop for long", "rival comes"])


class World:
    def __init__(self, seed: int, rival_renews: bool) -> None:
        self.now = Mono(0.0)
        self.store = Store()
        self.machine = Registration(MINE, RegistrarPolicy(), Random(seed), self.now)
        self.told: list[Effect] = []
        self.rival_renews = rival_renews
        self.is_left = False

    def feed(self, effects: tuple[Effect, ...]) -> Order | None:
        orders = [effect for effect in effects if isinstance(effect, Order)]
        assert len(orders) <= 1, "one operation at a time"
        self.told += [effect for effect in effects if not isinstance(effect, Order)]
        return orders[0] if orders else None

    def step(self, fault: str) -> None:
        """Lets time pass to the next operation and answers it."""
        due = self.machine.wake_at()
        if due is None:
            return
        self.now = max(self.now, due)
        self.answer(self.feed(self.machine.wake(self.now)), fault)

    def answer(self, order: Order | None, fault: str) -> None:
        while order is not None:
            if self.rival_renews and self.store.entry is not None and self.store.entry[0] is THEIRS:
                self.store.leases[self.store.entry[1]] = self.now + TTL_S
            answer = self.store.ask(order, self.now) if fault != "no answer, not done" else Away("no answer")
            order = self.feed(self.machine.handle(Away("no answer") if "done" in fault else answer, self.now))

    def happen(self, what: str) -> None:
        if what in {"drain", "ready"}:
            stage = Stage.DRAINING if what == "drain" else Stage.READY
            self.answer(self.feed(self.machine.handle(AskedFor(stage), self.now)), "fine")
        elif what == "forget all":
            for lease in list(self.store.leases):
                self.store.end(lease)
        elif what == "stop for long":
            self.now = Mono(self.now + 2 * TTL_S)
        elif what == "rival comes":
            self.store.expire(self.now)
            if self.store.entry is None:
                self.store.revision += 1
                self.store.leases[1] = self.now + TTL_S
                self.store.entry = (THEIRS, 1, self.store.revision)


@given(st.integers(0, 2**32), st.booleans(), st.lists(st.tuples(HAPPENINGS, FAULTS), max_size=40))
def test_over_any_faults_it_is_listed_in_the_end_or_says_who_is_in_its_place(
    seed: int, rival_renews: bool, history: list[tuple[str, str]]
) -> None:
    world = World(seed, rival_renews)
    for what, fault in history:
        world.happen(what)
        world.step(fault)
    until = world.now + 4 * TTL_S
    while world.now < until and not world.machine.is_over:
        world.step("fine")
    world.store.expire(world.now)
    entry = world.store.entry
    if any(isinstance(each, TellDuplicate) for each in world.told):
        assert world.machine.is_over or entry is not None
    else:
        assert entry is not None
        assert entry[0] == world.machine.instance == world.machine.published
        published = [each for each in world.told if isinstance(each, TellPublished)]
        assert published[-1] == TellPublished(world.machine.instance, entry[2])
        assert world.machine.problem is None


@given(st.integers(0, 2**32), st.lists(st.tuples(HAPPENINGS, FAULTS), max_size=30), FAULTS)
def test_leaving_ends_after_a_few_answers_and_leaves_nothing_but_a_lease_that_runs_out(
    seed: int, history: list[tuple[str, str]], fault: str
) -> None:
    world = World(seed, rival_renews=False)
    for what, each in history:
        world.happen(what)
        world.step(each)
    order = world.feed(world.machine.handle(AskedToLeave(), world.now))
    answers = 0
    while order is not None:
        answers += 1
        answer = Away("no answer") if fault != "fine" else world.store.ask(order, world.now)
        order = world.feed(world.machine.handle(answer, world.now))
    world.step("fine")
    assert answers <= 2
    assert world.machine.is_over
    assert world.told[-1] == TellLeft()
    world.store.expire(world.now + 10 * TTL_S)
    assert world.store.entry is None
