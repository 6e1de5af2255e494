"""Granian that drains: `await serve(registered(app, service="inventory", store="budao://store:7420"), port=8000)`.

Granian closes its listener and its idle connections in one order, and does not wait for what is in flight. So here it
goes on accepting until that has ended, and only then is told to stop. It runs embedded in this process (Granian calls that
experimental): its own command keeps the signal in a parent process that cannot see what is in flight.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

from granian.constants import Interfaces
from granian.server.embed import Server

from budao.adapters.asgi_registration import App, Registered, Scope, registered
from budao.adapters.registration import signals_taken

__all__ = ["run", "serve"]


async def serve(
    app: App, *, address: str = "127.0.0.1", port: int = 8000, signals: bool = True, **options: Any
) -> None:
    """Serves until a signal came and the drain is over; `options` are those of `granian.server.embed.Server`."""
    ours = app if isinstance(app, Registered) else registered(app)
    ours.owns_signals = True
    ours.listens(address, port)
    server = Server(ours, address=address, port=port, interface=Interfaces.ASGI, **options)
    ours.server = _Port()
    ours.on_drained = server.stop
    with signals_taken(lambda *_: ours.drainer.ask()) if signals else nullcontext():
        await server.serve()


def run(app: App, **options: Any) -> None:
    """The same from synchronous code, in one process."""
    asyncio.run(serve(app, **options))


class _Port:
    hears_before_it_closes = True

    async def stop_accepting(self) -> None:
        """Not yet: see the module."""

    async def close_idle(self) -> None:
        """When the drain is over, Granian is stopped, and does so."""

    def after_reply(self, scope: Scope, send: Any) -> None:
        """Granian says GOAWAY when it stops."""
