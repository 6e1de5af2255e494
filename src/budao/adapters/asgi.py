"""A guard around an ASGI application: FastAPI, Starlette, Litestar, or any other.

Each route is a key of its own, so a route that fails is closed while the others go on. What the guard refuses is
answered here, before the application hears of it: 503 or 429 with `Retry-After`, 504 when the caller no longer waits.

It imports no framework, so it works with those that are installed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from math import inf
from random import Random
from time import perf_counter
from typing import Any, Protocol

from budao.adapters._load import wait_begins, wait_is_over
from budao.adapters.asgi_routes import route_key
from budao.model import CallRefused, Priority, TimedOut, Why, context
from budao.protect import Guard
from budao.wire import (
    PRIORITY,
    TIMEOUT,
    TRACEPARENT,
    format_retry_after,
    parse_priority,
    parse_timeout,
    parse_traceparent,
)

__all__ = ["EXEMPT", "GuardMiddleware", "remaining_s", "route_key"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Each framework has types of its own for scopes and messages, and they do not fit one another.
App = Callable[..., Awaitable[None]]

EXEMPT = ("/healthz", "/livez", "/readyz", "/metrics")
"""Paths that are never guarded: an instance whose probes are shed is killed for being busy."""

SPREAD_SHARE = 0.5
"""`Retry-After` is lengthened by up to this share, so that those refused together do not come back together."""

_TIMEOUT, _PRIORITY, _TRACEPARENT = (name.encode() for name in (TIMEOUT, PRIORITY, TRACEPARENT))


def server_failed(status: int) -> bool:
    """Whether a status is a failure of the server: 500 and up."""
    return status >= 500


def remaining_s() -> float:
    """How long somebody still waits for the answer being made, in seconds; inf without a deadline, 0.0 when it is over."""
    return max(context.deadline.get() - perf_counter(), 0.0)


class GuardMiddleware:
    """Guards every HTTP request of `app`; WebSocket and lifespan scopes pass through untouched.

    `key` names the resource a request is for, by default method and route template; it must have few values.
    `status_failed` says which statuses count against the route. `exempt` are paths, below the root path, that are not
    guarded. With `trusted=False` the headers of the request are not believed: use that where strangers call, since
    nothing else keeps them from calling themselves critical. `ignored` counts headers that made no sense, by name. `rng`
    spreads `Retry-After`.
    """

    def __init__(
        self,
        app: App,
        guard: Guard,
        *,
        key: Callable[[Scope], str] | None = None,
        status_failed: Callable[[int], bool] = server_failed,
        exempt: Iterable[str] = EXEMPT,
        trusted: bool = True,
        ignored: Counter[str] | None = None,
        rng: Random | None = None,
    ) -> None:
        self.app = app
        self.guard = guard
        self.ignored: Counter[str] = Counter() if ignored is None else ignored
        self._key = key
        self._status_failed = status_failed
        self._exempt = frozenset(exempt)
        self._trusted = trusted
        self._rng = Random() if rng is None else rng

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or self._is_exempt(scope):
            await self.app(scope, receive, send)
            return
        remaining, priority, trace = self._read(scope["headers"]) if self._trusted else (None, None, "")
        until = None if remaining is None else self.guard.clock() + remaining
        key = route_key(scope, self.app) if self._key is None else self._key(scope)
        exchange = _Exchange(receive, send, self._status_failed)
        token = context.trace.set(trace) if trace else None
        try:
            work = wait_begins()
            async with self.guard.block(key, until=until, priority=priority) as call:
                wait_is_over(work)
                await exchange.run(self.app, scope, call)
        except CallRefused as refused:
            # Also a refusal from further in that nobody handled: it says what to do better than a 500 does.
            if exchange.started:
                raise
            await self._refuse(scope, send, refused.why, refused.retry_after_s)
        except TimedOut:
            # The block cuts a request at its deadline. A timeout with time left is the application's own affair.
            if exchange.started or self.guard.clock() < exchange.until:
                raise
            await self._refuse(scope, send, Why.TOO_LATE, 0.0)
        finally:
            if token is not None:
                context.trace.reset(token)

    def _is_exempt(self, scope: Scope) -> bool:
        return scope["path"].removeprefix(scope.get("root_path", "")) in self._exempt

    def _read(self, headers: Iterable[tuple[bytes, bytes]]) -> tuple[float | None, Priority | None, str]:
        """Remaining seconds, priority and trace; what cannot be read is counted and otherwise as if it were not there."""
        remaining: float | None = None
        priority: Priority | None = None
        trace = ""
        for name, value in headers:
            if name == _TIMEOUT:
                remaining = parse_timeout(value.decode("latin-1"))
                self.ignored[TIMEOUT] += remaining is None
            elif name == _PRIORITY:
                priority = parse_priority(value.decode("latin-1"))
                self.ignored[PRIORITY] += priority is None
            elif name == _TRACEPARENT:
                trace = parse_traceparent(value.decode("latin-1"))
                self.ignored[TRACEPARENT] += not trace
        return remaining, priority, trace

    async def _refuse(self, scope: Scope, send: Send, why: Why, retry_after_s: float) -> None:
        """Answer a refusal with a status, a `Retry-After` where later is better, and a problem document (RFC 9457)."""
        status = _status_of(why)
        problem = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": why.value}
        body = json.dumps(problem, separators=(",", ":")).encode()
        headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
        if status is not HTTPStatus.GATEWAY_TIMEOUT:  # a call with as little time will be too late again
            wait_s = retry_after_s * (1.0 + self._rng.uniform(0.0, SPREAD_SHARE))
            headers.append((b"retry-after", format_retry_after(wait_s).encode()))
        await send({"type": "http.response.start", "status": status.value, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _status_of(why: Why) -> HTTPStatus:
    if why is Why.TOO_LATE:
        return HTTPStatus.GATEWAY_TIMEOUT
    return HTTPStatus.TOO_MANY_REQUESTS if why is Why.RATE else HTTPStatus.SERVICE_UNAVAILABLE


class _Call(Protocol):
    """What an exchange tells the guard about the call it is in, and asks of it."""

    @property
    def until(self) -> float: ...
    def answered(self) -> None: ...
    def failed(self, why: str = "") -> None: ...
    def drop(self) -> None: ...


class _Exchange:
    """One request and its response, watched on their way: when the answer began, what it was, whether the client left."""

    __slots__ = ("_call", "_ended", "_gone", "_receive", "_send", "_status_failed", "started", "until")

    def __init__(self, receive: Receive, send: Send, status_failed: Callable[[int], bool]) -> None:
        self._receive = receive
        self._send = send
        self._status_failed = status_failed
        self._call: _Call | None = None
        self._gone = False
        self._ended = False
        self.started = False
        self.until = inf

    async def run(self, app: App, scope: Scope, call: _Call) -> None:
        """Let `app` answer, and tell `call` how that went.

        A client that leaves teaches nothing about the server: before the answer there is none to judge, and after it
        whatever the framework raises is about the client. An answer that had begun well stays one.
        """
        self._call = call
        self.until = call.until
        try:
            await app(scope, self.receive, self.send)
        except Exception:
            if self._gone:
                call.drop()
            raise
        if self.started:
            return
        if self._gone:
            call.drop()
        else:
            call.failed("no answer")

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._ended:
            self._gone = True
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self._judge(message["status"])
        elif kind == "http.response.body" and not message.get("more_body", False):
            self._ended = True
        try:
            await self._send(message)
        except OSError:  # how a server says that the client has left, since version 2.4 of the ASGI specification
            self._gone = True
            raise

    def _judge(self, status: int) -> None:
        """The answer is made: from here on, a slow reader is not the latency of the server."""
        self.started = True
        call = self._call
        assert call is not None, "an application answers after it is called"
        if self._gone:
            call.drop()
        elif self._status_failed(status):
            call.failed(f"status {status}")  # settled at the end, so that an exception after it is not a second failure
        else:
            call.answered()
