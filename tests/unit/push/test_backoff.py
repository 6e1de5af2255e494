"""The pauses of a client: bounded, jittered, and as the server advised."""

from __future__ import annotations

from math import inf
from random import Random

import pytest

from budao.model import BadSettings
from budao.push import Advice, Backoff, BackoffPolicy


class Most(Random):
    """Always the upper end."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_the_ceiling_doubles_up_to_its_bound_for_ever() -> None:
    backoff = Backoff()
    pauses = [backoff.pause_s(Most()) for _ in range(2_000)]
    assert pauses[:7] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert pauses[-1] == 30.0


def test_the_jitter_is_full() -> None:
    rng = Random(1)
    pauses = [Backoff().pause_s(rng) or 0.0 for _ in range(1_000)]
    assert min(pauses) < 0.01
    assert max(pauses) > 0.49
    assert 0.22 < sum(pauses) / 1_000 < 0.28


def test_advice_goes_before() -> None:
    assert Backoff().pause_s(Most(), Advice.NOW) == 0.05
    assert Backoff().pause_s(Most(), Advice.NEVER) is None
    asked = Backoff().pause_s(Random(1), Advice.LATER, 7.0)
    assert asked is not None
    assert 7.0 <= asked <= 7.7


def test_now_again_and_again_backs_off_all_the_same() -> None:
    backoff = Backoff()
    assert [backoff.pause_s(Most(), Advice.NOW) for _ in range(4)] == [0.05, 1.0, 2.0, 4.0]


def test_what_is_asked_is_bounded_and_nonsense_is_not_heard() -> None:
    assert Backoff().pause_s(Most(), Advice.LATER, 1e9) == pytest.approx(660.0)
    for nonsense in (inf, float("nan"), -3.0):
        assert Backoff().pause_s(Most(), Advice.LATER, nonsense) == 0.5


def test_a_connection_that_lasted_starts_afresh_and_a_short_one_does_not() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.pause_s(Most())
    backoff.connected_for(1.0)
    assert backoff.failed == 5
    backoff.connected_for(10.0)
    assert backoff.failed == 0
    assert backoff.pause_s(Most()) == 0.5


def test_a_policy_whose_bounds_cross_is_refused() -> None:
    with pytest.raises(BadSettings, match="max_s"):
        BackoffPolicy(first_s=5.0, max_s=1.0)
