from __future__ import annotations

import sys
from math import floor, nan

import pytest

from budao.measure import Window
from budao.model import BadSettings, Mono

OK, FAILED, SLOW = range(3)
COLUMNS = ("ok", "failed", "slow")


def window(*, window_s: float = 10.0, buckets: int = 10) -> Window:
    return Window(COLUMNS, window_s=window_s, buckets=buckets)


def test_a_window_that_was_told_nothing_counts_nothing() -> None:
    assert window().totals(Mono(3.0)) == (0, 0, 0)


def test_each_column_counts_for_itself() -> None:
    counts = window()
    counts.add(OK, 5, Mono(0.5))
    counts.add(SLOW, 2, Mono(0.6))
    assert counts.totals(Mono(0.7)) == (5, 0, 2)
    assert counts.columns == COLUMNS


def test_a_window_knows_its_shape() -> None:
    counts = Window(("calls",), window_s=30.0, buckets=12)
    assert (counts.window_s, counts.buckets) == (30.0, 12)


def test_a_bucket_is_forgotten_whole_once_the_window_has_moved_past_it() -> None:
    counts = window()
    counts.add(OK, 1, Mono(0.0))
    counts.add(FAILED, 1, Mono(0.999))
    assert counts.totals(Mono(9.999)) == (1, 1, 0)
    assert counts.totals(Mono(10.0)) == (0, 0, 0)


def test_looking_ahead_forgets_only_in_the_answer() -> None:
    counts = window()
    for second in range(10):
        counts.add(OK, 1, Mono(second))
    assert [counts.totals(Mono(now))[OK] for now in (9, 10, 14, 18, 19, 1e6)] == [10, 9, 5, 1, 0, 0]
    assert counts.totals(Mono(9.0)) == (10, 0, 0)


def test_looking_ahead_is_right_wherever_the_ring_starts() -> None:
    counts = window()
    for second in range(25):
        counts.add(SLOW, second, Mono(second))
        for ahead in range(12):
            expected = sum(range(max(0, second + ahead - 9), second + 1))
            assert counts.totals(Mono(second + ahead)) == (0, 0, expected)


def test_a_ring_that_has_turned_counts_only_the_last_window() -> None:
    counts = window()
    for second in range(100):
        counts.add(FAILED, second, Mono(second + 0.5))
    assert counts.totals(Mono(99.5)) == (0, sum(range(90, 100)), 0)


def test_a_long_silence_leaves_an_empty_window() -> None:
    counts = window()
    counts.add(OK, 7, Mono(1.0))
    counts.add(FAILED, 1, Mono(1e8))
    assert counts.totals(Mono(1e8)) == (0, 1, 0)


def test_a_clock_that_stands_still_or_goes_back_counts_in_the_newest_bucket() -> None:
    counts = window()
    counts.add(OK, 1, Mono(50.0))
    counts.add(OK, 1, Mono(50.0))
    counts.add(OK, 1, Mono(-1e6))
    assert counts.totals(Mono(-1e6)) == (3, 0, 0)
    assert counts.totals(Mono(59.9)) == (3, 0, 0)
    assert counts.totals(Mono(60.0)) == (0, 0, 0)


def test_instants_before_zero_have_buckets_too() -> None:
    counts = window()
    counts.add(OK, 1, Mono(-0.5))
    counts.add(OK, 1, Mono(0.5))
    assert counts.totals(Mono(8.9)) == (2, 0, 0)
    assert counts.totals(Mono(9.0)) == (1, 0, 0)


@pytest.mark.parametrize(("number", "bucket_s"), [(3, 0.1), (49, 1 / 49), (10_000_001, 0.1), (5, 0.7), (6, 1.1)])
def test_a_bucket_starts_exactly_at_its_multiple_though_division_rounds(number: int, bucket_s: float) -> None:
    counts = Window(("calls",), window_s=bucket_s, buckets=1)
    start = number * bucket_s
    counts.add(0, 1, Mono(start))
    assert counts.totals(Mono(start)) == (1,)
    assert counts.totals(Mono((number + 1) * bucket_s)) == (0,)
    assert counts._until == (number + 1) * bucket_s


@pytest.mark.parametrize(
    ("now", "bucket_s", "number", "quotient"),
    [
        (289_835.38116965536, 0.664155301639689, 436_397, 436_396),
        (2_001_429.5399999998, 2.42, 827_036, 827_037),
        (0.3, 0.1, 2, 2),  # three times 0.1, as a float, is past 0.3
    ],
)
def test_a_quotient_that_rounds_across_a_bucket_is_put_right(
    now: float, bucket_s: float, number: int, quotient: int
) -> None:
    assert floor(now / bucket_s) == quotient
    assert number * bucket_s <= now < (number + 1) * bucket_s
    assert Window(("calls",), window_s=bucket_s, buckets=1)._ends_at(now) == (number + 1) * bucket_s


