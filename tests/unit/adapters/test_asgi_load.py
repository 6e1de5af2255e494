from __future__ import annotations

import asyncio
from typing import Any

import pytest

from budao import BulkheadPolicy, Guard, GuardPolicy
from budao.adapters.asgi import GuardMiddleware
from budao.adapters.asgi_load import LoadMiddleware, waiting
from budao.wire import parse_load


async def ask(app: Any, path: str = "/") -> dict[str, str]:
    """The headers of the reply."""
    headers: dict[str, str] = {}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers.update({name.decode(): value.decode() for name, value in message["headers"]})

    async def receive() -> Any:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "path": path, "headers": []}
    await app(scope, receive, send)
    return headers


def answering(status: int = 200, gate: asyncio.Event | None = None, inside: list[str] | None = None) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if inside is not None:
            inside.append(scope["path"])
        if gate is not None:
            await gate.wait()
        await send({"type": "http.response.start", "status": status, "headers": [(b"x", b"y")]})
        await send({"type": "http.response.body", "body": b""})

    return app


def test_a_reply_tells_the_load_beside_its_own_headers() -> None:
    middleware = LoadMiddleware(answering())
    headers = asyncio.run(ask(middleware))
    assert headers["x"] == "y"
    load = parse_load(headers["budao-load"])
    assert load is not None
    assert load.in_flight == 0
    assert middleware.meter.in_flight == 0


def test_a_server_that_only_fails_has_no_service_time_to_tell() -> None:
    middleware = LoadMiddleware(answering(500))
    assert "budao-load" not in asyncio.run(ask(middleware))
    assert middleware.meter.service_s is None


def test_a_server_may_keep_its_load_to_itself() -> None:
    middleware = LoadMiddleware(answering(), tells=False)
    assert "budao-load" not in asyncio.run(ask(middleware))
    assert middleware.meter.service_s is not None


def test_calls_that_wait_in_the_guard_are_counted_and_their_wait_is_no_work() -> None:
    async def go() -> None:
        gate, inside = asyncio.Event(), list[str]()
        policy = GuardPolicy(bulkhead=BulkheadPolicy(calls_max=1, waiting_max=5, wait_max_s=30.0), breaker=None)
        middleware = LoadMiddleware(
            GuardMiddleware(answering(gate=gate, inside=inside), Guard("server", policy=policy))
        )
        waits: list[Any] = []
        meter = middleware.meter
        begin = meter.begin
        middleware.meter = Kept(begin, meter, waits)  # type: ignore[assignment]
        calls = [asyncio.create_task(ask(middleware)) for _ in range(3)]
        while meter.in_flight < 3 or not inside:  # noqa: ASYNC110 - nothing else could set an event
            await asyncio.sleep(0)
        assert len(inside) == 1
        assert sorted(work._idle_since is not None for work in waits) == [False, True, True]
        gate.set()
        told = [parse_load((await each)["budao-load"]) for each in calls]
        assert [each.in_flight for each in told if each is not None] == [2, 1, 0]
        assert meter.in_flight == 0

    asyncio.run(go())


class Kept:
    """A meter that keeps the calls it began."""

    def __init__(self, begin: Any, meter: Any, works: list[Any]) -> None:
        self._begin, self._meter, self._works = begin, meter, works

    def begin(self, now: float) -> Any:
        self._works.append(self._begin(now))
        return self._works[-1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._meter, name)


def test_a_call_that_raises_or_is_cancelled_is_no_longer_in_flight() -> None:
    async def raising(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("no")

    async def go() -> None:
        middleware = LoadMiddleware(raising)
        with pytest.raises(ValueError, match="no"):
            await ask(middleware)
        assert middleware.meter.in_flight == 0
        hanging = LoadMiddleware(answering(gate=asyncio.Event()))
        call = asyncio.create_task(ask(hanging))
        await asyncio.sleep(0)
        assert hanging.meter.in_flight == 1
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert hanging.meter.in_flight == 0

    asyncio.run(go())


def test_an_application_says_where_it_waits() -> None:
    async def go() -> None:
        gate = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            with waiting():
                await gate.wait()
            await answering()(scope, receive, send)

        works: list[Any] = []
        middleware = LoadMiddleware(app)
        middleware.meter = Kept(middleware.meter.begin, middleware.meter, works)  # type: ignore[assignment]
        call = asyncio.create_task(ask(middleware))
        await asyncio.sleep(0)
        assert works[0]._idle_since is not None
        gate.set()
        await call
        assert works[0]._idle_since is None
        assert works[0]._idled_s > 0.0

    asyncio.run(go())
    with waiting():
        pass


def test_what_is_no_http_request_passes_untouched() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, send))

    middleware = LoadMiddleware(app)
    scope = {"type": "websocket"}
    asyncio.run(middleware(scope, None, None))
    assert seen == [(scope, None)]
