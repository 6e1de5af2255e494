"""What is done about a connection that is lost, blocked, or both: each line of the table, in its time, and steadily."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import BadSettings, Mono
from budao.push import (
    RULES,
    BlockPolicy,
    Cut,
    Joint,
    JointEffect,
    Park,
    PauseCatchUp,
    Release,
    Treatment,
    is_blocked,
)

TICK_S = 0.1


def first_order(*, lost: bool, blocked: bool, retrying: bool) -> tuple[float, JointEffect[str]] | None:
    """What is ordered about a connection that stays as it is, and how long after it began."""
    joint: Joint[str] = Joint()
    for tick in range(20):
        now = Mono(10.0 + tick * TICK_S)
        told = joint.tell("a", now, lost=lost, blocked=blocked, retrying=retrying) if not tick else joint.wake(now)
        if told:
            return tick * TICK_S, told[0]
    return None


def test_each_combination_is_treated_as_the_design_says_and_in_time() -> None:
    for lost, blocked, retrying in product((False, True), repeat=3):
        found = first_order(lost=lost, blocked=blocked, retrying=retrying)
        if lost and blocked:
            assert found is not None
            assert found[0] <= 0.2
            assert found[1] == Cut("a")
        elif lost or (blocked and not retrying):
            assert found is not None
            assert 0.2 <= found[0] <= 0.5
            assert found[1] == Park("a")
        elif blocked:
            assert found is not None
            assert found[0] <= 0.2
            assert found[1] == PauseCatchUp("a")
        else:
            assert found is None


def test_what_passes_at_once_is_left_alone() -> None:
    joint: Joint[str] = Joint()
    assert joint.tell("a", Mono(1.0), blocked=True) == ()
    assert joint.tell("a", Mono(1.1), blocked=False) == ()
    assert joint.wake(Mono(5.0)) == ()
    assert len(joint) == 0
    assert joint.wake_at() is None


def test_a_pause_lasts_its_second_and_a_release_comes_once() -> None:
    joint: Joint[str] = Joint()
    joint.tell("a", Mono(0.0), blocked=True, retrying=True)
    assert joint.wake(Mono(0.1)) == (PauseCatchUp("a"),)
    assert joint.tell("a", Mono(0.2), blocked=False, retrying=False) == ()
    assert joint.wake(Mono(1.0)) == ()
    assert joint.wake(Mono(1.1)) == (Release("a"),)
    assert joint.wake(Mono(9.0)) == ()
    assert len(joint) == 0


def test_one_that_flaps_is_treated_steadily() -> None:
    joint: Joint[str] = Joint()
    told: list[JointEffect[str]] = []
    for tick in range(100):
        now = Mono(tick * 0.1)
        told += joint.tell("a", now, blocked=True, retrying=tick % 2 == 0)
        told += joint.wake(now)
    assert told == [PauseCatchUp("a")]
    assert joint.treatment_of("a") is Treatment.BACK_OFF


def test_a_parked_one_that_is_lost_as_well_is_cut_and_forgotten() -> None:
    joint: Joint[str] = Joint()
    joint.tell("a", Mono(0.0), blocked=True, retrying=False)
    assert joint.wake(Mono(0.3)) == (Park("a"),)
    assert joint.tell("a", Mono(5.0), lost=True) == ()
    assert joint.wake(Mono(5.1)) == (Cut("a"),)
    assert len(joint) == 0
    assert joint.treatment_of("a") is Treatment.NONE


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.integers(1, 8)), max_size=80))
def test_treatments_only_grow_until_a_release_and_a_lasting_ill_is_never_left_alone(
    history: list[tuple[bool, bool, bool, int]],
) -> None:
    joint: Joint[str] = Joint()
    strength, now, cut_due = 0, 0.0, None
    for lost, blocked, retrying, ticks in history:
        cut_due = (now if cut_due is None else cut_due) if lost and blocked else None
        for tick in range(ticks):
            told = () if tick else joint.tell("a", Mono(now), lost=lost, blocked=blocked, retrying=retrying)
            for order in told + joint.wake(Mono(now)):
                if isinstance(order, Release):
                    assert strength in {1, 2}
                    assert not lost
                    assert not blocked
                    strength = 0
                else:
                    new = 3 if isinstance(order, Cut) else 2 if isinstance(order, Park) else 1
                    assert new > strength
                    strength = new
            if strength == 3:
                return
            assert cut_due is None or now - cut_due < 0.2 - 1e-6
            now += TICK_S


def test_blocked_is_from_nine_tenths_until_seven() -> None:
    policy = BlockPolicy()
    assert not is_blocked(False, 89, 100, False, policy)
    assert is_blocked(False, 90, 100, False, policy)
    assert is_blocked(True, 70, 100, False, policy)
    assert not is_blocked(True, 69, 100, False, policy)
    assert is_blocked(False, 0, 0, True, policy)
    assert not is_blocked(False, 5, 0, False, policy)
    with pytest.raises(BadSettings, match="free_share"):
        BlockPolicy(free_share=0.95)
    assert [rule.treatment.value for rule in RULES] == ["cut", "park", "park", "back off"]
