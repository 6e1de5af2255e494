"""Guarded gRPC clients and servers with threads against real ones: killed, hanging, slow, breaking off, refusing."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from budao import Guard
from budao.adapters.grpc import ClientInterceptor, ServerInterceptor
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
    Priority,
    RatePolicy,
    RetryPolicy,
    TimedOut,
    TimeoutPolicy,
    TooLate,
    Why,
    context,
)
from tests.live.grpc_server import CHAT, STOCK, TOTAL, WATCH, Inventory, start

PATIENCE_S = 20.0
AMPLE = BudgetPolicy(share=1.0, floor_per_s=1000.0)
ONCE = GuardPolicy(retry=None, breaker=None)
RETRYING = GuardPolicy(retry=RetryPolicy(pause_first_s=0.0, pause_max_s=0.0), budget=AMPLE, breaker=None)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def key(guard: Guard, name: str = STOCK) -> KeyView:
    return next(each for each in guard.snapshot().keys if each.key == name)


def in_flight(guard: Guard) -> int:
    return sum(each.in_flight for each in guard.snapshot().keys)


def until(claim: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < give_up_at, "waited long enough"
        time.sleep(0.005)


@contextmanager
def within(*, until: float | None = None, priority: Priority = Priority.HIGH, trace: str = "") -> Iterator[None]:
    tokens = context.priority.set(priority), context.trace.set(trace)
    limit = context.deadline.set(until) if until is not None else None
    try:
        yield
    finally:
        context.priority.reset(tokens[0])
        context.trace.reset(tokens[1])
        if limit is not None:
            context.deadline.reset(limit)


@contextmanager
def shop(
    guard: Guard | None = None, *, server: Guard | None = None, threads: int = 8, **options: Any
) -> Iterator[tuple[Any, Inventory]]:
    """A channel to a server, guarded on either side; nothing may be left in flight at the end."""
    inventory = Inventory()
    running, place = start(inventory, *([ServerInterceptor(server)] if server else []), threads=threads)
    try:
        with grpc.insecure_channel(place) as plain:
            yield grpc.intercept_channel(plain, ClientInterceptor(guard, **options)) if guard else plain, inventory
        until(lambda: all(in_flight(each) == 0 for each in (guard, server) if each))
    finally:
        running.stop(None).wait()


def failing(call: Callable[[], Any]) -> Any:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value


# -- unary calls


def test_each_method_is_a_resource_of_its_own() -> None:
    guard = Guard("shop", policy=ONCE)
    with shop(guard, target="north") as (channel, _):
        assert channel.unary_unary(STOCK)(b"ok") == b"ok"
        assert list(channel.unary_stream(WATCH)(b"ok")) == [b"0", b"1", b"2"]
        assert channel.stream_unary(TOTAL)(iter([b"1", b"2"])) == b"1+2"
        assert list(channel.stream_stream(CHAT)(iter([b"1"]))) == [b"re: 1"]
    assert [key(guard, "north" + name).ok for name in (STOCK, WATCH, TOTAL, CHAT)] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("word", "failed"), [(b"unavailable", 1), (b"internal", 1), (b"raise", 1), (b"not_found", 0), (b"aborted", 0)]
)
@pytest.mark.parametrize("kind", ["client", "server"])
def test_a_status_is_a_failure_or_an_answer(word: bytes, failed: int, kind: str) -> None:
    guard = Guard("shop", policy=ONCE)
    with shop(**({"guard": guard} if kind == "client" else {"server": guard})) as (channel, _):
        error = failing(lambda: channel.unary_unary(STOCK)(word))
        assert error.code().name.lower() == ("unknown" if word == b"raise" else word.decode())
    assert (key(guard).failed, key(guard).ok) == (failed, 1 - failed)


def test_call_objects_stay_what_they_were() -> None:
    with shop(Guard("shop", policy=ONCE)) as (channel, _):
        response, call = channel.unary_unary(STOCK).with_call(b"ok")
        assert (response, call.code(), call.trailing_metadata()) == (b"ok", grpc.StatusCode.OK, ())
        response, call = channel.stream_unary(TOTAL).with_call(iter([b"1"]))
        assert (response, call.code()) == (b"1", grpc.StatusCode.OK)
        stream = channel.unary_stream(WATCH)(b"break")
        assert isinstance(stream, grpc.Call)
        assert next(stream) == b"0"
        assert stream.is_active()
        assert failing(lambda: list(stream)).code() is grpc.StatusCode.UNAVAILABLE
        assert (stream.code(), stream.details(), stream.done()) == (grpc.StatusCode.UNAVAILABLE, "as told", True)


def test_a_future_does_not_make_its_caller_wait() -> None:
    guard = Guard("shop", policy=ONCE)
    with shop(guard, safe={STOCK}) as (channel, inventory):
        calls = [channel.unary_unary(STOCK).future(b"slow 0.3") for _ in range(4)]
        assert not any(call.done() for call in calls)
        assert key(guard).in_flight == 4
        assert [call.result() for call in calls] == [b"slow 0.3"] * 4
        bad = channel.unary_unary(STOCK).future(b"unavailable")
        assert bad.exception().code() is grpc.StatusCode.UNAVAILABLE
        total = channel.stream_unary(TOTAL).future(iter([b"1", b"2"]))
        assert total.result() == b"1+2"
        given_up = channel.unary_unary(STOCK).future(b"slow 1")
        until(lambda: inventory.asked["slow"] == 5)
        assert given_up.cancel()
        with pytest.raises(grpc.FutureCancelledError):
            given_up.result()
        until(lambda: in_flight(guard) == 0)
    assert (key(guard).ok, key(guard).failed, key(guard).dropped) == (4, 1, 1)


def test_only_methods_named_safe_are_tried_again() -> None:
    guard = Guard("shop", policy=RETRYING)
    with shop(guard) as (channel, inventory):
        assert failing(lambda: channel.unary_unary(STOCK)(b"flaky 2")).code() is grpc.StatusCode.UNAVAILABLE
        assert inventory.asked["flaky"] == 1
    with shop(guard, safe={STOCK}) as (channel, inventory):
        assert channel.unary_unary(STOCK)(b"flaky 2") == b"flaky 2"
        assert inventory.asked["flaky"] == 3


def test_a_server_that_asks_for_a_pause_gets_it_and_one_that_forbids_repeats_is_obeyed() -> None:
    with shop(Guard("shop", policy=RETRYING), safe={STOCK}) as (channel, inventory):
        began = time.perf_counter()
        assert channel.unary_unary(STOCK)(b"pushback 300") == b"pushback 300"
        assert time.perf_counter() - began >= 0.3
        inventory.asked.clear()
        assert failing(lambda: channel.unary_unary(STOCK)(b"pushback -1")).code() is grpc.StatusCode.UNAVAILABLE
        assert inventory.asked["pushback"] == 1


def test_a_slow_answer_is_overtaken_by_a_second_call() -> None:
    policy = GuardPolicy(retry=None, breaker=None, budget=AMPLE, hedge=HedgePolicy(samples_min=10, delay_min_s=0.02))
    with ThreadPoolExecutor(4) as executor:
        guard = Guard("shop", policy=policy, executor=executor)
        with shop(guard, safe={STOCK}) as (channel, inventory):
            for _ in range(30):
                channel.unary_unary(STOCK)(b"ok")
            guard.snapshot()  # counts what is measured
            assert channel.unary_unary(STOCK)(b"slow-once 1") == b"slow-once 1"
            assert inventory.asked["slow-once"] == 2
            assert guard.snapshot().hedges_won == 1


def test_deadline_priority_and_trace_travel_with_the_call() -> None:
    guard, server = Guard("shop", policy=ONCE), Guard("server", policy=ONCE)
    with (
        shop(guard, server=server) as (channel, _),
        within(until=time.perf_counter() + 5.0, priority=Priority.SHEDDABLE, trace=TRACE),
    ):
        answers = [
            channel.unary_unary(STOCK)(b"seen", metadata=(("user-key", "7"),)),
            next(iter(channel.unary_stream(WATCH)(b"seen", metadata=(("user-key", "7"),)))),
        ]
        for answer in answers:
            said = dict(line.split("=", 1) for line in answer.decode().splitlines())
            assert (said["budao-priority"], said["traceparent"], said["user-key"]) == ("sheddable", TRACE, "7")
            assert 3.0 < float(said["left"]) <= 5.2
            assert said["inside"] == f"SHEDDABLE,{TRACE},True"
        shorter = channel.unary_unary(STOCK)(b"seen", timeout=1.0).decode()
        assert 0.0 < float(shorter.partition("left=")[2].split()[0]) <= 1.2
    with shop(server=server) as (channel, _):
        assert b"left=None\ninside=HIGH,,False" in channel.unary_unary(STOCK)(b"seen")


def test_a_hanging_server_ends_in_an_error_that_old_handlers_understand() -> None:
    guard = Guard("shop", policy=GuardPolicy(retry=None, breaker=None, timeout=TimeoutPolicy(call_s=0.2)))
    with shop(guard) as (channel, _):
        error = failing(lambda: channel.unary_unary(STOCK)(b"slow 0.5"))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert key(guard).failed == 1


def test_a_call_whose_time_is_over_is_not_sent() -> None:
    with shop(Guard("shop", policy=ONCE)) as (channel, inventory), within(until=time.perf_counter() - 1.0):
        with pytest.raises(TooLate) as raised:
            channel.unary_unary(STOCK)(b"ok")
        assert isinstance(raised.value, grpc.RpcError)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert not inventory.asked


def test_a_refusal_is_the_guards_error_and_an_rpc_error_at_once() -> None:
    guard = Guard("shop", policy=GuardPolicy(retry=None))
    with shop(guard) as (channel, inventory):
        guard.set_mode(Mode.FORCED_OPEN)
        with pytest.raises(BreakerOpen) as raised:
            channel.unary_unary(STOCK)(b"ok")
        assert isinstance(raised.value, grpc.RpcError)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        future = channel.unary_unary(STOCK).future(b"ok")
        assert isinstance(future, grpc.Future)
        assert (future.code(), future.done(), future.cancel()) == (grpc.StatusCode.UNAVAILABLE, True, False)
        with pytest.raises(BreakerOpen):
            future.result()
        with pytest.raises(BreakerOpen):
            channel.stream_unary(TOTAL)(iter([b"1"]))
        for stream in (channel.unary_stream(WATCH)(b"ok"), channel.stream_stream(CHAT)(iter([b"1"]))):
            assert (stream.code(), "not sent" in stream.details()) == (grpc.StatusCode.UNAVAILABLE, True)
            with pytest.raises(BreakerOpen):
                next(stream)
        assert not inventory.asked


# -- streams


def test_a_stream_is_judged_by_its_first_message_and_holds_its_place_to_the_end() -> None:
    guard = Guard("shop", policy=ONCE)
    with shop(guard) as (channel, inventory):
        stream = channel.unary_stream(WATCH)(b"hang")
        assert next(stream) == b"0"
        assert (key(guard, WATCH).ok, key(guard, WATCH).in_flight) == (1, 1)
        assert stream.cancel()
        until(lambda: in_flight(guard) == 0)
        until(lambda: inventory.cancelled >= 1)
        broken = channel.unary_stream(WATCH)(b"break")
        assert failing(lambda: list(broken)).code() is grpc.StatusCode.UNAVAILABLE
        until(lambda: in_flight(guard) == 0)
    assert (key(guard, WATCH).ok, key(guard, WATCH).failed, key(guard, WATCH).broken) == (2, 0, 1)


def test_a_stream_that_never_begins_and_is_given_up_teaches_nothing() -> None:
    guard = Guard("shop", policy=ONCE)
    with shop(guard) as (channel, inventory):
        stream = channel.unary_stream(WATCH)(b"late 0.5")
        until(lambda: inventory.asked["late"] == 1)
        stream.cancel()
        until(lambda: in_flight(guard) == 0)
        late = channel.unary_stream(WATCH)(b"late 0.5", timeout=0.1)
        assert failing(lambda: next(late)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        until(lambda: in_flight(guard) == 0)
    assert (key(guard, WATCH).dropped, key(guard, WATCH).failed) == (1, 1)


def test_a_stream_nobody_holds_gives_its_place_back() -> None:
    guard = Guard("shop", policy=ONCE)
    with shop(guard) as (channel, inventory):
        stream = channel.unary_stream(WATCH)(b"hang")
        assert next(stream) == b"0"
        unread = channel.unary_stream(WATCH)(b"hang")
        until(lambda: inventory.asked["hang"] == 2)
        del stream, unread
        gc.collect()
        until(lambda: in_flight(guard) == 0)
        until(lambda: inventory.cancelled >= 2)
    assert (key(guard, WATCH).ok, key(guard, WATCH).dropped, key(guard, WATCH).failed) == (1, 1, 0)


def test_a_conversation_can_be_read_and_written() -> None:
    guard = Guard("shop", policy=ONCE)
    go_on = threading.Event()

    def said() -> Iterator[bytes]:
        yield b"a"
        go_on.wait(PATIENCE_S)
        yield b"b"

    with shop(guard) as (channel, _):
        stream = channel.stream_stream(CHAT)(said())
        assert next(stream) == b"re: a"
        assert key(guard, CHAT).in_flight == 1
        go_on.set()
        assert list(stream) == [b"re: b"]
        assert stream.code() is grpc.StatusCode.OK
        broken = channel.stream_stream(CHAT)(iter([b"a", b"internal"]))
        assert failing(lambda: list(broken)).code() is grpc.StatusCode.INTERNAL
        assert failing(lambda: channel.stream_unary(TOTAL)(iter([b"internal"]))).code() is grpc.StatusCode.INTERNAL
    assert (key(guard, CHAT).ok, key(guard, CHAT).broken, key(guard, TOTAL).failed) == (2, 1, 1)


def test_a_killed_server_fails_calls_streams_and_then_opens_the_breaker() -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.live.grpc_server"], cwd=root, stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            assert program.stdout is not None
            place = program.stdout.readline().strip()
            guard = Guard("shop", policy=GuardPolicy(retry=None, breaker=BreakerPolicy(calls_min=4)))
            with grpc.insecure_channel(place) as plain:
                channel = grpc.intercept_channel(plain, ClientInterceptor(guard))
                stream = channel.unary_stream(WATCH)(b"hang")
                assert next(stream) == b"0"
                hanging = channel.unary_unary(STOCK).future(b"slow 60")
                program.kill()
                program.wait()
                assert hanging.exception().code() is grpc.StatusCode.UNAVAILABLE
                assert failing(lambda: next(stream)).code() is grpc.StatusCode.UNAVAILABLE
                until(lambda: in_flight(guard) == 0)
                assert key(guard, WATCH).broken == 1
                while not isinstance(error := failing(lambda: channel.unary_unary(STOCK)(b"ok")), CallRefused):
                    assert error.code() is grpc.StatusCode.UNAVAILABLE
                assert isinstance(error, BreakerOpen)
        finally:
            program.kill()


# -- servers


def test_a_guarded_server_answers_as_before() -> None:
    server = Guard("server", policy=ONCE)
    with shop(server=server) as (channel, _):
        assert channel.unary_unary(STOCK)(b"ok") == b"ok"
        assert list(channel.unary_stream(WATCH)(b"ok")) == [b"0", b"1", b"2"]
        assert channel.stream_unary(TOTAL)(iter([b"1", b"2"])) == b"1+2"
        assert list(channel.stream_stream(CHAT)(iter([b"1"]))) == [b"re: 1"]
        assert failing(lambda: channel.unary_unary(STOCK)(b"says")).code() is grpc.StatusCode.UNAVAILABLE
        assert failing(lambda: list(channel.unary_stream(WATCH)(b"break"))).code() is grpc.StatusCode.UNAVAILABLE
        assert failing(lambda: list(channel.unary_stream(WATCH)(b"not_found"))).code() is grpc.StatusCode.NOT_FOUND
        missing = failing(lambda: channel.unary_unary("/shop.Inventory/None")(b""))
        assert missing.code() is grpc.StatusCode.UNIMPLEMENTED
    assert (key(server).ok, key(server).failed) == (1, 1)
    assert (key(server, WATCH).ok, key(server, WATCH).failed, key(server, WATCH).broken) == (3, 0, 1)
    assert (key(server, TOTAL).ok, key(server, CHAT).ok) == (1, 1)
    assert len(server.snapshot().keys) <= 5


def test_a_server_says_its_refusals_as_statuses() -> None:
    server = Guard("server", policy=GuardPolicy())
    with shop(server=server) as (channel, inventory):
        server.set_mode(Mode.FORCED_OPEN)
        error = failing(lambda: channel.unary_unary(STOCK)(b"ok"))
        assert (error.code(), "forced open" in error.details()) == (grpc.StatusCode.UNAVAILABLE, True)
        assert failing(lambda: list(channel.unary_stream(WATCH)(b"ok"))).code() is grpc.StatusCode.UNAVAILABLE
        server.obey(GuardPolicy(breaker=None, rate=RatePolicy(calls_per_s=0.5)))
        assert channel.unary_unary(STOCK)(b"ok") == b"ok"
        error = failing(lambda: channel.unary_unary(STOCK)(b"ok"))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert 0 < int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) <= 2000
        assert inventory.asked["ok"] == 1


def test_a_handler_that_is_refused_or_times_out_further_in_says_so() -> None:
    inner = Guard("stock database", policy=GuardPolicy())
    server = Guard("server", policy=ONCE)
    inventory = Inventory()

    def late(request: bytes, servicer: Any) -> Iterator[bytes]:
        yield b"first"
        raise TimedOut("stock database", 1.0)

    inventory.stock = inner.protect(inventory.stock)  # type: ignore[method-assign]
    inventory.watch = late  # type: ignore[method-assign]
    running, place = start(inventory, ServerInterceptor(server))
    try:
        with grpc.insecure_channel(place) as channel:
            inner.set_mode(Mode.FORCED_OPEN)
            error = failing(lambda: channel.unary_unary(STOCK)(b"ok"))
            assert (error.code(), "stock database" in error.details()) == (grpc.StatusCode.UNAVAILABLE, True)
            stream = channel.unary_stream(WATCH)(b"ok")
            assert failing(lambda: list(stream)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    finally:
        running.stop(None).wait()
    assert (key(server).dropped, key(server).failed, key(server, WATCH).broken) == (1, 0, 1)


def test_a_call_that_waited_for_a_thread_past_its_time_is_not_begun() -> None:
    server = Guard("server", policy=ONCE)
    with shop(server=server, threads=1) as (channel, inventory):
        busy = channel.unary_unary(STOCK).future(b"slow 0.6")
        until(lambda: inventory.asked["slow"] == 1)
        late = channel.unary_unary(STOCK).future(b"ok", timeout=0.2)
        assert late.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert busy.result() == b"slow 0.6"
        assert channel.unary_unary(STOCK)(b"second") == b"second"
        assert inventory.asked["ok"] == 0


def test_a_handler_too_slow_for_its_caller_has_failed() -> None:
    server = Guard("server", policy=ONCE)
    with shop(server=server) as (channel, _):
        error = failing(lambda: channel.unary_unary(STOCK)(b"slow 0.4", timeout=0.1))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        late = channel.unary_stream(WATCH)(b"late 0.4", timeout=0.1)
        assert failing(lambda: list(late)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        until(lambda: in_flight(server) == 0)
    assert (key(server).failed, key(server, WATCH).failed) == (1, 1)


def test_a_server_notices_when_the_reader_of_a_stream_leaves() -> None:
    server = Guard("server", policy=ONCE)
    with shop(server=server) as (channel, inventory):
        stream = channel.unary_stream(WATCH)(b"hang")
        assert next(stream) == b"0"
        assert key(server, WATCH).in_flight == 1
        stream.cancel()
        until(lambda: in_flight(server) == 0 and inventory.cancelled >= 1)
        unasked = channel.unary_stream(WATCH)(b"late 0.3")
        until(lambda: inventory.asked["late"] == 1)
        unasked.cancel()
        until(lambda: in_flight(server) == 0)
    assert (key(server, WATCH).failed, key(server, WATCH).broken) == (0, 0)


def test_a_full_server_turns_calls_away_and_serves_the_rest() -> None:
    server = Guard("server", policy=GuardPolicy(breaker=None, bulkhead=BulkheadPolicy(calls_max=2)))
    with shop(server=server) as (channel, _):
        calls = [channel.unary_unary(STOCK).future(b"slow 0.3") for _ in range(6)]
        errors = [call.exception() for call in calls]
        assert errors.count(None) == 2
        assert {error.code() for error in errors if error is not None} == {grpc.StatusCode.UNAVAILABLE}
    assert key(server).refused[Why.NO_ROOM] == 4


def test_many_threads_leave_nothing_in_flight() -> None:
    guard, server = Guard("shop", policy=ONCE), Guard("server", policy=ONCE)
    with shop(guard, server=server) as (channel, _), ThreadPoolExecutor(8) as executor:

        def work(index: int) -> None:
            match index % 4:
                case 0:
                    assert channel.unary_unary(STOCK)(b"ok") == b"ok"
                case 1:
                    assert len(list(channel.unary_stream(WATCH)(b"ok"))) == 3
                case 2:
                    next(channel.unary_stream(WATCH)(b"ok"))
                case _:
                    assert channel.stream_unary(TOTAL)(iter([b"1"])) == b"1"

        list(executor.map(work, range(200)))
        until(lambda: in_flight(guard) == 0 and in_flight(server) == 0)
    for each in (guard, server):
        assert (key(each).ok, key(each, TOTAL).ok, key(each, STOCK).failed) == (50, 50, 0)
    assert key(guard, WATCH).ok == 100
