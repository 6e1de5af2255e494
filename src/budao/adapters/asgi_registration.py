"""An ASGI application that registers itself, and leaves without losing a call.

    app = registered(app, service="inventory", store="budao://store:7420")
    budao.adapters.uvicorn.run(app, host="0.0.0.0", port=8000)

It joins once its port answers, says "not ready" and `Connection: close` while it drains, counts what is in flight, and
cuts what outlives the grace. What it cannot do from inside is keep the listener open after SIGTERM: `run` of the adapters
`uvicorn`, `hypercorn` and `granian` does that. Under the command line of uvicorn (one worker) the signal is taken over
here, given `port`, and handed on when the listener may close.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol

from budao.adapters.asgi_load import LoadMiddleware
from budao.adapters.registration import Membership, Place, answers
from budao.aio import Drainer, Store
from budao.discovery import DrainPolicy, DrainProof, Instance, RegistrarPolicy
from budao.model import BudaoError, Stopped

__all__ = ["READY_PATH", "Registered", "ServerPort", "registered"]

LOG = logging.getLogger("budao.drain")

READY_PATH = "/readyz"
UNCOUNTED = ("/healthz", "/livez", "/metrics")
"""Paths whose calls do not keep a listener open: probes come as long as the process lives."""

SERVICE_RESTART = 1012
"""The close code that tells a WebSocket client to connect again elsewhere (IANA registry of RFC 6455, section 11.7)."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
App = Callable[..., Awaitable[None]]


class ServerPort(Protocol):
    """What the server around the application can be told."""

    hears_before_it_closes: bool
    """Whether a WebSocket must not be waiting for a message when it is closed."""

    async def stop_accepting(self) -> None: ...
    async def close_idle(self) -> None: ...
    def after_reply(self, scope: Scope, send: Any) -> None:
        """A reply was sent while peers are told to go; for protocols that say so otherwise than by a header."""


class NoServer:
    """A server that cannot be told anything."""

    hears_before_it_closes = False

    async def stop_accepting(self) -> None: ...
    async def close_idle(self) -> None: ...
    def after_reply(self, scope: Scope, send: Any) -> None: ...


def registered(
    app: App,
    service: str = "",
    store: Store | str | None = None,
    *,
    place: Place | None = None,
    host: str = "",
    port: int = 0,
    id: str = "",  # noqa: A002 - the word everybody uses
    drain: DrainPolicy | None = None,
    registrar: RegistrarPolicy | None = None,
    ready_path: str = READY_PATH,
    is_ready: Callable[[], bool] = lambda: True,
    uncounted: Iterable[str] = UNCOUNTED,
    tells_load: bool = True,
) -> Registered:
    """`app`, registered while it runs and drained before it ends; without a `service` only drained.

    - `host` and `port` are where others reach it; the adapters' `run` fills in what is left out.
    - `place` says more than these can (zone, weight, version), and then replaces them.
    - `ready_path` is answered here: 503 before it is registered and while it drains, else what `is_ready` says.
    - With `tells_load` every reply says how busy this server is, unless a `LoadMiddleware` around `app` does already.
    """
    if tells_load and not isinstance(app, LoadMiddleware):
        app = LoadMiddleware(app)
    where = Place(service=service, id=id, host=host, port=port) if place is None else place
    membership = None
    if where.service and store is not None:
        membership = Membership(store, where, policy=registrar)
    return Registered(
        app, membership, drain, ready_path=ready_path, is_ready=is_ready, uncounted=uncounted, place=where
    )


