"""Guarded transports for httpx: `httpx.Client(transport=GuardedTransport(guard))`.

Errors of the transport stay httpx's own. What the guard raises (`CallRefused`, `TimedOut`) can be caught as
`httpx.TransportError` as well, so handlers that are already there go on working.
"""

from __future__ import annotations

from typing import Any, ClassVar

import httpx

from budao.adapters._httpx import AsyncBody, AsyncGuarded, SyncBody, SyncGuarded

__all__ = ["AsyncGuardedTransport", "GuardedTransport"]


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
