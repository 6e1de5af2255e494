"""Repeats stay a share of calls in any history."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

from hypothesis import given
from hypothesis import strategies as st

from budao.measure import Budget
from budao.model import Mono

BUCKETS = 5
SHARES = st.integers(0, 100).map(lambda percent: percent / 100)
FLOORS = st.sampled_from([0.0, 0.1, 0.3, 1.0, 2.5])
STEPS = st.one_of(st.just(0.0), st.floats(0.0, 1.5), st.floats(-3.0, 0.0), st.floats(0.0, 50.0))
# Each step moves the clock, then counts some calls, then tries to spend some times.
HISTORIES = st.lists(st.tuples(STEPS, st.integers(0, 30), st.integers(0, 20)), max_size=60)


class Twin:
    """Two lists of bucket numbers, counted anew for every question. Buckets last a second."""

    def __init__(self, share: float, floor_per_s: float) -> None:
        self.share = Fraction(repr(share))  # the decimal that was meant
        self.allowance = Fraction(repr(floor_per_s)) * BUCKETS
        self.calls: list[int] = []
        self.spends: list[int] = []
        self.latest: int | None = None

    def number(self, now: float) -> int:
        return floor(now) if self.latest is None else max(self.latest, floor(now))

    def deposit(self, calls: int, now: float) -> None:
        self.latest = self.number(now)
        self.calls += [self.latest] * calls

    def can_spend(self, now: float) -> bool:
        first = self.number(now) - BUCKETS + 1
        calls = sum(number >= first for number in self.calls)
        spends = sum(number >= first for number in self.spends)
        return spends + 1 <= self.share * calls + self.allowance

    def spend(self, now: float) -> bool:
        granted = self.can_spend(now)
        if granted:
            self.latest = self.number(now)
            self.spends.append(self.latest)
        return granted


@given(SHARES, FLOORS, HISTORIES)
def test_a_budget_grants_exactly_what_two_lists_would(
    share: float, floor_per_s: float, history: list[tuple[float, int, int]]
) -> None:
    budget = Budget(share=share, window_s=float(BUCKETS), floor_per_s=floor_per_s, buckets=BUCKETS)
    twin = Twin(share, floor_per_s)
    now = 100.0
    for step_s, calls, tries in history:
        now += step_s
        budget.deposit(calls, Mono(now))
        twin.deposit(calls, now)
        for _ in range(tries):
            assert budget.can_spend(Mono(now)) == twin.can_spend(now)
            assert budget.spend(Mono(now)) == twin.spend(now)


@given(SHARES, FLOORS, HISTORIES)
def test_in_any_run_of_buckets_spends_are_at_most_the_share_of_calls_and_the_floor(
    share: float, floor_per_s: float, history: list[tuple[float, int, int]]
) -> None:
    budget = Budget(share=share, window_s=float(BUCKETS), floor_per_s=floor_per_s, buckets=BUCKETS)
    record = Twin(share, floor_per_s)  # only writes down when what happened
    now = 100.0
    for step_s, calls, tries in history:
        now += step_s
        budget.deposit(calls, Mono(now))
        record.deposit(calls, now)
        for _ in range(tries):
            if budget.spend(Mono(now)):
                record.spends.append(record.number(now))
    marks = sorted(set(record.spends))
    for at, first in enumerate(marks):
        for last in marks[at:]:
            spends = sum(first <= number <= last for number in record.spends)
            calls = sum(first - BUCKETS + 1 <= number <= last for number in record.calls)
            windows = ceil(Fraction(last - first + 1, BUCKETS))
            assert spends <= record.share * calls + record.allowance * windows


@given(SHARES, HISTORIES)
def test_without_a_floor_no_history_spends_more_than_the_share_of_all_its_calls(
    share: float, history: list[tuple[float, int, int]]
) -> None:
    budget = Budget(share=share, window_s=float(BUCKETS), floor_per_s=0.0, buckets=BUCKETS)
    now, called, spent = 0.0, 0, 0
    for step_s, calls, tries in history:
        now += step_s
        budget.deposit(calls, Mono(now))
        called += calls
        spent += sum(budget.spend(Mono(now)) for _ in range(tries))
        assert spent <= Fraction(repr(share)) * called
