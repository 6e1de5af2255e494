"""Calls over gRPC to real servers through a pool, with and without a guard."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from budao import BadSettings, BudgetPolicy, Guard, GuardPolicy, NobodyThere, RetryPolicy
from budao.adapters import grpc_channel
from budao.adapters.grpc_aio import ServerInterceptor
from budao.adapters.grpc_channel import BalancedChannel, channel
from budao.adapters.grpc_load import AioLoadInterceptor, LoadInterceptor
from budao.aio import Pool
from budao.discovery import Address, Instance, LiveCost, Roster
from budao.model import Endpoint, Load, Stage
from tests.live import grpc_server
from tests.live.balanced_app import PATIENCE_S, soon
from tests.live.certificates import Authority
from tests.live.grpc_server import CHAT, STOCK, TOTAL, WATCH, Inventory
from tests.live.servers_http import free_port

RETRYING = GuardPolicy(
    retry=RetryPolicy(pause_first_s=0.0, pause_max_s=0.0),
    budget=BudgetPolicy(share=1.0, floor_per_s=1000.0),
    breaker=None,
)


class Fleet:
    """Servers on the loop of a test."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.inventories = {name: Inventory() for name in names}
        self.places: dict[str, str] = {}
        self.servers: dict[str, Any] = {}

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(id=name, host="127.0.0.1", port=int(place.rpartition(":")[2]))
            for name, place in self.places.items()
        ]

    def asked(self) -> dict[str, int]:
        return {name: each.asked.total() for name, each in self.inventories.items()}

    def roster(self, **stages: Stage) -> Roster:
        return Roster(
            service="inventory",
            revision=1,
            instances=tuple(
                Instance(
                    service="inventory",
                    id=each.id,
                    addresses={"http": Address("127.0.0.1", 1), "grpc": Address(each.host, each.port)},
                    stage=stages.get(each.id, Stage.READY),
                )
                for each in self.endpoints()
            ),
        )


class Published:
    def __init__(self, roster: Roster) -> None:
        self.roster = roster


@asynccontextmanager
async def fleet(*names: str, is_async: bool = True, writes: bool = False) -> AsyncIterator[Fleet]:
    made = Fleet(names)
    for name in names:
        server, place = await grpc_server.start_aio(
            made.inventories[name],
            AioLoadInterceptor(),
            ServerInterceptor(Guard(name)),
            is_async=is_async,
            writes=writes,
        )
        made.servers[name], made.places[name] = server, place
    try:
        yield made
    finally:
        for server in made.servers.values():
            await server.stop(0)


def pool_of(endpoints: list[Endpoint], **more: Any) -> Pool:
    return Pool(endpoints, service="inventory", rng=Random(7), **more)


def to(pool: Any, **more: Any) -> BalancedChannel:
    return channel("budao:///inventory", pool, **more)


def test_all_four_kinds_of_call_are_balanced() -> None:
    async def go() -> None:
        async with fleet("a", "b", "c") as servers:
            pool = pool_of(servers.endpoints())
            async with to(pool) as inventory:
                replies = await asyncio.gather(*(inventory.unary_unary(STOCK)(b"slow 0.05") for _ in range(12)))
                assert replies == [b"slow 0.05"] * 12
                assert all(count > 0 for count in servers.asked().values())
                watched = [message async for message in inventory.unary_stream(WATCH)(b"go")]
                assert watched == [b"0", b"1", b"2"]

                async def parts() -> AsyncIterator[bytes]:
                    yield b"x"
                    yield b"y"

                assert await inventory.stream_unary(TOTAL)(parts()) == b"x+y"
                assert [message async for message in inventory.stream_stream(CHAT)(parts())] == [b"re: x", b"re: y"]
                chat = inventory.stream_stream(CHAT)()
                await chat.write(b"z")
                assert await chat.read() == b"re: z"
                assert pool.in_flight == 1
                await chat.done_writing()
                assert await chat.read() is grpc.aio.EOF
                total = inventory.stream_unary(TOTAL)()
                await total.write(b"1")
                await total.done_writing()
                assert await total == b"1"
                await soon(lambda: pool.in_flight == 0)
                assert pool.view().nobody == 0
                assert sum(each.failed for each in pool.view().endpoints) == 0

    asyncio.run(go())


