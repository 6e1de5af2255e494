"""Pool transports over inner ones that answer by script; nothing is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import httpx
import pytest

from budao.adapters.httpx import AsyncPoolTransport, PoolTransport
from budao.aio import Pool
from budao.model import Endpoint

URL = "http://shop/stock"


def pool(*endpoints: Endpoint, balancer: str = "round-robin") -> Pool:
    return Pool(endpoints, balancer=balancer, service="shop", rng=Random(1))


def endpoint(name: str, weight: float = 1.0) -> Endpoint:
    return Endpoint(id=name, host=name, port=80, weight=weight)


def refusing(seen: list[str], most: int = 20) -> Callable[[httpx.Request], httpx.Response]:
    def refuse(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        assert len(seen) < most, "it tries for ever"
        raise httpx.ConnectError("refused", request=request)

    return refuse


@pytest.mark.parametrize("balancer", ["round-robin", "live-cost", "maglev"])
def test_a_call_gives_up_when_the_balancer_leaves_out_those_it_has_not_tried(balancer: str) -> None:
    seen: list[str] = []
    here = pool(endpoint("a"), endpoint("idle", weight=0.0), balancer=balancer)
    with (
        httpx.Client(transport=PoolTransport(here, httpx.MockTransport(refusing(seen)))) as client,
        pytest.raises(httpx.ConnectError),
    ):
        client.get(URL)
    assert seen == ["a", "a"]
    assert here.in_flight == 0


def test_an_async_call_gives_up_as_well() -> None:
    seen: list[str] = []
    here = pool(endpoint("a"), endpoint("idle", weight=0.0))

    async def main() -> None:
        transport = AsyncPoolTransport(here, httpx.MockTransport(refusing(seen)))
        async with httpx.AsyncClient(transport=transport) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(URL)

    asyncio.run(main())
    assert seen == ["a", "a"]
    assert here.in_flight == 0


def test_a_call_that_nobody_accepts_tries_each_endpoint_once_up_to_the_bound() -> None:
    seen: list[str] = []
    here = pool(*(endpoint(name) for name in "abcd"))
    with (
        httpx.Client(transport=PoolTransport(here, httpx.MockTransport(refusing(seen)))) as client,
        pytest.raises(httpx.ConnectError),
    ):
        client.get(URL)
    assert len(set(seen)) == len(seen) == 3


def test_an_inner_transport_finds_the_timeouts_as_it_does_without_a_pool() -> None:
    seen: list[object] = []

    def answer(request: httpx.Request) -> httpx.Response:
        timeout = request.extensions["timeout"]
        seen.append((timeout["connect"], timeout["read"], timeout.get("none", 7.0), dict(timeout), len(timeout)))
        return httpx.Response(200)

    transport = PoolTransport(pool(endpoint("a")), httpx.MockTransport(answer), connect_max_s=0.5)
    with httpx.Client(transport=transport, timeout=3.0) as client:
        client.get(URL)
        client.get(URL, timeout=httpx.Timeout(None))
    every = {"connect": 0.5, "read": 3.0, "write": 3.0, "pool": 3.0}
    assert seen == [
        (0.5, 3.0, 7.0, every, 4),
        (0.5, None, 7.0, {**dict.fromkeys(every), "connect": 0.5}, 4),
    ]
