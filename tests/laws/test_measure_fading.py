"""A fading level is the sum of everything added, each amount faded by its own age."""

from __future__ import annotations

from math import exp2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.measure import Fading
from budao.model import Mono

AMOUNTS = st.floats(0.0, 1e6)
INSTANTS = st.floats(-1e4, 1e4)
ADDITIONS = st.lists(st.tuples(AMOUNTS, INSTANTS), max_size=30)
HALF_LIVES = st.floats(0.1, 1e4)


class Twin:
    """Keeps every amount, and the instant it was added at as far as the clock never goes back."""

    def __init__(self, half_life_s: float) -> None:
        self.half_life_s = half_life_s
        self.added: list[tuple[float, float]] = []

    def latest(self, now: float) -> float:
        return max([now, *(at for _, at in self.added)])

    def add(self, amount: float, now: float) -> None:
        self.added.append((amount, self.latest(now)))

    def at(self, now: float) -> float:
        now = self.latest(now)
        return sum(amount * exp2((at - now) / self.half_life_s) for amount, at in self.added)


def both(half_life_s: float, additions: list[tuple[float, float]]) -> tuple[Fading, Twin]:
    fading, twin = Fading(half_life_s=half_life_s), Twin(half_life_s)
    for amount, now in additions:
        fading.add(amount, Mono(now))
        twin.add(amount, now)
    return fading, twin


@given(HALF_LIVES, ADDITIONS, st.lists(INSTANTS, max_size=10))
def test_a_level_is_the_sum_of_what_was_added_faded_whatever_the_clock_does(
    half_life_s: float, additions: list[tuple[float, float]], looks: list[float]
) -> None:
    fading, twin = both(half_life_s, additions)
    for now in looks:
        assert fading.at(Mono(now)) == pytest.approx(twin.at(now), rel=1e-9, abs=1e-9)


@given(HALF_LIVES, ADDITIONS, ADDITIONS, INSTANTS)
def test_levels_merge_in_any_order_into_the_level_of_both_histories(
    half_life_s: float, here: list[tuple[float, float]], there: list[tuple[float, float]], now: float
) -> None:
    one, twin_one = both(half_life_s, here)
    other, twin_other = both(half_life_s, there)
    swapped, _ = both(half_life_s, there)
    swapped.merge(one)
    one.merge(other)
    latest = max(twin_one.latest(now), twin_other.latest(now))
    expected = twin_one.at(latest) + twin_other.at(latest)
    assert one.at(Mono(latest)) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert swapped.at(Mono(latest)) == pytest.approx(expected, rel=1e-9, abs=1e-9)
