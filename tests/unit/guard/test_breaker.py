from __future__ import annotations

import itertools
import re
from dataclasses import replace
from math import inf
from random import Random

import pytest

from budao.guard import MOVES, Breaker, Move, Moved, Permit, State
from budao.model import BadSettings, BreakerPolicy, Dropped, Mono, Outcome, Refusal, Why

POLICY = BreakerPolicy(
    failed_share=0.5, slow_share=0.5, slow_s=1.0, calls_min=4, window_s=10.0, buckets=10,
    rest_s=60.0, rest_growth=2.0, rest_max_s=200.0, probes_max=3, probes_good=3, ramp_s=5.0,
)  # fmt: skip
OK, FAILED, SLOW = Outcome(0.1), Outcome(0.1, failed=True), Outcome(1.5)


class Die(Random):
    def __init__(self, falls: float = 0.0) -> None:
        super().__init__()
        self.falls = falls

    def random(self) -> float:
        return self.falls


def ask(breaker: Breaker, now: float, falls: float = 0.0) -> Permit:
    answer = breaker.admit(Mono(now), Die(falls))
    assert isinstance(answer, Permit)
    return answer


def refusal(breaker: Breaker, now: float, falls: float = 0.0) -> Refusal:
    answer = breaker.admit(Mono(now), Die(falls))
    assert isinstance(answer, Refusal)
    return answer


def call(breaker: Breaker, outcome: Outcome, now: float) -> Moved | None:
    return breaker.settle(ask(breaker, now), outcome, Mono(now))


def opened(policy: BreakerPolicy = POLICY, now: float = 0.0) -> Breaker:
    breaker = Breaker(policy, Mono(now))
    while breaker.state is State.CLOSED:
        call(breaker, FAILED, now)
    return breaker


def ramping(policy: BreakerPolicy = POLICY) -> Breaker:
    """Opened at 0, back at 60."""
    breaker = opened(policy)
    for _ in range(policy.probes_good):
        call(breaker, OK, 60.0)
    return breaker


# -- the table


def test_every_state_but_closed_can_be_reset_and_every_state_can_be_left() -> None:
    assert {state for state, move in MOVES if move is Move.RESET} == set(State) - {State.CLOSED}
    assert {state for state, _ in MOVES} == set(State)
    assert set(MOVES.values()) == set(State)
    assert {move for _, move in MOVES} == set(Move)


def test_only_a_rest_leads_from_open_to_probing_and_only_probes_lead_back() -> None:
    ways_out = {move for state, move in MOVES if state is State.OPEN}
    assert ways_out == {Move.REST, Move.RESET}
    closes = {(state, move) for (state, move), after in MOVES.items() if after is State.CLOSED}
    assert closes == {(State.RAMPING, Move.RAMP)} | {(state, Move.RESET) for state in set(State) - {State.CLOSED}}


@pytest.mark.parametrize(
    ("state", "move"), sorted(set(itertools.product(State, Move)) - set(MOVES), key=str), ids=lambda each: each.name
)
def test_a_move_that_is_not_in_the_table_is_refused_and_changes_nothing(state: State, move: Move) -> None:
    breaker = Breaker(POLICY, Mono(0.0))
    breaker.state = state
    with pytest.raises(KeyError):
        breaker._move(move, "by mistake", Mono(1.0))
    assert (breaker.state, breaker.generation, breaker.since) == (state, 0, 0.0)


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        MOVES[State.OPEN, Move.TRIP] = State.CLOSED  # type: ignore[index]


# -- opening


def test_it_starts_closed_and_lets_everything_through() -> None:
    breaker = Breaker(POLICY, Mono(7.0))
    assert (breaker.state, breaker.since, breaker.generation, breaker.trips) == (State.CLOSED, 7.0, 0, 0)
    assert ask(breaker, 8.0, falls=0.999) == Permit(0, Mono(8.0))


