"""Pauses after failures: they grow, they have a bound, and one success is not enough to end the row."""

from __future__ import annotations

from random import Random

import pytest

from budao.model import BadSettings, Mono
from budao.store import Patience, PatiencePolicy

POLICY = PatiencePolicy(pause_first_s=1.0, pause_max_s=8.0)


class Highest(Random):
    def uniform(self, a: float, b: float) -> float:
        assert a == 0.0
        return b


def test_pauses_double_up_to_the_longest() -> None:
    patience = Patience(POLICY)
    assert [patience.pause_s(Mono(0.0), Highest()) for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_a_thousand_failures_overflow_nothing() -> None:
    patience = Patience(POLICY)
    assert max(patience.pause_s(Mono(0.0), Random(n)) for n in range(2_000)) <= 8.0


def test_a_short_success_leaves_the_row_and_a_long_one_ends_it() -> None:
    patience = Patience(POLICY)
    patience.pause_s(Mono(0.0), Highest())
    patience.went_well(Mono(10.0))
    assert patience.pause_s(Mono(17.9), Highest()) == 2.0
    patience.went_well(Mono(20.0))
    patience.went_well(Mono(27.0))
    assert patience.pause_s(Mono(28.0), Highest()) == 1.0


def test_a_pause_that_cannot_be_is_a_bad_setting() -> None:
    with pytest.raises(BadSettings, match="pause_first_s"):
        PatiencePolicy(pause_first_s=0.0)
    with pytest.raises(BadSettings, match="shorter than"):
        PatiencePolicy(pause_first_s=3.0)