def test_serializers_of_a_stub_are_used_even_if_two_stubs_disagree() -> None:
    async def go() -> None:
        async with fleet("a") as servers, to(pool_of(servers.endpoints())) as inventory:
            text = inventory.unary_unary(STOCK, str.encode, bytes.decode, _registered_method=True)
            size = inventory.unary_unary(STOCK, request_serializer=bytes, response_deserializer=len)
            assert await asyncio.gather(text("abc"), size(b"abcd")) == ["abc", 4]

    asyncio.run(go())


@pytest.mark.parametrize(("is_async", "writes"), [(True, False), (True, True), (False, False)])
def test_the_load_in_the_trailing_metadata_reaches_the_balancer(is_async: bool, writes: bool) -> None:
    told: list[Load | None] = []

    class Listening(LiveCost):
        def settle(self, choice: Any, took_s: float, failed: bool, load: Load | None, now: Any) -> None:
            told.append(load)
            super().settle(choice, took_s, failed, load, now)

    async def go() -> None:
        async with fleet("a", is_async=is_async, writes=writes) as servers:
            pool = pool_of(servers.endpoints(), balancer=Listening(rng=Random(1)))
            async with to(pool) as inventory:
                await inventory.unary_unary(STOCK)(b"slow 0.05")
                assert [message async for message in inventory.unary_stream(WATCH)(b"go")]
                with pytest.raises(grpc.aio.AioRpcError):
                    await inventory.unary_unary(STOCK)(b"unavailable")
                await soon(lambda: pool.in_flight == 0)

    asyncio.run(go())
    first, second, third = told
    assert first is not None
    assert second is not None
    assert first.in_flight == 0
    assert 0.04 < first.service_s < PATIENCE_S
    assert third is None


def test_a_server_with_threads_tells_its_load_as_well() -> None:
    server, place = grpc_server.start(Inventory(), LoadInterceptor())
    quiet, silent_place = grpc_server.start(Inventory(), LoadInterceptor(tells=False))
    try:
        with grpc.insecure_channel(place) as plain:
            _, call = plain.unary_unary(STOCK).with_call(b"slow 0.05")
            assert dict(call.trailing_metadata())["budao-load"].startswith("in-flight=0;service-ms=5")
            stream = plain.unary_stream(WATCH)(b"go")
            assert list(stream) == [b"0", b"1", b"2"]
            assert "budao-load" in dict(stream.trailing_metadata())
        with grpc.insecure_channel(silent_place) as plain:
            _, call = plain.unary_unary(STOCK).with_call(b"go")
            assert "budao-load" not in dict(call.trailing_metadata())
    finally:
        server.stop(0).wait(PATIENCE_S)
        quiet.stop(0).wait(PATIENCE_S)


def test_a_port_that_is_closed_costs_no_call_of_any_kind() -> None:
    async def go() -> None:
        async with fleet("a") as servers:
            dead = [Endpoint(id=f"dead-{each}", host="127.0.0.1", port=free_port()) for each in range(2)]
            pool = pool_of([*dead, *servers.endpoints()])
            async with to(pool) as inventory:
                for _ in range(10):
                    assert await inventory.unary_unary(STOCK)(b"go") == b"go"
                    assert [message async for message in inventory.unary_stream(WATCH)(b"go")]
                    chat = inventory.stream_stream(CHAT)()
                    await chat.write(b"z")
                    assert await chat.read() == b"re: z"
                    await chat.done_writing()
            await soon(lambda: pool.in_flight == 0)
            assert sum(each.failed for each in pool.view().endpoints) >= 2

    asyncio.run(go())


def test_when_nobody_can_be_reached_the_error_says_that_nothing_was_sent() -> None:
    async def go() -> None:
        pool = pool_of([Endpoint(id="dead", host="127.0.0.1", port=free_port())])
        async with to(pool) as inventory:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await inventory.unary_unary(STOCK)(b"go")
            assert caught.value.code() is StatusCode.UNAVAILABLE
            assert "not sent, no connection to 1 endpoints" in str(caught.value.details())
        assert pool.in_flight == 0

    asyncio.run(go())


def test_a_call_gives_up_when_the_balancer_leaves_out_those_it_has_not_tried() -> None:
    async def go() -> None:
        dead = Endpoint(id="dead", host="127.0.0.1", port=free_port())
        pool = pool_of([dead, Endpoint(id="idle", host="127.0.0.1", port=free_port(), weight=0.0)])
        async with to(pool) as inventory:
            async with asyncio.timeout(PATIENCE_S):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await inventory.unary_unary(STOCK)(b"go")
            assert caught.value.code() is StatusCode.UNAVAILABLE
        (tried, idle) = pool.view().endpoints
        assert (tried.picked, idle.picked, pool.in_flight) == (2, 0, 0)

    asyncio.run(go())