@pytest.mark.parametrize(
    ("outcomes", "reason"),
    [
        ([OK, OK, FAILED, FAILED], "2 failed and 0 slow of 4 calls in 10 s"),
        ([OK, OK, SLOW, SLOW], "0 failed and 2 slow of 4 calls in 10 s"),
        ([OK, OK, FAILED, SLOW], "1 failed and 1 slow of 4 calls in 10 s"),
        ([FAILED] * 4, "4 failed and 0 slow of 4 calls in 10 s"),
    ],
)
def test_it_opens_at_the_call_that_brings_a_share_to_its_limit(outcomes: list[Outcome], reason: str) -> None:
    breaker = Breaker(POLICY, Mono(0.0))
    for outcome in outcomes[:-1]:
        assert call(breaker, outcome, 1.0) is None
    moved = call(breaker, outcomes[-1], 2.0)
    assert moved == Moved(State.CLOSED, State.OPEN, Move.TRIP, reason, Mono(2.0))
    assert (breaker.state, breaker.since, breaker.generation) == (State.OPEN, 2.0, 1)
    assert breaker.counts_at(Mono(2.0)) == (0, 0, 0)


def test_it_stays_closed_below_the_shares_and_below_the_least_number_of_calls() -> None:
    breaker = Breaker(POLICY, Mono(0.0))
    for outcome in (FAILED, FAILED, FAILED):
        call(breaker, outcome, 1.0)
    assert breaker.state is State.CLOSED, "three calls say nothing when four are asked for"
    breaker = Breaker(POLICY, Mono(0.0))
    for outcome in (OK, OK, OK, FAILED, OK, SLOW):
        call(breaker, outcome, 1.0)
    assert breaker.state is State.CLOSED
    assert breaker.counts_at(Mono(1.0)) == (4, 1, 1)


def test_each_share_has_its_own_limit_and_both_together_have_the_larger() -> None:
    policy = replace(POLICY, failed_share=0.2, slow_share=0.8, calls_min=10)
    breaker = Breaker(policy, Mono(0.0))
    breaker.learn_ok(3, Mono(0.0))
    for _ in range(6):
        assert call(breaker, SLOW, 0.0) is None
    assert call(breaker, FAILED, 0.0) is None, "0.1 failed and 0.7 together"
    breaker = Breaker(policy, Mono(0.0))
    breaker.learn_ok(2, Mono(0.0))
    for _ in range(7):
        call(breaker, SLOW, 0.0)
    moved = call(breaker, FAILED, 0.0)
    assert moved is not None, "0.1 failed alone is too little, but 0.8 together are not"
    breaker = Breaker(policy, Mono(0.0))
    breaker.learn_ok(8, Mono(0.0))
    call(breaker, FAILED, 0.0)
    assert call(breaker, FAILED, 0.0) is not None, "0.2 failed alone"


@pytest.mark.parametrize(("share", "calls", "needed"), [(0.07, 100, 7), (0.29, 100, 29), (0.1, 30, 3), (1.0, 4, 4)])
def test_a_share_is_reached_exactly_however_floats_round(share: float, calls: int, needed: int) -> None:
    breaker = Breaker(replace(POLICY, failed_share=share, slow_share=1.0, calls_min=calls), Mono(0.0))
    breaker.learn_ok(calls - needed, Mono(0.0))
    for _ in range(needed - 1):
        assert call(breaker, FAILED, 0.0) is None
    assert call(breaker, FAILED, 0.0) is not None


def test_a_call_that_took_just_the_limit_is_not_slow_and_a_slow_failure_counts_once() -> None:
    breaker = Breaker(POLICY, Mono(0.0))
    call(breaker, Outcome(1.0), 0.0)
    call(breaker, Outcome(1.0001), 0.0)
    call(breaker, Outcome(9.0, failed=True), 0.0)
    assert breaker.counts_at(Mono(0.0)) == (1, 1, 1)


