from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from budao.discovery import (
    Address,
    DuplicateInstance,
    Instance,
    RegistrarPolicy,
    Registration,
    new_id,
    new_incarnation,
)
from budao.discovery.registration import (
    AskedFor,
    AskedToLeave,
    Away,
    Effect,
    Fact,
    Grant,
    Granted,
    Holder,
    KeepAlive,
    KeptAlive,
    KeyGone,
    LeaseLost,
    PutInstance,
    Revoke,
    Revoked,
    SetByOthers,
    TellDuplicate,
    TellLeft,
    TellOrdered,
    TellPublished,
    TellTrouble,
    WasPut,
    WasRefused,
)
from budao.model import BadSettings, Mono, Stage

INSTANCE = Instance(service="orders", id="a", addresses={"http": Address("10.0.0.1", 80)}, incarnation="mine")
OTHER = replace(INSTANCE, addresses={"http": Address("10.0.0.2", 81)}, incarnation="theirs")
DRAINING = replace(INSTANCE, stage=Stage.DRAINING)


def begun() -> Registration:
    machine = Registration(INSTANCE, RegistrarPolicy(), Random(1), Mono(0.0))
    assert machine.wake(Mono(0.0)) == (Grant(30.0),)
    return machine


def steps(machine: Registration, *facts: Fact, at: float = 0.0) -> tuple[Effect, ...]:
    effects: tuple[Effect, ...] = ()
    for fact in facts:
        effects = machine.handle(fact, Mono(at))
    return effects


def registered() -> Registration:
    machine = begun()
    steps(machine, Granted(5, 30.0), WasPut(7))
    return machine


def due(machine: Registration) -> Mono:
    at = machine.wake_at()
    assert at is not None
    return at


def held(left_s: float, instance: Instance | None = OTHER) -> WasRefused:
    return WasRefused(Holder(instance, modified=3, lease=9, left_s=left_s, ttl_s=30.0))


def test_it_asks_for_a_lease_then_puts_the_instance_if_the_key_is_free() -> None:
    machine = begun()
    assert steps(machine, Granted(5, 30.0)) == (PutInstance(INSTANCE, 5, after=0),)
    assert steps(machine, WasPut(7)) == (TellPublished(INSTANCE, 7),)


def test_it_renews_its_lease_every_ten_seconds_or_a_little_sooner() -> None:
    machine = registered()
    for _ in range(5):
        before = due(machine)
        assert machine.wake(before) == (KeepAlive(5),)
        assert machine.wake_at() is None
        assert machine.handle(KeptAlive(), before) == ()
        assert 9.0 <= due(machine) - before <= 10.0


def test_a_short_lease_is_renewed_three_times_in_its_span() -> None:
    machine = begun()
    steps(machine, Granted(5, 3.0), WasPut(7))
    assert due(machine) <= 1.0


def test_a_renewal_that_failed_is_tried_again_sooner_with_growing_random_pauses() -> None:
    machine = registered()
    now, pauses = due(machine), []
    assert machine.wake(now) == (KeepAlive(5),)
    for _ in range(40):
        machine.handle(Away("no route"), now)
        pauses.append(due(machine) - now)
        now = due(machine)
        assert machine.wake(now) == (KeepAlive(5),)
    ceilings = [min(5.0, 0.2 * 2**number) for number in range(40)]
    assert all(0.0 <= pause <= ceiling for pause, ceiling in zip(pauses, ceilings, strict=True))
    assert len(set(pauses)) == 40
    assert machine.handle(KeptAlive(), now) == (TellTrouble(None),)
    now = due(machine)
    assert machine.wake(now) == (KeepAlive(5),)
    machine.handle(Away("no route"), now)
    assert due(machine) - now <= 0.2


def test_trouble_is_told_once_for_each_reason() -> None:
    machine = begun()
    assert steps(machine, Away("no route")) == (TellTrouble("no route"),)
    machine.wake(due(machine))
    assert steps(machine, Away("no route"), at=1.0) == ()
    machine.wake(due(machine))
    assert steps(machine, Away("denied"), at=9.0) == (TellTrouble("denied"),)


