"""Visits into seconds, shares and the sentence on top."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.apps.recording import Second, StateSpan, Visits, answered_by, percent, result, shares, state_spans
from tests.unit.apps.recordings import recording


def test_a_visit_counts_in_the_second_it_arrived_however_late_its_answer() -> None:
    visits = Visits(under_s=0.2)
    visits.answered(visits.arrived(0.9), 4.0, is_good=True, source="direct")
    assert visits.by_second(6, now_s=6.0)[0].requests == 1
    assert sum(second.requests for second in visits.by_second(6, now_s=6.0)) == 1


def test_in_time_means_good_and_within_the_objective_with_its_edge() -> None:
    visits = Visits(under_s=0.2)
    for took_s, is_good in ((0.2, True), (0.21, True), (0.01, False)):
        visits.answered(visits.arrived(0.1), took_s, is_good=is_good, source="cache" if is_good else "")
    assert visits.by_second(1, now_s=1.0) == (
        Second(requests=3, succeeded=2, in_time=1, p50_s=0.2, p99_s=0.21, rungs={"cache": 2}),
    )


def test_who_still_waits_too_long_counts_as_not_answered_and_who_may_yet_be_in_time_is_left_out() -> None:
    visits = Visits(under_s=0.2)
    visits.arrived(0.5)
    visits.arrived(0.9)
    (second,) = visits.by_second(1, now_s=1.0)
    assert (second.requests, second.succeeded, second.p50_s) == (1, 0, 0.5)


def test_a_visit_ends_once() -> None:
    visits = Visits(under_s=0.2)
    number = visits.arrived(0.0)
    visits.answered(number, 0.1, is_good=True)
    with pytest.raises(AssertionError, match="once"):
        visits.answered(number, 0.1, is_good=True)


def test_lately_knows_whoever_is_late_before_they_are_answered() -> None:
    visits = Visits(under_s=0.2)
    visits.answered(visits.arrived(9.0), 0.1, is_good=True, source="direct")
    visits.arrived(9.5)
    visits.arrived(9.9)  # may still be in time
    lately = visits.lately(10.0)
    assert lately.in_time_share == 0.5
    assert lately.good_share == 1.0
    assert lately.p99_s == pytest.approx(0.5)
    assert lately.unanswered == 2


def test_lately_forgets_what_is_longer_ago_and_nobody_is_no_share() -> None:
    visits = Visits(under_s=0.2)
    visits.answered(visits.arrived(1.0), 0.1, is_good=True)
    lately = visits.lately(10.0)
    assert (lately.in_time_share, lately.p50_s, lately.requests_per_s) == (None, None, 0.0)


def test_rungs_count_good_answers_only() -> None:
    visits = Visits(under_s=0.2)
    for source, is_good in (("direct", True), ("cache", True), ("cache", True), ("", False)):
        visits.answered(visits.arrived(0.0), 0.1, is_good=is_good, source=source)
    assert visits.rungs() == {"direct": 1, "cache": 2, "template": 0, "empty": 0}


MOVES = st.lists(st.tuples(st.floats(-5.0, 70.0), st.sampled_from(["open", "probing", "closed"])), max_size=20)


@given(moves=MOVES, end_s=st.floats(0.1, 60.0))
def test_states_cover_the_whole_time_without_a_gap(moves: list[tuple[float, str]], end_s: float) -> None:
    spans = state_spans(moves, "closed", end_s)
    assert [span.start_s for span in spans] == [0.0, *(span.end_s for span in spans[:-1])]
    assert spans[-1].end_s == end_s
    assert all(span.end_s > span.start_s for span in spans)


def test_a_state_before_the_start_is_the_state_at_the_start() -> None:
    assert state_spans([(-1.0, "open"), (2.0, "closed")], "closed", 3.0) == (
        StateSpan(state="open", start_s=0.0, end_s=2.0),
        StateSpan(state="closed", start_s=2.0, end_s=3.0),
    )


def test_the_sentence_says_both_shares_of_the_ill_time() -> None:
    assert result(recording()) == (
        "With the guard 100 % of requests were answered within 200 ms while inventory was slow, hanging or failing; "
        "without it 0 %."
    )


@pytest.mark.parametrize(
    ("recorded", "ways"), [(15, "slow"), (25, "slow or hanging"), (40, "slow, hanging or failing")]
)
def test_the_sentence_names_only_what_was_seen(recorded: int, ways: str) -> None:
    assert f"while inventory was {ways}; without it 0 %." in result(recording(recorded=recorded))


def test_a_demo_that_ended_early_says_that_there_is_nothing_to_compare() -> None:
    assert "nothing to compare" in result(recording(recorded=3))
    assert "nothing to compare" in result(recording(recorded=0))


def test_the_sentence_about_rungs_says_what_was_not_told_by_inventory() -> None:
    assert answered_by(recording()) == (
        "While inventory was ill, the guarded shop's customers were answered 2 % by inventory itself, 88 % by the last "
        "known stock (cache), 10 % by a best guess (template)."
    )
    assert answered_by(recording(recorded=2)) == ""
    lost = replace(recording(seconds=5), guarded=recording(seconds=5).bare)
    assert answered_by(lost).endswith("answered 33.3 % by inventory itself, 66.7 % by an error.")


def test_shares_are_of_requests_not_of_seconds() -> None:
    plain = recording(seconds=5)
    busy = replace(plain.bare[0], requests=150, in_time=150)
    changed = replace(plain, bare=(busy, *plain.bare[1:]))
    assert shares(changed)["all"]["bare"] == 200 / 350
    assert shares(changed)["healthy"]["bare"] == 1.0


@pytest.mark.parametrize(
    ("share", "words"),
    [(1.0, "100 %"), (0.0, "0 %"), (0.9999, "99.99 %"), (0.99999, "99.99 %"), (0.996, "99.6 %"), (0.00001, "< 0.1 %")],
)
def test_a_share_is_never_rounded_to_all_or_nothing(share: float, words: str) -> None:
    assert percent(share) == words


def test_a_recording_is_plain_enough_for_json() -> None:
    plain = json.loads(json.dumps(recording(seconds=5).as_plain()))
    assert plain["result"].startswith("With the guard")
    assert len(plain["guarded"]) == 5
    assert plain["phases"][1]["manner"] == "slow"
