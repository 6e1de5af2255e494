"""Hypercorn that drains: `await serve(registered(app, service="inventory", store="budao://store:7420"), config)`.

Hypercorn has one order for three things: closing the listener, closing what is idle, and refusing new streams. It is given
when the drain would close the listener; what is in flight then still finishes. Over HTTP/2 a connection gets its GOAWAY
as soon as it has no stream left, from when peers are told to go.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

import hypercorn
import hypercorn.asyncio
from hypercorn.protocol.h2 import H2Protocol

from budao.adapters.asgi_registration import App, Registered, Scope, registered
from budao.adapters.registration import signals_taken

__all__ = ["run", "serve"]


async def serve(app: App, config: hypercorn.Config, *, signals: bool = True) -> None:
    """Serves until a signal came and the drain is over."""
    ours = app if isinstance(app, Registered) else registered(app)
    ours.owns_signals = True
    port = _Port()
    ours.server = port
    # The listeners are made by Hypercorn, after the application has started; this is how to hear of their ports.
    sockets = config.create_sockets()
    for listener in (*sockets.secure_sockets, *sockets.insecure_sockets):
        address = listener.getsockname()
        if isinstance(address, tuple):
            ours.listens(address[0], address[1])
    config.create_sockets = lambda: sockets  # type: ignore[method-assign]
    # All that may run longer has been cut by then.
    config.graceful_timeout = ours.drainer.policy.grace_s
    with signals_taken(lambda *_: ours.drainer.ask()) if signals else nullcontext():
        await hypercorn.asyncio.serve(ours, config, shutdown_trigger=port.closed.wait)


def run(app: App, config: hypercorn.Config) -> None:
    """The same from synchronous code, in one process."""
    asyncio.run(serve(app, config))


class _Port:
    hears_before_it_closes = False

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self._going: set[asyncio.Task[None]] = set()

    async def stop_accepting(self) -> None:
        self.closed.set()

    async def close_idle(self) -> None:
        """Hypercorn has done so when its listener was closed."""

    def after_reply(self, scope: Scope, send: Any) -> None:
        if not scope["http_version"].startswith("2"):
            return
        # HTTP/2 has no header for it, and Hypercorn no call: the stream knows its connection.
        stream = getattr(send, "__self__", None)
        protocol = getattr(getattr(stream, "send", None), "__self__", None)
        if isinstance(protocol, H2Protocol):
            task = asyncio.create_task(_say_goodbye(protocol))
            self._going.add(task)
            task.add_done_callback(self._going.discard)


async def _say_goodbye(protocol: H2Protocol) -> None:
    """GOAWAY, once the connection has no stream left: some clients give up the streams that are still open when it comes."""
    while not protocol.closed and (protocol.streams or protocol.stream_buffers):  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0.005)
    if not protocol.closed:
        protocol.connection.close_connection()
        await protocol._flush()  # noqa: SLF001 - the only way to the wire
