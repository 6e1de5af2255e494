"""Guarded and balanced transports for httpx: `httpx.Client(transport=GuardedTransport(guard, PoolTransport(pool)))`.

A guard alone protects the calls to whatever a URL names; a pool alone sends `http://inventory/stock` to an endpoint of the
service "inventory". Together, a retry or a hedge goes to an endpoint that was not tried for this call yet.

Errors of the transport stay httpx's own. What the guard raises (`CallRefused`, `TimedOut`) can be caught as
`httpx.TransportError` as well, so handlers that are already there go on working.
"""

from __future__ import annotations

from typing import Any, ClassVar

import httpx

from budao.adapters._httpx import AsyncBody, AsyncGuarded, SyncBody, SyncGuarded
from budao.adapters._httpx_pool import AsyncPooled, AsyncPooledBody, SyncPooled, SyncPooledBody

__all__ = ["AsyncGuardedTransport", "AsyncPoolTransport", "GuardedTransport", "PoolTransport"]


class _SyncBody(SyncBody, httpx.SyncByteStream):
    pass


class _AsyncBody(AsyncBody, httpx.AsyncByteStream):
    pass


class GuardedTransport(SyncGuarded[httpx.Request, httpx.Response, httpx.BaseTransport], httpx.BaseTransport):
    """A transport whose calls a guard protects, for `httpx.Client`."""

    LIBRARY: ClassVar[Any] = httpx
    INNER: ClassVar[Any] = httpx.HTTPTransport
    BODY: ClassVar[Any] = _SyncBody


class AsyncGuardedTransport(
    AsyncGuarded[httpx.Request, httpx.Response, httpx.AsyncBaseTransport], httpx.AsyncBaseTransport
):
    """A transport whose calls a guard protects, for `httpx.AsyncClient`."""

    LIBRARY: ClassVar[Any] = httpx
    INNER: ClassVar[Any] = httpx.AsyncHTTPTransport
    BODY: ClassVar[Any] = _AsyncBody


class _SyncPooledBody(SyncPooledBody, httpx.SyncByteStream):
    pass


class _AsyncPooledBody(AsyncPooledBody, httpx.AsyncByteStream):
    pass


class PoolTransport(SyncPooled[httpx.Request, httpx.Response, httpx.BaseTransport], httpx.BaseTransport):
    """A transport whose calls go to the endpoints of a pool, for `httpx.Client`."""

    LIBRARY: ClassVar[Any] = httpx
    INNER: ClassVar[Any] = httpx.HTTPTransport
    BODY: ClassVar[Any] = _SyncPooledBody


class AsyncPoolTransport(
    AsyncPooled[httpx.Request, httpx.Response, httpx.AsyncBaseTransport], httpx.AsyncBaseTransport
):
    """A transport whose calls go to the endpoints of a pool, for `httpx.AsyncClient`."""

    LIBRARY: ClassVar[Any] = httpx
    INNER: ClassVar[Any] = httpx.AsyncHTTPTransport
    BODY: ClassVar[Any] = _AsyncPooledBody
