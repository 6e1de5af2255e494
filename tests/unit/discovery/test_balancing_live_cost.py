"""The default balancer: each term of its score, with numbers."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from budao.discovery import LiveCost, LiveCostPolicy
from budao.model import BadSettings, Endpoint, Load, Mono


def endpoint(name: str, **more: object) -> Endpoint:
    return Endpoint(id=name, host="10.0.0.1", port=80, **more)  # type: ignore[arg-type]


def pool(count: int) -> list[Endpoint]:
    return [endpoint(f"s{each:02}") for each in range(count)]


def made(endpoints: list[Endpoint], *, zone: str = "", client: str = "c", seed: int = 1, **policy: float) -> LiveCost:
    balancer = LiveCost(LiveCostPolicy(**policy), rng=Random(seed), zone=zone, client=client)  # type: ignore[arg-type]
    balancer.renew(endpoints, Mono(0.0))
    return balancer


def call(
    balancer: LiveCost,
    now: float,
    *,
    failing: frozenset[str] = frozenset(),
    service_s: dict[str, float] | None = None,
    says: bool = True,
) -> str:
    """One call that ends at once, as far as the balancer can tell."""
    choice = balancer.pick(Mono(now))
    assert choice is not None
    name = choice.endpoint.id
    took_s = (service_s or {}).get(name, 0.01)
    balancer.settle(choice, took_s, name in failing, Load(0, took_s) if says else None, Mono(now))
    return name


def calls(balancer: LiveCost, count: int, since: float = 0.0, **more: object) -> Counter[str]:
    """A hundred calls a second."""
    return Counter(call(balancer, since + each * 0.01, **more) for each in range(count))  # type: ignore[arg-type]


def test_without_endpoints_there_is_no_choice() -> None:
    assert made([]).pick(Mono(0.0)) is None


def test_equal_endpoints_get_equal_calls_even_one_call_at_a_time() -> None:
    found = calls(made(pool(10)), 1000)
    assert set(found) == {f"s{each:02}" for each in range(10)}
    assert max(found.values()) <= 1.1 * 100
    assert min(found.values()) >= 0.9 * 100


def test_clients_begin_at_different_endpoints() -> None:
    first = {call(made(pool(10), seed=seed), 0.0) for seed in range(20)}
    assert len(first) >= 6


def test_weights_are_kept_one_call_at_a_time_and_under_load() -> None:
    endpoints = [endpoint("heavy", weight=3.0), endpoint("light", weight=1.0)]
    serial = calls(made(endpoints), 400)
    assert 260 <= serial["heavy"] <= 340
    crowd = made(endpoints)
    held = Counter(choice.endpoint.id for _ in range(40) if (choice := crowd.pick(Mono(0.0))))
    assert 28 <= held["heavy"] <= 32


def test_capacities_count_like_weights_when_all_say_theirs() -> None:
    big, small, silent = endpoint("big", capacity=30), endpoint("small", capacity=10), endpoint("silent")
    crowd = made([big, small])
    held = Counter(choice.endpoint.id for _ in range(40) if (choice := crowd.pick(Mono(0.0))))
    assert 28 <= held["big"] <= 32
    mixed = made([big, small, silent])
    assert {each.share for each in mixed.explain(Mono(0.0))} == {1.0}


def test_weight_nought_gets_calls_only_when_nobody_else_is_there() -> None:
    off, on = endpoint("off", weight=0.0), endpoint("on")
    assert set(calls(made([off, on]), 100)) == {"on"}
    assert set(calls(made([off]), 10)) == {"off"}


def test_a_slow_endpoint_gets_few_calls_and_comes_back_when_it_is_fast_again() -> None:
    balancer = made(pool(5))
    slow = calls(balancer, 2000, service_s={"s00": 0.1})
    assert slow["s00"] <= 0.05 * 2000
    calls(balancer, 3000, since=20.0)
    back = calls(balancer, 2000, since=50.0)
    assert back["s00"] >= 0.15 * 2000


def test_a_crowded_endpoint_waits_until_its_report_is_old() -> None:
    balancer = made(pool(2))
    choices = [balancer.pick(Mono(0.0)) for _ in range(2)]
    for choice in choices:
        assert choice is not None
        crowd = 50 if choice.endpoint.id == "s00" else 0
        balancer.settle(choice, 0.01, False, Load(crowd, 0.01), Mono(0.0))
    at_once = next(each for each in balancer.explain(Mono(0.0)) if each.id == "s00")
    assert at_once.queue > 40
    picked = calls(balancer, 50)
    assert picked["s00"] == 0
    for step in range(200):  # nobody calls, only time passes
        choice = balancer.pick(Mono(0.5 + step * 0.1))
        assert choice is not None
        balancer.drop(choice, Mono(0.5 + step * 0.1))
    later = next(each for each in balancer.explain(Mono(20.5)) if each.id == "s00")
    assert later.queue < 26  # the mean of the two


def test_a_server_that_fails_fast_gets_a_handful_of_calls() -> None:
    balancer = made(pool(20))
    calls(balancer, 200)
    found = calls(balancer, 6000, since=2.0, failing=frozenset({"s07"}), service_s={"s07": 0.0001})
    assert found["s07"] <= 6


def test_a_server_that_failed_comes_back() -> None:
    balancer = made(pool(20))
    calls(balancer, 200)
    calls(balancer, 1000, since=2.0, failing=frozenset({"s07"}))
    found = calls(balancer, 6000, since=12.0)
    last = calls(balancer, 1000, since=72.0)
    assert found["s07"] > 0
    assert 35 <= last["s07"] <= 65


def test_failures_in_a_row_weigh_exponentially() -> None:
    balancer = made([endpoint("only"), endpoint("other")], panic_share=1.0, penalty_max=1e12)
    penalties = []
    for _ in range(3):
        choice = balancer.pick(Mono(0.0), avoid={"other"})
        assert choice is not None
        balancer.settle(choice, 0.001, True, None, Mono(0.0))
        penalties += [each.penalty for each in balancer.explain(Mono(0.0)) if each.id == "only"]
    assert penalties[0] > 2.0
    assert penalties[1] / penalties[0] > 10.0
    assert penalties[2] / penalties[1] > 10.0


def test_a_failure_says_little_where_failures_are_common() -> None:
    def after(failing_calls: int) -> float:
        balancer = made(pool(10), panic_share=1.0)
        for each in range(400):
            choice = balancer.pick(Mono(each * 0.001))
            assert choice is not None
            balancer.settle(choice, 0.01, each % 10 < failing_calls, Load(0, 0.01), Mono(each * 0.001))
        return balancer._surprise()

    assert after(0) > 6.0
    assert after(1) < 3.0
    assert after(5) < 1.0


def test_when_most_are_ejected_ejection_counts_for_nothing() -> None:
    balancer = made(pool(4))
    calls(balancer, 40)
    bad = frozenset({"s00", "s01", "s02"})
    for name in sorted(bad) * 3:
        choice = balancer.pick(Mono(0.4), avoid={each.id for each in pool(4)} - {name})
        assert choice is not None
        assert choice.endpoint.id == name
        balancer.settle(choice, 0.001, True, None, Mono(0.4))
    balancer.renew(pool(4), Mono(0.5))
    assert balancer.is_panicking
    assert not any(each.is_ejected for each in balancer.explain(Mono(0.5)))
    held = Counter(choice.endpoint.id for _ in range(40) if (choice := balancer.pick(Mono(0.5))))
    assert min(held[name] for name in bad) >= 8


def test_half_ejected_is_no_panic() -> None:
    balancer = made(pool(4))
    calls(balancer, 40)
    for name in ("s00", "s01") * 3:
        choice = balancer.pick(Mono(0.4), avoid={each.id for each in pool(4)} - {name})
        assert choice is not None
        balancer.settle(choice, 0.001, True, None, Mono(0.4))
    balancer.renew(pool(4), Mono(0.4))
    assert not balancer.is_panicking
    assert sum(each.is_ejected for each in balancer.explain(Mono(0.4))) == 2
    assert set(calls(balancer, 40, since=0.41)) == {"s02", "s03"}


def test_the_share_of_a_newcomer_grows_steadily() -> None:
    balancer = made(pool(4))
    calls(balancer, 100)
    balancer.renew([*pool(4), endpoint("new")], Mono(1.0))
    shares = []
    for second in range(12):
        costs = {each.id: each for each in balancer.explain(Mono(1.0 + second))}
        shares.append(costs["new"].share)
        assert costs["s00"].share == 1.0
    assert shares[0] == pytest.approx(0.1)
    assert shares[5] == pytest.approx(0.55)
    assert shares == sorted(shares)
    assert shares[10] == shares[11] == 1.0


def test_a_newcomer_gets_calls_as_its_share_says() -> None:
    balancer = made(pool(4))
    calls(balancer, 100)
    balancer.renew([*pool(4), endpoint("new")], Mono(1.0))
    first = calls(balancer, 200, since=1.0)["new"]
    later = calls(balancer, 200, since=12.0)["new"]
    assert 1 <= first <= 20
    assert 30 <= later <= 50


def test_those_of_the_first_roster_start_at_once_even_after_an_empty_one() -> None:
    balancer = made([])
    balancer.renew(pool(3), Mono(5.0))
    assert {each.share for each in balancer.explain(Mono(5.0))} == {1.0}


def test_the_own_zone_is_preferred_until_it_is_crowded() -> None:
    near, far = endpoint("near", zone="a"), endpoint("far", zone="b")
    balancer = made([near, far], zone="a")
    held = [choice.endpoint.id for _ in range(12) if (choice := balancer.pick(Mono(0.0)))]
    assert held[0] == "near"
    assert "far" in held
    assert held.count("near") > held.count("far")
    assert set(calls(made([near, far], zone="a"), 1)) == {"near"}


def test_calls_leave_the_own_zone_at_the_fourth_in_flight() -> None:
    near, far = endpoint("near", zone="a"), endpoint("far", zone="b")
    balancer = made([near, far], zone="a")
    picked = [balancer.pick(Mono(0.0)) for _ in range(4)]
    assert [choice.endpoint.id for choice in picked if choice is not None] == ["near", "near", "near", "far"]


def test_without_a_zone_of_its_own_a_client_prefers_none() -> None:
    balancer = made([endpoint("near", zone="a"), endpoint("far", zone="b")])
    assert {each.place_factor for each in balancer.explain(Mono(0.0))} == {1.0}


def test_a_doubted_endpoint_is_the_last_resort() -> None:
    balancer = made([endpoint("sure"), endpoint("doubted", is_doubted=True)])
    assert set(calls(balancer, 100)) == {"sure"}
    assert set(calls(made([endpoint("doubted", is_doubted=True)]), 5)) == {"doubted"}


def test_what_was_tried_is_avoided_unless_nothing_is_left() -> None:
    balancer = made(pool(3))
    for _ in range(10):
        choice = balancer.pick(Mono(0.0), avoid={"s00", "s02"})
        assert choice is not None
        assert choice.endpoint.id == "s01"
    assert balancer.pick(Mono(0.0), avoid={"s00", "s01", "s02"}) is not None


def test_it_says_what_it_sees() -> None:
    balancer = made(pool(2))
    assert balancer.sees == "nothing yet"
    calls(balancer, 20, says=False)
    assert balancer.sees == "observed"
    call(balancer, 0.3)
    assert balancer.sees == "both"
    calls(balancer, 20, since=0.31)
    assert balancer.sees == "reported"


def test_unreported_endpoints_are_told_apart_by_their_response_times() -> None:
    found = calls(made(pool(5)), 2000, service_s={"s00": 0.1}, says=False)
    assert found["s00"] <= 0.05 * 2000


def test_an_explanation_reads_aloud_and_changes_nothing() -> None:
    balancer = made([endpoint("near", zone="a"), endpoint("far", zone="b")], zone="a")
    calls(balancer, 10)
    once, again = balancer.explain(Mono(1.0)), balancer.explain(Mono(1.0))
    assert once == again
    assert [each.id for each in once] == ["near", "far"]
    assert "service 10.0 ms (reported)" in str(once[0])
    assert "zone or doubt ×12" in str(once[1])


def test_renewal_keeps_what_was_learned_and_calls_of_those_that_left_can_end() -> None:
    balancer = made(pool(3))
    calls(balancer, 300, service_s={"s00": 0.2})
    held = balancer.pick(Mono(3.0))
    assert held is not None
    left = [each for each in pool(3) if each.id != held.endpoint.id]
    balancer.renew(left, Mono(3.0))
    balancer.settle(held, 0.01, False, Load(1, 0.01), Mono(3.1))
    assert {each.id for each in balancer.explain(Mono(3.1))} == {each.id for each in left}
    kept = {each.id: each.service_s for each in balancer.explain(Mono(3.1))}
    assert held.endpoint.id == "s00" or kept["s00"] > 0.05


def test_a_call_settled_twice_is_our_own_mistake() -> None:
    balancer = made(pool(2))
    choice = balancer.pick(Mono(0.0))
    assert choice is not None
    balancer.drop(choice, Mono(0.0))
    with pytest.raises(AssertionError, match="once"):
        balancer.settle(choice, 0.01, False, None, Mono(0.0))


def test_many_clients_are_noticed_by_how_much_more_servers_have_than_is_ones_own() -> None:
    balancer = made(pool(4))
    for each in range(1000):
        now = Mono(each * 0.01)
        choice = balancer.pick(now)
        assert choice is not None
        # One of ours is under way at each look; the servers say 2.5 each.
        balancer._sweep(now)
        balancer.settle(choice, 0.01, False, Load(3 if each % 2 else 2, 0.01), now)
    assert 6.0 <= balancer.clients <= 14.0
    held = balancer.pick(Mono(10.0))
    assert held is not None
    counted = {each.id: each.queue for each in balancer.explain(Mono(10.0))}
    balancer.renew(pool(4), Mono(10.0))  # makes the scores anew, from the calls in flight
    anew = {each.id: each.queue for each in balancer.explain(Mono(10.0))}
    others = max(queue for name, queue in anew.items() if name != held.endpoint.id)
    assert anew[held.endpoint.id] >= others + 0.9 * balancer.clients
    assert counted[held.endpoint.id] == pytest.approx(anew[held.endpoint.id], abs=1.0)


def test_settings_that_cannot_be_are_all_named() -> None:
    with pytest.raises(BadSettings) as caught:
        LiveCostPolicy(subset_max=0, panic_share=2.0, slow_start_share=0.0)
    assert [path for path, _ in caught.value.problems] == [
        "live_cost.subset_max",
        "live_cost.panic_share",
        "live_cost.slow_start_share",
    ]