def test_nobody_there_is_an_rpc_error_and_a_refusal_with_a_guard_and_without() -> None:
    async def go() -> None:
        async with fleet("a", "b") as servers:
            published = Published(servers.roster(a=Stage.STARTING, b=Stage.DRAINING))
            for guard in (None, Guard("shop", policy=RETRYING)):
                async with to(published, guard=guard, safe={STOCK}) as inventory:
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await inventory.unary_unary(STOCK)(b"go")
                    assert isinstance(caught.value, NobodyThere)
                    assert caught.value.code() is StatusCode.UNAVAILABLE
                    assert "0 of 2 ready: 1 draining, 1 starting" in str(caught.value)
                    with pytest.raises(grpc.aio.AioRpcError):
                        await inventory.unary_stream(WATCH)(b"go").read()

    asyncio.run(go())


def test_a_retry_of_the_guard_goes_to_another_endpoint() -> None:
    async def go() -> None:
        async with fleet("a", "b") as servers:
            pool = pool_of(servers.endpoints())
            async with to(pool, guard=Guard("shop", policy=RETRYING), safe={STOCK}) as inventory:
                for _ in range(5):
                    with pytest.raises(grpc.aio.AioRpcError):
                        await inventory.unary_unary(STOCK)(b"unavailable")
            assert all(count >= 5 for count in servers.asked().values())
            assert sum(servers.asked().values()) == 15
            assert pool.in_flight == 0

    asyncio.run(go())


def test_only_what_was_never_sent_is_repeated_without_a_guard() -> None:
    async def go() -> None:
        async with fleet("a", "b") as servers:
            pool = pool_of(servers.endpoints())
            async with to(pool) as inventory:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await inventory.unary_unary(STOCK)(b"unavailable")
                assert caught.value.details() == "as told"
            assert sum(servers.asked().values()) == 1
            assert sum(each.failed for each in pool.view().endpoints) == 1

    asyncio.run(go())


def test_an_instance_that_drains_gets_nothing_new_and_its_connection_is_closed() -> None:
    async def go() -> None:
        async with fleet("a", "b") as servers:
            published = Published(servers.roster())
            async with to(published) as inventory:
                stock = inventory.unary_unary(STOCK)
                while not all(servers.asked().values()):
                    await asyncio.gather(*(stock(b"slow 0.01") for _ in range(4)))
                published.roster = servers.roster(a=Stage.DRAINING)
                before = servers.asked()["a"]
                for _ in range(10):
                    await stock(b"go")
                assert servers.asked()["a"] == before
                await soon(lambda: len(inventory._subs._subs) == 1)

    asyncio.run(go())


def test_a_server_that_says_goaway_is_left_without_losing_a_call() -> None:
    async def go() -> None:
        async with fleet("a", "b") as servers:
            pool = pool_of(servers.endpoints())
            async with to(pool) as inventory:
                stock = inventory.unary_unary(STOCK)

                async def many() -> int:
                    return len([await stock(b"slow 0.01") for _ in range(40)])

                running = [asyncio.create_task(many()) for _ in range(4)]
                await soon(lambda: servers.asked()["a"] > 5)
                await servers.servers["a"].stop(PATIENCE_S)  # GOAWAY, and calls under way are finished
                assert await asyncio.gather(*running) == [40] * 4

    asyncio.run(go())


