"""Guarded `grpc.aio` clients and servers against real ones: killed, hanging, slow, breaking off, refusing."""

from __future__ import annotations

import asyncio
import gc
import pickle
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from budao import Guard
from budao.adapters.grpc_aio import RpcNoRoom, RpcTimedOut, ServerInterceptor, client_interceptors
from budao.guard import KeyView
from budao.model import (
    BreakerOpen,
    BreakerPolicy,
    BudgetPolicy,
    BulkheadPolicy,
    CallRefused,
    GuardPolicy,
    HedgePolicy,
    Mode,
    NoRoom,
    Priority,
    RatePolicy,
    Refusal,
    RetryPolicy,
    TimedOut,
    TimeoutPolicy,
    TooLate,
    Why,
    context,
)
from tests.live.grpc_server import CHAT, STOCK, TOTAL, WATCH, Inventory, start_aio

PATIENCE_S = 20.0
AMPLE = BudgetPolicy(share=1.0, floor_per_s=1000.0)
ONCE = GuardPolicy(retry=None, breaker=None)
RETRYING = GuardPolicy(retry=RetryPolicy(pause_first_s=0.0, pause_max_s=0.0), budget=AMPLE, breaker=None)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    def run(**fixtures: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await test(**fixtures)

        asyncio.run(bounded())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def key(guard: Guard, name: str = STOCK) -> KeyView:
    return next(each for each in guard.snapshot().keys if each.key == name)


async def until(claim: Callable[[], bool]) -> None:
    while not claim():  # noqa: ASYNC110 - counts of a guard have no event to wait for
        await asyncio.sleep(0.005)


def in_flight(guard: Guard) -> int:
    return sum(each.in_flight for each in guard.snapshot().keys)


@asynccontextmanager
async def shop(
    guard: Guard | None = None,
    *,
    server: Guard | None = None,
    is_async: bool = True,
    writes: bool = False,
    **options: Any,
) -> AsyncIterator[tuple[Any, Inventory]]:
    """A channel to a server, guarded on either side; nothing may be left in flight at the end, and no task."""
    inventory = Inventory()
    before = asyncio.all_tasks()
    running, place = await start_aio(
        inventory, *([ServerInterceptor(server)] if server else []), is_async=is_async, writes=writes
    )
    try:
        interceptors = client_interceptors(guard, **options) if guard else []
        async with grpc.aio.insecure_channel(place, interceptors=interceptors) as channel:
            yield channel, inventory
        await until(lambda: all(in_flight(each) == 0 for each in (guard, server) if each))
    finally:
        await running.stop(None)
        await running.wait_for_termination()
    gc.collect()
    await until(lambda: len(asyncio.all_tasks() - before) == 0)


async def status(call: Awaitable[Any]) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code()


# -- unary calls


@in_loop
async def test_each_method_is_a_resource_of_its_own() -> None:
    guard = Guard("shop", policy=ONCE)
    async with shop(guard) as (channel, _):
        assert await channel.unary_unary(STOCK)(b"ok") == b"ok"
        assert [m async for m in channel.unary_stream(WATCH)(b"ok")] == [b"0", b"1", b"2"]
    assert {each.key for each in guard.snapshot().keys} >= {STOCK, WATCH}
    assert key(guard).ok == 1


@in_loop
async def test_targets_tell_two_servers_behind_one_guard_apart() -> None:
    guard = Guard("shop", policy=ONCE)
    async with shop(guard, target="north") as (channel, _):
        await channel.unary_unary(STOCK)(b"ok")
    assert key(guard, "north" + STOCK).ok == 1


@pytest.mark.parametrize(
    ("word", "failed"),
    [
        (b"unavailable", 1), (b"internal", 1), (b"unknown", 1), (b"data_loss", 1), (b"resource_exhausted", 1),
        (b"deadline_exceeded", 1), (b"raise", 1), (b"not_found", 0), (b"invalid_argument", 0), (b"aborted", 0),
        (b"unimplemented", 0), (b"permission_denied", 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["client", "server"])
def test_a_status_is_a_failure_or_an_answer(word: bytes, failed: int, kind: str) -> None:
    async def check() -> None:
        guard = Guard("shop", policy=ONCE)
        async with shop(**({"guard": guard} if kind == "client" else {"server": guard})) as (channel, _):
            code = await status(channel.unary_unary(STOCK)(word))
            assert code.name.lower() == ("unknown" if word == b"raise" else word.decode())
        assert (key(guard).failed, key(guard).ok) == (failed, 1 - failed)

    in_loop(check)()


@in_loop
async def test_a_call_object_stays_what_it_was() -> None:
    async with shop(Guard("shop", policy=ONCE)) as (channel, _):
        call = channel.unary_unary(STOCK)(b"ok")
        await call.wait_for_connection()
        assert await call == b"ok"
        assert await call.code() is grpc.StatusCode.OK
        assert await call.details() == ""
        assert list(await call.trailing_metadata()) == []
        assert call.done()
        bad = channel.unary_unary(STOCK)(b"not_found")
        assert await bad.code() is grpc.StatusCode.NOT_FOUND
        assert await bad.details() == "as told"
        assert await status(bad) is grpc.StatusCode.NOT_FOUND


@in_loop
async def test_only_methods_named_safe_are_tried_again() -> None:
    guard = Guard("shop", policy=RETRYING)
    async with shop(guard) as (channel, inventory):
        assert await status(channel.unary_unary(STOCK)(b"flaky 2")) is grpc.StatusCode.UNAVAILABLE
        assert inventory.asked["flaky"] == 1
    async with shop(guard, safe={STOCK}) as (channel, inventory):
        assert await channel.unary_unary(STOCK)(b"flaky 2") == b"flaky 2"
        assert inventory.asked["flaky"] == 3
    async with shop(guard, safe=lambda method: method.endswith("/Stock")) as (channel, inventory):
        assert await status(channel.unary_unary(STOCK)(b"not_found")) is grpc.StatusCode.NOT_FOUND
        assert inventory.asked["not_found"] == 1


@in_loop
async def test_a_server_that_asks_for_a_pause_gets_it_and_one_that_forbids_repeats_is_obeyed() -> None:
    guard = Guard("shop", policy=RETRYING)
    async with shop(guard, safe={STOCK}) as (channel, inventory):
        began = time.perf_counter()
        assert await channel.unary_unary(STOCK)(b"pushback 300") == b"pushback 300"
        assert time.perf_counter() - began >= 0.3
        inventory.asked.clear()
        assert await status(channel.unary_unary(STOCK)(b"pushback -1")) is grpc.StatusCode.UNAVAILABLE
        assert inventory.asked["pushback"] == 1


@in_loop
async def test_a_slow_answer_is_overtaken_by_a_second_call() -> None:
    policy = GuardPolicy(retry=None, breaker=None, budget=AMPLE, hedge=HedgePolicy(samples_min=10, delay_min_s=0.02))
    guard = Guard("shop", policy=policy)
    async with shop(guard, safe={STOCK}) as (channel, inventory):
        for _ in range(30):
            await channel.unary_unary(STOCK)(b"ok")
        guard.snapshot()  # counts what is measured
        assert await channel.unary_unary(STOCK)(b"slow-once 5") == b"slow-once 5"
        assert inventory.asked["slow-once"] == 2
        assert guard.snapshot().hedges_won == 1
        await until(lambda: inventory.cancelled >= 1)  # the loser was cancelled at the server as well


@in_loop
async def test_deadline_priority_and_trace_travel_with_the_call() -> None:
    guard, server = Guard("shop", policy=ONCE), Guard("server", policy=ONCE)
    async with shop(guard, server=server) as (channel, _):
        context.deadline.set(time.perf_counter() + 5.0)
        context.priority.set(Priority.SHEDDABLE)
        context.trace.set(TRACE)
        said = dict(line.split("=", 1) for line in (await channel.unary_unary(STOCK)(b"seen")).decode().splitlines())
        assert said["budao-priority"] == "sheddable"
        assert said["traceparent"] == TRACE
        assert 3.0 < float(said["left"]) <= 5.2
        assert said["inside"] == f"SHEDDABLE,{TRACE},True"
        said_shorter = (await channel.unary_unary(STOCK)(b"seen", timeout=1.0)).decode()
        assert 0.0 < float(said_shorter.partition("left=")[2].split()[0]) <= 1.2


@in_loop
async def test_metadata_of_the_caller_are_kept() -> None:
    async with shop(Guard("shop", policy=ONCE)) as (channel, _):
        context.trace.set(TRACE)
        other = TRACE.replace("0af7", "1111")
        said = await channel.unary_unary(STOCK)(b"seen", metadata=(("user-key", "7"), ("traceparent", other)))
        assert b"user-key=7" in said
        assert f"traceparent={other}".encode() in said
        assert TRACE.encode() not in said
        assert b"budao-priority" not in said


@in_loop
async def test_the_time_of_one_try_travels_too() -> None:
    async with shop(Guard("shop", policy=GuardPolicy(breaker=None, timeout=TimeoutPolicy(call_s=0.5)))) as (channel, _):
        said = (await channel.unary_unary(STOCK)(b"seen")).decode()
        assert 0.0 < float(said.partition("left=")[2].split()[0]) <= 0.7


@in_loop
async def test_a_hanging_server_ends_in_an_error_that_old_handlers_understand() -> None:
    guard = Guard("shop", policy=GuardPolicy(retry=None, breaker=None, timeout=TimeoutPolicy(call_s=0.2)))
    async with shop(guard) as (channel, inventory):
        call = channel.unary_unary(STOCK)(b"slow 60")
        assert await status(call) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: inventory.cancelled >= 1)
    assert key(guard).failed == 1


@in_loop
async def test_a_call_whose_time_is_over_is_not_sent() -> None:
    guard = Guard("shop", policy=ONCE)
    async with shop(guard) as (channel, inventory):
        context.deadline.set(time.perf_counter() - 1.0)
        with pytest.raises(TooLate) as raised:
            await channel.unary_unary(STOCK)(b"ok")
        assert isinstance(raised.value, grpc.aio.AioRpcError)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert not inventory.asked


@in_loop
async def test_a_refusal_is_the_guards_error_and_an_rpc_error_at_once() -> None:
    guard = Guard("shop", policy=GuardPolicy(retry=None))
    async with shop(guard) as (channel, inventory):
        guard.set_mode(Mode.FORCED_OPEN)
        call = channel.unary_unary(STOCK)(b"ok")
        with pytest.raises(BreakerOpen) as raised:
            await call
        assert isinstance(raised.value, grpc.RpcError)
        assert raised.value.why is Why.FORCED_OPEN
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert "not sent" in await call.details()
        assert not call.cancelled()
        with pytest.raises(BreakerOpen):
            [m async for m in channel.unary_stream(WATCH)(b"ok")]
        with pytest.raises(BreakerOpen):
            await channel.stream_unary(TOTAL)(iter([b"1"]))
        chat = channel.stream_stream(CHAT)()
        with pytest.raises(BreakerOpen):
            await chat.read()
        with pytest.raises(asyncio.InvalidStateError):
            await chat.write(b"1")
        assert not inventory.asked


def test_a_refusal_in_the_shape_of_an_rpc_error_survives_pickling() -> None:
    error = RpcNoRoom("shop", Refusal(Why.RATE, 1.5))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.code()) == (RpcNoRoom, str(error), grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert list(again.trailing_metadata()) == [("grpc-retry-pushback-ms", "1500")]
    assert "not sent" in repr(again)


@in_loop
async def test_cancelled_calls_teach_nothing_and_leave_nothing() -> None:
    guard = Guard("shop", policy=ONCE)
    async with shop(guard) as (channel, inventory):
        calls = [channel.unary_unary(STOCK)(b"slow 60") for _ in range(20)]
        await until(lambda: inventory.asked["slow"] == 20)
        for index, call in enumerate(calls):
            if index % 2:
                call.cancel()
            else:
                waiting = asyncio.ensure_future(call)
                await asyncio.sleep(0)
                waiting.cancel()
        for call in calls:
            with pytest.raises(asyncio.CancelledError):
                await call
        await until(lambda: in_flight(guard) == 0)
        await until(lambda: inventory.cancelled >= 20)
    assert (key(guard).dropped, key(guard).failed, key(guard).ok) == (20, 0, 0)


@in_loop
async def test_a_storm_of_cancelled_calls_and_streams_leaves_nothing() -> None:
    guard, server = Guard("shop", policy=ONCE), Guard("server", policy=ONCE)
    async with shop(guard, server=server) as (channel, _):
        for turn in range(10):
            calls = [channel.unary_unary(STOCK)(b"slow 60") for _ in range(50)]
            streams = [channel.unary_stream(WATCH)(b"late 60") for _ in range(50)]
            await asyncio.sleep(0.01 * turn)  # some are not sent yet, some are being served
            for each in (*calls, *streams):
                each.cancel()
        await until(lambda: in_flight(guard) == 0 and in_flight(server) == 0)
    for each in guard.snapshot().keys:
        assert (each.ok, each.failed, each.in_flight) == (0, 0, 0)


# -- streams


@in_loop
async def test_a_stream_is_judged_by_its_first_message_and_holds_its_place_to_the_end() -> None:
    guard = Guard("shop", policy=ONCE)
    async with shop(guard) as (channel, inventory):
        call = channel.unary_stream(WATCH)(b"hang")
        assert await call.read() == b"0"
        assert (key(guard, WATCH).ok, key(guard, WATCH).in_flight) == (1, 1)
        assert call.cancel()
        await until(lambda: in_flight(guard) == 0)
        await until(lambda: inventory.cancelled >= 1)
        assert await call.code() is grpc.StatusCode.CANCELLED
    assert (key(guard, WATCH).ok, key(guard, WATCH).failed, key(guard, WATCH).broken) == (1, 0, 0)


@in_loop
async def test_a_stream_that_breaks_off_has_failed() -> None:
    guard = Guard("shop", policy=ONCE)
    async with shop(guard) as (channel, _):
        call = channel.unary_stream(WATCH)(b"break")
        assert [await call.read(), await call.read()] == [b"0", b"1"]
        assert await status(call.read()) is grpc.StatusCode.UNAVAILABLE
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert await call.details() == "as told"
    assert key(guard, WATCH).broken == 1


@in_loop
async def test_a_stream_that_never_begins_and_is_given_up_teaches_nothing() -> None:
    guard = Guard("shop", policy=ONCE)
    async with shop(guard) as (channel, inventory):
        call = channel.unary_stream(WATCH)(b"late 60")
        await until(lambda: inventory.asked["late"] == 1)
        call.cancel()
        await until(lambda: in_flight(guard) == 0)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_stream(WATCH)(b"late 60", timeout=0.1).read()
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (key(guard, WATCH).dropped, key(guard, WATCH).failed) == (1, 1)


@in_loop
async def test_a_stream_nobody_holds_gives_its_place_back_with_its_channel() -> None:
    # grpc.aio keeps such a stream going until it ends by itself, so the place really is taken until then.
    guard = Guard("shop", policy=ONCE)
    async with shop(guard) as (channel, inventory):
        call = channel.unary_stream(WATCH)(b"hang")
        assert await call.read() == b"0"
        unread = channel.unary_stream(WATCH)(b"hang")
        await until(lambda: inventory.asked["hang"] == 2)
        del call, unread
        await channel.close()
        await until(lambda: in_flight(guard) == 0)


@in_loop
async def test_a_stream_of_requests_can_be_written_or_iterated() -> None:
    guard = Guard("shop", policy=ONCE)

    async def parts() -> AsyncIterator[bytes]:
        yield b"1"
        yield b"2"

    async with shop(guard) as (channel, _):
        assert await channel.stream_unary(TOTAL)(parts()) == b"1+2"
        assert await channel.stream_unary(TOTAL)(iter([b"3"])) == b"3"
        call = channel.stream_unary(TOTAL)()
        await call.wait_for_connection()
        await call.write(b"4")
        await call.write(b"5")
        await call.done_writing()
        assert await call == b"4+5"
        assert await call.code() is grpc.StatusCode.OK
        assert await status(channel.stream_unary(TOTAL)(iter([b"internal"]))) is grpc.StatusCode.INTERNAL
        assert await status(channel.stream_unary(TOTAL)(iter([b"not_found"]))) is grpc.StatusCode.NOT_FOUND
    assert (key(guard, TOTAL).ok, key(guard, TOTAL).failed) == (4, 1)


@in_loop
async def test_a_conversation_can_be_read_and_written() -> None:
    guard = Guard("shop", policy=ONCE)
    async with shop(guard) as (channel, _):
        call = channel.stream_stream(CHAT)()
        await call.wait_for_connection()
        await call.write(b"a")
        assert await call.read() == b"re: a"
        assert key(guard, CHAT).in_flight == 1
        await call.write(b"b")
        assert await call.read() == b"re: b"
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert [m async for m in channel.stream_stream(CHAT)(iter([b"x", b"y"]))] == [b"re: x", b"re: y"]
        with pytest.raises(grpc.aio.AioRpcError):
            [m async for m in channel.stream_stream(CHAT)(iter([b"x", b"unavailable"]))]
        given_up = channel.stream_stream(CHAT)()
        await given_up.write(b"a")
        assert await given_up.read() == b"re: a"
        given_up.cancel()
    assert (key(guard, CHAT).ok, key(guard, CHAT).broken) == (4, 1)


@in_loop
async def test_a_stream_waits_for_a_place_and_gives_it_back_when_its_caller_leaves_the_queue() -> None:
    policy = GuardPolicy(retry=None, breaker=None, bulkhead=BulkheadPolicy(calls_max=1, waiting_max=5, wait_max_s=10.0))
    guard = Guard("shop", policy=policy)
    async with shop(guard) as (channel, inventory):
        first = channel.unary_stream(WATCH)(b"hang")
        await first.read()
        waiting = channel.unary_stream(WATCH)(b"ok")
        left = channel.unary_stream(WATCH)(b"ok")
        await until(lambda: key(guard, WATCH).waiting == 2)
        left.cancel()
        first.cancel()
        assert [m async for m in waiting] == [b"0", b"1", b"2"]
        await until(lambda: in_flight(guard) == 0 and key(guard, WATCH).waiting == 0)
        assert inventory.asked["ok"] == 1


# -- a server that dies


@in_loop
async def test_a_killed_server_fails_calls_streams_and_then_opens_the_breaker() -> None:
    root = Path(__file__).parents[2]
    program = subprocess.Popen(  # noqa: ASYNC220 - starting it is all that blocks
        [sys.executable, "-m", "tests.live.grpc_server"], cwd=root, stdout=subprocess.PIPE, text=True
    )
    try:
        assert program.stdout is not None
        place = program.stdout.readline().strip()
        guard = Guard("shop", policy=GuardPolicy(retry=None, breaker=BreakerPolicy(calls_min=4)))
        async with grpc.aio.insecure_channel(place, interceptors=client_interceptors(guard)) as channel:
            stream = channel.unary_stream(WATCH)(b"hang")
            assert await stream.read() == b"0"
            hanging = channel.unary_unary(STOCK)(b"slow 60")
            await until(lambda: in_flight(guard) == 2)
            program.kill()
            program.wait()
            assert await status(hanging) is grpc.StatusCode.UNAVAILABLE
            with pytest.raises(grpc.aio.AioRpcError):
                await stream.read()
            await until(lambda: in_flight(guard) == 0)
            assert key(guard, WATCH).broken == 1
            while not isinstance(error := await failing(channel.unary_unary(STOCK)(b"ok")), CallRefused):
                assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert isinstance(error, BreakerOpen)
    finally:
        program.kill()
        program.wait()
        if program.stdout is not None:
            program.stdout.close()


async def failing(call: Awaitable[Any]) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


def test_the_example_runs_and_its_client_comes_back_when_told() -> None:
    example = Path(__file__).parents[2] / "examples" / "grpc_service.py"
    ran = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, timeout=60.0, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "1 call came back when it was told to" in ran.stdout
    assert re.search(r"it is down   100 calls, 9\d refused here", ran.stdout), ran.stdout


# -- servers


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
@pytest.mark.parametrize("writes", [True, False], ids=["writes", "yields"])
def test_a_guarded_server_answers_as_before(is_async: bool, writes: bool) -> None:
    async def check() -> None:
        server = Guard("server", policy=ONCE)
        async with shop(server=server, is_async=is_async, writes=writes) as (channel, _):
            assert await channel.unary_unary(STOCK)(b"ok") == b"ok"
            assert [m async for m in channel.unary_stream(WATCH)(b"ok")] == [b"0", b"1", b"2"]
            assert await channel.stream_unary(TOTAL)(iter([b"1", b"2"])) == b"1+2"
            assert [m async for m in channel.stream_stream(CHAT)(iter([b"1"]))] == [b"re: 1"]
            assert await status(channel.unary_unary(STOCK)(b"says")) is grpc.StatusCode.UNAVAILABLE
            assert await status(channel.unary_unary(STOCK)(b"not_found")) is grpc.StatusCode.NOT_FOUND
            assert await status(channel.unary_unary(STOCK)(b"raise")) is grpc.StatusCode.UNKNOWN
            assert await status(channel.stream_unary(TOTAL)(iter([b"internal"]))) is grpc.StatusCode.INTERNAL
            with pytest.raises(grpc.aio.AioRpcError):
                [m async for m in channel.unary_stream(WATCH)(b"break")]
            assert await status(channel.unary_unary("/shop.Inventory/None")(b"")) is grpc.StatusCode.UNIMPLEMENTED
        assert (key(server).ok, key(server).failed) == (2, 2)
        assert (key(server, WATCH).ok, key(server, WATCH).broken) == (2, 1)
        assert (key(server, TOTAL).ok, key(server, TOTAL).failed) == (1, 1)
        assert key(server, CHAT).ok == 1

    in_loop(check)()


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
def test_a_server_says_its_refusals_as_statuses(is_async: bool) -> None:
    async def check() -> None:
        server = Guard("server", policy=GuardPolicy())
        async with shop(server=server, is_async=is_async) as (channel, inventory):
            server.set_mode(Mode.FORCED_OPEN)
            error = await failing(channel.unary_unary(STOCK)(b"ok"))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "forced open" in error.details()
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                [m async for m in channel.unary_stream(WATCH)(b"ok")]
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            server.obey(GuardPolicy(breaker=None, rate=RatePolicy(calls_per_s=0.5, burst=1)))
            assert await channel.unary_unary(STOCK)(b"ok") == b"ok"
            error = await failing(channel.unary_unary(STOCK)(b"ok"))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            [asked_ms] = [value for name, value in error.trailing_metadata() if name == "grpc-retry-pushback-ms"]
            assert 0 < int(asked_ms) <= 2000
            assert inventory.asked["ok"] == 1

    in_loop(check)()


@in_loop
async def test_a_guarded_client_comes_back_when_a_guarded_server_said() -> None:
    server = Guard("server", policy=GuardPolicy(breaker=None, rate=RatePolicy(calls_per_s=4.0, burst=1)))
    guard = Guard("shop", policy=RETRYING)
    async with shop(guard, server=server, safe={STOCK}) as (channel, _):
        began = time.perf_counter()
        await channel.unary_unary(STOCK)(b"ok")
        await channel.unary_unary(STOCK)(b"ok")
        assert time.perf_counter() - began >= 0.2
    assert guard.snapshot().retries == 1


@in_loop
async def test_a_handler_that_is_refused_further_in_says_so() -> None:
    inner = Guard("stock database", policy=GuardPolicy())
    inner.set_mode(Mode.FORCED_OPEN)
    server = Guard("server", policy=ONCE)
    inventory = Inventory()
    inventory.stock_aio = inner.protect(inventory.stock_aio)  # type: ignore[method-assign]
    running, place = await start_aio(inventory, ServerInterceptor(server))
    async with grpc.aio.insecure_channel(place) as channel:
        error = await failing(channel.unary_unary(STOCK)(b"ok"))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "stock database" in error.details()
    await running.stop(None)
    assert (key(server).dropped, key(server).failed) == (1, 0)


@pytest.mark.parametrize("method", [STOCK, WATCH])
def test_a_handler_too_slow_for_its_caller_has_failed_and_one_that_is_cancelled_has_not(method: str) -> None:
    async def check() -> None:
        server = Guard("server", policy=ONCE)
        async with shop(server=server) as (channel, inventory):
            word = b"slow 60" if method == STOCK else b"late 60"

            def ask(timeout: float | None) -> Any:
                if method == STOCK:
                    return channel.unary_unary(STOCK)(word, timeout=timeout)
                return channel.unary_stream(WATCH)(word, timeout=timeout)

            late = ask(0.15)
            assert await late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await until(lambda: in_flight(server) == 0)
            gone = ask(None)
            await until(lambda: inventory.asked[word.split()[0].decode()] == 2)
            gone.cancel()
            await until(lambda: in_flight(server) == 0)
        assert (key(server, method).failed, key(server, method).dropped) == (1, 1)

    in_loop(check)()


@pytest.mark.parametrize("writes", [True, False], ids=["writes", "yields"])
def test_a_server_notices_when_the_reader_of_a_stream_leaves(writes: bool) -> None:
    async def check() -> None:
        server = Guard("server", policy=ONCE)
        async with shop(server=server, writes=writes) as (channel, inventory):
            call = channel.unary_stream(WATCH)(b"hang")
            assert await call.read() == b"0"
            call.cancel()
            await until(lambda: in_flight(server) == 0 and inventory.cancelled >= 1)
        assert (key(server, WATCH).ok, key(server, WATCH).failed) == (1, 0)

    in_loop(check)()


@in_loop
async def test_a_full_server_turns_calls_away_and_serves_the_rest() -> None:
    policy = GuardPolicy(breaker=None, bulkhead=BulkheadPolicy(calls_max=2))
    server = Guard("server", policy=policy)
    async with shop(server=server) as (channel, _):
        answers = await asyncio.gather(
            *(channel.unary_unary(STOCK)(b"slow 0.3") for _ in range(6)), return_exceptions=True
        )
        assert sum(answer == b"slow 0.3" for answer in answers) == 2
        codes = [answer.code() for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert codes == [grpc.StatusCode.UNAVAILABLE] * 4
    assert key(server).refused[Why.NO_ROOM] == 4


def test_the_errors_are_both_kinds() -> None:
    assert issubclass(RpcNoRoom, NoRoom)
    assert issubclass(RpcNoRoom, grpc.aio.AioRpcError)
    assert issubclass(RpcTimedOut, TimedOut)
    assert RpcTimedOut("shop", 1.0).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    again = pickle.loads(pickle.dumps(RpcTimedOut("shop", 1.0)))
    assert str(again) == str(RpcTimedOut("shop", 1.0))
