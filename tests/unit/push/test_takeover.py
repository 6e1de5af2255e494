"""The giving side of a take-over, stepped by hand: at any time the connections have exactly one owner."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import BadSettings, Mono
from budao.push import TakeoverPolicy
from budao.push.takeover import (
    STEPS,
    Abandon,
    Batched,
    BatchHeld,
    Effect,
    Fact,
    Forget,
    Freeze,
    Giving,
    NotHeard,
    Resume,
    SayYours,
    SendAll,
    SendAway,
    SendBatch,
    Settled,
    Stage,
    Step,
    SuccessorLost,
    SuccessorReady,
    Took,
)

POLICY = TakeoverPolicy(window=2)


def _sending(batches: int = 3) -> Giving:
    machine = Giving(POLICY, Mono(0.0))
    machine.handle(SuccessorReady(), Mono(1.0))
    machine.handle(Settled(9, 0), Mono(1.1))
    machine.handle(Batched(batches, 9), Mono(1.2))
    return machine


def test_a_take_over_goes_step_by_step() -> None:
    machine = Giving(POLICY, Mono(0.0))
    assert machine.handle(SuccessorReady(), Mono(1.0)) == (Freeze(),)
    assert machine.handle(Settled(8, 1), Mono(1.1)) == ()
    assert machine.handle(Settled(9, 0), Mono(1.2)) == (SendAll(),)
    assert machine.handle(Batched(3, 9), Mono(1.3)) == (SendBatch(0), SendBatch(1))
    assert machine.handle(BatchHeld(0), Mono(1.4)) == (SendBatch(2),)
    assert machine.handle(BatchHeld(1), Mono(1.5)) == ()
    assert machine.handle(BatchHeld(2), Mono(1.6)) == (SayYours(),)
    assert machine.handle(Took(9), Mono(1.7)) == (Forget(), SendAway(POLICY.rest_s))
    proof = machine.proof(Mono(9.0))
    assert str(proof) == "stage=done given=9 failed=0 stayed=0 frozen_s=0.700 took_s=1.700"
    assert machine.wake_at() is None


def test_whoever_is_not_quiet_in_time_is_not_waited_for() -> None:
    machine = Giving(POLICY, Mono(0.0))
    machine.handle(SuccessorReady(), Mono(1.0))
    assert machine.wake_at() == 1.0 + POLICY.settle_s
    assert machine.wake(Mono(1.0 + POLICY.settle_s)) == (SendAll(),)


def test_nothing_to_give_is_given_at_once() -> None:
    machine = Giving(POLICY, Mono(0.0))
    machine.handle(SuccessorReady(), Mono(1.0))
    machine.handle(Settled(0, 0), Mono(1.0))
    assert machine.handle(Batched(0, 0), Mono(1.0)) == (SayYours(),)


@pytest.mark.parametrize(
    ("bound_s", "stage"),
    [(POLICY.ready_s, "ready within"), (POLICY.send_s, "receiving within"), (POLICY.take_s, "serving within")],
)
def test_each_wait_has_a_bound(bound_s: float, stage: str) -> None:
    machine = Giving(POLICY, Mono(0.0))
    if "ready" not in stage:
        machine = _sending(1)
    if "serving" in stage:
        machine.handle(BatchHeld(0), Mono(1.2))
    due = machine.wake_at()
    assert due is not None
    assert machine.wake(Mono(due - 0.01)) == ()
    (effect,) = machine.wake(due)
    assert isinstance(effect, Abandon if "serving" in stage else Resume)
    assert stage in effect.problem


def test_a_successor_that_is_lost_before_yours_changes_nothing() -> None:
    machine = _sending()
    assert machine.handle(SuccessorLost("it died"), Mono(2.0)) == (Resume("it died"),)
    assert machine.stage is Stage.KEPT
    assert machine.proof(Mono(3.0)).given == 0


def test_a_successor_that_cannot_have_heard_yours_changes_nothing() -> None:
    machine = _sending(1)
    machine.handle(BatchHeld(0), Mono(1.3))
    assert machine.handle(NotHeard("broken pipe"), Mono(1.3)) == (Resume("broken pipe"),)


def test_a_successor_that_is_lost_after_yours_may_have_touched_everything() -> None:
    machine = _sending(1)
    machine.handle(BatchHeld(0), Mono(1.3))
    assert machine.handle(SuccessorLost("it died"), Mono(1.4)) == (Abandon("it died"),)
    assert machine.stage is Stage.LOST


@pytest.mark.parametrize("fact", [BatchHeld(1), BatchHeld(2), Took(9), SuccessorReady()])
def test_a_successor_that_says_what_does_not_fit_gets_nothing(fact: Fact) -> None:
    machine = _sending()
    (effect,) = machine.handle(fact, Mono(2.0))
    assert isinstance(effect, Resume)
    assert "does not fit" in effect.problem


FACTS = st.sampled_from(
    [
        SuccessorReady(),
        Settled(3, 0),
        Settled(2, 1),
        Batched(2, 3),
        BatchHeld(0),
        BatchHeld(1),
        Took(3),
        SuccessorLost("gone"),
        NotHeard("gone"),
    ]
)


@given(st.lists(FACTS | st.floats(0.0, 20.0), max_size=30))
def test_in_any_history_it_ends_one_way_and_yours_is_said_once_and_after_everything_was_held(
    history: list[Fact | float],
) -> None:
    machine = Giving(POLICY, Mono(0.0))
    said: list[Effect] = []
    now = 0.0
    for each in history:
        if isinstance(each, float):
            now += each
            said += machine.wake(Mono(now))
        else:
            said += machine.handle(each, Mono(now))
    kinds = [type(each) for each in said]
    assert kinds.count(SayYours) <= 1
    assert sum(kinds.count(kind) for kind in (Forget, Resume, Abandon)) <= 1
    if Forget in kinds or Abandon in kinds:
        assert SayYours in kinds
    if SayYours in kinds:
        assert [each.number for each in said if isinstance(each, SendBatch)] == [0, 1]
    assert machine.is_over == (machine.wake_at() is None)


def test_every_move_of_the_table_leads_on() -> None:
    assert {stage for stage, _ in STEPS} == {Stage.OFFERED, Stage.FREEZING, Stage.SENDING, Stage.GIVEN}
    assert {step for _, step in STEPS} == set(Step)


def test_settings_are_checked() -> None:
    with pytest.raises(BadSettings, match=r"takeover\.batch_count"):
        TakeoverPolicy(batch_count=254)
