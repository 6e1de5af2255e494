"""An ASGI middleware that tells callers how busy this server is, in the header `budao-load` of each reply.

    app = LoadMiddleware(GuardMiddleware(app, guard))

Outside of a `GuardMiddleware` it counts calls that wait for a place there, and leaves that wait out of the service time.
An application with a queue of its own says so: `with waiting(): await places.acquire()`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import Any

from budao.discovery import LoadMeter, Work
from budao.wire import LOAD, format_load

__all__ = ["LoadMiddleware", "waiting"]

WORK = "budao.load"
"""Where the scope of a request keeps its `Work`."""

_LOAD = LOAD.encode()
_work: ContextVar[Work | None] = ContextVar("budao_work", default=None)

App = Callable[..., Awaitable[None]]


@contextmanager
def waiting() -> Iterator[None]:
    """The request being served waits for a place here, which is no work. Outside of a request nothing happens."""
    work = _work.get()
    if work is None:
        yield
        return
    work.wait(perf_counter())
    try:
        yield
    finally:
        work.go_on(perf_counter())


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
        scope[WORK] = work = meter.begin(perf_counter())
        token = _work.set(work)

        async def telling(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                if message["status"] < 500:
                    meter.learn(work, perf_counter())
                if tells and (load := meter.load()) is not None:
                    message["headers"] = [*message.get("headers", ()), (_LOAD, format_load(load).encode())]
            await send(message)

        try:
            await self.app(scope, receive, telling)
        finally:
            _work.reset(token)
            meter.end(work)
