"""A guarded ASGI application behind a real server: what its clients get, and what the guard has learned afterwards."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from time import perf_counter, sleep
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from litestar import Litestar, get
from litestar.middleware import DefineMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from budao import Guard
from budao.adapters.asgi import GuardMiddleware, remaining_s
from budao.model import (
    BreakerPolicy,
    BulkheadPolicy,
    GuardPolicy,
    Mode,
    NoRoom,
    RatePolicy,
    Refusal,
    ShedPolicy,
    TimedOut,
    TimeoutPolicy,
    Why,
    context,
)
from budao.wire import PRIORITY, TIMEOUT, TRACEPARENT, format_timeout

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TOUCHY = BreakerPolicy(calls_min=5, rest_s=30.0)
PATIENCE_S = 20.0


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """`app` behind uvicorn on a free port of loopback, and a client for it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await until(lambda: server.started or serving.done())
            port = listener.getsockname()[1]
            limits = httpx.Limits(max_connections=200)
            base = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(base_url=base, timeout=PATIENCE_S, limits=limits, trust_env=False) as client:
                yield client
        finally:
            server.should_exit = True
            await serving


async def until(claim: Callable[[], bool]) -> None:
    """Wait for something that must become true."""
    async with asyncio.timeout(PATIENCE_S):
        while not claim():  # noqa: ASYNC110 - what it waits for sets no event
            await asyncio.sleep(0.005)


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 60.0))


def keys_of(guard: Guard) -> dict[str, Any]:
    return {view.key: view for view in guard.snapshot().keys if view.ok or view.failed or view.dropped or view.refused}


def nothing_is_in_flight(guard: Guard) -> bool:
    return all(view.in_flight == 0 and view.waiting == 0 for view in guard.snapshot().keys)


# ------------------------------------------------------------------------------------------------- three frameworks


def starlette_shop(guard: Guard) -> Any:
    async def item(request: Request) -> Response:
        return PlainTextResponse(request.path_params["number"])

    async def ill(request: Request) -> Response:
        return PlainTextResponse("ill", status_code=500)

    async def broken(request: Request) -> Response:
        raise RuntimeError("a bug")

    routes = [Route("/items/{number}", item), Route("/ill/{number}", ill), Route("/broken/{number}", broken)]
    return Starlette(routes=routes, middleware=[Middleware(GuardMiddleware, guard=guard)])


def fastapi_shop(guard: Guard) -> Any:
    app = FastAPI()
    app.add_middleware(GuardMiddleware, guard=guard)

    @app.get("/items/{number}")
    async def item(number: int) -> int:
        return number

    @app.get("/ill/{number}", status_code=500)
    def ill(number: int) -> str:
        return "ill"

    @app.get("/broken/{number}")
    def broken(number: int) -> None:
        raise RuntimeError("a bug")

    return app


def litestar_routes() -> list[Any]:
    @get("/items/{number:int}")
    async def item() -> int:
        return 1

    @get("/ill/{number:int}", status_code=500)
    async def ill() -> str:
        return "ill"

    @get("/broken/{number:int}")
    async def broken() -> None:
        raise RuntimeError("a bug")

    return [item, ill, broken]


def litestar_shop(guard: Guard) -> Any:
    return Litestar(litestar_routes(), middleware=[DefineMiddleware(GuardMiddleware, guard=guard)])


def wrapped_litestar_shop(guard: Guard) -> Any:
    return GuardMiddleware(Litestar(litestar_routes()), guard)


SHOPS = {
    "starlette": starlette_shop,
    "fastapi": fastapi_shop,
    "litestar": litestar_shop,
    "litestar wrapped": wrapped_litestar_shop,
}