class Registered:
    """See `registered`."""

    def __init__(
        self,
        app: App,
        membership: Membership | None,
        drain: DrainPolicy | None,
        *,
        ready_path: str,
        is_ready: Callable[[], bool],
        uncounted: Iterable[str],
        place: Place,
    ) -> None:
        self.app = app
        self.membership = membership
        self.drainer = Drainer(drain, port=self)
        self.server: ServerPort = NoServer()
        self.owns_signals = False
        """Whether whoever runs this brings the signals; otherwise they are taken over where that is possible."""
        self.on_drained: Callable[[], None] = lambda: None
        self.bound = ("", place.port)
        self._listening = asyncio.Event()
        self._unregistered = False
        """Where the server listens, once that is known."""
        self._ready_path = ready_path
        self._is_ready = is_ready
        self._uncounted = frozenset((*uncounted, ready_path))
        self._open: dict[asyncio.Task[Any], _Exchange] = {}
        self._joining: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[DrainProof] | None = None
        self._taken: dict[int, Any] = {}
        self._came = int(signal.SIGTERM)
        """The signal that asked for the drain."""

    @property
    def proof(self) -> DrainProof | None:
        """What the drain can show for itself; None before it is over."""
        return self.drainer.proof

    @property
    def instance(self) -> Instance | None:
        """What is registered; None before."""
        return None if self.membership is None else self.membership.instance

    @property
    def problem(self) -> str:
        """Why readiness probes are told no; empty when they are told yes."""
        if self.drainer.is_draining:
            return "draining"
        if self._joining is None or not self._joining.done():
            return "starting"
        if self._unregistered:
            return "not registered"
        return "" if self._is_ready() else "not ready"

    def listens(self, host: str, port: int) -> None:
        """The server that runs this says where it listens."""
        self.bound = (host, port)
        self._listening.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path == self._ready_path and scope["type"] == "http":
            await _answer(scope, send, self.problem or "ready", 503 if self.problem else 200, self.drainer.is_going)
            return
        if scope["type"] == "websocket" and self.drainer.is_closing:
            # From a server whose listener is still open: it would hold the drain until the grace is over.
            await receive()
            await send({"type": "websocket.close", "code": SERVICE_RESTART, "reason": "service restart"})
            return
        exchange = _Exchange(self, scope, send)
        if path in self._uncounted:
            await self.app(scope, receive, exchange.send)
            return
        await self._run(exchange, receive)

    async def _run(self, exchange: _Exchange, receive: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = exchange
        self.drainer.traffic.enter()
        try:
            await self.app(exchange.scope, exchange.heard(receive), exchange.send)
        except asyncio.CancelledError:
            if not exchange.is_cut:
                raise
            task.uncancel()
            if exchange.started or exchange.scope["type"] != "http":
                # The server breaks the connection off, so that nobody takes half a reply for a whole one.
                raise Stopped from None
            await _answer(exchange.scope, exchange.raw_send, "this instance has no time left; try another", 503, True)
        except Exception:
            # After a close of ours, whatever the application makes of it is no news.
            if not exchange.was_closed:
                raise
        finally:
            del self._open[task]
            self.drainer.traffic.leave()
        if self.drainer.is_going:
            self.server.after_reply(exchange.scope, exchange.raw_send)

    # ----------------------------------------------------------------------------------- what the drain tells it to do

    async def tell_peers_to_go(self) -> None:
        """Replies say so from now on, by `Connection: close`; see `_Exchange`."""
        if self._joining is not None:
            self._joining.cancel()  # who leaves before it has joined does not join

    async def stop_accepting(self) -> None:
        await self.server.stop_accepting()
        if self._taken:
            self._hand_on()
        await asyncio.gather(*(each.close() for each in list(self._open.values())), return_exceptions=True)

    async def cut(self) -> None:
        for task, exchange in list(self._open.items()):
            exchange.is_cut = True
            task.cancel()

    async def close_idle(self) -> None:
        await self.server.close_idle()

    # ------------------------------------------------------------------------------------------------------- lifespan

    async def _lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        heard = answered = over = False

        async def hear() -> Any:
            nonlocal heard, over
            message = await receive()
            heard = True
            if message["type"] == "lifespan.shutdown":
                over = True
                await self._leave()
            return message

        async def say(message: Any) -> None:
            nonlocal answered
            if not message["type"].startswith("lifespan."):
                return  # an application that takes every scope for a request answers nothing by it
            answered = True
            if message["type"] == "lifespan.startup.complete":
                self._enter()
            await send(message)

        try:
            await self.app(scope, hear, say)
        except Exception:
            if heard:
                raise
        # The application knows no lifespan, or not all of it, which the specification allows; this wrapper needs one.
        if not heard:
            await hear()
        if not answered:
            await say({"type": "lifespan.startup.complete"})
        if self._draining is not None and not over:
            await hear()
            await say({"type": "lifespan.shutdown.complete"})

    def _enter(self) -> None:
        self._draining = asyncio.create_task(self._drained(), name="budao drain")
        self._joining = asyncio.create_task(self._join(), name="budao join")
        if not self.owns_signals:
            self._take_signals()

    async def _join(self) -> None:
        if self.owns_signals:
            await self._listening.wait()
        host, port = self.bound
        if port:
            await answers(host, port)
        if self.membership is not None:
            try:
                await self.membership.join(host, port)
            except BudaoError as problem:
                self._unregistered = True
                LOG.error("this process is not registered, and nobody will find it: %s", problem)  # noqa: TRY400
                return
            if self.drainer.was_asked:
                await self.membership.revoke()
            else:
                self.drainer.announcer = self.membership

    async def _drained(self) -> DrainProof:
        try:
            return await self.drainer.run()
        finally:
            self.on_drained()

    async def _leave(self) -> None:
        """The server ends. Unless the drain has been, the listener is closed already, so nothing is gained by waiting."""
        if self._joining is not None and not self._joining.done():
            self._joining.cancel()
        if self._draining is not None and not self._draining.done():
            # A drain under way has a bound of its own; cut short, it would neither revoke nor say how it went.
            bound_s = self.drainer.policy.grace_s
            if not self.drainer.was_asked:
                bound_s = self.drainer.policy.close_s
                self.drainer.ask()
                self.drainer.ask()
            with suppress(TimeoutError):
                async with asyncio.timeout(bound_s):
                    await asyncio.shield(self._draining)
            self._draining.cancel()
        await asyncio.gather(*filter(None, (self._joining, self._draining)), return_exceptions=True)

    # -------------------------------------------------------------------------------------------------------- signals

    def _take_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            # A handler of an event loop cannot be called from here: such a server needs its own adapter.
            if callable(handler) and getattr(handler, "__module__", "") != "asyncio.unix_events":
                self._taken[number] = handler
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as Python calls it
        self._came = number
        self.drainer.ask()

    def _hand_on(self) -> None:
        taken, self._taken = self._taken, {}
        for number, handler in taken.items():
            signal.signal(number, handler)
        # Where no signal came and no SIGTERM was taken, the server ends already, and Ctrl-C is nothing to make up.
        if self._came in taken:
            taken[self._came](self._came, None)


class _Exchange:
    """One request or WebSocket on its way through."""

    __slots__ = ("_hearing", "_owner", "_said", "is_cut", "raw_send", "scope", "started", "was_closed")

    def __init__(self, owner: Registered, scope: Scope, send: Any) -> None:
        self._owner = owner
        self.scope = scope
        self.raw_send = send
        self.started = False
        self.is_cut = False
        self.was_closed = False
        self._hearing: asyncio.Future[Any] | None = None
        self._said = asyncio.Event()

    def heard(self, receive: Any) -> Any:
        """`receive`, or one that `close` can interrupt where the server needs that."""
        if self.scope["type"] != "websocket" or not self._owner.server.hears_before_it_closes:
            return receive

        async def hear() -> Any:
            if not self.was_closed:
                self._hearing = asyncio.ensure_future(receive())
                await asyncio.wait({self._hearing})
                if not self._hearing.cancelled():
                    return self._hearing.result()
            await self._said.wait()  # an application that ends first would end the connection without our code
            return {"type": "websocket.disconnect", "code": SERVICE_RESTART}

        return hear

    async def send(self, message: Any) -> None:
        if self.was_closed:
            return
        if message["type"] == "http.response.start":
            self.started = True
            if self._owner.drainer.is_going and _has_connection_header(self.scope):
                headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"connection"]
                message = {**message, "headers": [*headers, (b"connection", b"close")]}
        await self.raw_send(message)

    async def close(self) -> None:
        """Ends a WebSocket, which would last for ever; the server tells the application that its peer is gone."""
        if self.scope["type"] == "websocket" and not self.was_closed:
            self.was_closed = True
            if self._hearing is not None and not self._hearing.done():
                self._hearing.cancel()
                await asyncio.wait({self._hearing})
            try:
                await self.raw_send({"type": "websocket.close", "code": SERVICE_RESTART, "reason": "service restart"})
            finally:
                self._said.set()


def _has_connection_header(scope: Scope) -> bool:
    """Later versions forbid it, and take a reply that has it for broken. Source: RFC 9113, section 8.2.2."""
    return bool(scope["http_version"].startswith("1"))


async def _answer(scope: Scope, send: Any, text: str, status: int, is_last: bool) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    if is_last and _has_connection_header(scope):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
