"""The score of a connection: its three parts, its units, and what cannot move its threshold."""

from __future__ import annotations

from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import BadSettings
from budao.push import Health, HealthPolicy, calm_share

POLICY = HealthPolicy()


def looked(looks: list[tuple[int, int]], *, resent_share: float = 0.0, calm: float = 1.0) -> Health:
    health, sent = Health(), 0
    for rtt_us, rttvar_us in looks:
        sent += 10_000
        health.look(rtt_us, rttvar_us, sent, int(sent * resent_share), calm, POLICY)
    return health


def test_a_steady_clean_connection_of_a_calm_prefix_is_perfect() -> None:
    assert looked([(200_000, 10_000)] * 20).score == 100.0


def test_the_jitter_of_a_lan_and_delayed_acknowledgements_cost_nothing() -> None:
    assert looked([(60, 200), (40_000, 20_000), (300, 20_000)] * 20).score == 100.0


def test_a_round_trip_that_jumps_costs_its_forty_points_and_becomes_usual_again() -> None:
    health = looked([(100_000, 5_000)] * 20)
    assert health.look(600_000, 100_000, 10**6, 0, 1.0, POLICY) == pytest.approx(60.0)
    for number in range(60):
        score = health.look(600_000, 10_000, 10**6 + number + 1, 0, 1.0, POLICY)
    assert score == 100.0


def test_a_jitter_that_grows_slowly_cannot_move_its_threshold_far() -> None:
    looks = [(200_000, 10_000 + 2_000 * number) for number in range(120)]  # to 1.2 of the round trip, over a minute
    assert looked(looks).score == pytest.approx(60.0)


def test_bytes_sent_again_cost_by_the_formula() -> None:
    assert looked([(100_000, 1_000)] * 50, resent_share=0.1).score == pytest.approx(75 + 25 * exp(-1.0), abs=0.2)


def test_bad_ends_of_the_prefix_cost_thirty_five_points() -> None:
    assert calm_share(0.0, POLICY) == 1.0
    assert calm_share(2.5, POLICY) == 0.5
    assert calm_share(50.0, POLICY) == 0.0
    assert looked([(100_000, 1_000)], calm=0.0).score == 65.0


def test_a_look_that_saw_nothing_new_teaches_nothing() -> None:
    health = looked([(100_000, 1_000)] * 10)
    before = health.score
    assert health.look(900_000, 900_000, 100_000, 0, 1.0, POLICY) == before


def test_a_policy_whose_bounds_cross_is_refused() -> None:
    with pytest.raises(BadSettings, match="strays_max"):
        HealthPolicy(strays_min=0.6)


numbers = st.integers(0, 2**32 - 1)


@given(
    st.lists(st.tuples(numbers, numbers, st.integers(0, 2**63), st.integers(0, 2**63)), min_size=1, max_size=40),
    st.floats(0, 1),
)
def test_whatever_the_kernel_says_the_score_is_from_0_to_100(
    looks: list[tuple[int, int, int, int]], calm: float
) -> None:
    health = Health()
    for rtt_us, rttvar_us, sent, resent in looks:
        assert 0.0 <= health.look(rtt_us, rttvar_us, sent, resent, calm, POLICY) <= 100.0 + 1e-9