@pytest.mark.parametrize("shop", SHOPS.values(), ids=SHOPS)
def test_a_failing_route_is_closed_and_the_others_go_on(shop: Callable[[Guard], Any]) -> None:
    async def story() -> None:
        guard = Guard("shop", policy=GuardPolicy(breaker=TOUCHY))
        async with served(shop(guard)) as client:
            for number in range(5):
                assert (await client.get(f"/ill/{number}")).status_code == 500
            refused = await client.get("/ill/99")
            assert refused.status_code == 503
            assert refused.headers["content-type"] == "application/problem+json"
            assert 25 <= int(refused.headers["retry-after"]) <= 46
            assert refused.json() == {
                "type": "about:blank",
                "title": "Service Unavailable",
                "status": 503,
                "detail": "breaker open",
            }
            assert (await client.get("/items/7")).status_code == 200

            for number in range(5):
                assert (await client.get(f"/broken/{number}")).status_code == 500
            assert (await client.get("/broken/99")).status_code == 503
            assert (await client.get("/items/8")).status_code == 200
        seen = keys_of(guard)
        assert set(seen) == {"GET /items/{number}", "GET /ill/{number}", "GET /broken/{number}"}
        assert (seen["GET /items/{number}"].ok, seen["GET /items/{number}"].failed) == (2, 0)
        assert seen["GET /ill/{number}"].failed == 5
        assert seen["GET /ill/{number}"].refused == {Why.BREAKER_OPEN: 1}
        assert seen["GET /broken/{number}"].failed == 5
        assert nothing_is_in_flight(guard)

    run(story)


@pytest.mark.parametrize("shop", SHOPS.values(), ids=SHOPS)
def test_a_storm_of_unknown_paths_makes_one_key_per_method_and_no_failure(shop: Callable[[Guard], Any]) -> None:
    async def story() -> None:
        guard = Guard("shop", policy=GuardPolicy(breaker=TOUCHY))
        async with served(shop(guard)) as client:
            for number in range(20):
                assert (await client.get(f"/wp-admin/{number}")).status_code == 404
            assert (await client.request("BREW", "/items/7")).status_code in {404, 405}
            assert (await client.get("/items/7")).status_code == 200
        seen = keys_of(guard)
        # Litestar hands nothing to a middleware of its own that no route answers.
        assert set(seen) - {"GET <unmatched>", "<other> <unmatched>"} == {"GET /items/{number}"}
        assert sum(view.failed for view in seen.values()) == 0

    run(story)


# -------------------------------------------------------------------------------------------------------- refusals


def app_of(
    guard: Guard, routes: Mapping[str, Callable[[Request], Awaitable[Response]]], **options: Any
) -> GuardMiddleware:
    app = Starlette(routes=[Route(path, answer, methods=["GET", "POST"]) for path, answer in routes.items()])
    return GuardMiddleware(app, guard, **options)


async def ok(request: Request) -> Response:
    return PlainTextResponse("ok")


def test_a_request_without_room_gets_503_and_leaves_nothing_behind() -> None:
    async def story() -> None:
        guard = Guard("shop", policy=GuardPolicy(bulkhead=BulkheadPolicy(calls_max=1)))
        inside, leave = asyncio.Event(), asyncio.Event()

        async def slow(request: Request) -> Response:
            inside.set()
            await leave.wait()
            return PlainTextResponse("ok")

        async with served(app_of(guard, {"/slow": slow})) as client:
            first = asyncio.create_task(client.get("/slow"))
            await inside.wait()
            refused = await client.get("/slow")
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
            leave.set()
            assert (await first).status_code == 200
            assert (await client.get("/slow")).status_code == 200
        assert nothing_is_in_flight(guard)
        assert keys_of(guard)["GET /slow"].refused == {Why.NO_ROOM: 1}

    run(story)


