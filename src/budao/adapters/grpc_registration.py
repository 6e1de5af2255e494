"""A `grpc.aio` server that registers itself, and leaves without losing a call.

    calls = CountedCalls()
    server = grpc.aio.server(interceptors=[calls])
    ...
    await server.start()
    async with registered_server(server, service="inventory", store="budao://store:7420", port=port, calls=calls) as here:
        await here.left()

`server.stop` sends GOAWAY and refuses new calls at once, so it comes last: after the watchers have gone elsewhere.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc import aio

from budao.adapters.registration import Here, Place, registration
from budao.aio import Store, Traffic
from budao.discovery import DrainPolicy, RegistrarPolicy

__all__ = ["CountedCalls", "GrpcPort", "registered_server"]

KINDS = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


class CountedCalls(aio.ServerInterceptor):
    """Counts the calls in flight, so that a drain knows them by number. Put it first."""

    def __init__(self) -> None:
        self.traffic = Traffic()

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        name, build = KINDS[handler.request_streaming, handler.response_streaming]
        counted = self._counted(getattr(handler, name), is_stream=handler.response_streaming)
        return build(counted, handler.request_deserializer, handler.response_serializer)

    def _counted(self, inner: Callable[..., Any], *, is_stream: bool) -> Callable[..., Any]:
        traffic = self.traffic
        if inspect.isasyncgenfunction(inner):

            async def streams(request: Any, servicer: Any) -> AsyncIterator[Any]:
                with traffic.call():
                    async for reply in inner(request, servicer):
                        yield reply

            return streams
        if inspect.iscoroutinefunction(inner):

            async def answers(request: Any, servicer: Any) -> Any:
                with traffic.call():
                    return await inner(request, servicer)

            return answers
        # In a thread of the server's pool, while the counts belong to the loop.
        loop = asyncio.get_running_loop()

        def blocks_and_streams(request: Any, servicer: Any) -> Iterator[Any]:
            loop.call_soon_threadsafe(traffic.enter)
            try:
                yield from inner(request, servicer)
            finally:
                loop.call_soon_threadsafe(traffic.leave)

        def blocks(request: Any, servicer: Any) -> Any:
            loop.call_soon_threadsafe(traffic.enter)
            try:
                return inner(request, servicer)
            finally:
                loop.call_soon_threadsafe(traffic.leave)

        return blocks_and_streams if is_stream else blocks


class GrpcPort:
    """What a `grpc.aio` server does of a drain."""

    def __init__(
        self, server: aio.Server, *, traffic: Traffic | None = None, health: Any = None, grace_s: float = 30.0
    ) -> None:
        self.server = server
        self.health = health
        self.grace_s = grace_s
        self.traffic = Traffic() if traffic is None else traffic
        self._stopping: asyncio.Task[None] | None = None
        self._is_uncounted = traffic is None
        if self._is_uncounted:
            # Nobody counts, so the server itself stands for what may be in flight until it has stopped.
            self.traffic.enter()

    async def tell_peers_to_go(self) -> None:
        """NOT_SERVING for every service, where there is a health servicer (`grpc_health.v1.health.aio`)."""
        if self.health is not None:
            await self.health.enter_graceful_shutdown()

    async def stop_accepting(self) -> None:
        self._stopping = asyncio.create_task(self._stop(), name="budao grpc stop")
        await asyncio.sleep(0)

    async def _stop(self) -> None:
        try:
            await self.server.stop(self.grace_s)
        finally:
            if self._is_uncounted:
                self.traffic.leave()

    async def cut(self) -> None:
        await self.server.stop(0)

    async def close_idle(self) -> None:
        if self._stopping is not None:
            await self._stopping


@asynccontextmanager
async def registered_server(
    server: aio.Server,
    service: str = "",
    store: Store | str | None = None,
    *,
    place: Place | None = None,
    host: str = "",
    port: int = 0,
    id: str = "",  # noqa: A002 - the word everybody uses
    calls: CountedCalls | None = None,
    health: Any = None,
    drain: DrainPolicy | None = None,
    registrar: RegistrarPolicy | None = None,
    signals: bool = True,
) -> AsyncIterator[Here]:
    """Registers a server that has started, and drains and stops it before the block is left.

    - `calls` is the interceptor the server was built with; without it the proof cannot say how many calls were cut.
    - `health` is a health servicer of `grpc_health`, if there is one.
    """
    policy = DrainPolicy() if drain is None else drain
    stop = GrpcPort(server, traffic=None if calls is None else calls.traffic, health=health, grace_s=policy.grace_s)
    where = Place(service=service, id=id, protocol="grpc", host=host, port=port) if place is None else place
    async with registration(
        store=store, place=where, server=stop, traffic=stop.traffic, drain=policy, registrar=registrar, signals=signals
    ) as here:
        yield here