def test_calls_of_long_ago_do_not_count() -> None:
    breaker = Breaker(POLICY, Mono(0.0))
    for _ in range(3):
        call(breaker, FAILED, 0.5)
    assert breaker.counts_at(Mono(9.9)) == (0, 3, 0)
    assert breaker.counts_at(Mono(10.0)) == (0, 0, 0)
    assert call(breaker, FAILED, 10.0) is None
    assert breaker.counts_at(Mono(9.9)) == (0, 1, 0), "reading never changes what is read"


def test_calls_in_flight_that_are_too_old_count_as_slow() -> None:
    breaker = Breaker(POLICY, Mono(0.0))
    breaker.learn_ok(2, Mono(0.0))
    assert breaker.look(1, Mono(1.0)) is None
    moved = breaker.look(2, Mono(2.0))
    assert moved is not None
    assert moved.reason == "0 failed and 2 slow (2 of them still in flight) of 4 calls in 10 s"
    assert breaker.look(9, Mono(3.0)) is None, "an open breaker has nothing left to judge"


def test_a_hang_opens_it_although_no_call_ever_ended() -> None:
    breaker = Breaker(POLICY, Mono(0.0))
    assert breaker.look(3, Mono(5.0)) is None
    assert breaker.look(4, Mono(5.0)) is not None


def test_a_call_that_went_well_and_a_look_that_finds_nothing_judge_nothing() -> None:
    breaker = Breaker(POLICY, Mono(0.0))
    for outcome in (FAILED, FAILED, FAILED, OK):
        assert call(breaker, outcome, 0.0) is None
    assert breaker.look(0, Mono(1.0)) is None
    assert breaker.state is State.CLOSED, "three of four failed, but the last news is good"


# -- resting and probing


def test_an_open_breaker_says_when_to_come_back() -> None:
    breaker = opened(now=10.0)
    assert breaker.rests_until == 70.0
    assert refusal(breaker, 10.0) == Refusal(Why.BREAKER_OPEN, 60.0)
    assert refusal(breaker, 69.5) == Refusal(Why.BREAKER_OPEN, 0.5)
    assert breaker.state_at(Mono(69.9)) is State.OPEN
    assert breaker.state_at(Mono(70.0)) is State.PROBING
    assert breaker.state is State.OPEN, "looking moved nothing"


def test_after_the_rest_the_first_to_ask_is_a_probe() -> None:
    breaker = opened()
    permit = ask(breaker, 60.0)
    assert permit == Permit(2, Mono(60.0), is_probe=True)
    assert (breaker.state, breaker.generation, breaker.probes_in_flight) == (State.PROBING, 2, 1)


def test_the_rest_ends_with_a_sentence() -> None:
    moved = opened().wake(Mono(60.0))
    assert moved == Moved(State.OPEN, State.PROBING, Move.REST, "rested for 60 s", Mono(60.0))


def test_no_more_probes_than_allowed_are_out_at_once() -> None:
    breaker = opened()
    permits = [ask(breaker, 60.0) for _ in range(3)]
    assert refusal(breaker, 60.0) == Refusal(Why.PROBES_TAKEN, 1.0)
    assert breaker.settle(permits[0], OK, Mono(60.1)) is None
    assert ask(breaker, 60.1).is_probe


def test_enough_good_probes_begin_a_ramp() -> None:
    breaker = opened()
    first, second, third = (ask(breaker, 60.0) for _ in range(3))
    assert breaker.settle(first, OK, Mono(60.1)) is None
    assert breaker.settle(second, OK, Mono(60.2)) is None
    moved = breaker.settle(third, OK, Mono(60.3))
    assert moved == Moved(State.PROBING, State.RAMPING, Move.PASS, "3 probes in a row were good", Mono(60.3))
    assert (breaker.generation, breaker.probes_in_flight) == (3, 0)


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [(FAILED, "a probe failed"), (SLOW, "a probe took 1.5 s"), (Outcome(9, True), "a probe failed")],
)
def test_one_bad_probe_opens_it_again(outcome: Outcome, reason: str) -> None:
    breaker = opened()
    good, bad, late = (ask(breaker, 60.0) for _ in range(3))
    breaker.settle(good, OK, Mono(60.1))
    moved = breaker.settle(bad, outcome, Mono(60.2))
    assert moved == Moved(State.PROBING, State.OPEN, Move.FAIL, reason, Mono(60.2))
    assert breaker.probes_in_flight == 0
    assert breaker.settle(late, OK, Mono(60.3)) is None
    assert breaker.state is State.OPEN


