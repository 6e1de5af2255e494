"""Middlewares for aiohttp's client, one that guards and one that balances.

    aiohttp.ClientSession(middlewares=[guard_middleware(guard), pool_middleware(pool)])

In this order a retry or a hedge of the guard goes to an endpoint that was not tried for this call yet.

Errors of the client stay aiohttp's own. What the guard raises can be caught by aiohttp's names as well: `CallRefused` as
`aiohttp.ClientConnectionError`, `TimedOut` as `aiohttp.ServerTimeoutError`.
"""

from __future__ import annotations

import asyncio
import copy
import sys
from collections.abc import Callable, Collection, Hashable
from math import inf

import aiohttp
from aiohttp import ClientHandlerType, ClientMiddlewareType, ClientRequest, ClientResponse

from budao.adapters._http import (
    BAD,
    LATE,
    NotSent,
    Tries,
    announce,
    asked_pause_s,
    authority,
    body_until,
    broke,
    may_repeat,
    time_left_s,
    translated,
)
from budao.adapters._pool import CONNECTS_MAX, Pools, Trip, gives_up, one_call, pool_of, tried_so_far
from budao.aio import Pool
from budao.model import CallRefused, NobodyThere, TimedOut, context
from budao.protect import Guard
from budao.wire import LOAD

__all__ = ["guard_middleware", "pool_middleware"]

_THEIRS = (aiohttp.ClientError, OSError, CallRefused, TimedOut)


