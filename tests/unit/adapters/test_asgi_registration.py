"""A registered application, with the server played by hand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from budao.adapters.asgi_registration import Registered, registered


class Server:
    """What a server does of a lifespan."""

    def __init__(self, app: Any) -> None:
        self.app: Registered = registered(app)
        self.app.owns_signals = True
        self.app.listens("127.0.0.1", 0)
        self.drained = asyncio.Event()
        self.app.on_drained = self.drained.set
        self.said: asyncio.Queue[str] = asyncio.Queue()
        self.orders: asyncio.Queue[str] = asyncio.Queue()
        self.task = asyncio.create_task(self.app({"type": "lifespan", "state": {}}, self._receive, self._send))

    async def _receive(self) -> Any:
        return {"type": await self.orders.get()}

    async def _send(self, message: Any) -> None:
        self.said.put_nowait(message["type"])

    async def lives(self) -> None:
        """From start to end, with a drain in between."""
        async with asyncio.timeout(30.0):
            self.orders.put_nowait("lifespan.startup")
            assert await self.said.get() == "lifespan.startup.complete"
            self.app.drainer.ask()
            self.app.drainer.ask()  # and at once
            await self.drained.wait()
            self.orders.put_nowait("lifespan.shutdown")
            assert await self.said.get() == "lifespan.shutdown.complete"
            await self.task


async def knows_none(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http", "no lifespan"


async def passes_over(scope: Any, receive: Any, send: Any) -> None:
    return


async def hears_and_leaves(scope: Any, receive: Any, send: Any) -> None:
    await receive()


async def starts_and_leaves(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})


async def knows_all(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


@pytest.mark.parametrize("app", [knows_none, passes_over, hears_and_leaves, starts_and_leaves, knows_all])
def test_an_application_drains_whatever_it_makes_of_its_lifespan(app: Any) -> None:
    async def main() -> None:
        await Server(app).lives()

    asyncio.run(main())


def test_an_application_that_fails_to_start_is_not_taken_for_one_that_knows_no_lifespan() -> None:
    async def breaks(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("no database")

    async def main() -> None:
        server = Server(breaks)
        server.orders.put_nowait("lifespan.startup")
        async with asyncio.timeout(30.0):
            with pytest.raises(RuntimeError, match="no database"):
                await server.task
        assert server.said.empty()

    asyncio.run(main())


def test_an_application_that_says_that_it_failed_is_not_said_to_have_started() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def main() -> None:
        server = Server(fails)
        server.orders.put_nowait("lifespan.startup")
        async with asyncio.timeout(30.0):
            await server.task
        assert server.said.get_nowait() == "lifespan.startup.failed"
        assert server.said.empty()

    asyncio.run(main())


@pytest.mark.parametrize(("version", "says"), [("1.1", True), ("2", False), ("3", False)])
def test_connection_close_is_said_over_http_1_alone(version: str, says: bool) -> None:
    async def main() -> list[Any]:
        said: list[Any] = []

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                said.append((message["status"], message["headers"]))

        async def hangs(scope: Any, receive: Any, send: Any) -> None:
            await receive()

        app = registered(hangs)
        app.drainer.is_draining = app.drainer.is_going = True
        scope = {"type": "http", "http_version": version, "path": "/readyz"}
        await app(scope, asyncio.Event().wait, send)
        call = asyncio.create_task(app({**scope, "path": "/stock"}, asyncio.Event().wait, send))
        await asyncio.sleep(0)
        await app.cut()
        await call
        return said

    replies = asyncio.run(main())
    assert len(replies) == 2
    for status, headers in replies:
        assert status == 503
        assert ((b"connection", b"close") in headers) is says


def test_a_websocket_that_comes_when_the_listener_should_be_closed_is_sent_elsewhere() -> None:
    async def stays(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    async def main() -> list[Any]:
        said: list[Any] = []

        async def send(message: Any) -> None:
            said.append((message["type"], message.get("code")))

        orders: asyncio.Queue[Any] = asyncio.Queue()
        orders.put_nowait({"type": "websocket.connect"})
        app = registered(stays)
        app.drainer.is_draining = app.drainer.is_going = app.drainer.is_closing = True
        call = asyncio.create_task(app({"type": "websocket", "http_version": "1.1", "path": "/"}, orders.get, send))
        await asyncio.sleep(0)
        assert call.done()
        assert app.drainer.traffic.started == 0
        return said

    assert asyncio.run(main()) == [("websocket.close", 1012)]