def test_a_refused_upload_and_a_refused_head_are_answered_and_the_connection_goes_on() -> None:
    async def story() -> None:
        guard = Guard("shop")
        async with served(app_of(guard, {"/upload": ok})) as client:
            guard.set_mode(Mode.FORCED_OPEN)
            refused = await client.post("/upload", content=b"x" * 1_000_000)
            assert refused.status_code == 503
            head = await client.head("/upload")
            assert (head.status_code, head.content) == (503, b"")
            guard.set_mode(Mode.ENFORCING)
            assert (await client.post("/upload", content=b"x" * 1_000_000)).status_code == 200

    run(story)


def test_a_request_above_the_rate_gets_429() -> None:
    async def story() -> None:
        guard = Guard("shop", policy=GuardPolicy(rate=RatePolicy(calls_per_s=0.1, burst=2)))
        async with served(app_of(guard, {"/": ok}, rng=Random(7))) as client:
            statuses = [(await client.get("/")).status_code for _ in range(2)]
            refused = await client.get("/")
            assert [*statuses, refused.status_code] == [200, 200, 429]
            assert 8 <= int(refused.headers["retry-after"]) <= 15
            assert refused.json()["title"] == "Too Many Requests"

    run(story)


def test_health_is_answered_while_everything_else_is_refused() -> None:
    async def story() -> None:
        guard = Guard("shop")
        guard.set_mode(Mode.FORCED_OPEN)
        async with served(app_of(guard, {"/": ok, "/healthz": ok, "/readyz": ok})) as client:
            assert [(await client.get(path)).status_code for path in ("/", "/healthz", "/readyz")] == [503, 200, 200]

    run(story)


def test_a_refusal_from_further_in_becomes_503_and_is_no_failure_of_the_route() -> None:
    async def story() -> None:
        guard = Guard("shop")

        async def nested(request: Request) -> Response:
            raise NoRoom("inventory", Refusal(Why.NO_ROOM, 3.0))

        # Inside of Starlette's own middleware: from outside, only the 500 that it makes of any exception is seen.
        app = Starlette(routes=[Route("/nested", nested)])
        app.add_middleware(GuardMiddleware, guard=guard, rng=Random(7))
        async with served(app) as client:
            refused = await client.get("/nested")
            assert refused.status_code == 503
            assert 3 <= int(refused.headers["retry-after"]) <= 5
        assert keys_of(guard)["GET /nested"].failed == 0

    run(story)


# --------------------------------------------------------------------------------------------------------- headers


async def what_came(request: Request) -> Response:
    left_s = remaining_s()
    return JSONResponse(
        {
            "left_s": None if left_s == float("inf") else left_s,
            "priority": context.priority.get().name,
            "trace": context.trace.get(),
        }
    )


def test_deadline_priority_and_trace_arrive_and_end_with_the_request() -> None:
    async def story() -> None:
        guard = Guard("shop")
        async with served(app_of(guard, {"/": what_came})) as client:
            sent = {TIMEOUT: "5000", PRIORITY: "low", TRACEPARENT: TRACE}
            came = (await client.get("/", headers=sent)).json()
            assert 0.0 < came["left_s"] <= 5.0
            assert (came["priority"], came["trace"]) == ("LOW", TRACE)
            assert (await client.get("/")).json() == {"left_s": None, "priority": "HIGH", "trace": ""}

    run(story)


def test_headers_that_make_no_sense_are_counted_and_the_request_is_served() -> None:
    async def story() -> None:
        guard, ignored = Guard("shop"), Counter[str]()
        async with served(app_of(guard, {"/": what_came}, ignored=ignored)) as client:
            sent = {TIMEOUT: "soon", PRIORITY: "urgent!", TRACEPARENT: "00-xyz"}
            answer = await client.get("/", headers=sent)
            assert answer.json() == {"left_s": None, "priority": "HIGH", "trace": ""}
            await client.get("/", headers={TIMEOUT: "-1", PRIORITY: "low"})
        assert ignored == {TIMEOUT: 2, PRIORITY: 1, TRACEPARENT: 1}

    run(story)