def test_a_cleared_window_starts_again_and_keeps_its_place_in_time() -> None:
    counts = window()
    counts.add(OK, 1, Mono(50.0))
    counts.clear(Mono(40.0))
    assert counts.totals(Mono(50.0)) == (0, 0, 0)
    counts.add(OK, 1, Mono(45.0))
    assert counts.totals(Mono(59.0)) == (1, 0, 0)
    counts.clear(Mono(70.0))
    counts.add(OK, 1, Mono(60.0))
    assert counts.totals(Mono(79.9)) == (1, 0, 0)
    assert counts.totals(Mono(80.0)) == (0, 0, 0)


def test_merging_puts_counts_into_the_buckets_they_belong_to() -> None:
    here, there = window(), window()
    here.add(OK, 1, Mono(0.5))
    here.add(OK, 10, Mono(4.5))
    there.add(OK, 100, Mono(2.5))
    there.add(FAILED, 1, Mono(11.5))
    here.merge(there)
    assert here.totals(Mono(11.5)) == (110, 1, 0)
    assert here.totals(Mono(12.0)) == (10, 1, 0)
    assert here.totals(Mono(14.0)) == (0, 1, 0)
    assert there.totals(Mono(11.5)) == (100, 1, 0)


def test_merging_an_older_window_drops_what_is_forgotten_here() -> None:
    here, there = window(), window()
    here.add(OK, 1, Mono(15.5))
    there.add(OK, 10, Mono(5.5))
    there.add(OK, 100, Mono(6.5))
    here.merge(there)
    assert here.totals(Mono(15.5)) == (101, 0, 0)
    assert here.totals(Mono(16.0)) == (1, 0, 0)


def test_merging_with_an_empty_window_or_with_itself_does_what_it_says() -> None:
    here = window()
    here.add(OK, 3, Mono(1.0))
    here.merge(window())
    assert here.totals(Mono(1.0)) == (3, 0, 0)
    here.merge(here)
    assert here.totals(Mono(1.0)) == (6, 0, 0)
    empty = window()
    empty.merge(window())
    assert empty.totals(Mono(0.0)) == (0, 0, 0)


def test_windows_of_other_shapes_cannot_be_merged() -> None:
    for other in (Window(("ok",)), window(window_s=20.0), window(buckets=5)):
        with pytest.raises(AssertionError):
            window().merge(other)


@pytest.mark.parametrize(("column", "amount"), [(3, 1), (-1, 1), (0, -1)])
def test_a_column_that_is_not_there_or_a_negative_count_is_our_own_mistake(column: int, amount: int) -> None:
    with pytest.raises(AssertionError):
        window().add(column, amount, Mono(0.0))


def test_a_total_too_large_to_hold_is_refused_and_nothing_is_counted() -> None:
    counts = window()
    counts.add(OK, 2**63 - 1, Mono(0.0))
    with pytest.raises(OverflowError):
        counts.add(OK, 1, Mono(1.0))
    assert counts.totals(Mono(1.0)) == (2**63 - 1, 0, 0)
    assert counts.totals(Mono(10.0)) == (0, 0, 0)


def test_a_busy_window_of_ten_buckets_and_three_columns_stays_within_500_bytes() -> None:
    counts = window()
    for second in range(100):
        for column in range(3):
            counts.add(column, 10**12, Mono(second))
    parts = (counts, counts._counts, counts._until, counts._bucket_s)
    garbage_collector_header = 16
    assert sum(map(sys.getsizeof, parts)) + garbage_collector_header <= 500


@pytest.mark.parametrize(
    ("columns", "window_s", "buckets", "path"),
    [
        (COLUMNS, 0.0, 10, "window.window_s"),
        (COLUMNS, -1.0, 10, "window.window_s"),
        (COLUMNS, nan, 10, "window.window_s"),
        (COLUMNS, 1e-6, 10, "window.window_s"),
        (COLUMNS, 10.0, 0, "window.buckets"),
        ((), 10.0, 10, "window.columns"),
        (("ok", "ok"), 10.0, 10, "window.columns"),
    ],
)
def test_impossible_windows_are_refused_by_name(
    columns: tuple[str, ...], window_s: float, buckets: int, path: str
) -> None:
    with pytest.raises(BadSettings) as refused:
        Window(columns, window_s=window_s, buckets=buckets)
    assert [where for where, _ in refused.value.problems] == [path]
