"""Callers that never retry, so that whatever a restart loses is seen."""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any

from budao.aio import Directory, Source
from budao.discovery import Sighting
from budao.model import Endpoint

REPLY_S = 5.0
"""A call without a reply by then is lost."""


class Late:
    """A source that tells everything `lag_s` late, as endpoints travel through a cluster.

    With `silent` it acknowledges nothing, as a proxy or a cache does.
    """

    def __init__(self, source: Source, lag_s: float, *, silent: bool) -> None:
        self._source = source
        self._lag_s = lag_s
        self._silent = silent

    @property
    def name(self) -> str:
        return self._source.name

    async def follow(self, service: str) -> AsyncIterator[Sighting]:
        loop = asyncio.get_running_loop()
        seen: asyncio.Queue[tuple[float, Sighting]] = asyncio.Queue()

        async def read() -> None:
            async with aclosing(self._source.follow(service)) as sightings:
                async for sighting in sightings:
                    await seen.put((loop.time() + self._lag_s, sighting))

        task = asyncio.create_task(read())
        try:
            while True:
                due, sighting = await seen.get()
                await asyncio.sleep(due - loop.time())
                yield sighting
        finally:
            task.cancel()

    async def acknowledge(self, service: str, watcher: str, revision: int) -> bool:
        return False if self._silent else await self._source.acknowledge(service, watcher, revision)

    async def aclose(self) -> None:
        await self._source.aclose()


class Caller(ABC):
    """Calls at a fixed rate, in turn, over connections that are kept."""

    def __init__(self, directory: Directory, calls_per_s: float, counts: Counter[str]) -> None:
        self._directory = directory
        self._pause_s = 1.0 / calls_per_s
        self._counts = counts
        self._turn = itertools.count()
        self._calls: set[asyncio.Task[None]] = set()

    def endpoints(self) -> tuple[Endpoint, ...]:
        return self._directory.roster.endpoints()

    async def run(self) -> None:
        """Until it is cancelled; then what is out still ends."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while True:
                found = self.endpoints()
                if found:
                    task = asyncio.create_task(self._counted(found[next(self._turn) % len(found)]))
                    self._calls.add(task)
                    task.add_done_callback(self._calls.discard)
                else:
                    self._counts["nobody"] += 1
                due += self._pause_s
                await asyncio.sleep(max(0.0, due - loop.time()))
        except asyncio.CancelledError:
            await asyncio.gather(*self._calls)
            raise

    async def _counted(self, endpoint: Endpoint) -> None:
        try:
            async with asyncio.timeout(REPLY_S):
                self._counts[await self.call(endpoint)] += 1
        except TimeoutError:
            self._counts["lost"] += 1

    @abstractmethod
    async def call(self, endpoint: Endpoint) -> str:
        """One call: "ok", "refused" or "lost"."""

    async def aclose(self) -> None:  # noqa: B027 - most callers keep nothing open
        """Closes what is kept open between calls."""


class HttpCaller(Caller):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._idle: dict[tuple[str, int], deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = {}

    async def call(self, endpoint: Endpoint) -> str:
        idle = self._idle.setdefault((endpoint.host, endpoint.port), deque())
        connection = None
        while idle and connection is None:
            reader, writer = idle.popleft()
            # Any pool looks whether the other side has closed meanwhile.
            connection = None if reader.at_eof() or writer.is_closing() else (reader, writer)
        try:
            reader, writer = connection or await asyncio.open_connection(endpoint.host, endpoint.port)
        except OSError:
            return "refused"
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: inventory\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(2)
        except (OSError, EOFError):
            writer.close()
            return "lost"
        if b"connection: close" in head:
            writer.close()
        else:
            idle.append((reader, writer))
        return "ok" if b" 200" in head.split(b"\r\n")[0] else "lost"

    async def aclose(self) -> None:
        for idle in self._idle.values():
            for _, writer in idle:
                writer.close()


class GrpcCaller(Caller):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._channels: dict[str, Any] = {}

    async def call(self, endpoint: Endpoint) -> str:
        import grpc

        channel = self._channels.get(endpoint.authority)
        if channel is None:
            options = [("grpc.enable_retries", 0), ("grpc.initial_reconnect_backoff_ms", 100)]
            channel = self._channels[endpoint.authority] = grpc.aio.insecure_channel(
                endpoint.authority, options=options
            )
        try:
            await channel.unary_unary("/shop.Inventory/Stock")(b"", timeout=REPLY_S)
        except grpc.aio.AioRpcError as error:
            return "refused" if "connect" in (error.details() or "").lower() else "lost"
        return "ok"

    async def aclose(self) -> None:
        for channel in self._channels.values():
            with suppress(Exception):
                await channel.close()


CALLERS: dict[str, Callable[..., Caller]] = {"grpc.aio": GrpcCaller}