def test_strangers_cannot_call_themselves_critical_where_headers_are_not_trusted() -> None:
    async def story() -> None:
        guard = Guard("shop")
        async with served(app_of(guard, {"/": what_came}, trusted=False)) as client:
            sent = {TIMEOUT: "0", PRIORITY: "critical", TRACEPARENT: TRACE}
            answer = await client.get("/", headers=sent)
            assert answer.json() == {"left_s": None, "priority": "HIGH", "trace": ""}

    run(story)


def test_a_caller_that_no_longer_waits_gets_504_and_the_application_hears_nothing() -> None:
    async def story() -> None:
        guard, heard = Guard("shop"), Counter[str]()

        async def listening(request: Request) -> Response:
            heard["calls"] += 1
            return PlainTextResponse("ok")

        async with served(app_of(guard, {"/": listening})) as client:
            late = await client.get("/", headers={TIMEOUT: "0"})
            assert late.status_code == 504
            assert late.json()["detail"] == "the deadline has passed"
            assert "retry-after" not in late.headers
        assert heard == {}
        assert keys_of(guard)["GET /"].refused == {Why.TOO_LATE: 1}

    run(story)


def test_a_request_is_cut_when_nobody_waits_for_it_any_more() -> None:
    async def story() -> None:
        guard, ended = Guard("shop"), Counter[str]()

        async def endless(request: Request) -> Response:
            try:
                await asyncio.Event().wait()
            finally:
                ended["handlers"] += 1
            return PlainTextResponse("never")

        async with served(app_of(guard, {"/": endless})) as client:
            late = await client.get("/", headers={TIMEOUT: "100"})
            assert (late.status_code, late.json()["detail"]) == (504, "the deadline has passed")
            assert (await client.get("/", headers={TIMEOUT: "100"})).status_code == 504  # the connection is still good
        assert ended == {"handlers": 2}
        assert keys_of(guard)["GET /"].failed == 2
        assert nothing_is_in_flight(guard)

    run(story)


def test_a_timeout_of_the_application_itself_stays_an_error_of_the_application() -> None:
    async def story() -> None:
        guard = Guard("shop")

        async def impatient(request: Request) -> Response:
            raise TimedOut("inventory", 0.2)

        async with served(app_of(guard, {"/": impatient})) as client:
            assert (await client.get("/", headers={TIMEOUT: "10000"})).status_code == 500
        assert keys_of(guard)["GET /"].failed == 1

    run(story)


def test_a_deadline_shrinks_on_its_way_through_two_services() -> None:
    async def story() -> None:
        back = app_of(Guard("back"), {"/": what_came})
        async with served(back) as to_back:

            async def front_answer(request: Request) -> Response:
                await asyncio.sleep(0.05)
                text = format_timeout(remaining_s())
                assert text is not None
                return Response((await to_back.get("/", headers={TIMEOUT: text})).content)

            async with served(app_of(Guard("front"), {"/": front_answer})) as to_front:
                came = (await to_front.get("/", headers={TIMEOUT: "8000"})).json()
        assert 0.0 < came["left_s"] <= 7.95

    run(story)


# --------------------------------------------------------------------------------------------- streams, disconnects


def test_latency_ends_with_the_first_byte_and_the_place_is_held_to_the_last() -> None:
    async def story() -> None:
        guard = Guard("shop")
        leave = asyncio.Event()

        async def stream(request: Request) -> Response:
            async def parts() -> AsyncIterator[bytes]:
                yield b"first"
                await leave.wait()
                yield b"last"

            return StreamingResponse(parts())

        async with served(app_of(guard, {"/": stream})) as client:
            async with client.stream("GET", "/") as response:
                parts = response.aiter_bytes()
                assert await anext(parts) == b"first"
                began = perf_counter()
                assert keys_of(guard)["GET /"].in_flight == 1
                await asyncio.sleep(0.5)
                leave.set()
                assert await anext(parts) == b"last"
                streamed_s = perf_counter() - began
            await until(lambda: nothing_is_in_flight(guard))
        view = keys_of(guard)["GET /"]
        assert (view.ok, view.failed, view.dropped) == (1, 0, 0)
        assert view.p99_s < streamed_s

    run(story)