def test_a_lost_lease_means_a_new_lease_and_the_same_id_again() -> None:
    machine = registered()
    now = due(machine)
    machine.wake(now)
    (told,) = steps(machine, LeaseLost(), at=now)
    assert isinstance(told, TellTrouble)
    now = due(machine)
    assert machine.wake(now) == (Grant(30.0),)
    assert steps(machine, Granted(6, 30.0), at=now) == (PutInstance(INSTANCE, 6, after=0),)
    assert steps(machine, WasPut(12), at=now) == (TellPublished(INSTANCE, 12), TellTrouble(None))


def test_a_put_whose_answer_was_lost_is_recognised_as_ours() -> None:
    machine = begun()
    steps(machine, Granted(5, 30.0), Away("it broke off"))
    assert machine.wake(due(machine)) == (PutInstance(INSTANCE, 5, after=0),)
    mine = WasRefused(Holder(INSTANCE, modified=8, lease=5, left_s=29.0, ttl_s=30.0))
    assert steps(machine, mine, at=1.0) == (PutInstance(INSTANCE, 5, after=8),)


def test_a_stage_is_announced_at_once_and_its_revision_told() -> None:
    machine = registered()
    assert steps(machine, AskedFor(Stage.DRAINING)) == (PutInstance(DRAINING, 5, after=7),)
    assert steps(machine, WasPut(9)) == (TellPublished(DRAINING, 9),)
    assert steps(machine, AskedFor(Stage.DRAINING)) == (TellPublished(DRAINING, 9),)


def test_a_stage_asked_for_during_a_renewal_follows_it() -> None:
    machine = registered()
    machine.wake(due(machine))
    assert steps(machine, AskedFor(Stage.DRAINING), at=9.0) == ()
    assert steps(machine, KeptAlive(), at=10.0) == (PutInstance(DRAINING, 5, after=7),)


def test_the_stage_that_stands_is_told_also_during_a_renewal() -> None:
    machine = registered()
    machine.wake(due(machine))
    assert steps(machine, AskedFor(Stage.READY), at=9.0) == (TellPublished(INSTANCE, 7),)


def test_a_stage_taken_back_while_it_is_put_is_put_back() -> None:
    machine = registered()
    steps(machine, AskedFor(Stage.DRAINING))
    assert steps(machine, AskedFor(Stage.READY)) == ()
    assert steps(machine, WasPut(9)) == (TellPublished(DRAINING, 9), PutInstance(INSTANCE, 5, after=9))


def test_a_stage_taken_back_after_a_put_without_an_answer_is_put_again() -> None:
    machine = registered()
    steps(machine, AskedFor(Stage.DRAINING))
    steps(machine, Away("it broke off"))
    assert steps(machine, AskedFor(Stage.READY), at=1.0) == (PutInstance(INSTANCE, 5, after=7),)


def test_a_key_that_somebody_deleted_is_put_again() -> None:
    machine = registered()
    steps(machine, AskedFor(Stage.DRAINING))
    assert steps(machine, WasRefused(None)) == (PutInstance(DRAINING, 5, after=0),)


def test_leaving_says_so_before_the_lease_is_ended() -> None:
    machine = registered()
    assert steps(machine, AskedToLeave()) == (PutInstance(DRAINING, 5, after=7),)
    assert steps(machine, WasPut(8)) == (TellPublished(DRAINING, 8), Revoke(5))
    assert steps(machine, Revoked()) == (TellLeft(),)
    assert machine.wake_at() is None
    assert steps(machine, AskedFor(Stage.READY)) == ()


def test_leaving_after_a_drain_announces_nothing_more() -> None:
    machine = registered()
    steps(machine, AskedFor(Stage.DRAINING), WasPut(8))
    assert steps(machine, AskedToLeave()) == (Revoke(5),)


def test_leaving_is_said_once_also_where_the_key_is_not_as_supposed() -> None:
    machine = registered()
    steps(machine, AskedToLeave())
    assert steps(machine, held(left_s=20.0)) == (Revoke(5),)


def test_leaving_while_the_store_is_away_waits_for_nothing() -> None:
    machine = registered()
    steps(machine, AskedToLeave())
    assert steps(machine, Away("no route")) == (TellLeft(),)


def test_leaving_while_a_lease_is_asked_for_ends_that_lease() -> None:
    machine = begun()
    assert steps(machine, AskedToLeave()) == ()
    assert steps(machine, Granted(5, 30.0)) == (Revoke(5),)
    assert steps(machine, LeaseLost()) == (TellLeft(),)


