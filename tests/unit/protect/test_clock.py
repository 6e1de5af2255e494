from __future__ import annotations

from math import inf, isfinite, nan

from hypothesis import given
from hypothesis import strategies as st

from budao.protect import default_clock, strict


def test_the_default_clock_tells_later_instants_each_time() -> None:
    clock = default_clock()
    told = [clock() for _ in range(1_000)]
    assert told == sorted(set(told))


@given(st.lists(st.floats(-1e300, 1e300) | st.sampled_from([nan, inf, -inf]), min_size=1))
def test_whatever_the_clock_below_says_each_reading_is_a_number_later_than_the_last(told: list[float]) -> None:
    clock = strict(iter(told).__next__)
    readings = [clock() for _ in told]
    assert all(isfinite(reading) for reading in readings)
    assert readings == sorted(set(readings))


def test_a_clock_that_moves_is_told_as_it_is() -> None:
    clock = strict(iter([1.0, 2.0, 5.0]).__next__)
    assert [clock(), clock(), clock()] == [1.0, 2.0, 5.0]


def test_a_clock_that_goes_back_stands_until_it_has_caught_up() -> None:
    clock = strict(iter([5.0, 3.0, 4.0, 6.0]).__next__)
    first, second, third, fourth = clock(), clock(), clock(), clock()
    assert 5.0 == first < second < third < 5.000001
    assert fourth == 6.0


def test_a_clock_that_says_no_time_at_all_starts_at_zero() -> None:
    clock = strict(iter([nan, inf, 1.0]).__next__)
    first, second, third = clock(), clock(), clock()
    assert (first, third) == (0.0, 1.0)
    assert 0.0 < second < 1e-300
