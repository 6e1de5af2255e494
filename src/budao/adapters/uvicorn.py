"""uvicorn that drains: `run(registered(app, service="inventory", store="budao://store:7420"), port=8000)`.

On SIGTERM uvicorn closes its listener at once, and whoever has not heard of it yet is refused. Here the signal starts the
drain, and uvicorn is told to end once that is over.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from budao.adapters.asgi_registration import App, Registered, Scope, registered
from budao.model import BadSettings

__all__ = ["DrainingServer", "run", "serve"]


class DrainingServer(uvicorn.Server):
    """A `uvicorn.Server` whose end is a drain."""

    hears_before_it_closes = False

    def __init__(self, config: uvicorn.Config, app: Registered) -> None:
        super().__init__(config)
        self._app = app
        app.server = self
        app.owns_signals = True
        app.on_drained = self._drained
        # All that may run longer has been cut by then; without a bound, a task that will not end would hold the process.
        config.timeout_graceful_shutdown = max(1, round(app.drainer.policy.close_s))

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        for server in self.servers if self.started else ():
            for listener in server.sockets:
                address = listener.getsockname()
                if isinstance(address, tuple):
                    self._app.listens(self.config.host, address[1])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn names them
        self._app.drainer.ask()

    def _drained(self) -> None:
        self.should_exit = True

    async def stop_accepting(self) -> None:
        for server in self.servers:
            server.close()

    async def close_idle(self) -> None:
        for connection in list(self.server_state.connections):
            connection.shutdown()

    def after_reply(self, scope: Scope, send: Any) -> None:
        """HTTP/1.1 only: the header has said it."""


async def serve(app: App, **options: Any) -> None:
    """Serves until a signal came and the drain is over; `options` are those of `uvicorn.Config`."""
    await _server(app, options).serve()


def run(app: App, **options: Any) -> None:
    """The same from synchronous code, in one process. Ends the process if the application does not start."""
    server = _server(app, options)
    server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def _server(app: App, options: dict[str, Any]) -> DrainingServer:
    if options.get("workers", 1) not in {None, 1} or options.get("reload"):
        raise BadSettings(
            [
                (
                    "uvicorn",
                    "a drain needs one process that sees every call: leave out workers and reload, run more instances",
                )
            ]
        )
    ours = app if isinstance(app, Registered) else registered(app)
    return DrainingServer(uvicorn.Config(ours, lifespan="on", **options), ours)
