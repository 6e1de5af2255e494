"""Guarded and balanced transports for httpx2: `httpx2.Client(transport=GuardedTransport(guard, PoolTransport(pool)))`.

A guard alone protects the calls to whatever a URL names; a pool alone sends `http://inventory/stock` to an endpoint of the
service "inventory". Together, a retry or a hedge goes to an endpoint that was not tried for this call yet.

Errors of the transport stay httpx2's own. What the guard raises (`CallRefused`, `TimedOut`) can be caught as
`httpx2.TransportError` as well, so handlers that are already there go on working.

httpx2 is the maintained continuation of httpx; everything `budao.adapters.httpx` says holds here.
"""

from __future__ import annotations

from typing import Any, ClassVar

import httpx2

from budao.adapters._httpx import AsyncBody, AsyncGuarded, SyncBody, SyncGuarded
from budao.adapters._httpx_pool import AsyncPooled, AsyncPooledBody, SyncPooled, SyncPooledBody

__all__ = ["AsyncGuardedTransport", "AsyncPoolTransport", "GuardedTransport", "PoolTransport"]


class _SyncBody(SyncBody, httpx2.SyncByteStream):
    pass


class _AsyncBody(AsyncBody, httpx2.AsyncByteStream):
    pass


class GuardedTransport(SyncGuarded[httpx2.Request, httpx2.Response, httpx2.BaseTransport], httpx2.BaseTransport):
    """A transport whose calls a guard protects, for `httpx2.Client`."""

    LIBRARY: ClassVar[Any] = httpx2
    INNER: ClassVar[Any] = httpx2.HTTPTransport
    BODY: ClassVar[Any] = _SyncBody


class AsyncGuardedTransport(
    AsyncGuarded[httpx2.Request, httpx2.Response, httpx2.AsyncBaseTransport], httpx2.AsyncBaseTransport
):
    """A transport whose calls a guard protects, for `httpx2.AsyncClient`."""

    LIBRARY: ClassVar[Any] = httpx2
    INNER: ClassVar[Any] = httpx2.AsyncHTTPTransport
    BODY: ClassVar[Any] = _AsyncBody


class _SyncPooledBody(SyncPooledBody, httpx2.SyncByteStream):
    pass


class _AsyncPooledBody(AsyncPooledBody, httpx2.AsyncByteStream):
    pass


class PoolTransport(SyncPooled[httpx2.Request, httpx2.Response, httpx2.BaseTransport], httpx2.BaseTransport):
    """A transport whose calls go to the endpoints of a pool, for `httpx2.Client`."""

    LIBRARY: ClassVar[Any] = httpx2
    INNER: ClassVar[Any] = httpx2.HTTPTransport
    BODY: ClassVar[Any] = _SyncPooledBody


class AsyncPoolTransport(
    AsyncPooled[httpx2.Request, httpx2.Response, httpx2.AsyncBaseTransport], httpx2.AsyncBaseTransport
):
    """A transport whose calls go to the endpoints of a pool, for `httpx2.AsyncClient`."""

    LIBRARY: ClassVar[Any] = httpx2
    INNER: ClassVar[Any] = httpx2.AsyncHTTPTransport
    BODY: ClassVar[Any] = _AsyncPooledBody