def test_good_probes_are_counted_anew_each_round() -> None:
    breaker = opened()
    call(breaker, OK, 60.0)
    call(breaker, OK, 60.0)
    call(breaker, FAILED, 60.0)
    call(breaker, OK, 180.0)
    assert breaker.state is State.PROBING


@pytest.mark.parametrize("why", Dropped)
def test_a_dropped_probe_gives_its_place_back_and_teaches_nothing(why: Dropped) -> None:
    breaker = opened(replace(POLICY, probes_max=1))
    for _ in range(100):
        assert breaker.settle(ask(breaker, 60.0), why, Mono(60.0)) is None
    assert (breaker.state, breaker.probes_in_flight) == (State.PROBING, 0)


def test_lost_probes_open_it_again_instead_of_wedging_it() -> None:
    breaker = opened()
    for _ in range(3):
        ask(breaker, 60.0)
    assert breaker.look(0, Mono(61.0)) is None
    moved = breaker.look(0, Mono(61.1))
    assert moved is not None
    assert moved.reason == "a probe has been in flight for more than 1 s"
    assert breaker.state is State.OPEN
    assert breaker.probes_in_flight == 0


def test_where_nothing_is_slow_a_probe_may_take_one_rest() -> None:
    breaker = opened(replace(POLICY, slow_s=inf))
    ask(breaker, 60.0)
    assert breaker.look(0, Mono(120.0)) is None
    assert breaker.look(0, Mono(120.1)) is not None


def test_two_probes_of_one_instant_are_two_probes() -> None:
    breaker = opened()
    first, second = ask(breaker, 60.0), ask(breaker, 60.0)
    breaker.settle(first, Dropped.CANCELLED, Mono(60.0))
    assert breaker.probes_in_flight == 1
    breaker.settle(second, Dropped.CANCELLED, Mono(60.0))
    assert breaker.probes_in_flight == 0


def test_a_probe_of_another_breaker_of_the_same_generation_changes_nothing() -> None:
    breaker = opened()
    ask(breaker, 60.0)
    assert breaker.settle(Permit(2, Mono(7.0), is_probe=True), FAILED, Mono(61.0)) is None
    assert (breaker.state, breaker.probes_in_flight) == (State.PROBING, 1)


# -- the growing rest


def test_the_rest_grows_with_each_failed_probe_up_to_its_limit() -> None:
    breaker = opened()
    rests = []
    for _ in range(4):
        rests.append(breaker.rests_until - breaker.since)
        call(breaker, FAILED, breaker.rests_until)
    assert rests == [60.0, 120.0, 200.0, 200.0]
    assert breaker.trips == 5


def test_a_trip_while_ramping_is_the_same_illness() -> None:
    breaker = ramping()
    for _ in range(4):
        call(breaker, FAILED, 61.0)
    assert (breaker.state, breaker.trips, breaker.rests_until) == (State.OPEN, 2, 61.0 + 120.0)


@pytest.mark.parametrize(("healthy_s", "trips"), [(60.0, 2), (60.5, 1)])
def test_a_healthy_time_longer_than_the_rest_starts_afresh(healthy_s: float, trips: int) -> None:
    breaker = ramping()
    breaker.wake(Mono(65.0))
    assert breaker.state is State.CLOSED
    for _ in range(4):
        call(breaker, FAILED, 65.0 + healthy_s)
    assert breaker.trips == trips
    assert breaker.rests_until - breaker.since == 60.0 * trips


