"""A histogram answers within one percent of the sorted list of everything recorded, and merging is recording both."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from budao.measure import BUCKETS_MAX, VALUE_MAX, Histogram, HistogramSnapshot, nearest_rank

# Every size of number about as often as every other, and the edges of buckets among them.
VALUES = st.one_of(
    st.integers(0, 300),
    st.integers(0, 63).flatmap(lambda bits: st.integers(0, (1 << bits) - 1)),
    st.builds(lambda bits, off: max(0, (1 << bits) + off), st.integers(0, 62), st.integers(-2, 2)),
)
LISTS = st.lists(VALUES, max_size=60)
SHARES = st.one_of(st.sampled_from([0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0]), st.floats(0.0, 1.0))


def recorded(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(LISTS.filter(bool), SHARES)
def test_a_quantile_is_within_one_percent_of_the_sorted_list(values: list[int], share: float) -> None:
    exact = sorted(values)[nearest_rank(share, len(values)) - 1]
    answer = recorded(values).quantile(share)
    assert answer is not None
    assert abs(answer - exact) * 128 <= exact
    assert abs(answer - exact) <= 0.01 * exact


@given(LISTS.filter(bool))
def test_count_and_total_are_exact_and_the_ends_enclose_every_value(values: list[int]) -> None:
    histogram = recorded(values)
    least, greatest = histogram.least, histogram.greatest
    assert (histogram.count, histogram.total) == (len(values), sum(values))
    assert least is not None
    assert greatest is not None
    assert least <= min(values)
    assert max(values) <= greatest
    assert (min(values) - least) * 64 <= min(values)
    assert (greatest - max(values)) * 64 <= max(values)


@given(LISTS, VALUES)
def test_counts_up_to_a_value_are_those_of_the_list_up_to_the_end_of_its_bucket(values: list[int], value: int) -> None:
    answer = recorded(values).snapshot().count_at_most(value)
    end = recorded([value]).greatest
    assert end is not None
    assert answer == sum(each <= end for each in values)


@given(st.lists(st.integers()), st.integers(1, 5))
def test_whatever_is_recorded_one_by_one_and_many_at_once_agree_within_the_bound(
    values: list[int], weight: int
) -> None:
    many = Histogram()
    many.record_many(values, weight)
    snapshot = many.snapshot()
    assert snapshot == recorded(values * weight).snapshot()
    assert all(0 <= index < BUCKETS_MAX and count > 0 for index, count in snapshot.occupied)
    assert snapshot.total == weight * sum(min(max(value, 0), VALUE_MAX) for value in values)


@given(LISTS, LISTS, LISTS)
def test_snapshots_merge_in_any_order_and_grouping_into_that_of_all_values(
    first: list[int], second: list[int], third: list[int]
) -> None:
    a, b, c = (recorded(values).snapshot() for values in (first, second, third))
    whole = recorded(first + second + third).snapshot()
    assert a.merged(b) == b.merged(a)
    assert a.merged(b).merged(c) == a.merged(b.merged(c)) == whole
    assert a.merged(HistogramSnapshot()) == a
    gathered = recorded(first)
    gathered.merge(recorded(second))
    gathered.merge(c)
    assert gathered.snapshot() == whole


@given(st.integers(0, 1_000_000), st.integers(1, 1_000_000))
def test_a_rank_is_that_of_the_decimal_share_not_of_the_float_that_stands_for_it(millionths: int, count: int) -> None:
    share = Fraction(millionths, 1_000_000)
    assert nearest_rank(millionths / 1_000_000, count) == max(1, ceil(share * count))
