"""Counts over the calendar, held against a list of everything that ever happened."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import Wall
from budao.slo import Availability, BurnRates, BurnRule, ErrorBudget, Standing, Tally
from budao.slo.bounds import lower_bound, tail

events = st.lists(
    st.tuples(
        st.floats(min_value=0.0, max_value=500.0),  # how long after the one before
        st.integers(min_value=0, max_value=1000),
        st.integers(min_value=0, max_value=1000),
    ),
    max_size=60,
)


class SlowTally:
    """Remembers every event."""

    def __init__(self) -> None:
        self.happened: list[tuple[float, int, int]] = []

    def since(self, start: float) -> tuple[int, int]:
        found = [(good, bad) for at, good, bad in self.happened if at > start]
        return sum(good for good, _ in found), sum(bad for _, bad in found)


@given(events, st.integers(min_value=1, max_value=20), st.floats(min_value=0.0, max_value=1_000.0))
def test_a_tally_counts_the_window_and_at_most_one_slice_more(
    happened: list[tuple[float, int, int]], slices: int, later_s: float
) -> None:
    window_s = 300.0
    tally, twin, now = Tally(window_s, slices), SlowTally(), 1e9
    for gap_s, good, bad in happened:
        now += gap_s
        tally.add(good, bad, Wall(now))
        twin.happened.append((now, good, bad))
        assert len(tally.kept()) <= 2 * slices
    found = tally.at(Wall(now + later_s))
    least = twin.since(now + later_s - window_s)
    most = twin.since(now + later_s - window_s * (1 + 1 / slices) - 1e-3)
    assert least[0] <= found.good <= most[0]
    assert least[1] <= found.bad <= most[1]


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1, max_size=30))
def test_a_budget_is_spent_exactly_when_more_calls_are_bad_than_allowed(counted: list[tuple[int, int]]) -> None:
    budget = ErrorBudget(Availability(0.999))
    for index, (good, bad) in enumerate(counted):
        budget.add(good, bad, Wall(3_600.0 * index))
    view = budget.at(Wall(3_600.0 * len(counted)))
    good, bad = (sum(column) for column in zip(*counted, strict=True))
    assert (view.good, view.bad) == (good, bad)
    assert view.is_spent == (1000 * bad > good + bad)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(min_value=0, max_value=1000))
def test_a_tail_is_the_sum_of_its_terms(bad: int, total: int, thousandths: int) -> None:
    share = Fraction(thousandths, 1000)
    exact = sum(comb(total, count) * share**count * (1 - share) ** (total - count) for count in range(bad, total + 1))
    assert tail(bad, total, float(share)) == pytest.approx(float(exact), rel=1e-9, abs=1e-12)


@given(st.data(), st.integers(min_value=1, max_value=200), st.sampled_from([0.9, 0.99, 0.999]))
def test_a_lower_bound_is_where_the_tail_is_as_small_as_the_doubt(
    data: st.DataObject, total: int, confidence: float
) -> None:
    bad = data.draw(st.integers(min_value=1, max_value=total))
    bound = lower_bound(bad, total, confidence)
    assert 0.0 < bound < bad / total or bad == total
    assert tail(bad, total, bound) == pytest.approx(1.0 - confidence, rel=1e-3)


@given(events)
def test_a_firing_rule_has_every_reason_to_fire(happened: list[tuple[float, int, int]]) -> None:
    rule = BurnRule(burn_limit=14.4, long_s=3_600.0, short_s=300.0)
    rates, now = BurnRates(Availability(0.99), [rule]), 1e9
    for gap_s, good, bad in happened:
        now += gap_s
        rates.add(good, bad, Wall(now))
        (found,) = rates.judge(Wall(now)).rules
        both_burn = all(
            counts.total and counts.bad > rule.burn_limit * 0.01 * counts.total for counts in (found.long, found.short)
        )
        sure = lower_bound(found.long.bad, found.long.total, rule.confidence) > rule.burn_limit * 0.01
        enough = found.long.total >= rule.calls_min and found.long.bad >= rule.bad_min
        assert (found.standing is Standing.FIRING) == (both_burn and sure and enough)
        if not enough and found.long.total < rule.calls_min:
            assert found.standing is Standing.UNKNOWN