def test_a_client_that_leaves_before_the_answer_teaches_nothing_and_leaves_nothing_behind() -> None:
    async def story() -> None:
        guard = Guard("shop", policy=GuardPolicy(breaker=TOUCHY, bulkhead=BulkheadPolicy(calls_max=50)))

        async def waits_for_the_client_to_leave(request: Request) -> Response:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            return PlainTextResponse("nobody reads this", status_code=500)

        async def reads_a_body_that_never_ends(request: Request) -> Response:
            return PlainTextResponse(str(len(await request.body())))

        routes = {"/wait": waits_for_the_client_to_leave, "/upload": reads_a_body_that_never_ends}
        async with served(app_of(guard, routes)) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get("/wait", timeout=0.2)
            calls = (client.get("/wait", timeout=0.2) for _ in range(20))
            left = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(error, httpx.ReadTimeout) for error in left)
            host, port = client.base_url.host, client.base_url.port
            for _ in range(8):
                _, writer = await asyncio.open_connection(host, port)
                writer.write(b"POST /upload HTTP/1.1\r\nhost: shop\r\ncontent-length: 1000\r\n\r\npart")
                await writer.drain()
                await until(lambda: any(view.in_flight for view in guard.snapshot().keys))
                writer.close()
                await writer.wait_closed()
            await until(lambda: nothing_is_in_flight(guard))
        seen = keys_of(guard)
        assert (seen["GET /wait"].dropped, seen["GET /wait"].failed) == (21, 0)
        assert (seen["POST /upload"].dropped, seen["POST /upload"].failed) == (8, 0)

    run(story)


def test_a_client_that_leaves_in_the_middle_of_a_stream_leaves_nothing_behind() -> None:
    async def story() -> None:
        guard = Guard("shop", policy=GuardPolicy(breaker=TOUCHY))
        ended = Counter[str]()

        async def endless(request: Request) -> Response:
            async def parts() -> AsyncIterator[bytes]:
                try:
                    while True:
                        yield b"tick\n"
                        await asyncio.sleep(0.01)
                finally:
                    ended["streams"] += 1

            return StreamingResponse(parts())

        async with served(app_of(guard, {"/": endless})) as client:
            for _ in range(6):
                async with client.stream("GET", "/") as response:
                    assert (await anext(response.aiter_bytes())).startswith(b"tick")
            await until(lambda: nothing_is_in_flight(guard) and ended["streams"] == 6)
        view = keys_of(guard)["GET /"]
        assert view.failed == 0
        assert view.ok + view.dropped == 6

    run(story)


# -------------------------------------------------------------------------------------------------------- overload


def test_an_overloaded_server_sheds_what_matters_least_first() -> None:
    async def story() -> None:
        policy = GuardPolicy(shed=ShedPolicy(lag_target_s=0.03, rise_per_s=2.0, fall_per_s=0.1))
        guard = Guard("shop", policy=policy)

        async def blocks_the_loop(request: Request) -> Response:
            sleep(0.1)  # noqa: ASYNC251 - the fault under test
            return PlainTextResponse("ok")

        routes = {"/block": blocks_the_loop, "/": ok, "/healthz": ok}
        async with served(app_of(guard, routes)) as client:
            assert (await client.get("/", headers={PRIORITY: "sheddable"})).status_code == 200

            async def shed() -> httpx.Response:
                while True:
                    await client.get("/block", headers={PRIORITY: "critical"})
                    answer = await client.get("/", headers={PRIORITY: "sheddable"})
                    if answer.status_code != 200:
                        return answer

            refused = await asyncio.wait_for(shed(), PATIENCE_S)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
            assert (await client.get("/", headers={PRIORITY: "critical"})).status_code == 200
            assert (await client.get("/healthz", headers={PRIORITY: "sheddable"})).status_code == 200
        assert Why.SHED in keys_of(guard)["GET /"].refused
        assert nothing_is_in_flight(guard)

    run(story)


