from __future__ import annotations

from math import inf, nan

import pytest

from budao.measure import BUCKETS_MAX, VALUE_MAX, Histogram, HistogramSnapshot
from budao.model import BadSettings


def filled(*values: int, units_per_s: int = 1_000_000_000) -> Histogram:
    histogram = Histogram(units_per_s=units_per_s)
    for value in values:
        histogram.record(value)
    return histogram


def test_an_empty_histogram_has_a_count_and_no_values() -> None:
    empty = Histogram()
    assert (empty.count, empty.total) == (0, 0)
    assert (empty.least, empty.greatest, empty.quantile(0.5), empty.quantile_s(0.5)) == (None, None, None, None)
    assert empty.snapshot() == HistogramSnapshot()


def test_small_values_are_exact() -> None:
    histogram = filled(*range(128))
    assert histogram.count == 128
    assert histogram.total == sum(range(128))
    assert (histogram.least, histogram.greatest) == (0, 127)
    assert [histogram.quantile((value + 1) / 128) for value in range(128)] == list(range(128))


@pytest.mark.parametrize("value", [128, 129, 130, 255, 256, 1000, 999_999, 2**40 + 12345, VALUE_MAX - 1, VALUE_MAX])
def test_large_values_are_within_one_in_128(value: int) -> None:
    histogram = filled(value)
    answer, least, greatest = histogram.quantile(0.5), histogram.least, histogram.greatest
    assert answer is not None
    assert least is not None
    assert greatest is not None
    assert abs(answer - value) * 128 <= value
    assert least <= value <= greatest
    assert (value - least) * 64 <= value
    assert (greatest - value) * 64 <= value
    assert histogram.total == value


def test_a_value_below_zero_counts_as_zero() -> None:
    histogram = filled(-1, -64, -(10**30))
    histogram.record_many([-5, 3])
    assert histogram.snapshot() == filled(0, 0, 0, 0, 3).snapshot()


def test_a_value_too_large_counts_as_the_largest() -> None:
    histogram = filled(VALUE_MAX + 1, 10**30)
    histogram.record_many([10**40], 2)
    assert histogram.snapshot() == filled(*[VALUE_MAX] * 4).snapshot()


def test_whatever_is_recorded_there_are_no_more_buckets_than_stated() -> None:
    histogram = Histogram()
    for bits in range(63):
        for place in range(129):
            histogram.record((1 << bits) + ((place << bits) >> 7))
    histogram.record(0)
    histogram.record(VALUE_MAX)
    occupied = histogram.snapshot().occupied
    assert len(occupied) <= BUCKETS_MAX
    assert {index for index, _ in occupied} == set(range(BUCKETS_MAX))
    assert len({id(row) for row in histogram._rows}) == 57


def test_only_lengths_that_were_met_take_memory() -> None:
    histogram = filled(5, 1_000_000, 1_100_000)
    assert len({id(row) for row in histogram._rows if row}) == 3


def test_seconds_become_units() -> None:
    histogram = Histogram(units_per_s=1_000)
    for seconds in (0.0029, 0.05, -1.0):
        histogram.record_s(seconds)
    assert histogram.snapshot().buckets() == ((0, 1), (2, 1), (50, 1))
    assert histogram.quantile_s(1.0) == 0.05


def test_endless_seconds_count_as_the_longest_or_as_none() -> None:
    histogram = Histogram()
    histogram.record_s(inf)
    histogram.record_s(1e300)
    histogram.record_s(-inf)
    assert histogram.snapshot() == filled(0, VALUE_MAX, VALUE_MAX).snapshot()


def test_seconds_that_are_no_number_are_refused_and_not_counted() -> None:
    histogram = Histogram()
    with pytest.raises(ValueError, match="NaN"):
        histogram.record_s(nan)
    assert histogram.count == 0


def test_values_that_are_no_whole_number_are_refused_and_not_counted() -> None:
    histogram = filled(1000)
    with pytest.raises(AttributeError):
        histogram.record(1.5)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        histogram.record_many([7, 1.5, 8], 3)  # type: ignore[list-item]
    assert histogram.snapshot() == filled(1000, 7, 7, 7).snapshot()


def test_many_at_once_count_the_same_as_one_by_one_in_any_order() -> None:
    values = [5, 1_000_000, 7, 128, 5, 10**12]
    histogram = Histogram()
    histogram.record_many(iter(values))
    assert histogram.snapshot() == filled(*values).snapshot()
    histogram.record_many(sorted(values), weight=2)
    assert histogram.snapshot() == filled(*values * 3).snapshot()


def test_a_value_is_counted_at_least_once() -> None:
    with pytest.raises(AssertionError):
        Histogram().record_many([1], weight=0)


def test_quantiles_come_from_the_nearest_rank() -> None:
    histogram = filled(*[10] * 98, 50, 100)
    assert [histogram.quantile(share) for share in (0.0, 0.5, 0.98, 0.981, 0.99, 0.991, 1.0)] == [
        10, 10, 10, 50, 50, 100, 100,
    ]  # fmt: skip


def test_a_quantile_is_a_whole_number_in_the_middle_of_its_bucket() -> None:
    answer = filled(1000, 1001).quantile(0.5)
    assert (answer, type(answer)) == (1003, int)


def test_a_snapshot_stays_as_it_is() -> None:
    histogram = filled(1, 2)
    before = histogram.snapshot()
    histogram.record(3)
    assert (before.count, before.total) == (2, 3)
    assert hash(before) == hash(filled(2, 1).snapshot())


def test_reading_changes_nothing() -> None:
    histogram = filled(1, 1000)
    before = histogram.snapshot()
    assert histogram.quantile(0.5) == 1
    assert histogram.count == 2
    assert histogram.least == 1
    assert histogram.snapshot() == before


def test_counts_up_to_a_value_include_its_whole_bucket() -> None:
    snapshot = filled(0, 5, 127, 1000, 1007, 1008, VALUE_MAX).snapshot()
    assert [snapshot.count_at_most(value) for value in (-1, 0, 4, 5, 127, 999, 1000, 1008, 10**30)] == [
        0, 1, 1, 2, 3, 3, 5, 6, 7,
    ]  # fmt: skip


def test_buckets_are_told_by_the_largest_value_they_hold() -> None:
    assert filled(3, 1000, 1001).snapshot().buckets() == ((3, 1), (1007, 2))


def test_merging_is_recording_both() -> None:
    both = filled(1, 1000, 1000, 10**15)
    here = filled(1, 1000)
    here.merge(filled(1000, 10**15))
    assert here.snapshot() == both.snapshot()
    here.merge(here.snapshot())
    here.merge(Histogram())
    assert here.count == 8
    assert filled(1, 1000).snapshot().merged(filled(1000, 10**15).snapshot()) == both.snapshot()


def test_a_histogram_can_be_merged_with_itself() -> None:
    histogram = filled(7, 900)
    histogram.merge(histogram)
    assert histogram.snapshot() == filled(7, 900, 7, 900).snapshot()


def test_histograms_of_different_units_cannot_be_merged() -> None:
    with pytest.raises(AssertionError):
        Histogram().merge(Histogram(units_per_s=1000))
    with pytest.raises(AssertionError):
        Histogram().snapshot().merged(Histogram(units_per_s=1000).snapshot())


@pytest.mark.parametrize("units_per_s", [0, -1, 10**13, 1.5])
def test_an_impossible_unit_is_refused_by_name(units_per_s: int) -> None:
    with pytest.raises(BadSettings, match=r"histogram\.units_per_s"):
        Histogram(units_per_s=units_per_s)
