from __future__ import annotations

from math import inf, log, nan

import pytest

from budao.measure import Fading
from budao.model import BadSettings, Mono


def test_a_level_that_was_never_raised_is_zero() -> None:
    assert Fading(half_life_s=1.0).at(Mono(5.0)) == 0.0


def test_a_level_halves_every_half_life() -> None:
    fading = Fading(half_life_s=10.0)
    fading.add(8.0, Mono(100.0))
    assert [fading.at(Mono(now)) for now in (100.0, 110.0, 120.0, 130.0)] == [8.0, 4.0, 2.0, 1.0]


def test_what_is_added_stands_on_what_has_faded() -> None:
    fading = Fading(half_life_s=10.0)
    fading.add(8.0, Mono(0.0))
    fading.add(1.0, Mono(10.0))
    assert fading.at(Mono(10.0)) == 5.0
    fading.add(-2.0, Mono(10.0))
    assert fading.at(Mono(20.0)) == 1.5


def test_looking_changes_nothing() -> None:
    fading = Fading(half_life_s=10.0)
    fading.add(8.0, Mono(0.0))
    assert fading.at(Mono(1e9)) == 0.0
    assert fading.at(Mono(10.0)) == 4.0


def test_an_instant_before_the_last_addition_is_treated_as_the_last() -> None:
    fading = Fading(half_life_s=10.0)
    fading.add(8.0, Mono(100.0))
    assert fading.at(Mono(-50.0)) == 8.0
    fading.add(1.0, Mono(-50.0))
    assert fading.at(Mono(100.0)) == 9.0
    assert fading.at(Mono(110.0)) == 4.5


def test_a_steady_stream_settles_at_its_rate_times_the_half_life_over_log_two() -> None:
    fading = Fading(half_life_s=2.0)
    for step in range(10_000):
        fading.add(0.05, Mono(step * 0.01))
    assert fading.at(Mono(99.99)) == pytest.approx(5.0 * 2.0 / log(2.0), rel=0.01)


def test_merged_levels_are_those_of_both_histories() -> None:
    here, there = Fading(half_life_s=10.0), Fading(half_life_s=10.0)
    here.add(8.0, Mono(0.0))
    there.add(3.0, Mono(10.0))
    here.merge(there)
    assert here.at(Mono(10.0)) == 7.0
    there.merge(Fading(half_life_s=10.0))
    assert there.at(Mono(10.0)) == 3.0
    fresh = Fading(half_life_s=10.0)
    fresh.merge(there)
    assert fresh.at(Mono(20.0)) == 1.5


def test_levels_that_fade_differently_cannot_be_merged() -> None:
    with pytest.raises(AssertionError):
        Fading(half_life_s=1.0).merge(Fading(half_life_s=2.0))


@pytest.mark.parametrize("half_life_s", [0.0, -1.0, inf, nan])
def test_an_impossible_half_life_is_refused_by_name(half_life_s: float) -> None:
    with pytest.raises(BadSettings, match=r"fading\.half_life_s"):
        Fading(half_life_s=half_life_s)
