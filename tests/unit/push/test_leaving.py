"""A leave, stepped by hand: who is told when, who is let go, and what the proof says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import BadSettings, Mono
from budao.push import Leaving, LeavingPolicy, Target
from budao.push.leaving import (
    Asked,
    Came,
    CutAll,
    Effect,
    Finish,
    LeavingStage,
    LetGo,
    SayNotReady,
    Targets,
    TellToMove,
    TellToReturn,
    Went,
)

B, C = Target("b", "http://b:1"), Target("c", "http://c:1")
T0 = 100.0


def _leaving(count: int, *targets: Target, **policy: float) -> Leaving:
    machine = Leaving(LeavingPolicy(**{"lag_s": 0.0, **policy}))  # type: ignore[arg-type]
    for key in range(count):
        assert machine.handle(Came(key), Mono(0.0)) == ()
    machine.handle(Targets(targets), Mono(0.0))
    return machine


def _keys(effects: tuple[Effect, ...]) -> list[object]:
    return [each.key for each in effects if isinstance(each, TellToMove)]


def test_it_says_that_it_is_not_ready_before_anybody_is_told_to_move() -> None:
    machine = _leaving(1, B)
    effects = machine.handle(Asked(), Mono(T0))
    assert effects == (SayNotReady(), TellToMove(0, B, 5.0))
    assert machine.stage is LeavingStage.MOVING


def test_a_cohort_is_told_at_its_pace_and_the_next_one_waits_for_it() -> None:
    machine = _leaving(10, B, cohort_share=0.3, moves_per_s=10.0, grace_s=100.0)
    told = _keys(machine.handle(Asked(), Mono(T0)))
    assert told == [0]
    assert machine.wake_at() == pytest.approx(T0 + 0.1)
    assert _keys(machine.wake(Mono(T0 + 0.25))) == [1, 2]
    assert machine.wake(Mono(T0 + 1.0)) == ()
    assert machine.handle(Went(0), Mono(T0 + 1.0)) == ()
    assert machine.handle(Went(2), Mono(T0 + 1.1)) == ()
    assert _keys(machine.handle(Went(1), Mono(T0 + 1.2))) == [3], "the cohort is gone, and the next one begins"


def test_who_does_not_move_in_time_is_let_go_and_the_others_go_on() -> None:
    machine = _leaving(2, B, cohort_share=0.5, within_s=2.0)
    machine.handle(Asked(), Mono(T0))
    assert machine.wake_at() == T0 + 2.0
    assert machine.wake(Mono(T0 + 2.0)) == (LetGo(0), TellToMove(1, B, 2.0))
    machine.handle(Went(0), Mono(T0 + 2.1))
    (cut, finish) = machine.handle(Went(1), Mono(T0 + 3.0))
    assert cut == CutAll()
    assert isinstance(finish, Finish)
    assert (finish.proof.moved, finish.proof.late, finish.proof.cut) == (1, 1, 0)
    assert not finish.proof.is_clean


def test_a_leave_in_which_everybody_moves_is_clean_and_says_so() -> None:
    machine = _leaving(3, B, C, cohort_share=1.0, moves_per_s=1e6)
    effects = machine.handle(Asked(), Mono(T0)) + machine.wake(Mono(T0 + 0.001))
    assert _keys(effects) == [0, 1, 2]
    machine.handle(Went(0), Mono(T0 + 0.1))
    machine.handle(Went(1), Mono(T0 + 0.2))
    *_, finish = machine.handle(Went(2), Mono(T0 + 0.5))
    assert isinstance(finish, Finish)
    assert finish.proof.is_clean
    assert str(finish.proof) == (
        "stage=gone here=3 came=0 told=3 moved=3 late=0 returned=0 left=0 cut=0 cohorts=1"
        " targets=b:2,c:1 took_s=0.500 grace_s=30 hurried=0"
    )


def test_clients_are_shared_out_by_weight() -> None:
    machine = _leaving(40, B, Target("c", "http://c:1", 3.0), cohort_share=1.0, moves_per_s=1e6)
    machine.handle(Asked(), Mono(T0))
    machine.wake(Mono(T0 + 0.01))
    assert machine.proof(Mono(T0 + 0.01)).targets == (("b", 10), ("c", 30))


def test_who_comes_after_the_order_is_moved_as_well_and_awaited_while_they_may_come() -> None:
    machine = _leaving(0, B, lag_s=2.0)
    assert machine.handle(Asked(), Mono(T0)) == (SayNotReady(),)
    assert machine.wake_at() == T0 + 2.0
    assert machine.handle(Came("late"), Mono(T0 + 1.0)) == (TellToMove("late", B, 5.0),)
    assert machine.handle(Went("late"), Mono(T0 + 1.5)) == ()
    cut, finish = machine.wake(Mono(T0 + 2.0))
    assert isinstance(finish, Finish)
    assert (finish.proof.here, finish.proof.came, finish.proof.moved) == (0, 1, 1)
    assert cut == CutAll()


def test_without_another_gateway_each_gets_a_slot_of_its_own() -> None:
    machine = _leaving(3, cohort_share=1.0, moves_per_s=100.0, back_s=1.0)
    effects = machine.handle(Asked(), Mono(T0)) + machine.wake(Mono(T0 + 0.1))
    slots = [(each.key, round(each.after_s, 6)) for each in effects if isinstance(each, TellToReturn)]
    assert slots == [(0, 1.01), (1, 1.02), (2, 1.03)]


def test_whoever_is_left_when_the_grace_is_over_is_cut() -> None:
    machine = _leaving(2, B, cohort_share=0.5, grace_s=10.0, within_s=60.0, lag_s=0.0)
    machine.handle(Asked(), Mono(T0))
    effects = machine.wake(Mono(T0 + 8.5))
    assert CutAll() in effects
    assert machine.stage is LeavingStage.CLOSING
    (finish,) = machine.wake(Mono(T0 + 9.5))
    assert isinstance(finish, Finish)
    assert finish.proof.cut == 2
    assert finish.proof.took_s == pytest.approx(9.5)


def test_to_be_asked_again_means_hurry() -> None:
    machine = _leaving(5, B)
    machine.handle(Asked(), Mono(T0))
    assert machine.handle(Asked(), Mono(T0 + 1.0)) == (CutAll(),)
    (finish,) = machine.handle(Asked(), Mono(T0 + 1.1))
    assert isinstance(finish, Finish)
    assert (finish.proof.hurried, finish.proof.cut) == (2, 5)
    assert machine.handle(Asked(), Mono(T0 + 1.2)) == ()


def test_settings_that_cannot_work_together_are_refused() -> None:
    with pytest.raises(BadSettings, match=r"leaving\.lag_s"):
        LeavingPolicy(grace_s=10.0, lag_s=9.0)
    assert "cut 25.5 s after the order" in LeavingPolicy().explain()


@given(
    st.integers(0, 60),
    st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(0, 70), st.booleans()), max_size=60),
    st.integers(0, 2),
    st.floats(0.01, 1.0),
)
def test_whatever_clients_do_everybody_is_counted_once_and_the_grace_is_kept(
    count: int, happens: list[tuple[float, int, bool]], targets: int, share: float
) -> None:
    machine = _leaving(count, *(B, C)[:targets], cohort_share=share, grace_s=20.0, within_s=1.0, moves_per_s=50.0)
    here, told, cut, finished = set(range(count)), set(), False, None
    now, new = T0, 1000

    def see(effects: tuple[Effect, ...]) -> None:
        nonlocal cut, finished
        for each in effects:
            assert finished is None, "nothing follows the end"
            if isinstance(each, TellToMove | TellToReturn):
                assert each.key in here
                assert each.key not in told
                told.add(each.key)
                assert not cut
            elif isinstance(each, LetGo):
                assert each.key in here & told
            elif isinstance(each, CutAll):
                cut = True
            elif isinstance(each, Finish):
                finished = each.proof

    see(machine.handle(Asked(), Mono(now)))
    for pause_s, key, comes in happens:
        until = now + pause_s
        while (due := machine.wake_at()) is not None and due <= until:
            see(machine.wake(due))
            assert machine.wake_at() != due or finished, "a wake does what was due"
        now = until
        if comes and finished is None:
            new += 1
            here.add(new)
            see(machine.handle(Came(new), Mono(now)))
        elif key in here:
            here.discard(key)
            see(machine.handle(Went(key), Mono(now)))
    while (due := machine.wake_at()) is not None:
        see(machine.wake(due))
    assert finished is not None
    assert finished.took_s <= 19.0 + 3.0 + 1e-6
    assert cut
    assert finished.told == len(told)
    assert finished.moved + finished.late + finished.returned <= finished.told
    assert finished.here + finished.came >= finished.told
