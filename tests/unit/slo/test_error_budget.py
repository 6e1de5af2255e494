from __future__ import annotations

from fractions import Fraction

import pytest

from budao.model import Wall
from budao.slo import Availability, ErrorBudget

DAY_S = 86_400.0


def test_without_calls_nothing_is_known() -> None:
    view = ErrorBudget(Availability(0.999)).at(Wall(0.0))
    assert (view.spent_share, view.remaining_share, view.is_spent) == (None, None, False)
    assert "no calls" in view.sentence


def test_the_budget_is_spent_by_one_bad_call_more_than_allowed_exactly() -> None:
    budget = ErrorBudget(Availability(0.999))
    budget.add(999_000, 1_000, Wall(0.0))
    view = budget.at(Wall(0.0))
    assert (view.allowed, view.spent_share, view.remaining_share, view.is_spent) == (Fraction(1000), 1.0, 0.0, False)
    budget.add(0, 1, Wall(0.0))
    view = budget.at(Wall(0.0))
    assert view.is_spent
    assert view.remaining_share is not None
    assert view.remaining_share < 0


def test_half_of_the_budget_is_half_of_the_allowed_calls() -> None:
    budget = ErrorBudget(Availability(0.99))
    budget.add(1990, 10, Wall(0.0))
    view = budget.at(Wall(0.0))
    assert (view.good, view.bad, view.spent_share, view.remaining_share) == (1990, 10, 0.5, 0.5)
    assert view.sentence == (
        "99 % of calls succeed, over 30 days: 10 of 2000 calls were bad, 20 may be; 0.5 of the budget is spent"
    )


@pytest.mark.parametrize(("hour", "calls"), [(15, 10_000), (3, 100)])
def test_an_outage_costs_what_it_cost_its_callers_in_the_busiest_hour_and_in_the_quietest(
    hour: int, calls: int
) -> None:
    budget = ErrorBudget(Availability(0.99))
    total = 0
    ratios = []
    for each in range(30 * 24):
        now_calls = {15: 10_000, 3: 100}.get(each % 24, 1_000)
        bad = now_calls if each == 5 * 24 + hour else 0
        budget.add(now_calls - bad, bad, Wall(each * 3_600.0))
        total += now_calls
        ratios.append(bad / now_calls)
    view = budget.at(Wall(30 * DAY_S - 3_600.0))
    assert view.spent_share == pytest.approx(calls / (total * 0.01))
    # The mean of the hourly ratios calls both outages the same.
    assert sum(ratios) / len(ratios) == pytest.approx(1 / 720)


def test_what_is_older_than_the_window_no_longer_counts() -> None:
    budget = ErrorBudget(Availability(0.99))
    budget.add(0, 5, Wall(0.0))
    budget.add(100, 0, Wall(29 * DAY_S))
    assert budget.at(Wall(30 * DAY_S)).bad == 5
    assert budget.at(Wall(30 * DAY_S + 3_600.0)).bad == 0


def test_a_budget_outlives_a_restart() -> None:
    before, after = ErrorBudget(Availability(0.99)), ErrorBudget(Availability(0.99))
    for day in range(30):
        before.add(100, day % 3, Wall(day * DAY_S))
    after.restore(before.kept())
    assert after.at(Wall(30 * DAY_S)) == before.at(Wall(30 * DAY_S))
