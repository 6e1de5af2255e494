"""Guarded HTTP clients against a real server that hangs, resets, trickles, says 503 and closes by half."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest

from budao import Guard
from budao.adapters import httpx as guarded_httpx
from budao.adapters import httpx2 as guarded_httpx2
from budao.adapters.aiohttp import guard_middleware
from budao.guard import KeyView
from budao.model import (
    BreakerOpen,
    BreakerPolicy,
    BudgetPolicy,
    CallRefused,
    GuardPolicy,
    HedgePolicy,
    Mode,
    Priority,
    RetryPolicy,
    TimedOut,
    TimeoutPolicy,
    TooLate,
    context,
)
from tests.live.servers_http import PATIENCE_S, MisbehavingServer, free_port, misbehaving_server

AMPLE = BudgetPolicy(share=1.0, floor_per_s=1000.0)
QUICK = RetryPolicy(pause_first_s=0.0, pause_max_s=0.0)
RETRYING = GuardPolicy(retry=QUICK, budget=AMPLE, breaker=None)
ONCE = GuardPolicy(retry=None, breaker=None)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NAMES = count()
"""The server counts requests by path, so each test needs a path of its own."""


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes


class SyncKit:
    """httpx or httpx2, sync."""

    def __init__(self, library: Any, adapter: Any) -> None:
        self.library, self.adapter = library, adapter
        self.any_error, self.timeout_error = library.HTTPError, library.TimeoutException
        self.connect_error, self.refused_as = library.ConnectError, library.TransportError

    @contextmanager
    def open(self, guard: Guard, **options: Any) -> Iterator[SyncClient]:
        transport = self.adapter.GuardedTransport(guard, **options)
        with self.library.Client(transport=transport, timeout=PATIENCE_S) as client:
            yield SyncClient(client, transport)


@dataclass(frozen=True)
class SyncClient:
    client: Any
    transport: Any

    def ask(self, url: str, method: str = "GET", **options: Any) -> Reply:
        response = self.client.request(method, url, **options)
        return Reply(response.status_code, response.content)

    def leave_early(self, url: str) -> None:
        with self.client.stream("GET", url) as response:
            next(response.iter_raw())

    def busy(self) -> int:
        pool = self.transport.inner._pool
        return len(pool._requests) + sum(not each.is_idle() for each in pool.connections)


class AsyncKit:
    """httpx or httpx2, async."""

    def __init__(self, library: Any, adapter: Any) -> None:
        self.library, self.adapter = library, adapter
        self.any_error, self.timeout_error = library.HTTPError, library.TimeoutException
        self.connect_error, self.refused_as = library.ConnectError, library.TransportError

    @asynccontextmanager
    async def open(self, guard: Guard, **options: Any) -> AsyncIterator[AsyncClient]:
        transport = self.adapter.AsyncGuardedTransport(guard, **options)
        async with self.library.AsyncClient(transport=transport, timeout=PATIENCE_S) as client:
            yield AsyncClient(client, transport)


@dataclass(frozen=True)
class AsyncClient:
    client: Any
    transport: Any

    async def ask(self, url: str, method: str = "GET", **options: Any) -> Reply:
        response = await self.client.request(method, url, **options)
        return Reply(response.status_code, response.content)

    async def leave_early(self, url: str) -> None:
        async with self.client.stream("GET", url) as response:
            await anext(response.aiter_raw())

    def busy(self) -> int:
        pool = self.transport.inner._pool
        return len(pool._requests) + sum(not each.is_idle() for each in pool.connections)


class AiohttpKit:
    any_error, timeout_error = aiohttp.ClientError, aiohttp.ServerTimeoutError
    connect_error, refused_as = aiohttp.ClientConnectorError, aiohttp.ClientConnectionError

    @asynccontextmanager
    async def open(self, guard: Guard, **options: Any) -> AsyncIterator[AiohttpClient]:
        async with aiohttp.ClientSession(middlewares=[guard_middleware(guard, **options)]) as session:
            # The session sends an idempotent request again by itself, once; tests count what the guard does.
            session._retry_connection = False
            yield AiohttpClient(session)


@dataclass(frozen=True)
class AiohttpClient:
    session: aiohttp.ClientSession

    async def ask(self, url: str, method: str = "GET", **options: Any) -> Reply:
        if "content" in options:
            options["data"] = options.pop("content")
        async with self.session.request(method, url, **options) as response:
            return Reply(response.status, await response.read())

    async def leave_early(self, url: str) -> None:
        async with self.session.get(url) as response:
            await response.content.readany()

    def busy(self) -> int:
        connector = self.session.connector
        assert connector is not None
        return len(connector._acquired)


SYNC = {"httpx": SyncKit(httpx, guarded_httpx), "httpx2": SyncKit(httpx2, guarded_httpx2)}
ASYNC: dict[str, Any] = {
    "httpx-async": AsyncKit(httpx, guarded_httpx),
    "httpx2-async": AsyncKit(httpx2, guarded_httpx2),
    "aiohttp": AiohttpKit(),
}


class Lead:
    """An async client led from sync code, so that one test serves all five."""

    def __init__(self, runner: asyncio.Runner, client: Any) -> None:
        self._runner, self._client = runner, client

    def ask(self, url: str, method: str = "GET", **options: Any) -> Reply:
        reply: Reply = self._run(self._client.ask(url, method, **options))
        return reply

    def leave_early(self, url: str) -> None:
        self._run(self._client.leave_early(url))

    def busy(self) -> int:
        return int(self._client.busy())

    def _run(self, work: Any) -> Any:
        # A runner has a context of its own: the deadline of the test has to come along.
        return self._runner.run(work, context=copy_context())


@contextmanager
def opened(kit: Any, guard: Guard, **options: Any) -> Iterator[Any]:
    """A client of any kind, as something that asks and answers."""
    if isinstance(kit, SyncKit):
        with kit.open(guard, **options) as client:
            yield client
        return
    with asyncio.Runner() as runner:
        manager = kit.open(guard, **options)
        client = runner.run(manager.__aenter__())
        try:
            yield Lead(runner, client)
        finally:
            runner.run(manager.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def server() -> Iterator[MisbehavingServer]:
    with misbehaving_server() as running:
        yield running


@pytest.fixture(params=[*SYNC, *ASYNC])
def kit(request: pytest.FixtureRequest) -> Any:
    return {**SYNC, **ASYNC}[request.param]


@pytest.fixture(params=[*ASYNC])
def async_kit(request: pytest.FixtureRequest) -> Any:
    return ASYNC[request.param]


@contextmanager
def within(guard: Guard, seconds: float) -> Iterator[None]:
    """The caller waits no longer than this."""
    token = context.deadline.set(guard.clock() + seconds)
    try:
        yield
    finally:
        context.deadline.reset(token)


def view(guard: Guard, key: str) -> KeyView:
    (found,) = (each for each in guard.snapshot().keys if each.key == key)
    return found


def until(claim: Callable[[], bool], what: Callable[[], object] = str) -> None:
    """Waits for something that must become true."""
    give_up = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < give_up, what()
        time.sleep(0.01)


def has_seen(server: MisbehavingServer, count: int) -> None:
    until(lambda: len(server.seen) >= count)


def asked(server: MisbehavingServer, path: str) -> int:
    return server.paths().count(path)


def test_a_good_reply_is_counted_for_its_host_and_port(kit: Any, server: MisbehavingServer) -> None:
    guard = Guard("shop", policy=ONCE)
    with opened(kit, guard) as client:
        assert client.ask(f"{server.url}/ok") == Reply(200, b"ok")
        assert client.ask(f"{server.url}/ok", "POST", content=b"x") == Reply(200, b"ok")
        seen = view(guard, server.key)
        assert (seen.ok, seen.failed, seen.in_flight) == (2, 0, 0)
        assert client.busy() == 0


@pytest.mark.parametrize("path", ["reset", "half-head"])
def test_a_broken_connection_fails_with_the_librarys_own_error(kit: Any, server: MisbehavingServer, path: str) -> None:
    guard = Guard("shop", policy=ONCE)
    with opened(kit, guard) as client:
        with pytest.raises(kit.any_error) as raised:
            client.ask(f"{server.url}/{path}")
        assert type(raised.value).__module__.split(".")[0] in {"httpx", "httpx2", "aiohttp"}
        assert view(guard, server.key).failed == 1
        assert client.busy() == 0


def test_an_endpoint_nobody_listens_on_is_a_connect_error_that_is_counted_and_retried(kit: Any) -> None:
    guard = Guard("shop", policy=RETRYING)
    port = free_port()
    with opened(kit, guard) as client:
        with pytest.raises(kit.connect_error):
            client.ask(f"http://127.0.0.1:{port}/ok")
        assert view(guard, f"127.0.0.1:{port}").failed == 3


def test_a_server_that_hangs_is_left_at_the_callers_deadline(kit: Any, server: MisbehavingServer) -> None:
    guard = Guard("shop", policy=ONCE)
    with opened(kit, guard) as client:
        with within(guard, 0.2), pytest.raises(kit.timeout_error):
            client.ask(f"{server.url}/hang")
        assert view(guard, server.key).failed == 1
        assert client.busy() == 0


def test_a_server_that_hangs_is_left_at_the_guards_own_timeout(kit: Any, server: MisbehavingServer) -> None:
    guard = Guard("shop", policy=GuardPolicy(retry=None, breaker=None, timeout=TimeoutPolicy(call_s=0.2)))
    with opened(kit, guard) as client:
        with pytest.raises(kit.timeout_error):
            client.ask(f"{server.url}/hang")
        assert view(guard, server.key).failed == 1
        assert client.busy() == 0


def test_headers_that_trickle_do_not_outlast_the_deadline(async_kit: Any, server: MisbehavingServer) -> None:
    for policy in (ONCE, GuardPolicy(retry=None, breaker=None, timeout=TimeoutPolicy(call_s=0.2))):
        guard = Guard("shop", policy=policy)
        with opened(async_kit, guard) as client:
            with within(guard, 0.2), pytest.raises(async_kit.timeout_error):
                client.ask(f"{server.url}/trickle-head")
            assert view(guard, server.key).failed == 1
            assert client.busy() == 0


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_bad_status_is_retried_counted_and_in_the_end_returned(
    kit: Any, server: MisbehavingServer, status: int
) -> None:
    guard = Guard("shop", policy=RETRYING)
    with opened(kit, guard) as client:
        before = asked(server, f"/status/{status}")
        assert client.ask(f"{server.url}/status/{status}") == Reply(status, b"so it is")
        assert asked(server, f"/status/{status}") - before == 3
        assert (view(guard, server.key).failed, guard.snapshot().retries) == (3, 2)
        assert client.busy() == 0


@pytest.mark.parametrize("status", [304, 400, 404, 501])
def test_a_status_that_is_the_callers_own_doing_is_no_failure(kit: Any, server: MisbehavingServer, status: int) -> None:
    guard = Guard("shop", policy=RETRYING)
    with opened(kit, guard) as client:
        assert client.ask(f"{server.url}/status/{status}").status == status
        assert (view(guard, server.key).ok, view(guard, server.key).failed) == (1, 0)


def test_a_server_that_mends_is_answered_for(kit: Any, server: MisbehavingServer) -> None:
    guard = Guard("shop", policy=RETRYING)
    with opened(kit, guard) as client:
        assert client.ask(f"{server.url}/mend/{next(NAMES)}/2") == Reply(200, b"mended")
        assert guard.snapshot().retries == 2
        assert client.busy() == 0


def test_a_longer_pause_than_allowed_is_not_waited_for(kit: Any, server: MisbehavingServer) -> None:
    guard = Guard("shop", policy=RETRYING)
    with opened(kit, guard) as client:
        before = asked(server, "/status/503/3600")
        assert client.ask(f"{server.url}/status/503/3600").status == 503
        assert asked(server, "/status/503/3600") - before == 1


def test_only_what_may_arrive_twice_is_sent_twice(kit: Any, server: MisbehavingServer) -> None:
    guard = Guard("shop", policy=RETRYING)
    with opened(kit, guard) as client:

        def tries(method: str, **options: Any) -> list[bytes]:
            start = len(server.seen)
            client.ask(f"{server.url}/status/503", method, **options)
            return [each.body for each in server.seen[start:]]

        assert tries("POST", content=b"pay") == [b"pay"]
        assert tries("PATCH", content=b"pay") == [b"pay"]
        assert tries("POST", content=b"pay", headers={"Idempotency-Key": "7"}) == [b"pay"] * 3
        assert tries("PUT", content=b"set") == [b"set"] * 3
        assert tries("DELETE") == [b""] * 3
        if isinstance(kit, SyncKit):
            assert tries("PUT", content=iter([b"on", b"ce"])) == [b"once"]


def test_a_body_that_can_be_read_only_once_is_sent_once(async_kit: Any, server: MisbehavingServer) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"on"
        yield b"ce"

    guard = Guard("shop", policy=RETRYING)
    with opened(async_kit, guard) as client:
        start = len(server.seen)
        assert client.ask(f"{server.url}/status/503", "PUT", content=pieces()).status == 503
        assert [each.body for each in server.seen[start:]] == [b"once"]


@pytest.mark.parametrize("path", ["reset-body", "half"])
def test_a_body_that_breaks_off_counts_against_its_key(kit: Any, server: MisbehavingServer, path: str) -> None:
    guard = Guard("shop", policy=ONCE)
    with opened(kit, guard) as client:
        with pytest.raises(kit.any_error):
            client.ask(f"{server.url}/{path}")
        assert view(guard, server.key).broken == 1
        assert client.busy() == 0


def test_bodies_that_break_off_open_the_breaker(kit: Any, server: MisbehavingServer) -> None:
    guard = Guard("shop", policy=GuardPolicy(retry=None, breaker=BreakerPolicy(calls_min=4)))
    with opened(kit, guard) as client:
        for _ in range(4):
            with pytest.raises(kit.any_error):
                client.ask(f"{server.url}/half")
        with pytest.raises(BreakerOpen):
            client.ask(f"{server.url}/ok")


@pytest.mark.parametrize("path", ["trickle", "stall"])
@pytest.mark.parametrize("how", ["deadline", "body_s"])
def test_a_body_does_not_outlast_its_deadline(kit: Any, server: MisbehavingServer, path: str, how: str) -> None:
    guard = Guard("shop", policy=ONCE)
    options = {"body_s": 0.2} if how == "body_s" else {}
    with opened(kit, guard, **options) as client:
        with within(guard, 0.2 if how == "deadline" else 1e6), pytest.raises(kit.timeout_error):
            client.ask(f"{server.url}/{path}")
        assert view(guard, server.key).broken == 1
        assert client.busy() == 0


def test_the_guards_timeout_is_for_the_headers_and_leaves_bodies_alone(kit: Any, server: MisbehavingServer) -> None:
    guard = Guard("shop", policy=GuardPolicy(retry=None, breaker=None, timeout=TimeoutPolicy(call_s=0.3)))
    left = threading.Event()

    def reads() -> int:
        with opened(kit, guard, body_s=1.0) as client, pytest.raises(kit.timeout_error):
            client.ask(f"{server.url}/stall")
        left.set()
        return view(guard, server.key).ok

    started = time.monotonic()
    assert reads() == 1
    assert left.is_set()
    assert time.monotonic() - started > 0.9  # the body's second, not the 0.3 s of the call


def test_the_sessions_own_timeout_counts_against_a_body_too(server: MisbehavingServer) -> None:
    async def reads(guard: Guard, streams: bool) -> None:
        async with aiohttp.ClientSession(middlewares=[guard_middleware(guard)]) as session:
            total = aiohttp.ClientTimeout(total=0.2)
            async with session.get(f"{server.url}/trickle", timeout=total) as response:
                if streams:
                    async for _ in response.content.iter_any():
                        pass
                else:
                    await response.read()

    for streams in (False, True):
        guard = Guard("shop", policy=ONCE)
        with pytest.raises(TimeoutError):
            asyncio.run(reads(guard, streams))
        assert view(guard, server.key).broken == 1


def test_a_timeout_of_the_readers_own_says_nothing_about_the_body(server: MisbehavingServer) -> None:
    async def reads(guard: Guard) -> None:
        middlewares = [guard_middleware(guard)]
        async with aiohttp.ClientSession(middlewares=middlewares) as session, session.get(f"{server.url}/trickle"):
            raise TimeoutError

    guard = Guard("shop", policy=ONCE)
    with pytest.raises(TimeoutError):
        asyncio.run(reads(guard))
    assert view(guard, server.key).broken == 0


def test_leaving_a_body_early_is_fine(kit: Any, server: MisbehavingServer) -> None:
    guard = Guard("shop", policy=ONCE)
    with opened(kit, guard) as client:
        for path in ("large", "trickle", "stall"):
            client.leave_early(f"{server.url}/{path}")
        assert (view(guard, server.key).ok, view(guard, server.key).broken) == (3, 0)
        assert client.busy() == 0


def test_time_left_priority_and_trace_travel_with_the_request(kit: Any, server: MisbehavingServer) -> None:
    guard = Guard("shop", policy=ONCE)

    def told(**options: Any) -> dict[str, str]:
        with opened(kit, guard, **options) as client:
            headers: dict[str, str] = json.loads(client.ask(f"{server.url}/echo").body)["headers"]
            return headers

    assert not {"budao-timeout-ms", "budao-priority", "traceparent"} & set(told())
    tokens = context.priority.set(Priority.LOW), context.trace.set(TRACE)
    try:
        with within(guard, 5.0):
            headers = told()
            silent = told(announces=False)
    finally:
        context.priority.reset(tokens[0])
        context.trace.reset(tokens[1])
    assert 0 < int(headers["budao-timeout-ms"]) <= 5000
    assert headers["budao-priority"] == "low"
    assert headers["traceparent"] == TRACE
    assert not {"budao-timeout-ms", "budao-priority", "traceparent"} & set(silent)


def test_a_refusal_can_be_caught_by_either_name_and_nothing_is_sent(kit: Any, server: MisbehavingServer) -> None:
    guard = Guard("shop", policy=GuardPolicy(breaker=BreakerPolicy(mode=Mode.FORCED_OPEN)))
    with opened(kit, guard) as client:
        before = len(server.seen)
        with pytest.raises(BreakerOpen) as by_ours:
            client.ask(f"{server.url}/ok")
        with pytest.raises(kit.refused_as) as by_theirs:
            client.ask(f"{server.url}/ok")
        assert len(server.seen) == before
    for raised in (by_ours.value, by_theirs.value):
        assert isinstance(raised, CallRefused)
        assert str(raised).startswith(f"shop[{server.key}]: not sent, breaker forced open")
        for copied in (copy.copy(raised), pickle.loads(pickle.dumps(raised))):
            assert type(copied) is BreakerOpen
            assert (str(copied), copied.why) == (str(raised), raised.why)


def test_a_call_whose_deadline_has_passed_is_not_sent(kit: Any, server: MisbehavingServer) -> None:
    guard = Guard("shop", policy=RETRYING)
    with opened(kit, guard) as client:
        before = len(server.seen)
        with within(guard, -1.0), pytest.raises(TooLate):
            client.ask(f"{server.url}/ok")
        assert len(server.seen) == before


def test_a_timeout_of_the_guard_can_be_caught_by_either_name(async_kit: Any, server: MisbehavingServer) -> None:
    guard = Guard("shop", policy=GuardPolicy(retry=None, timeout=TimeoutPolicy(call_s=0.05)))
    with opened(async_kit, guard) as client, pytest.raises(TimedOut) as raised:
        client.ask(f"{server.url}/hang")
    assert isinstance(raised.value, async_kit.timeout_error)
    assert "no answer within 0.05 s" in str(raised.value)
    assert isinstance(copy.copy(raised.value), TimedOut)


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_a_pool_without_a_free_connection_says_nothing_about_the_server(name: str, server: MisbehavingServer) -> None:
    kit = SYNC[name]
    guard = Guard("shop", policy=RETRYING)
    inner = kit.library.HTTPTransport(limits=kit.library.Limits(max_connections=1))
    with kit.open(guard, inner=inner) as client, client.client.stream("GET", f"{server.url}/trickle"):
        with pytest.raises(kit.library.PoolTimeout):
            client.ask(f"{server.url}/ok", timeout=kit.library.Timeout(5.0, pool=0.05))
        assert (view(guard, server.key).failed, guard.snapshot().retries) == (0, 0)


def test_a_request_that_cannot_be_sent_says_nothing_about_the_server(kit: Any, server: MisbehavingServer) -> None:
    guard = Guard("shop", policy=RETRYING)
    with opened(kit, guard, key=lambda request: "one") as client:
        assert client.ask(f"{server.url}/ok").status == 200
        with pytest.raises(Exception, match=r"(?i)newline|illegal|forbidden|header"):
            client.ask(f"{server.url}/ok", headers={"X-Broken": "a\nb"})
        assert (view(guard, "one").failed, view(guard, "one").ok) == (0, 1)


def test_a_cancelled_caller_leaves_nothing_behind(async_kit: Any, server: MisbehavingServer) -> None:
    async def leave(guard: Guard) -> None:
        async with async_kit.open(guard) as client:
            for path in ("hang", "trickle-head", "stall", "trickle"):
                held = len(server.seen)
                async with asyncio.TaskGroup() as tasks:
                    asking = [tasks.create_task(client.ask(f"{server.url}/{path}")) for _ in range(20)]
                    await asyncio.to_thread(has_seen, server, held + 20)
                    await asyncio.sleep(0.05)
                    for each in asking:
                        each.cancel()
                assert all(each.cancelled() for each in asking)
                assert client.busy() == 0
            seen = view(guard, server.key)
            assert (seen.in_flight, seen.failed, seen.broken, seen.ok, seen.dropped) == (0, 0, 0, 40, 40)
            assert (await client.ask(f"{server.url}/ok")).status == 200

    before = server.connections
    asyncio.run(leave(Guard("shop", policy=RETRYING)))
    until(lambda: server.connections <= before, lambda: server.connections)


# So late that the server surely met the first try before: on a busy machine threads overtake each other.
HEDGING = GuardPolicy(retry=None, breaker=None, budget=AMPLE, hedge=HedgePolicy(samples_min=10, delay_min_s=0.2))


@pytest.mark.parametrize("path", ["hang-once", "late-once"])
def test_a_hedge_answers_first_and_the_one_that_lost_is_closed(kit: Any, server: MisbehavingServer, path: str) -> None:
    with ThreadPoolExecutor(4) as executor:
        guard = Guard("shop", policy=HEDGING, executor=executor)
        before = server.connections
        with opened(kit, guard) as client:
            for _ in range(20):
                client.ask(f"{server.url}/ok")
            guard.snapshot()
            with within(guard, 20.0):
                assert client.ask(f"{server.url}/{path}/{next(NAMES)}") == Reply(200, b"ok")
            assert guard.snapshot().hedges_won >= 1
            until(lambda: client.busy() == 0, client.busy)
        until(lambda: server.connections <= before, lambda: server.connections)


@pytest.mark.parametrize("name", list(SYNC))
def test_two_answers_at_once_leave_one_and_close_the_other(name: str) -> None:
    library, adapter = SYNC[name].library, SYNC[name].adapter
    closed: list[Any] = []
    both = threading.Barrier(2)

    class Body(library.SyncByteStream):  # type: ignore[misc, name-defined]
        def __iter__(self) -> Iterator[bytes]:
            yield b"ok"

        def close(self) -> None:
            closed.append(self)

    class Twins(library.BaseTransport):  # type: ignore[misc, name-defined]
        def handle_request(self, request: Any) -> Any:
            if request.url.path == "/twins":
                both.wait(PATIENCE_S)
            return library.Response(200, stream=Body())

    with ThreadPoolExecutor(4) as executor:
        guard = Guard("shop", policy=HEDGING, executor=executor)
        with library.Client(transport=adapter.GuardedTransport(guard, Twins())) as client:
            for _ in range(20):
                client.get("http://shop/")
            guard.snapshot()
            closed.clear()
            assert client.get("http://shop/twins").content == b"ok"
        until(lambda: len(set(map(id, closed))) == 2)


@pytest.mark.parametrize("name", [name for name in ASYNC if name != "aiohttp"])
def test_two_async_answers_at_once_leave_one_and_close_the_other(name: str) -> None:
    library, adapter = ASYNC[name].library, ASYNC[name].adapter
    closed: list[Any] = []
    asked_for: list[asyncio.Event] = []

    class Body(library.AsyncByteStream):  # type: ignore[misc, name-defined]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"ok"

        async def aclose(self) -> None:
            closed.append(self)

    class Twins(library.AsyncBaseTransport):  # type: ignore[misc, name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            if request.url.path == "/twins":
                asked_for.append(asyncio.Event())
                if len(asked_for) == 2:
                    for each in asked_for:
                        each.set()
                await asked_for[-1].wait() if len(asked_for) == 2 else await asked_for[0].wait()
            return library.Response(200, stream=Body())

    async def ask() -> None:
        guard = Guard("shop", policy=HEDGING)
        async with library.AsyncClient(transport=adapter.AsyncGuardedTransport(guard, Twins())) as client:
            for _ in range(20):
                await client.get("http://shop/")
            guard.snapshot()
            closed.clear()
            assert (await client.get("http://shop/twins")).content == b"ok"
            assert guard.snapshot().hedges == 1
            await asyncio.sleep(0.05)

    asyncio.run(ask())
    assert len(set(map(id, closed))) == 2


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_open_files_stay_flat_over_a_thousand_failing_requests(kit: Any, server: MisbehavingServer) -> None:
    guard = Guard("shop", policy=ONCE)
    dead = f"http://127.0.0.1:{free_port()}/ok"
    urls = [f"{server.url}/{path}" for path in ("reset", "half-head", "half", "status/503")]
    with opened(kit, guard) as client:

        def fail(times: int) -> None:
            for number in range(times):
                url = (*urls, dead)[number % 5]
                with suppress(kit.any_error):
                    assert client.ask(url).status == 503

        fail(20)
        until(lambda: server.connections <= 2)
        before = open_files()
        fail(1000)
        assert client.busy() == 0
        until(lambda: open_files() <= before + 2, lambda: f"{before} before, {open_files()} after")
        seen = view(guard, server.key)
        assert seen.failed + seen.broken == 816


def test_the_example_runs_and_leaves_a_server_that_is_down_alone() -> None:
    example = Path(__file__).parents[2] / "examples" / "http_client.py"
    ran = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, timeout=60.0, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "it stumbles   200 after 1 retry" in ran.stdout
    assert re.search(r"it is down    100 calls, 9\d refused here", ran.stdout), ran.stdout
