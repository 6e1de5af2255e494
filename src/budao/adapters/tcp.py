"""A listener of `asyncio.start_server` that drains.

    port = TcpPort(handle)
    port.server = await asyncio.start_server(port, host, number)
    async with registration("echo", "budao://store:7420", port=number, server=port, traffic=port.traffic) as here:
        await here.left()

Of a protocol unknown here, a connection is a call: it counts until its handler returns. A handler that keeps connections
between requests looks at `here.is_draining` and ends them then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from budao.aio import Traffic

__all__ = ["TcpPort"]

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class TcpPort:
    """Handles connections, counts them, and stops when it is told."""

    def __init__(self, handler: Handler) -> None:
        self.server: asyncio.Server | None = None
        self.traffic = Traffic()
        self._handler = handler
        self._open: set[asyncio.Task[Any]] = set()
        self._is_cut = False

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with self.traffic.call():
                await self._handler(reader, writer)
        except asyncio.CancelledError:
            if not self._is_cut:
                raise
            task.uncancel()
            writer.transport.abort()
        finally:
            self._open.discard(task)

    async def tell_peers_to_go(self) -> None:
        """A protocol unknown here has no word for it."""

    async def stop_accepting(self) -> None:
        if self.server is not None:
            self.server.close()

    async def cut(self) -> None:
        self._is_cut = True
        for task in list(self._open):
            task.cancel()

    async def close_idle(self) -> None:
        """Nothing is idle: a connection whose handler has returned is the handler's to close."""