def test_a_thousand_trips_in_a_row_do_not_overflow() -> None:
    breaker = opened(replace(POLICY, rest_growth=100.0, rest_max_s=86_400.0))
    for _ in range(1000):
        call(breaker, FAILED, breaker.rests_until)
    assert breaker.rests_until - breaker.since == 86_400.0


# -- the ramp


@pytest.mark.parametrize(
    ("passed_s", "falls", "is_let_in"),
    [
        (0.0, 0.09, True),
        (0.0, 0.11, False),
        (2.5, 0.49, True),
        (2.5, 0.51, False),
        (4.75, 0.94, True),
        (4.75, 0.96, False),
        (5.0, 0.99, True),
    ],
)
def test_a_ramp_lets_a_growing_share_through(passed_s: float, falls: float, is_let_in: bool) -> None:
    breaker = ramping()
    answer = breaker.admit(Mono(60.0 + passed_s), Die(falls))
    assert isinstance(answer, Permit) is is_let_in
    if is_let_in:
        assert answer == Permit(3, Mono(60.0 + passed_s))
    else:
        assert answer == Refusal(Why.RAMPING, 5.0 - passed_s)


def test_a_ramp_that_is_over_reads_as_closed_before_anybody_asks() -> None:
    breaker = ramping()
    shown = [breaker.state_at(Mono(instant)) for instant in (60.0, 64.9, 65.0)]
    assert shown == [State.RAMPING, State.RAMPING, State.CLOSED]


def test_the_share_let_through_is_the_share_meant() -> None:
    breaker, rng = ramping(), Random(7)
    let_in = sum(isinstance(breaker.admit(Mono(63.0), rng), Permit) for _ in range(10_000))
    assert 5_850 <= let_in <= 6_150


def test_a_ramp_ends_by_time_and_keeps_its_counts_and_its_generation() -> None:
    breaker = ramping()
    permit = ask(breaker, 61.0)
    call(breaker, OK, 61.0)
    moved = breaker.wake(Mono(65.0))
    assert moved == Moved(State.RAMPING, State.CLOSED, Move.RAMP, "every call is let through again", Mono(65.0))
    assert (breaker.generation, breaker.counts_at(Mono(65.0))) == (3, (1, 0, 0))
    breaker.settle(permit, FAILED, Mono(65.5))
    assert breaker.counts_at(Mono(65.5)) == (1, 1, 0)


def test_without_a_ramp_good_probes_close_it_at_once() -> None:
    breaker = opened(replace(POLICY, ramp_s=0.0, probes_good=1))
    moved = call(breaker, OK, 60.0)
    assert moved is not None
    assert (moved.before, moved.after, breaker.state) == (State.PROBING, State.CLOSED, State.CLOSED)


# -- generations


def test_what_an_older_generation_brings_back_changes_nothing() -> None:
    breaker = Breaker(POLICY, Mono(0.0))
    late = [ask(breaker, 0.0) for _ in range(20)]
    for _ in range(4):
        call(breaker, FAILED, 1.0)
    for permit in late[:10]:
        assert breaker.settle(permit, OK, Mono(2.0)) is None
    assert breaker.state is State.OPEN
    ask(breaker, 61.0)
    for permit in late[10:]:
        assert breaker.settle(permit, FAILED, Mono(61.0)) is None
    assert (breaker.state, breaker.probes_in_flight) == (State.PROBING, 1)


