"""Calls over HTTP to real servers through a pool, with and without a guard: httpx, httpx2, aiohttp."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest

from budao import BudgetPolicy, CallRefused, Guard, GuardPolicy, HedgePolicy, NobodyThere, RetryPolicy, TimeoutPolicy
from budao.adapters import httpx as ours_httpx
from budao.adapters import httpx2 as ours_httpx2
from budao.adapters.aiohttp import guard_middleware, pool_middleware
from budao.aio import Pool
from budao.discovery import Address, Instance, Roster
from budao.model import Endpoint, Load, Stage
from tests.live.balanced_app import PATIENCE_S, Running, process, serving, soon, until
from tests.live.certificates import Authority
from tests.live.servers_http import free_port

RETRYING = GuardPolicy(
    retry=RetryPolicy(pause_first_s=0.0, pause_max_s=0.0),
    budget=BudgetPolicy(share=1.0, floor_per_s=1000.0),
    breaker=None,
)
Call = Callable[..., Any]


def pool_of(*endpoints: Endpoint, **more: Any) -> Pool:
    return Pool(endpoints, service="shop", rng=Random(7), **more)


@contextmanager
def servers(*names: str) -> Iterator[list[Running]]:
    with ExitStack() as stack:
        yield [stack.enter_context(serving(name)) for name in names]


class Published:
    """Where a directory would be."""

    def __init__(self, *instances: Instance) -> None:
        self.roster = Roster(service="shop", revision=1, instances=instances)


def instance(running: Running, stage: Stage = Stage.READY) -> Instance:
    address = Address("127.0.0.1", running.port)
    return Instance(service="shop", id=running.service.name, addresses={"http": address}, stage=stage)


# Each kit gives one async function: call(path, method="GET") -> (status, server, body), whatever the library is.


@asynccontextmanager
async def sync_client(library: Any, ours: Any, pool: Pool, guard: Guard | None) -> AsyncIterator[Call]:
    transport = ours.PoolTransport(pool)
    if guard is not None:
        transport = ours.GuardedTransport(guard, transport)
    with library.Client(transport=transport, timeout=PATIENCE_S) as client:

        async def call(path: str, method: str = "GET") -> Any:
            reply = await asyncio.to_thread(client.request, method, f"http://shop{path}")
            return reply.status_code, reply.headers["x-server"], reply.content

        yield call


@asynccontextmanager
async def async_client(library: Any, ours: Any, pool: Pool, guard: Guard | None) -> AsyncIterator[Call]:
    transport = ours.AsyncPoolTransport(pool)
    if guard is not None:
        transport = ours.AsyncGuardedTransport(guard, transport)
    async with library.AsyncClient(transport=transport, timeout=PATIENCE_S) as client:

        async def call(path: str, method: str = "GET") -> Any:
            reply = await client.request(method, f"http://shop{path}")
            return reply.status_code, reply.headers["x-server"], reply.content

        yield call


@asynccontextmanager
async def aiohttp_client(_library: Any, _ours: Any, pool: Pool, guard: Guard | None) -> AsyncIterator[Call]:
    guarding = [] if guard is None else [guard_middleware(guard)]
    async with aiohttp.ClientSession(middlewares=[*guarding, pool_middleware(pool)]) as session:

        async def call(path: str, method: str = "GET") -> Any:
            async with session.request(method, f"http://shop{path}") as reply:
                return reply.status, reply.headers["x-server"], await reply.read()

        yield call


KITS = {
    "httpx": (sync_client, httpx, ours_httpx),
    "httpx async": (async_client, httpx, ours_httpx),
    "httpx2": (sync_client, httpx2, ours_httpx2),
    "httpx2 async": (async_client, httpx2, ours_httpx2),
    "aiohttp": (aiohttp_client, aiohttp, None),
}
FOREIGN = (httpx.ConnectError, httpx2.ConnectError, aiohttp.ClientConnectionError)


@pytest.fixture(params=KITS)
def kit(request: pytest.FixtureRequest) -> Any:
    make, library, ours = KITS[request.param]
    return lambda pool, guard=None: make(library, ours, pool, guard)


def run(kit: Any, pool: Pool, steps: Callable[[Call], Any], guard: Guard | None = None) -> Any:
    async def go() -> Any:
        async with kit(pool, guard) as call:
            return await steps(call)

    return asyncio.run(go())


def test_balanced_calls_reach_every_server_and_keep_the_name_of_the_service(kit: Any) -> None:
    with servers("a", "b", "c") as three:
        pool = pool_of(*(each.endpoint() for each in three))

        async def steps(call: Call) -> Any:
            replies = await asyncio.gather(*(call("/slow") for _ in range(18)))
            return {server for _, server, _ in replies}, (await call("/host"))[2]

        reached, host = run(kit, pool, steps)
        assert reached == {"a", "b", "c"}
        assert host == b"shop"
        assert pool.in_flight == 0
        assert sum(each.picked for each in pool.view().endpoints) == 19


def test_what_a_server_says_of_its_load_reaches_the_balancer(kit: Any) -> None:
    told: list[Load | None] = []

    class Listening(type(pool_of()._machine.balancer)):  # type: ignore[misc]
        def settle(self, choice: Any, took_s: float, failed: bool, load: Load | None, now: Any) -> None:
            told.append(load)
            super().settle(choice, took_s, failed, load, now)

    with servers("a") as (one,):
        pool = pool_of(one.endpoint(), balancer=Listening(rng=Random(1)))

        async def steps(call: Call) -> None:
            await asyncio.gather(*(call("/slow") for _ in range(4)))

        run(kit, pool, steps)
        assert len(told) == 4
        assert all(each is not None and 0.04 < each.service_s < PATIENCE_S for each in told)
        assert max(each.in_flight for each in told if each is not None) > 0


def test_a_port_that_is_closed_costs_no_call_not_even_one_that_may_not_be_repeated(kit: Any) -> None:
    with servers("a") as (one,):
        dead = Endpoint(id="dead", host="127.0.0.1", port=free_port())
        pool = pool_of(dead, one.endpoint())

        async def steps(call: Call) -> Any:
            return [await call("/ok", "POST") for _ in range(10)]

        assert {server for _, server, _ in run(kit, pool, steps)} == {"a"}
        by_id = {each.endpoint.id: each for each in pool.view().endpoints}
        assert by_id["dead"].failed == by_id["dead"].picked >= 1
        assert pool.in_flight == 0


def test_when_every_port_is_closed_the_error_is_the_librarys_own(kit: Any) -> None:
    pool = pool_of(*(Endpoint(id=f"dead-{each}", host="127.0.0.1", port=free_port()) for each in range(5)))

    async def steps(call: Call) -> None:
        with pytest.raises(FOREIGN):
            await call("/ok")

    run(kit, pool, steps)
    assert pool.in_flight == 0
    assert sum(each.picked for each in pool.view().endpoints) == 3


def test_a_retry_of_the_guard_goes_to_another_endpoint(kit: Any) -> None:
    with servers("a", "b") as (one, two):
        pool = pool_of(one.endpoint(), two.endpoint())
        guard = Guard("shop", policy=RETRYING)

        async def steps(call: Call) -> Any:
            return [await call("/status/503") for _ in range(5)]

        assert {status for status, _, _ in run(kit, pool, steps, guard)} == {503}
        # Three tries for each call, over two servers: each has one at least.
        assert one.service.asked["/status/503"] >= 5
        assert two.service.asked["/status/503"] >= 5
        assert pool.in_flight == 0


def test_a_hedge_goes_to_another_endpoint(kit: Any) -> None:
    hedging = GuardPolicy(
        hedge=HedgePolicy(samples_min=10), retry=None, breaker=None, budget=BudgetPolicy(share=1.0, floor_per_s=1e3)
    )
    with servers("a", "b") as (one, two), ThreadPoolExecutor(4) as executor:
        pool = pool_of(one.endpoint(), two.endpoint())
        guard = Guard("shop", policy=hedging, executor=executor)

        async def steps(call: Call) -> None:
            for _ in range(20):
                await call("/ok")
            guard.snapshot()
            await call(path)

        path = f"/first/{id(guard)}"
        run(kit, pool, steps, guard)
        assert (one.service.asked[path], two.service.asked[path]) == (1, 1)


def test_nobody_there_is_said_in_a_sentence_that_both_families_of_errors_catch(kit: Any) -> None:
    with servers("a") as (one,):
        pool = Pool(Published(instance(one, Stage.STARTING)), rng=Random(7))

        async def steps(call: Call) -> None:
            with pytest.raises(NobodyThere) as caught:
                await call("/ok")
            assert isinstance(caught.value, FOREIGN)
            assert "service shop: not sent, no endpoint is ready (0 of 1 ready: 1 starting)" in str(caught.value)

        run(kit, pool, steps)
        run(kit, pool, steps, Guard("shop", policy=RETRYING))
        assert one.service.asked == {}


def test_an_instance_that_drains_gets_nothing_new(kit: Any) -> None:
    with servers("a", "b") as (one, two):
        published = Published(instance(one), instance(two))
        pool = Pool(published, rng=Random(7))

        async def steps(call: Call) -> Any:
            while not (one.service.asked and two.service.asked):
                await asyncio.gather(*(call("/ok") for _ in range(4)))
            published.roster = Published(instance(one, Stage.DRAINING), instance(two)).roster
            before = one.service.asked.total()
            reached = {(await call("/ok"))[1] for _ in range(10)}
            return reached, one.service.asked.total() - before

        assert run(kit, pool, steps) == ({"b"}, 0)


def test_a_call_that_is_cancelled_gives_its_place_back(kit: Any) -> None:
    with servers("a") as (one,):
        pool = pool_of(one.endpoint())
        guard = Guard("shop", policy=GuardPolicy(timeout=TimeoutPolicy(call_s=0.2), retry=None, breaker=None))

        async def steps(call: Call) -> None:
            with pytest.raises(Exception):  # noqa: B017, PT011 - each library has its own
                await call("/hang")

        run(kit, pool, steps, guard)
        assert pool.in_flight == 0
        assert pool.view().endpoints[0].failed == 1


def test_a_body_that_breaks_off_counts_against_its_endpoint(kit: Any) -> None:
    with servers("a") as (one,):
        pool = pool_of(one.endpoint())

        async def steps(call: Call) -> None:
            with pytest.raises((httpx.TransportError, httpx2.TransportError, aiohttp.ClientError)):
                await call("/broken")

        run(kit, pool, steps)
        assert pool.in_flight == 0
        assert pool.view().endpoints[0].failed == 1


def test_calls_to_a_server_that_is_killed_end_well_elsewhere(kit: Any) -> None:
    with servers("a") as (one,), process("killed") as (endpoint, child):
        pool = pool_of(one.endpoint(), endpoint)
        guard = Guard("shop", policy=RETRYING)

        async def steps(call: Call) -> Any:
            async def many(count: int) -> list[Any]:
                return [await call("/slow") for _ in range(count)]

            running = [asyncio.create_task(many(12)) for _ in range(4)]
            await soon(lambda: any(each.endpoint.id == "killed" and each.picked > 4 for each in pool.view().endpoints))
            child.kill()
            return [reply for replies in await asyncio.gather(*running) for reply in replies]

        replies = run(kit, pool, steps, guard)
        assert {status for status, _, _ in replies} == {200}
        assert {server for _, server, _ in replies} == {"a", "killed"}
        assert pool.in_flight == 0


def test_a_host_that_is_no_service_is_called_as_it_is() -> None:
    with servers("a", "b") as (one, two):
        pool = pool_of(one.endpoint())
        with httpx.Client(transport=ours_httpx.PoolTransport(pool)) as client:
            assert client.get("http://shop/ok").headers["x-server"] == "a"
            assert client.get(f"http://127.0.0.1:{two.port}/ok").headers["x-server"] == "b"
        with httpx.Client(transport=ours_httpx.PoolTransport({"store": pool})) as client:
            assert client.get("http://store/ok").headers["x-server"] == "a"

        async def steps() -> None:
            session = aiohttp.ClientSession(middlewares=[pool_middleware(pool)])
            async with session, session.get(f"http://127.0.0.1:{two.port}/ok") as reply:
                assert reply.headers["x-server"] == "b"

        asyncio.run(steps())


def test_a_reply_that_nobody_closed_is_given_back_by_the_collector() -> None:
    with servers("a") as (one,):
        pool = pool_of(one.endpoint())
        with httpx.Client(transport=ours_httpx.PoolTransport(pool)) as client:
            reply = client.send(client.build_request("GET", "http://shop/ok"), stream=True)
            assert pool.in_flight == 1
            del reply
            gc.collect()
            until(lambda: pool.view().in_flight == 0)


def test_connections_to_an_instance_that_is_gone_are_closed_in_the_end() -> None:
    with servers("a", "b") as (one, two):
        published = Published(instance(one), instance(two))
        pool = Pool(published, rng=Random(7))
        limits = httpx.Limits(keepalive_expiry=0.2)
        inner = httpx.HTTPTransport(limits=limits)
        with httpx.Client(transport=ours_httpx.PoolTransport(pool, inner)) as client:
            while not (one.service.asked and two.service.asked):
                client.get("http://shop/ok")
            published.roster = Published(instance(two)).roster

            def is_closed() -> bool:
                client.get("http://shop/ok")
                return one.connections() == 0

            until(is_closed)


def test_a_server_that_should_not_tell_its_load_does_not() -> None:
    with serving("quiet", tells=False) as one, ExitStack() as stack:
        client = stack.enter_context(httpx.Client())
        assert "budao-load" not in client.get(f"http://127.0.0.1:{one.port}/ok").headers
    with serving("loud") as one, httpx.Client() as client:
        assert client.get(f"http://127.0.0.1:{one.port}/ok").headers["budao-load"].startswith("in-flight=0;service-ms=")
        assert "budao-load" in client.get(f"http://127.0.0.1:{one.port}/status/503").headers
        until(lambda: one.meter.in_flight == 0)


def test_a_pool_alone_raises_what_callers_of_a_guard_catch() -> None:
    with pytest.raises(CallRefused):
        pool_of().pick()


def test_over_tls_the_certificate_must_be_for_the_name_of_the_service(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")  # for localhost, which is not where the endpoint is
    trust = ssl.create_default_context(cafile=str(authority.path))
    trust.verify_flags &= ~ssl.VERIFY_X509_STRICT  # from Python 3.13 on it wants more of an authority than ours has
    with serving("a", host="127.0.0.2", ssl_certfile=certificate, ssl_keyfile=key) as one:
        pool = pool_of(one.endpoint())
        pools = {"localhost": pool, "shop": pool}
        for library, ours in ((httpx, ours_httpx), (httpx2, ours_httpx2)):
            inner = library.HTTPTransport(verify=trust)
            with library.Client(transport=ours.PoolTransport(pools, inner)) as client:
                reply = client.get("https://localhost/host")
                assert (reply.text, str(reply.url)) == ("localhost", "https://localhost/host")
            inner = library.HTTPTransport(verify=trust)
            with (
                library.Client(transport=ours.PoolTransport(pools, inner)) as client,
                pytest.raises(library.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
            ):
                client.get("https://shop/ok")

        async def steps() -> None:
            connector = aiohttp.TCPConnector(ssl=trust)
            async with aiohttp.ClientSession(connector=connector, middlewares=[pool_middleware(pools)]) as session:
                async with session.get("https://localhost/host") as reply:
                    assert (await reply.text(), str(reply.url)) == ("localhost", "https://localhost/host")
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await session.get("https://shop/ok")

        asyncio.run(steps())
        assert pool.in_flight == 0


def test_a_body_that_is_made_on_the_way_is_still_whole_when_the_first_port_was_closed() -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    async def steps(endpoints: list[Endpoint]) -> None:
        for _ in range(3):
            transport = ours_httpx.AsyncPoolTransport(pool_of(*endpoints, balancer="round-robin"))
            async with httpx.AsyncClient(transport=transport) as client:
                assert (await client.post("http://shop/echo", content=parts())).content == b"one two"
            middleware = pool_middleware(pool_of(*endpoints, balancer="round-robin"))
            session = aiohttp.ClientSession(middlewares=[middleware])
            async with session, session.post("http://shop/echo", data=parts()) as reply:
                assert await reply.read() == b"one two"

    with servers("z") as (one,):
        dead = [Endpoint(id=f"dead-{each}", host="127.0.0.1", port=free_port()) for each in range(2)]
        asyncio.run(steps([*dead, one.endpoint()]))
