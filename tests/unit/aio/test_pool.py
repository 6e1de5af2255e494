from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from budao.aio import Pool
from budao.discovery import Address, Instance, LiveCost, Roster
from budao.discovery.balancing.turns import RoundRobin
from budao.model import BadSettings, Endpoint, NobodyThere, Stage


class Published:
    """Where a directory would be."""

    def __init__(self, *ids: str, stage: Stage = Stage.READY) -> None:
        self.publish(*ids, stage=stage)

    def publish(self, *ids: str, stage: Stage = Stage.READY) -> None:
        self.roster = Roster(
            service="shop",
            instances=tuple(
                Instance(service="shop", id=each, addresses={"http": Address("10.0.0.1", 80)}, stage=stage)
                for each in ids
            ),
        )


def test_a_pool_follows_the_roster_that_is_published() -> None:
    where = Published("a", "b")
    pool = Pool(where, balancer=RoundRobin())
    assert {pool.pick().endpoint.id for _ in range(4)} == {"a", "b"}
    where.publish("c")
    assert {pool.pick().endpoint.id for _ in range(4)} == {"c"}
    assert [each.id for each in pool.endpoints()] == ["c"]
    assert pool.in_flight == 8


def test_a_roster_that_stays_is_not_taken_again() -> None:
    renewed: list[int] = []

    class Counting(RoundRobin):
        def renew(self, endpoints: object, now: object) -> None:
            renewed.append(1)
            super().renew(endpoints, now)  # type: ignore[arg-type]

    pool = Pool(Published("a"), balancer=Counting())
    for _ in range(10):
        pool.settle(pool.pick())
    assert len(renewed) == 1


def test_a_pool_has_the_name_of_its_service_before_anybody_is_there() -> None:
    pool = Pool(Published())
    assert pool.service == "shop"
    with pytest.raises(NobodyThere, match=r"service shop: not sent, no endpoint is ready \(0 of 0 ready\)"):
        pool.pick()


def test_a_pool_over_fixed_addresses_reads_them() -> None:
    pool = Pool.of("10.0.0.1:8000", "[::1]:80", service="shop")
    assert [(each.host, each.port, each.authority) for each in pool.endpoints()] == [
        ("10.0.0.1", 8000, "10.0.0.1:8000"),
        ("::1", 80, "[::1]:80"),
    ]
    assert isinstance(pool._machine.balancer, LiveCost)


@pytest.mark.parametrize("address", ["", "host", "host:", ":80", "host:0", "host:65536", "host:x", "::1:80", "host:٣"])
def test_an_address_that_is_none_is_an_error(address: str) -> None:
    with pytest.raises(BadSettings, match="is not host:port"):
        Pool.of("10.0.0.1:80", address)


def test_two_endpoints_never_share_an_id() -> None:
    with pytest.raises(BadSettings, match="two have the id 'a'"):
        Pool([Endpoint(id="a", host="h", port=1), Endpoint(id="a", host="h", port=2)])


def test_a_balancer_is_named_or_given() -> None:
    assert isinstance(Pool([], balancer="round-robin")._machine.balancer, RoundRobin)
    with pytest.raises(BadSettings, match="balancer"):
        Pool([], balancer="nobody-knows")


def test_the_time_a_call_took_is_measured_unless_it_is_told() -> None:
    at = [0.0]
    told: list[float] = []

    class Listening(RoundRobin):
        def settle(self, choice: object, took_s: float, *rest: object) -> None:
            told.append(took_s)
            super().settle(choice, took_s, *rest)  # type: ignore[arg-type]

    pool = Pool([Endpoint(id="a", host="h", port=1)], balancer=Listening(), clock=lambda: at[0])
    one, two = pool.pick(), pool.pick()
    at[0] = 2.5
    pool.settle(one)
    pool.settle(two, took_s=0.5)
    assert told == [2.5, 0.5]


def test_what_a_collector_forgot_is_dropped_with_the_next_look() -> None:
    pool = Pool([Endpoint(id="a", host="h", port=1)])
    pool.forget(pool.pick())
    assert pool.in_flight == 1
    pool.drop(pool.pick())
    assert pool.in_flight == 0
    pool.forget(pool.pick())
    assert pool.view().in_flight == 0


def test_many_threads_leave_nothing_in_flight() -> None:
    where = Published("a", "b", "c")
    pool = Pool(where, rng=Random(3))

    def work(number: int) -> None:
        for each in range(300):
            picked = pool.pick(avoid={"a"} if each % 3 else ())
            if each % 50 == 0:
                where.publish("a", "b", f"c-{number}-{each}")
            if each % 5 == 0:
                pool.drop(picked)
            else:
                pool.settle(picked, failed=each % 7 == 0)

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(work, range(8)))
    assert pool.view().in_flight == 0
    assert all(each.in_flight == 0 for each in pool.view().endpoints)