def test_every_reason_is_a_sentence_and_the_ones_that_judge_have_numbers() -> None:
    breaker = opened()
    reasons = [call(breaker, SLOW, breaker.rests_until), breaker.wake(Mono(180.0))]
    reasons += [call(breaker, OK, 181.0) for _ in range(3)]
    reasons += [breaker.wake(Mono(186.0)), *(call(breaker, FAILED, 187.0) for _ in range(4))]
    reasons.append(breaker.reset(Mono(188.0)))
    said = {moved.move: moved.reason for moved in reasons if moved is not None}
    assert set(said) == set(Move)
    for move in (Move.TRIP, Move.FAIL, Move.REST, Move.PASS):
        assert re.search(r"\d", said[move]), said[move]


# -- people and settings


def test_a_reset_closes_it_forgets_its_counts_and_starts_the_rest_afresh() -> None:
    breaker = opened()
    call(breaker, FAILED, 60.0)
    moved = breaker.reset(Mono(61.0))
    assert moved == Moved(State.OPEN, State.CLOSED, Move.RESET, "reset by a person", Mono(61.0))
    assert breaker.trips == 0
    for _ in range(4):
        call(breaker, FAILED, 62.0)
    assert breaker.rests_until == 122.0


def test_a_reset_while_closed_forgets_what_was_counted() -> None:
    breaker = Breaker(POLICY, Mono(0.0))
    for _ in range(3):
        call(breaker, FAILED, 0.0)
    assert breaker.reset(Mono(1.0)) is None
    assert breaker.counts_at(Mono(1.0)) == (0, 0, 0)


def test_new_settings_keep_state_counts_and_probes() -> None:
    breaker = opened()
    ask(breaker, 60.0)
    breaker.obey(replace(POLICY, probes_max=1, slow_s=0.5), Mono(60.0))
    assert (breaker.state, breaker.probes_in_flight, breaker.slow_s) == (State.PROBING, 1, 0.5)
    assert refusal(breaker, 60.0) == Refusal(Why.PROBES_TAKEN, 0.5)


@pytest.mark.parametrize("changed", [{"window_s": 20.0}, {"buckets": 5}, {"failed_share": 0.9}])
def test_counts_survive_a_change_of_the_window(changed: dict[str, float]) -> None:
    breaker = Breaker(POLICY, Mono(0.0))
    for outcome in (OK, OK, OK, FAILED, SLOW):
        call(breaker, outcome, 1.0)
    breaker.obey(replace(POLICY, **changed), Mono(2.0))  # type: ignore[arg-type]
    assert breaker.counts_at(Mono(2.0)) == (3, 1, 1)


def test_a_window_that_keeps_its_shape_keeps_each_bucket() -> None:
    breaker = Breaker(POLICY, Mono(0.0))
    call(breaker, FAILED, 1.0)
    breaker.obey(replace(POLICY, failed_share=0.9), Mono(9.0))
    assert breaker.counts_at(Mono(11.0)) == (0, 0, 0)


def test_a_new_rest_holds_for_the_one_that_is_on() -> None:
    breaker = opened()
    breaker.obey(replace(POLICY, rest_s=10.0), Mono(1.0))
    assert breaker.rests_until == 10.0
    assert ask(breaker, 10.0).is_probe


def test_a_ramp_that_is_taken_away_lets_everybody_in_even_if_the_clock_went_back() -> None:
    breaker = ramping()
    breaker.obey(replace(POLICY, ramp_s=0.0), Mono(60.0))
    assert isinstance(breaker.admit(Mono(59.0), Die(0.99)), Permit)
    assert isinstance(breaker.admit(Mono(60.0), Die(0.99)), Permit)
    assert breaker.state is State.CLOSED


# -- clocks


def test_a_clock_that_stands_still_can_open_it_and_never_closes_it() -> None:
    breaker = opened()
    assert {refusal(breaker, 0.0).retry_after_s for _ in range(10)} == {60.0}


def test_a_clock_that_jumps_back_makes_no_negative_waits() -> None:
    breaker = opened(now=100.0)
    assert refusal(breaker, 0.0).retry_after_s == 160.0
    breaker = ramping()
    assert refusal(breaker, 0.0, falls=0.5) == Refusal(Why.RAMPING, 65.0)
    call(breaker, OK, 0.0)
    assert breaker.counts_at(Mono(0.0)) == (1, 0, 0)


