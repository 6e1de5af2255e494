"""The balancers by name: what each is known for, with numbers."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TypeVar

import pytest

from budao.discovery import BALANCERS, Balancer, balancer
from budao.discovery.balancing import (
    BoundedLoad,
    LatencyFeedback,
    LeastRequest,
    Maglev,
    PeakEwma,
    Prequal,
    RandomChoice,
    RoundRobin,
    maglev_table,
)
from budao.discovery.balancing.bounded_load import POINTS, POINTS_ALL
from budao.model import BadSettings, Endpoint, Load, Mono

B = TypeVar("B", bound=Balancer)


def pool(*weights: float) -> list[Endpoint]:
    return [
        Endpoint(id=f"s{index:02}", host="10.0.0.1", port=80, weight=weight) for index, weight in enumerate(weights)
    ]


def serve(chooser: Balancer, count: int, took_s: dict[str, float] | None = None, *, since: float = 0.0) -> Counter[str]:
    """Calls one after the other, a hundred a second."""
    found: Counter[str] = Counter()
    for each in range(count):
        now = Mono(since + each * 0.01)
        choice = chooser.pick(now)
        assert choice is not None
        found[choice.endpoint.id] += 1
        took = (took_s or {}).get(choice.endpoint.id, 0.01)
        chooser.settle(choice, took, False, Load(0, took), now)
    return found


def hold(chooser: Balancer, count: int) -> Counter[str]:
    """Calls that do not end."""
    return Counter(choice.endpoint.id for _ in range(count) if (choice := chooser.pick(Mono(0.0))))


def renewed(chooser: B, endpoints: list[Endpoint]) -> B:
    chooser.renew(endpoints, Mono(0.0))
    return chooser


def test_round_robin_takes_turns_in_proportion_to_weights_and_spreads_them() -> None:
    chooser = renewed(RoundRobin(), pool(2.0, 1.0, 1.0))
    assert serve(chooser, 400) == {"s00": 200, "s01": 100, "s02": 100}
    row = [choice.endpoint.id for _ in range(40) if (choice := chooser.pick(Mono(9.0)))]
    assert "s01" in row[:4]
    assert all(row[each : each + 3] != ["s00"] * 3 for each in range(38))


def test_a_newcomer_to_the_round_catches_up_nothing() -> None:
    chooser = renewed(RoundRobin(), pool(1.0, 1.0))
    serve(chooser, 100)
    chooser.renew(pool(1.0, 1.0, 1.0), Mono(1.0))
    assert serve(chooser, 30)["s02"] <= 11


def test_random_keeps_to_the_weights() -> None:
    found = serve(renewed(RandomChoice(Random(1)), pool(3.0, 1.0)), 4000)
    assert 2850 <= found["s00"] <= 3150


def test_least_request_evens_out_what_is_in_flight() -> None:
    found = hold(renewed(LeastRequest(Random(1)), pool(*[1.0] * 10)), 1000)
    assert max(found.values()) - min(found.values()) <= 6


def test_least_request_gives_a_heavy_endpoint_more_in_flight() -> None:
    found = hold(renewed(LeastRequest(Random(1)), pool(3.0, 1.0)), 400)
    assert 270 <= found["s00"] <= 330


def test_peak_ewma_keeps_away_from_the_slow_and_forgets_over_time() -> None:
    chooser = renewed(PeakEwma(Random(1)), pool(*[1.0] * 5))
    found = serve(chooser, 2000, {"s00": 0.5})
    assert found["s00"] <= 40
    assert serve(chooser, 2000, since=20.0)["s00"] >= 200


def test_latency_feedback_gives_half_the_time_twice_the_calls() -> None:
    found = serve(renewed(LatencyFeedback(), pool(1.0, 1.0)), 3000, {"s00": 0.02})
    assert found["s01"] / found["s00"] == pytest.approx(2.0, rel=0.1)


def test_latency_feedback_never_weighs_more_than_a_hundred_to_one() -> None:
    found = serve(renewed(LatencyFeedback(), pool(1.0, 1.0)), 3000, {"s00": 100.0})
    assert found["s00"] >= 15


def test_maglev_is_within_one_percent_and_moves_few_keys_on_a_removal() -> None:
    endpoints = pool(*[1.0] * 20)
    table = maglev_table(endpoints)
    shares = Counter(table)
    fair = len(table) / 20
    assert max(abs(each / fair - 1.0) for each in shares.values()) <= 0.01
    after = maglev_table(endpoints[:7] + endpoints[8:])
    moved = sum(was != (now if now < 7 else now + 1) for was, now in zip(table, after, strict=True))
    assert shares[7] <= moved <= 1.2 * shares[7]


def test_maglev_keeps_to_weights() -> None:
    shares = Counter(maglev_table(pool(3.0, 1.0)))
    assert shares[0] / shares[1] == pytest.approx(3.0, rel=0.01)


def test_maglev_keeps_equal_keys_together_in_every_process() -> None:
    one, other = renewed(Maglev(Random(1)), pool(*[1.0] * 5)), renewed(Maglev(Random(2)), pool(*[1.0] * 5)[::-1])
    for each in range(50):
        key = f"user-{each}".encode()
        first, second = one.pick(Mono(0.0), key=key), other.pick(Mono(0.0), key=key)
        assert first is not None
        assert second is not None
        assert first.endpoint == second.endpoint


def test_maglev_spreads_the_keys_of_an_endpoint_to_be_avoided() -> None:
    chooser = renewed(Maglev(Random(1), slots=1009), pool(*[1.0] * 5))
    second = Counter(
        choice.endpoint.id
        for each in range(500)
        if (choice := chooser.pick(Mono(0.0), key=f"{each}".encode(), avoid={"s00"}))
    )
    assert len(second) == 4
    assert max(second.values()) < 200


def test_a_table_needs_a_prime() -> None:
    with pytest.raises(BadSettings, match="1000 is not a prime"):
        Maglev(Random(1), slots=1000)


def test_bounded_load_keeps_every_endpoint_under_its_bound_and_equal_keys_together_below_it() -> None:
    chooser = renewed(BoundedLoad(Random(1), over_share=0.25), pool(*[1.0] * 10))
    first = chooser.pick(Mono(0.0), key=b"hot")
    assert first is not None
    chooser.drop(first, Mono(0.0))
    again = chooser.pick(Mono(0.0), key=b"hot")
    assert again is not None
    assert again.endpoint == first.endpoint
    for count in range(2, 400):
        choice = chooser.pick(Mono(0.0), key=b"hot")
        assert choice is not None
        assert choice.place.in_flight <= -(-1.25 * count // 10)


def test_a_ring_of_many_endpoints_stays_small_and_still_holds_them_all() -> None:
    chooser = renewed(BoundedLoad(Random(1)), pool(*[1.0] * 3_000))
    assert len(chooser._points) == POINTS_ALL
    assert len({each.endpoint.id for each in chooser._owners}) == 3_000
    assert len(renewed(BoundedLoad(Random(1)), pool(*[1.0] * 100))._points) == 100 * POINTS


def test_prequal_takes_the_fastest_that_is_not_crowded() -> None:
    found = serve(renewed(Prequal(Random(1)), pool(*[1.0] * 5)), 2000, {"s00": 0.1})
    assert found["s00"] <= 200


def test_prequal_forgets_reports_of_those_that_left() -> None:
    chooser = renewed(Prequal(Random(1)), pool(*[1.0] * 5))
    serve(chooser, 200)
    chooser.renew(pool(1.0, 1.0), Mono(2.0))
    assert set(hold(chooser, 50)) <= {"s00", "s01"}


@pytest.mark.parametrize("name", BALANCERS)
def test_every_name_makes_a_balancer_that_has_nothing_to_pick_from_at_first(name: str) -> None:
    chooser = balancer(name, Random(1))
    assert chooser.pick(Mono(0.0)) is None
    chooser.renew([], Mono(0.0))
    assert chooser.pick(Mono(0.0), key=b"k", avoid={"s00"}) is None


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(BadSettings, match="'best' is not one of live-cost, round-robin"):
        balancer("best", Random(1))


def test_prequal_counts_each_use_of_a_report_as_one_more_in_flight() -> None:
    chooser = renewed(Prequal(Random(1), uses_max=5), pool(1.0, 1.0))
    for name, other, took_s in (("s00", "s01", 0.01), ("s01", "s00", 0.02)):
        choice = chooser.pick(Mono(0.0), avoid={other})
        assert choice is not None
        assert choice.endpoint.id == name
        chooser.settle(choice, took_s, False, Load(0, took_s), Mono(0.0))
    # Both idle: the fastest. That one crowded by a call: the other. Both crowded: the least, and so in turns.
    row = [choice.endpoint.id for _ in range(4) if (choice := chooser.pick(Mono(0.0)))]
    assert row == ["s00", "s01", "s00", "s01"]
