from __future__ import annotations

from fractions import Fraction

import pytest

from budao.model import BadSettings, Outcome
from budao.slo import Availability, Latency, Objective


def test_an_objective_says_itself_in_words() -> None:
    assert str(Latency(0.99, under_s=0.200)) == "99 % of calls succeed within 200 ms, over 30 days"
    assert str(Availability(0.9995, window_s=7 * 86_400)) == "99.95 % of calls succeed, over 7 days"
    assert str(Availability(0.9, window_s=3_600)) == "90 % of calls succeed, over 1 hours"
    assert str(Availability(0.9, window_s=90)) == "90 % of calls succeed, over 90 seconds"


@pytest.mark.parametrize("objective", [Availability(0.999), Latency(0.999, under_s=1)])
def test_a_target_is_the_decimal_that_was_written_not_the_binary_number_nearest_to_it(objective: Objective) -> None:
    assert objective.target == Fraction(999, 1000)
    assert objective.allowed == Fraction(1, 1000)


def test_a_small_share_in_scientific_notation_is_still_exact() -> None:
    assert Availability(0.00001).target == Fraction(1, 100_000)


def test_a_call_is_good_that_did_not_fail() -> None:
    assert Availability(0.99).is_good(Outcome(took_s=100.0))
    assert not Availability(0.99).is_good(Outcome(took_s=0.0, failed=True))


def test_a_call_is_good_up_to_the_latency_and_a_quick_failure_is_no_quick_answer() -> None:
    objective = Latency(0.99, under_s=0.2)
    assert objective.is_good(Outcome(took_s=0.2))
    assert not objective.is_good(Outcome(took_s=0.2000001))
    assert not objective.is_good(Outcome(took_s=0.001, failed=True))


def test_asking_for_every_call_is_refused_with_the_reason() -> None:
    with pytest.raises(BadSettings, match="leaves no error budget"):
        Availability(1.0)
    with pytest.raises(BadSettings, match="leaves no error budget"):
        Latency(1, under_s=0.1)


def test_a_percentage_is_refused_with_what_to_write_instead() -> None:
    with pytest.raises(BadSettings, match=r"for 99\.9 % write 0\.999"):
        Availability(99.9)


@pytest.mark.parametrize("share", [0.0, -0.5, 100.0, 1e-10, 1 - 1e-10, float("nan"), float("inf"), True, "0.99", None])
def test_no_other_share_is_one(share: float) -> None:
    with pytest.raises(BadSettings) as found:
        Availability(share)
    assert [path for path, _ in found.value.problems] == ["objective.share"]


def test_every_problem_is_told_at_once_with_its_path() -> None:
    with pytest.raises(BadSettings) as found:
        Latency(1.0, under_s=0.0, window_s=-1.0)
    assert {path for path, _ in found.value.problems} == {
        "objective.share",
        "objective.under_s",
        "objective.window_s",
    }
