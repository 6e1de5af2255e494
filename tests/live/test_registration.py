"""Registration in one line, and its end: in one process, with a store in memory and real listeners."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
import pytest

from budao.adapters import uvicorn
from budao.adapters.asgi_load import LoadMiddleware
from budao.adapters.asgi_registration import Registered, registered
from budao.adapters.grpc_registration import CountedCalls, registered_server
from budao.adapters.registration import Here, registration
from budao.adapters.tcp import TcpPort
from budao.aio import Directory, MemoryStore, StoreSource
from budao.discovery import DrainPolicy, RegistrarPolicy, Roster
from budao.model import BadSettings, Stage
from budao.store import Committed, Span, StoreAway, Txn
from budao.wire import LOAD, parse_load
from tests.live.drain_app import app as application
from tests.live.servers_http import free_port

PATIENCE_S = 30.0
DRAIN = DrainPolicy.of(30.0, lag_s=0.0)


def stages(roster: Roster) -> list[Stage]:
    return [instance.stage for instance in roster.instances]


async def until(directory: Directory, holds: Callable[[Roster], bool]) -> Roster:
    async with asyncio.timeout(PATIENCE_S):
        while not holds(directory.roster):
            await directory.latest.changed(directory.roster)
    return directory.roster


@asynccontextmanager
async def watched(store: MemoryStore) -> AsyncIterator[Directory]:
    source = StoreSource(store)
    async with Directory(source, "inventory", watcher="shop") as directory:
        yield directory
    await source.aclose()


class Fragile(MemoryStore):
    """A store that can be switched off."""

    is_away = False

    async def commit(self, txn: Txn) -> Committed:
        if self.is_away:
            raise StoreAway("memory", "switched off")
        return await super().commit(txn)

    async def revoke(self, lease: int) -> None:
        if self.is_away:
            raise StoreAway("memory", "switched off")
        await super().revoke(lease)


def quick(policy: DrainPolicy = DRAIN) -> dict[str, Any]:
    return {"drain": policy, "registrar": RegistrarPolicy(leave_max_s=0.2)}


def test_an_asgi_app_is_found_once_its_port_answers_and_leaves_when_its_watchers_know() -> None:
    async def run() -> Registered:
        store = MemoryStore()
        app = registered(application, "inventory", store, id="one", **quick())
        async with watched(store) as directory:
            serving = asyncio.create_task(uvicorn.serve(app, port=0, log_level="error"))
            roster = await until(directory, lambda roster: bool(roster.endpoints()))
            (endpoint,) = roster.endpoints()
            reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in await reader.readline()
            os.kill(os.getpid(), signal.SIGTERM)
            await until(directory, lambda roster: stages(roster) in ([Stage.DRAINING], []))
            async with asyncio.timeout(PATIENCE_S):
                await serving
            await until(directory, lambda roster: not roster.instances)
            writer.close()
        await store.aclose()
        return app

    app = asyncio.run(run())
    assert app.proof is not None
    assert app.proof.why == "everyone acknowledged"
    assert [name for name, _ in app.proof.acknowledged] == ["shop"]
    assert app.proof.is_clean


@pytest.mark.parametrize("wrap", [lambda app: app, LoadMiddleware])
def test_a_registered_app_tells_its_load_once_in_every_reply(wrap: Callable[[Any], Any]) -> None:
    async def run() -> list[list[str]]:
        store = MemoryStore()
        app = registered(wrap(application), "inventory", store, **quick())
        async with watched(store) as directory:
            serving = asyncio.create_task(uvicorn.serve(app, port=0, log_level="error"))
            (endpoint,) = (await until(directory, lambda roster: bool(roster.endpoints()))).endpoints()
            async with httpx.AsyncClient(base_url=f"http://{endpoint.authority}") as client:
                said = [(await client.get("/")).headers.get_list(LOAD) for _ in range(2)]
            app.drainer.ask()
            async with asyncio.timeout(PATIENCE_S):
                await serving
        await store.aclose()
        return said

    for told in asyncio.run(run()):
        assert len(told) == 1
        assert parse_load(told[0]) is not None


async def refuses_other_scopes(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await application(scope, receive, send)


async def answers_every_scope_as_a_request(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.mark.parametrize("plain", [refuses_other_scopes, answers_every_scope_as_a_request])
def test_an_app_that_knows_no_lifespan_is_registered_as_well(plain: Any) -> None:
    async def run() -> None:
        store = MemoryStore()
        app = registered(plain, "inventory", store, **quick())
        async with watched(store) as directory:
            serving = asyncio.create_task(uvicorn.serve(app, port=0, log_level="error"))
            await until(directory, lambda roster: bool(roster.endpoints()))
            app.drainer.ask()
            async with asyncio.timeout(PATIENCE_S):
                await serving
        await store.aclose()

    asyncio.run(run())


def test_a_store_that_goes_away_does_not_keep_a_process_from_leaving() -> None:
    async def run() -> Registered:
        store = Fragile()
        app = registered(application, "inventory", store, **quick(DrainPolicy.of(2.0, lag_s=0.0)))
        async with watched(store) as directory:
            serving = asyncio.create_task(uvicorn.serve(app, port=0, log_level="error"))
            await until(directory, lambda roster: bool(roster.endpoints()))
            store.is_away = True
            app.drainer.ask()
            async with asyncio.timeout(PATIENCE_S):
                await serving
        await store.aclose()
        return app

    app = asyncio.run(run())
    assert app.proof is not None
    assert app.proof.why == "never published: bound passed"


def test_a_server_that_ends_without_a_drain_takes_its_instance_along() -> None:
    async def run() -> None:
        store = MemoryStore()
        port = free_port()
        app = registered(application, "inventory", store, host="127.0.0.1", port=port, **quick())
        heard: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        said: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        async with (
            watched(store) as directory,
            await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port),
        ):
            lifespan = asyncio.create_task(app({"type": "lifespan"}, heard.get, said.put))
            await heard.put({"type": "lifespan.startup"})
            assert await said.get() == {"type": "lifespan.startup.complete"}
            assert app.problem == "starting"
            await until(directory, lambda roster: bool(roster.endpoints()))
            await heard.put({"type": "lifespan.shutdown"})
            async with asyncio.timeout(PATIENCE_S):
                await lifespan
            await until(directory, lambda roster: not roster.instances)
        await store.aclose()

    asyncio.run(run())


class Slow(MemoryStore):
    """A store that takes its time to revoke."""

    async def revoke(self, lease: int) -> None:
        await asyncio.sleep(0.5)
        await super().revoke(lease)


def test_a_server_that_ends_at_once_lets_the_drain_revoke_and_say_how_it_went() -> None:
    async def run() -> Registered:
        store = Slow()
        port = free_port()
        policy = DrainPolicy.of(4.0, lag_s=0.0)
        assert policy.close_s < 0.5
        app = registered(application, "inventory", store, host="127.0.0.1", port=port, drain=policy)
        heard: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        said: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        async with (
            watched(store) as directory,
            await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port),
        ):
            lifespan = asyncio.create_task(app({"type": "lifespan"}, heard.get, said.put))
            await heard.put({"type": "lifespan.startup"})
            await until(directory, lambda roster: bool(roster.endpoints()))
            app.drainer.ask()
            async with asyncio.timeout(PATIENCE_S):
                while not app.drainer.is_closing:  # noqa: ASYNC110 - where a server would end
                    await asyncio.sleep(0.01)
                await heard.put({"type": "lifespan.shutdown"})
                await lifespan
            await until(directory, lambda roster: not roster.instances)
        await store.aclose()
        return app

    app = asyncio.run(run())
    assert app.proof is not None
    assert app.proof.is_clean


def test_a_grpc_server_leaves_after_its_watchers_and_finishes_what_it_has() -> None:
    told: list[str] = []

    async def run() -> Here:
        store = MemoryStore()
        calls = CountedCalls()
        begun = asyncio.Event()

        class Health:
            """As in grpc_health, which need not be installed."""

            async def enter_graceful_shutdown(self) -> None:
                told.append("not serving")

        async def stock(request: bytes, _: Any) -> bytes:
            begun.set()
            await asyncio.sleep(0.5)
            return request

        server = grpc.aio.server(interceptors=[calls])
        methods = {"Stock": grpc.unary_unary_rpc_method_handler(stock)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Inventory", methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with watched(store) as directory, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            async with registered_server(
                server, "inventory", store, host="127.0.0.1", port=port, calls=calls, health=Health(), **quick()
            ) as here:
                roster = await until(directory, lambda roster: bool(roster.endpoints("grpc")))
                assert roster.endpoints("grpc")[0].port == port
                answer = asyncio.ensure_future(channel.unary_unary("/shop.Inventory/Stock")(b"apples"))
                await begun.wait()
                here.leave()
                assert await answer == b"apples"
                await here.left()
            await until(directory, lambda roster: not roster.instances)
        await store.aclose()
        return here

    here = asyncio.run(run())
    assert here.drainer.proof is not None
    assert here.drainer.proof.why == "everyone acknowledged"
    assert here.drainer.proof.calls_finished == 1
    assert here.drainer.proof.is_clean
    assert told == ["not serving"]


def test_a_stream_of_a_handler_in_a_thread_counts_until_its_last_message() -> None:
    async def run() -> list[int]:
        calls = CountedCalls()
        server = grpc.aio.server(interceptors=[calls])
        goes_on = threading.Event()

        def watch(request: bytes, _: Any) -> Iterator[bytes]:
            yield request
            goes_on.wait(PATIENCE_S)

        handler = grpc.unary_stream_rpc_method_handler(watch)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop", {"Watch": handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_stream("/shop/Watch")(b"a")
            await call.read()
            seen = [calls.traffic.in_flight]
            goes_on.set()
            await call.read()
            async with asyncio.timeout(PATIENCE_S):
                while calls.traffic.in_flight:  # noqa: ASYNC110 - the thread tells nobody
                    await asyncio.sleep(0.01)
            seen.append(calls.traffic.in_flight)
        await server.stop(0)
        return seen

    assert asyncio.run(run()) == [1, 0]


@pytest.mark.parametrize("is_counted", [True, False])
def test_a_call_that_outlives_the_grace_of_a_grpc_server_is_cut(is_counted: bool) -> None:
    async def run() -> Here:
        calls = CountedCalls() if is_counted else None
        begun = asyncio.Event()

        async def stock(request: bytes, _: Any) -> bytes:
            begun.set()
            await asyncio.sleep(600)
            return request

        server = grpc.aio.server(interceptors=[calls] if calls is not None else [])
        methods = {"Stock": grpc.unary_unary_rpc_method_handler(stock)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Inventory", methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            async with registered_server(server, calls=calls, drain=DrainPolicy.of(2.0, lag_s=0.0)) as here:
                answer = asyncio.ensure_future(channel.unary_unary("/shop.Inventory/Stock")(b"apples"))
                await begun.wait()
            with pytest.raises(grpc.aio.AioRpcError):
                await answer
        return here

    here = asyncio.run(run())
    assert here.drainer.proof is not None
    assert here.drainer.proof.calls_cut == 1


def test_a_listener_of_ones_own_drains() -> None:
    async def run() -> Here:
        store = MemoryStore()

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                writer.write(line)
            writer.close()

        port = TcpPort(echo)
        port.server = await asyncio.start_server(port, "127.0.0.1", 0)
        number = port.server.sockets[0].getsockname()[1]
        async with watched(store) as directory:
            async with registration(
                "inventory", store, host="127.0.0.1", port=number, server=port, traffic=port.traffic, **quick()
            ) as here:
                await until(directory, lambda roster: bool(roster.endpoints("tcp")))
                reader, writer = await asyncio.open_connection("127.0.0.1", number)
                writer.write(b"one\n")
                assert await reader.readline() == b"one\n"
                here.leave()
                # Nothing new is accepted once the watcher knows; what is open goes on until its peer has ended it.
                await until(directory, lambda roster: not roster.endpoints())
                writer.write(b"two\n")
                assert await reader.readline() == b"two\n"
                writer.close()
                await here.left()
            with pytest.raises(OSError, match="Connect call failed"):
                await asyncio.open_connection("127.0.0.1", number)
        await store.aclose()
        return here

    here = asyncio.run(run())
    assert here.drainer.proof is not None
    assert here.drainer.proof.is_clean
    assert here.drainer.proof.calls_finished == 1


def test_a_connection_that_never_ends_is_cut() -> None:
    async def run() -> Here:
        held = asyncio.Event()

        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            held.set()
            await reader.read()
            writer.close()

        port = TcpPort(hold)
        port.server = await asyncio.start_server(port, "127.0.0.1", 0)
        number = port.server.sockets[0].getsockname()[1]
        async with registration(server=port, traffic=port.traffic, drain=DrainPolicy.of(1.0, lag_s=0.0)) as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", number)
            writer.write(b"x")
            await held.wait()
        assert await reader.read() == b""
        writer.close()
        return here

    here = asyncio.run(run())
    assert here.drainer.proof is not None
    assert here.drainer.proof.calls_cut == 1


def test_a_worker_without_a_listener_finishes_its_piece_of_work() -> None:
    async def run() -> int:
        done = 0
        async with registration(drain=DRAIN) as here:
            while not here.is_draining:
                with here.call():
                    if done == 3:
                        os.kill(os.getpid(), signal.SIGTERM)
                    await asyncio.sleep(0.01)
                done += 1
            await here.left()
            assert here.drainer.proof is not None
            assert here.drainer.proof.is_clean
        return done

    assert asyncio.run(run()) >= 4


def test_a_port_that_nobody_says_is_not_made_up() -> None:
    async def run() -> None:
        async with registration("inventory", MemoryStore(), host="127.0.0.1"):
            raise AssertionError("it must not come this far")

    with pytest.raises(BadSettings, match="give port="):
        asyncio.run(run())


def test_where_others_reach_it_is_said_or_it_says_that_it_is_not_found() -> None:
    async def run() -> None:
        port = free_port()
        app = registered(application, "inventory", MemoryStore(), port=port, **quick())
        heard: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port):
            lifespan = asyncio.create_task(app({"type": "lifespan"}, heard.get, asyncio.Queue().put))
            await heard.put({"type": "lifespan.startup"})
            async with asyncio.timeout(PATIENCE_S):
                while app.problem != "not registered":  # noqa: ASYNC110 - what a probe would see
                    await asyncio.sleep(0.01)
                await heard.put({"type": "lifespan.shutdown"})
                await lifespan

    asyncio.run(run())


def test_who_is_told_to_leave_before_it_has_joined_never_joins() -> None:
    async def run() -> int:
        store = MemoryStore()
        app = registered(application, "inventory", store, host="127.0.0.1", port=free_port(), **quick())
        heard: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        lifespan = asyncio.create_task(app({"type": "lifespan"}, heard.get, asyncio.Queue().put))
        await heard.put({"type": "lifespan.startup"})
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.sleep(0.1)  # it looks for its own port, which never answers
            app.drainer.ask()
            while app.proof is None:  # noqa: ASYNC110 - as a program would see it
                await asyncio.sleep(0.01)
            await heard.put({"type": "lifespan.shutdown"})
            await lifespan
        return (await store.read(Span.prefix(""))).revision

    assert asyncio.run(run()) == asyncio.run(_revision_of_an_empty_store())


async def _revision_of_an_empty_store() -> int:
    return (await MemoryStore().read(Span.prefix(""))).revision


def test_several_processes_of_uvicorn_are_refused_since_none_sees_every_call() -> None:
    with pytest.raises(BadSettings, match="one process"):
        asyncio.run(uvicorn.serve(application, workers=2))


def test_the_signal_that_came_is_handed_on_where_only_that_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: dict[int, Any] = {signal.SIGTERM: signal.SIG_DFL}
    heard: list[int] = []
    handlers[signal.SIGINT] = theirs = lambda number, _: heard.append(number)
    monkeypatch.setattr(signal, "getsignal", handlers.__getitem__)
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)

    async def main() -> None:
        app = registered(application)
        app._take_signals()
        assert handlers[signal.SIGINT] is not theirs
        handlers[signal.SIGINT](signal.SIGINT, None)
        assert app.drainer.was_asked
        await app.stop_accepting()

    asyncio.run(main())
    assert handlers == {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: theirs}
    assert heard == [signal.SIGINT]
