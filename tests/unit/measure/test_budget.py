from __future__ import annotations

import pytest

from budao.measure import Budget
from budao.model import BadSettings, Mono


def spent(budget: Budget, now: float) -> int:
    """Spend until refused."""
    count = 0
    while budget.spend(Mono(now)):
        count += 1
    return count


def test_repeats_are_at_most_a_share_of_calls() -> None:
    budget = Budget(share=0.1, window_s=10.0, floor_per_s=0.0)
    assert not budget.can_spend(Mono(0.0))
    budget.deposit(9, Mono(0.0))
    assert spent(budget, 0.0) == 0
    budget.deposit(1, Mono(0.0))
    assert budget.can_spend(Mono(0.0))
    assert spent(budget, 0.0) == 1
    budget.deposit(1000, Mono(1.0))
    assert budget.left(Mono(1.0)) == 100
    assert spent(budget, 1.0) == 100
    assert budget.left(Mono(1.0)) == 0


def test_a_share_that_floats_cannot_hold_still_grants_what_was_meant() -> None:
    budget = Budget(share=0.29, floor_per_s=0.0)
    budget.deposit(100, Mono(0.0))
    assert spent(budget, 0.0) == 29


def test_a_quiet_client_may_still_repeat_a_little() -> None:
    budget = Budget(share=0.1, window_s=10.0, floor_per_s=0.5)
    assert spent(budget, 3.0) == 5
    assert spent(budget, 12.9) == 0
    assert spent(budget, 13.0) == 5


def test_the_floor_and_the_share_add_up() -> None:
    budget = Budget(share=0.1, window_s=10.0, floor_per_s=0.25)
    budget.deposit(5, Mono(0.0))
    assert spent(budget, 0.0) == 3


def test_calls_and_spends_are_forgotten_with_their_bucket() -> None:
    budget = Budget(share=0.5, window_s=10.0, floor_per_s=0.0)
    budget.deposit(10, Mono(0.0))
    assert spent(budget, 9.0) == 5
    budget.deposit(10, Mono(10.0))
    assert spent(budget, 10.0) == 0
    assert spent(budget, 18.9) == 0
    assert spent(budget, 19.0) == 5


def test_asking_changes_nothing() -> None:
    budget = Budget(share=0.5, window_s=10.0, floor_per_s=0.0)
    budget.deposit(2, Mono(0.0))
    assert not budget.can_spend(Mono(1e9))
    assert [budget.can_spend(Mono(0.0)) for _ in range(3)] == [True] * 3


def test_more_spends_than_a_lowered_share_allows_leave_none_rather_than_fewer_than_none() -> None:
    budget = Budget(share=1.0, window_s=10.0, floor_per_s=0.0)
    budget.deposit(10, Mono(0.0))
    assert spent(budget, 0.0) == 10
    budget.retune(share=0.1, floor_per_s=0.0)
    assert budget.left(Mono(0.0)) == 0
    budget.retune(share=0.1, floor_per_s=1.0)
    assert budget.left(Mono(0.0)) == 1
    assert (budget.share, budget.floor_per_s, budget.window_s) == (0.1, 1.0, 10.0)


def test_a_clock_that_goes_back_pays_from_the_same_window() -> None:
    budget = Budget(share=0.5, window_s=10.0, floor_per_s=0.0)
    budget.deposit(10, Mono(100.0))
    assert spent(budget, -100.0) == 5
    assert spent(budget, 100.0) == 0


def test_a_budget_that_is_told_nothing_pays_a_tenth_of_ten_seconds_of_calls_and_one_repeat_a_second() -> None:
    budget = Budget()
    assert (budget.share, budget.window_s, budget.floor_per_s) == (0.1, 10.0, 1.0)
    budget.deposit(100, Mono(0.0))
    assert budget.left(Mono(0.0)) == 20
    assert budget.left(Mono(9.9)) == 20
    assert budget.left(Mono(10.0)) == 10


def test_fewer_buckets_forget_more_calls_at_once() -> None:
    budget = Budget(share=0.5, window_s=10.0, floor_per_s=0.0, buckets=2)
    budget.deposit(10, Mono(0.0))
    budget.deposit(10, Mono(4.9))
    assert budget.left(Mono(9.9)) == 10
    assert budget.left(Mono(10.0)) == 0, "both fell into the first five seconds"


@pytest.mark.parametrize(("share", "floor_per_s"), [(-0.1, 0.0), (1.1, 0.0), (0.1, -1.0), (0.1, 1e7)])
def test_impossible_numbers_are_refused_and_leave_the_budget_as_it_was(share: float, floor_per_s: float) -> None:
    with pytest.raises(BadSettings, match=r"budget\."):
        Budget(share=share, floor_per_s=floor_per_s)
    budget = Budget(share=0.2, floor_per_s=0.3)
    with pytest.raises(BadSettings, match=r"budget\."):
        budget.retune(share=share, floor_per_s=floor_per_s)
    assert (budget.share, budget.floor_per_s) == (0.2, 0.3)


def test_each_impossible_number_is_said_with_its_name() -> None:
    with pytest.raises(BadSettings) as caught:
        Budget(share=1.5, floor_per_s=-1.0)
    assert [path for path, _ in caught.value.problems] == ["budget.share", "budget.floor_per_s"]


def test_the_floor_is_a_million_a_second_at_most() -> None:
    assert Budget(floor_per_s=1e6).left(Mono(0.0)) == 10_000_000
    with pytest.raises(BadSettings, match=r"budget\.floor_per_s"):
        Budget(floor_per_s=1_000_001.0)


def test_an_impossible_window_is_refused_by_name() -> None:
    with pytest.raises(BadSettings, match=r"window\.window_s"):
        Budget(window_s=0.0)
