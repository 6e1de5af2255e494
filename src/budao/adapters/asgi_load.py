"""An ASGI middleware that tells callers how busy this server is, in the header `budao-load` of each reply.

    app = LoadMiddleware(GuardMiddleware(app, guard))

Outside of a `GuardMiddleware` it counts calls that wait for a place there, and leaves that wait out of the service time.
An application with a queue of its own says so: `with waiting(): await places.acquire()`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any

from budao.adapters._load import waiting
from budao.adapters._load import work as current
from budao.discovery import LoadMeter
from budao.wire import LOAD, load_text

__all__ = ["LoadMiddleware", "waiting"]

_LOAD = LOAD.encode()

App = Callable[..., Awaitable[None]]


class LoadMiddleware:
    """Counts the HTTP requests of `app`, measures its service time, and tells both; other scopes pass untouched.

    A service time is the span from the arrival of a request to the start of a good answer, without the waits it is told
    of: see `budao.discovery.LoadMeter`. With `tells=False` it only measures; `meter` may be shared with others who look.
    """

    def __init__(self, app: App, *, meter: LoadMeter | None = None, tells: bool = True) -> None:
        self.app = app
        self.meter = LoadMeter() if meter is None else meter
        self._tells = tells

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        meter, tells = self.meter, self._tells
        work = meter.begin(perf_counter())
        token = current.set(work)

        async def telling(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                if message["status"] < 500:
                    meter.learn(work, perf_counter())
                if tells and (service_s := meter.service_s) is not None:
                    text = load_text(meter.in_flight - 1, service_s).encode()  # without this one
                    message["headers"] = [*message.get("headers", ()), (_LOAD, text)]
            await send(message)

        try:
            await self.app(scope, receive, telling)
        finally:
            current.reset(token)
            meter.end(work)