def test_leaving_before_anything_was_granted_is_over_at_once() -> None:
    machine = begun()
    steps(machine, Away("no route"))
    assert steps(machine, AskedToLeave()) == (TellLeft(),)


def test_a_restart_under_the_same_id_waits_until_the_lease_of_the_life_before_has_ended() -> None:
    machine = begun()
    steps(machine, Granted(5, 30.0))
    now, effects = Mono(0.0), steps(machine, held(left_s=20.0))
    assert isinstance(effects[0], TellTrouble)
    assert machine.is_waiting_for_id
    while now < 20.0:
        now = due(machine)
        effects = machine.wake(now)
        if effects == (KeepAlive(5),):
            machine.handle(KeptAlive(), now)
            continue
        assert effects == (PutInstance(INSTANCE, 5, after=0),)
        answer = held(left_s=20.0 - now) if now < 20.0 else WasPut(30)
        effects = machine.handle(answer, now)
    assert effects == (TellPublished(INSTANCE, 30), TellTrouble(None))
    assert not machine.is_waiting_for_id


def poll(machine: Registration, left_s: float, until: float) -> tuple[Mono, tuple[Effect, ...]]:
    """Answers every look with a holder that has so much left, until something but the next look follows."""
    now = Mono(0.0)
    while now < until:
        now = due(machine)
        (order,) = machine.wake(now)
        effects = machine.handle(KeptAlive() if isinstance(order, KeepAlive) else held(left_s), now)
        if effects:
            return now, effects
    return now, ()


def test_a_living_holder_is_left_alone_and_named_in_the_error() -> None:
    machine = begun()
    steps(machine, Granted(5, 30.0), held(left_s=20.0))
    now, (told, order) = poll(machine, left_s=25.0, until=100.0)
    assert 30.0 < now < 33.0
    assert order == Revoke(5)
    assert isinstance(told, TellDuplicate)
    assert told.error.other == OTHER
    assert str(told.error).startswith(
        "instance a of service orders: the id is held by 10.0.0.2 port 81, incarnation theirs, and still was after 3"
    )
    assert "give each process an id of its own" in str(told.error)
    assert steps(machine, Revoked(), at=now) == (TellLeft(),)


def test_a_dead_holder_whose_lease_a_store_makes_whole_again_when_it_starts_is_waited_for() -> None:
    machine = begun()
    steps(machine, Granted(5, 30.0), held(left_s=20.0))
    now, ends, starts = Mono(0.0), 20.0, [15.0, 40.0]
    effects: tuple[Effect, ...] = ()
    while TellPublished(INSTANCE, 99) not in effects:
        now = due(machine)
        (order,) = machine.wake(now)
        if starts and now >= starts[0]:
            ends = starts.pop(0) + 30.0
        answer = held(left_s=ends - now) if now < ends else WasPut(99)
        effects = machine.handle(KeptAlive() if isinstance(order, KeepAlive) else answer, now)
        assert not any(isinstance(each, TellDuplicate) for each in effects)
    assert 70.0 <= now < 72.0


def test_a_holder_without_a_lease_never_goes_so_nobody_waits_for_it() -> None:
    machine = begun()
    steps(machine, Granted(5, 30.0))
    told, order = steps(machine, WasRefused(Holder(None, modified=3, lease=0, left_s=0.0, ttl_s=0.0)))
    assert isinstance(told, TellDuplicate)
    assert "something that is no instance" in str(told.error)
    assert order == Revoke(5)


def test_a_holder_whose_lease_does_not_end_in_three_times_its_span_is_not_waited_for() -> None:
    machine = begun()
    steps(machine, Granted(5, 30.0), held(left_s=0.0))
    now = Mono(0.0)
    while now < 200.0:
        now = due(machine)
        (order,) = machine.wake(now)
        # It always had its end at 0, and stands there all the same.
        effects = machine.handle(KeptAlive() if isinstance(order, KeepAlive) else held(left_s=min(0.0, -now)), now)
        if effects:
            break
    assert isinstance(effects[0], TellDuplicate)
    assert 94.0 < now < 97.0