def test_calls_to_a_server_that_is_killed_end_well_elsewhere() -> None:
    async def go() -> None:
        child = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
            [sys.executable, "-m", "tests.live.grpc_server"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        try:
            assert child.stdout is not None
            place = await asyncio.to_thread(child.stdout.readline)
            async with fleet("a") as servers:
                killed = Endpoint(id="killed", host="127.0.0.1", port=int(place.rpartition(":")[2]))
                pool = pool_of([*servers.endpoints(), killed])
                async with to(pool, guard=Guard("shop", policy=RETRYING), safe={STOCK}) as inventory:
                    stock = inventory.unary_unary(STOCK)

                    async def many() -> int:
                        return len([await stock(b"slow 0.03") for _ in range(15)])

                    running = [asyncio.create_task(many()) for _ in range(4)]
                    await soon(lambda: any(e.endpoint.id == "killed" and e.picked > 4 for e in pool.view().endpoints))
                    child.kill()
                    assert await asyncio.gather(*running) == [15] * 4
                await soon(lambda: pool.in_flight == 0)
        finally:
            child.kill()
            await asyncio.to_thread(child.wait)
            assert child.stdout is not None
            child.stdout.close()

    asyncio.run(go())


def test_calls_that_are_cancelled_or_late_give_their_places_back() -> None:
    async def go() -> None:
        async with fleet("a") as servers:
            pool = pool_of(servers.endpoints())
            async with to(pool) as inventory:
                stock = inventory.unary_unary(STOCK)
                calls = [stock(b"slow 30") for _ in range(5)]
                await soon(lambda: servers.asked()["a"] == 5)
                assert pool.in_flight == 5
                for call in calls:
                    call.cancel()
                await soon(lambda: pool.in_flight == 0)
                assert pool.view().endpoints[0].dropped == 5
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stock(b"slow 30", timeout=0.1)
                assert caught.value.code() is StatusCode.DEADLINE_EXCEEDED
                await soon(lambda: pool.in_flight == 0)
                assert pool.view().endpoints[0].failed == 1
                watch = inventory.unary_stream(WATCH)(b"hang")
                assert await watch.read() == b"0"
                watch.cancel()
                await soon(lambda: pool.in_flight == 0)

    asyncio.run(go())


def test_a_channel_tells_when_it_is_ready_and_when_it_is_closed() -> None:
    async def go() -> None:
        async with fleet("a") as servers:
            inventory = to(pool_of(servers.endpoints()))
            assert inventory.get_state() is grpc.ChannelConnectivity.IDLE
            async with asyncio.timeout(PATIENCE_S):
                await inventory.channel_ready()
            assert await inventory.unary_unary(STOCK)(b"go", wait_for_ready=True) == b"go"
            changed = asyncio.create_task(inventory.wait_for_state_change(grpc.ChannelConnectivity.READY))
            await inventory.close()
            async with asyncio.timeout(PATIENCE_S):
                await changed
            assert inventory.get_state() is grpc.ChannelConnectivity.SHUTDOWN
            with pytest.raises(grpc.aio.UsageError, match="the channel to inventory is closed"):
                await inventory.unary_unary(STOCK)(b"go")
            assert inventory.pool.in_flight == 0

    asyncio.run(go())


def test_no_more_connections_are_kept_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        async with fleet("a", "b", "c") as servers, to(pool_of(servers.endpoints())) as inventory:
            for _ in range(3):
                await asyncio.gather(*(inventory.unary_unary(STOCK)(b"slow 0.01") for _ in range(6)))
            for endpoint in servers.endpoints():
                inventory._subs._sub(endpoint)
                assert len(inventory._subs._subs) <= 3
            monkeypatch.setattr(grpc_channel, "CHANNELS_MAX", 2)
            inventory._subs._sub(Endpoint(id="d", host="127.0.0.1", port=free_port()))
            assert len(inventory._subs._subs) == 3

    asyncio.run(go())


def test_over_tls_the_certificate_must_be_for_the_name_of_the_service(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")  # for localhost, which is not where the endpoint is

    async def go() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([Inventory().handlers(is_async=True)])
        secret = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
        port = server.add_secure_port("127.0.0.2:0", secret)
        await server.start()
        trust = grpc.ssl_channel_credentials(authority.path.read_bytes())
        endpoint = Endpoint(id="a", host="127.0.0.2", port=port)
        try:
            async with channel("budao:///localhost", Pool([endpoint]), credentials=trust) as right:
                assert await right.unary_unary(STOCK)(b"go") == b"go"
            async with channel("budao:///shop", Pool([endpoint]), credentials=trust) as wrong:
                with pytest.raises(grpc.aio.AioRpcError, match="no connection"):
                    await wrong.unary_unary(STOCK)(b"go")
        finally:
            await server.stop(0)

    asyncio.run(go())


@pytest.mark.parametrize("target", ["budao:///", "inventory", "budao:///other", "dns:///inventory"])
def test_a_target_that_is_not_the_service_of_the_pool_is_an_error(target: str) -> None:
    with pytest.raises(BadSettings, match="target"):
        channel(target, pool_of([]))