def test_a_clock_that_jumps_far_ahead_ends_the_rest() -> None:
    breaker = opened()
    assert ask(breaker, 1e12).is_probe


# -- impossible settings


@pytest.mark.parametrize(
    ("settings", "path", "problem"),
    [
        ({"failed_share": 0.0}, "breaker.failed_share", "0.0 must be above 0 and at most 1"),
        ({"failed_share": 1.5}, "breaker.failed_share", "1.5 must be above 0 and at most 1"),
        ({"failed_share": float("nan")}, "breaker.failed_share", "nan is not a number"),
        ({"slow_share": -0.1}, "breaker.slow_share", "-0.1 must be above 0 and at most 1"),
        ({"slow_s": 0.0}, "breaker.slow_s", "0.0 must be above 0"),
        ({"slow_s": "fast"}, "breaker.slow_s", "'fast' is not a number"),
        ({"calls_min": 0}, "breaker.calls_min", "0 must be from 1 to 10000000"),
        ({"calls_min": 2.5}, "breaker.calls_min", "2.5 is not a whole number"),
        ({"window_s": -1.0}, "breaker.window_s", "-1.0 must be above 0 and at most 86400"),
        ({"window_s": 0.005}, "breaker.window_s", "0.005 s is smaller than 10 buckets of at least 1 ms"),
        ({"buckets": 0}, "breaker.buckets", "0 must be from 1 to 1000"),
        ({"rest_s": 0.0}, "breaker.rest_s", "0.0 must be above 0 and at most 86400"),
        ({"rest_s": True}, "breaker.rest_s", "True is not a number"),
        ({"rest_max_s": 1.0}, "breaker.rest_max_s", "1 s is shorter than rest_s, 60 s"),
        ({"rest_growth": 0.5}, "breaker.rest_growth", "0.5 must be at least 1 and at most 100"),
        ({"probes_max": 0}, "breaker.probes_max", "0 must be from 1 to 10000"),
        ({"probes_good": 0}, "breaker.probes_good", "0 must be from 1 to 10000"),
        ({"ramp_s": -1.0}, "breaker.ramp_s", "-1.0 must be at least 0 and at most 86400"),
        ({"mode": "shadow"}, "breaker.mode", "'shadow' is not one of"),
    ],
)
def test_impossible_settings_are_said_with_their_path(settings: dict[str, object], path: str, problem: str) -> None:
    with pytest.raises(BadSettings) as caught:
        BreakerPolicy(**settings)  # type: ignore[arg-type]
    ((found_path, found),) = caught.value.problems
    assert found_path == path
    assert found.startswith(problem)


def test_every_impossible_setting_is_said_at_once() -> None:
    with pytest.raises(BadSettings, match="3 problems in the settings, nothing was changed") as caught:
        BreakerPolicy(probes_max=0, window_s=-1.0, ramp_s=-2.0)
    assert {path for path, _ in caught.value.problems} == {"breaker.probes_max", "breaker.window_s", "breaker.ramp_s"}


def test_a_rest_that_grows_slowly_reaches_its_longest_in_the_end() -> None:
    policy = BreakerPolicy(calls_min=1, rest_s=1.0, rest_growth=1.1, rest_max_s=3600.0)
    breaker, now = Breaker(policy, Mono(0.0)), 0.0
    rng = Random(1)
    for _ in range(100):
        permit = breaker.admit(Mono(now), rng)
        assert isinstance(permit, Permit)
        breaker.settle(permit, Outcome(0.0, failed=True), Mono(now))
        now = breaker.rests_until
    permit = breaker.admit(Mono(now), rng)
    assert isinstance(permit, Permit)
    breaker.settle(permit, Outcome(0.0, failed=True), Mono(now))
    assert breaker.rests_until - now == pytest.approx(3600.0)