def test_whoever_served_and_lost_its_id_reports_it_once_and_goes_on_trying() -> None:
    machine = registered()
    machine.wake(due(machine))
    steps(machine, LeaseLost(), at=10.0)
    now = due(machine)
    machine.wake(now)
    machine.handle(Granted(6, 30.0), now)
    assert isinstance(machine.handle(held(left_s=20.0), now)[0], TellTrouble)
    now, (told,) = poll(machine, left_s=25.0, until=100.0)
    assert isinstance(told, TellDuplicate)
    later, effects = poll(machine, left_s=25.0, until=now + 60.0)
    assert (effects, later >= now + 60.0) == ((), True)
    now = due(machine)
    while machine.wake(now) == (KeepAlive(6),):
        machine.handle(KeptAlive(), now)
        now = due(machine)
    assert TellPublished(INSTANCE, 99) in machine.handle(WasPut(99), now)


def test_a_clock_that_jumps_ahead_costs_one_renewal() -> None:
    machine = registered()
    assert machine.wake(Mono(1e9)) == (KeepAlive(5),)
    assert machine.wake(Mono(1e9)) == ()


def test_an_answer_nobody_asked_for_is_a_mistake_of_ours() -> None:
    machine = registered()
    with pytest.raises(AssertionError, match="follows an operation"):
        machine.handle(KeptAlive(), Mono(0.0))


def test_ids_are_fresh_short_and_made_of_what_people_know() -> None:
    rng = Random(1)
    made = {new_id("orders", rng) for _ in range(1000)}
    assert len(made) == 1000
    assert all(each.startswith("orders-") and len(each) == 17 for each in made)
    assert len(new_id("é" * 400, rng).encode()) <= 255
    assert len(new_incarnation(rng)) == 16


def test_a_policy_that_renews_too_seldom_is_refused() -> None:
    with pytest.raises(BadSettings, match="one lost renewal would end it"):
        RegistrarPolicy(ttl_s=10.0, renew_every_s=6.0)
    with pytest.raises(BadSettings) as caught:
        RegistrarPolicy(ttl_s=0.0, pause_first_s=0.0, leave_max_s=-1.0)
    assert len(caught.value.problems) == 3


def test_the_error_of_a_duplicate_keeps_its_facts() -> None:
    error = DuplicateInstance(INSTANCE, OTHER, 31.0)
    assert (error.instance, error.other, error.held_s) == (INSTANCE, OTHER, 31.0)


# ------------------------------------------------------------------------------------------------- what others do


def test_a_drain_ordered_by_somebody_else_is_taken_and_lasts_over_a_lost_lease() -> None:
    machine = registered()
    assert machine.handle(SetByOthers(DRAINING, 8), Mono(1)) == (TellOrdered(8),)
    assert machine.published == DRAINING
    machine.handle(KeyGone(10), Mono(2))
    machine.handle(LeaseLost(), Mono(2))
    machine.wake(Mono(10))
    (put,) = machine.handle(Granted(9, 30.0), Mono(10))
    assert put == PutInstance(DRAINING, 9, 0)


def test_an_echo_of_ones_own_put_or_of_another_incarnation_is_no_order() -> None:
    machine = registered()
    assert machine.handle(SetByOthers(DRAINING, 7), Mono(1)) == ()
    assert machine.handle(SetByOthers(replace(DRAINING, incarnation="another"), 6), Mono(1)) == ()
    assert machine.instance.stage is Stage.READY
    assert machine.handle(AskedFor(Stage.DRAINING), Mono(2)) == (PutInstance(DRAINING, 5, 7),)
    assert machine.handle(SetByOthers(DRAINING, 8), Mono(2)) == ()


def test_what_else_was_changed_is_put_right() -> None:
    machine = registered()
    changed = SetByOthers(replace(machine.instance, weight=9.0), 8)
    assert machine.handle(changed, Mono(1)) == (PutInstance(machine.instance, 5, 8),)


def test_an_entry_that_vanished_is_looked_after_at_once() -> None:
    machine = registered()
    assert machine.handle(KeyGone(6), Mono(1)) == ()  # of before the put
    assert machine.published is not None
    assert machine.handle(KeyGone(8), Mono(1)) == (KeepAlive(5),)
    assert machine.handle(KeptAlive(), Mono(1)) == (PutInstance(machine.instance, 5, 0),)