def guard_middleware(
    guard: Guard,
    *,
    key: Callable[[ClientRequest], Hashable] | None = None,
    safe: Callable[[ClientRequest], bool] | None = None,
    bad: Collection[int] = BAD,
    body_s: float | None = None,
    announces: bool = True,
) -> ClientMiddlewareType:
    """A client middleware whose requests `guard` protects.

    `key` names the resource a request is for, else "host:port". `safe` says whether a request may be repeated, retried or
    hedged. `bad` are the statuses that count as failures. `body_s` bounds the time a body may take after its headers;
    without it only the caller's own deadline does. `announces` sends time left, priority and trace along: switch it off
    for servers of other people.
    """
    key_of = key or _host_and_port
    is_safe = safe or _may_repeat
    bad = frozenset(bad)

    async def attempt(
        request: ClientRequest, handler: ClientHandlerType, tries: Tries[ClientResponse]
    ) -> ClientResponse:
        # Tries may overlap, and each has its own time left. The body is shared: one that can be sent again is bytes.
        sent = copy.copy(request)
        sent.headers = request.headers.copy()
        if announces:
            announce(sent.headers, context.deadline.get() - guard.clock())
        bound = asyncio.timeout(time_left_s(guard))
        try:
            async with bound:
                response = await handler(sent)
        except Exception as error:
            if bound.expired() and isinstance(error, TimeoutError):
                raise aiohttp.ServerTimeoutError(LATE) from None
            if not isinstance(error, _THEIRS):
                raise NotSent(error) from error
            raise
        if response.connection is not None and response.status != 101:  # 101 is not a body but another protocol
            until = body_until(guard.clock, tries.caller_until, body_s)
            # A bad reply has been counted already.
            tell = None if response.status in bad else lambda: broke(guard, key_of(request))
            _watch(response, None if until == inf else until - guard.clock(), tell)
        if tries.is_lost(response):
            response.close()
        return response

    send = guard.protect(
        attempt,
        key=lambda request, _handler, _tries: key_of(request),
        safe=lambda request, _handler, _tries: is_safe(request),
        bad=lambda response: response.status in bad,
        retry_after=lambda ending: asked_pause_s(ending.headers) if isinstance(ending, ClientResponse) else None,
        discard=lambda response: response.close(),
    )

    async def guarded(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        tries: Tries[ClientResponse] = Tries()
        answer: ClientResponse | None = None
        try:
            with one_call():
                answer = await send(request, handler, tries)
        except (CallRefused, TimedOut) as error:
            said = _translated(error)
            raise said from said.__cause__
        finally:
            for lost in tries.over(answer):
                lost.close()
        return answer

    return guarded


def pool_middleware(
    pools: Pool | Pools,
    *,
    key: Callable[[ClientRequest], bytes | None] | None = None,
    bad: Collection[int] = BAD,
    connects_max: int = CONNECTS_MAX,
) -> ClientMiddlewareType:
    """A client middleware that sends each request to an endpoint of a pool.

    - `pools` is a pool, whose service is then the host in a URL ("http://inventory/stock"), or several by host. A request
      for any other host is sent on as it is.
    - `key` is for balancers that keep equal keys together.
    - `bad` are the statuses that count against an endpoint.
    - A call that could not be sent since nobody accepted the connection goes to another endpoint at once, `connects_max`
      in all, whatever its method. Give the session a short `ClientTimeout(sock_connect=1.0)`: a machine that is gone
      never answers.

    The Host header stays what the URL said, so that virtual hosts work; over TLS that is also the name the certificate
    must be for, unless the request has a `server_hostname`.
    """
    bad = frozenset(bad)

    async def pooled(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        pool = pool_of(pools, request.url.raw_host or "")
        if pool is None:
            return await handler(request)
        tried, here = tried_so_far(), set[str]()
        while True:
            try:
                trip = Trip(pool, tried, None if key is None else key(request))
            except NobodyThere as error:
                raise translated(error, aiohttp.ClientConnectionError) from None
            try:
                response = await handler(_addressed(request, trip))
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                trip.end(failed=True)
                if gives_up(pool, here, trip.endpoint, connects_max):
                    raise
                continue
            except (aiohttp.ClientError, OSError):
                trip.end(failed=True)
                raise
            except Exception:
                trip.drop()
                raise
            except BaseException:
                trip.cancelled()
                raise
            trip.answered(response.headers.get(LOAD), failed=response.status in bad)
            _end_with(response, trip)
            return response

    return pooled


def _addressed(request: ClientRequest, trip: Trip) -> ClientRequest:
    """The request, to the endpoint. The body is shared: a try that did not connect has not touched it."""
    sent = copy.copy(request)
    sent.url = request.url.with_host(trip.endpoint.host).with_port(trip.endpoint.port)
    if request.is_ssl() and request.server_hostname is None:
        sent.server_hostname = request.url.raw_host
    return sent


def _end_with(response: ClientResponse, trip: Trip) -> None:
    """The endpoint has the call until the body is through, and the blame if it breaks off."""
    connection, content = response.connection, response.content
    if connection is None:  # all of it has come
        trip.end()
        return
    connection.add_callback(lambda: trip.end(failed=not content.is_eof() and _broke(content.exception())))


def _translated(error: CallRefused | TimedOut) -> Exception:
    """What the caller gets to see instead of `error`, and can catch by the library's names."""
    if isinstance(error, NotSent):
        return error.error
    if isinstance(error, aiohttp.ClientError):
        return error  # from a middleware further in, which has translated it
    if isinstance(error, TimedOut):
        return translated(error, aiohttp.ServerTimeoutError)
    return translated(error, aiohttp.ClientConnectionError)


def _host_and_port(request: ClientRequest) -> Hashable:
    return authority(request.url.host, request.url.port, request.url.scheme)


def _may_repeat(request: ClientRequest) -> bool:
    # Only a body that is bytes can be sent again: a generator is spent, and a file has moved on.
    body = request.body
    return (not body or isinstance(body, (bytes, aiohttp.BytesPayload))) and may_repeat(request.method, request.headers)


def _watch(response: ClientResponse, left_s: float | None, tell: Callable[[], object] | None) -> None:
    """Bounds the time a body may take, and calls `tell` if it breaks off. Leaving it early is fine."""
    connection, content = response.connection, response.content
    assert connection is not None, "a body that has all come needs no watching"

    def is_late() -> None:
        content.set_exception(aiohttp.ServerTimeoutError(LATE))
        response.close()

    timer = None if left_s is None else asyncio.get_running_loop().call_later(left_s, is_late)

    def is_over() -> None:
        if timer is not None:
            timer.cancel()
        if tell is not None and not content.is_eof() and _broke(content.exception()):
            tell()

    # Runs when the connection is given back or closed, which is the one thing that happens to every body.
    connection.add_callback(is_over)


def _broke(error: BaseException | None) -> bool:
    """Whether the other side ended a body, judging by what its reader was told."""
    # A reader that leaves early is told exactly this class; what the other side does is told as one below it.
    if error is not None and type(error) is not aiohttp.ClientConnectionError:
        return True
    # The session's own timeout is not told to the reader but raised in it; it is being handled right now.
    raised = sys.exception()
    return isinstance(raised, TimeoutError) and _raised_in(raised).startswith("aiohttp.")


def _raised_in(error: BaseException) -> str:
    """The module an exception was raised in."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    return "" if step is None else str(step.tb_frame.f_globals.get("__name__", ""))