def test_a_crowd_is_served_up_to_the_limit_and_the_rest_is_told_when_to_come_back() -> None:
    async def story() -> None:
        guard = Guard("shop", policy=GuardPolicy(bulkhead=BulkheadPolicy(calls_max=5)))
        most, now = 0, 0

        async def busy(request: Request) -> Response:
            nonlocal most, now
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.05)
            now -= 1
            return PlainTextResponse("ok")

        async with served(app_of(guard, {"/": busy})) as client:
            answers = await asyncio.gather(*(client.get("/") for _ in range(100)))
        statuses = Counter(answer.status_code for answer in answers)
        assert set(statuses) == {200, 503}
        assert statuses.total() == 100
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 503)
        assert most <= 5
        view = keys_of(guard)["GET /"]
        assert (view.ok, view.refused[Why.NO_ROOM]) == (statuses[200], statuses[503])
        assert nothing_is_in_flight(guard)

    run(story)


# ---------------------------------------------------------------------------------------------------- other scopes


def test_start_and_stop_of_the_application_pass_through() -> None:
    async def story() -> None:
        told: list[str] = []

        @asynccontextmanager
        async def lifespan(app: Any) -> AsyncIterator[None]:
            told.append("start")
            yield
            told.append("stop")

        guard = Guard("shop")
        guard.set_mode(Mode.FORCED_OPEN)
        async with served(GuardMiddleware(Starlette(lifespan=lifespan), guard)):
            assert told == ["start"]
        assert told == ["start", "stop"]
        assert keys_of(guard) == {}

    run(story)


def test_a_websocket_passes_through_untouched() -> None:
    async def story() -> None:
        came: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            came.extend((scope, receive, send))

        async def receive() -> Any: ...
        async def send(message: Any) -> None: ...

        guard = Guard("shop")
        guard.set_mode(Mode.FORCED_OPEN)
        scope = {"type": "websocket", "path": "/live", "headers": []}
        await GuardMiddleware(app, guard)(scope, receive, send)
        assert came == [scope, receive, send]

    run(story)


def test_an_application_that_never_answers_has_failed() -> None:
    async def story() -> None:
        async def mute(scope: Any, receive: Any, send: Any) -> None: ...

        guard = Guard("shop")
        async with served(GuardMiddleware(mute, guard, key=lambda scope: "mute")) as client:
            assert (await client.get("/")).status_code == 500
        assert keys_of(guard)["mute"].failed == 1

    run(story)


def test_the_example_runs_and_shows_a_route_closed_and_open_again() -> None:
    example = Path(__file__).parents[2] / "examples" / "asgi_shop.py"
    ran = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, timeout=60.0, check=False)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"warehouse is ill  stock    \d+ x 500, \d+ x 503", ran.stdout), ran.stdout
    assert "it rested         stock    20 x 200" in ran.stdout
    assert "nobody waits      patience 504 the deadline has passed" in ran.stdout


def test_a_stream_may_last_longer_than_the_timeout_of_one_call() -> None:
    async def story() -> None:
        guard = Guard("shop", policy=GuardPolicy(timeout=TimeoutPolicy(call_s=0.3, total_s=1.0)))

        async def stream(request: Request) -> Response:
            async def parts() -> AsyncIterator[bytes]:
                for _ in range(8):
                    await asyncio.sleep(0.1)
                    yield b"x"

            return StreamingResponse(parts())

        async with served(app_of(guard, {"/": stream})) as client:
            assert (await client.get("/")).content == b"x" * 8
        view = keys_of(guard)["GET /"]
        assert (view.ok, view.failed) == (1, 0)

    run(story)
