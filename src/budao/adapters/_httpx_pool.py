"""The pool transports of httpx, for any library of its family: they pick an endpoint, send there, and tell how it went."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

from budao.adapters._http import BAD, translated
from budao.adapters._httpx import Request, Response
from budao.adapters._pool import (
    CONNECT_MAX_S,
    CONNECTS_MAX,
    Pools,
    QuickConnect,
    Trip,
    gives_up,
    pool_of,
    tried_so_far,
)
from budao.aio import Pool
from budao.model import NobodyThere
from budao.wire import LOAD

RequestT = TypeVar("RequestT", bound=Request)
ResponseT = TypeVar("ResponseT", bound=Response)
InnerT = TypeVar("InnerT")


class Pooled(Generic[RequestT, ResponseT, InnerT]):
    """What the sync and the async transport share: everything but sending.

    - `pools` is a pool, whose service is then the host in a URL ("http://inventory/stock"), or several by host. A request
      for any other host is sent on as it is.
    - `inner` does the sending; the library's own transport if not given.
    - `key` is for balancers that keep equal keys together.
    - `bad` are the statuses that count against an endpoint.
    - A call that could not be sent since nobody accepted the connection goes to another endpoint at once, `connects_max`
      in all, whatever its method; each gets `connect_max_s`.

    The Host header stays what the URL said, so that virtual hosts work; over TLS that is also the name the certificate
    must be for, unless the request has the extension "sni_hostname". The name is checked when a connection is opened, and
    the library keeps connections by address: services on one address and port should have a transport each.
    """

    LIBRARY: ClassVar[Any]
    INNER: ClassVar[Any]
    BODY: ClassVar[Any]

    def __init__(
        self,
        pools: Pool | Pools,
        inner: InnerT | None = None,
        *,
        key: Callable[[RequestT], bytes | None] | None = None,
        bad: Collection[int] = BAD,
        connects_max: int = CONNECTS_MAX,
        connect_max_s: float = CONNECT_MAX_S,
    ) -> None:
        library = self.LIBRARY
        self.pools = pools
        self.inner: InnerT = type(self).INNER() if inner is None else inner
        self._key = key
        self._bad = frozenset(bad)
        self._connects_max = connects_max
        self._connect_max_s = connect_max_s
        self._unreached = (library.ConnectError, library.ConnectTimeout)
        self._theirs = (library.TransportError, OSError)
        self._ours = (library.PoolTimeout, library.UnsupportedProtocol, library.LocalProtocolError)

    def _trip(self, pool: Pool, tried: set[str], request: RequestT) -> Trip:
        try:
            return Trip(pool, tried, None if self._key is None else self._key(request))
        except NobodyThere as error:
            raise translated(error, self.LIBRARY.ConnectError) from None

    def _addressed(self, request: RequestT, trip: Trip) -> RequestT:
        """The request, to the endpoint."""
        url = request.url
        own = request.extensions
        extensions = {**own, "timeout": QuickConnect(own.get("timeout") or {}, self._connect_max_s)}
        if url.scheme == "https":
            extensions.setdefault("sni_hostname", url.host)
        to: RequestT = self.LIBRARY.Request(
            request.method,
            url.copy_with(host=trip.endpoint.host, port=trip.endpoint.port),
            headers=request.headers,
            stream=request.stream,
            extensions=extensions,
        )
        return to

    def _answered(self, response: Any, trip: Trip) -> None:
        trip.answered(response.headers.get(LOAD), failed=response.status_code in self._bad)
        if response.is_closed:
            trip.end()
        else:
            response.stream = self.BODY(response.stream, trip, self._theirs)

    def _raised(self, error: Exception, trip: Trip) -> None:
        if isinstance(error, self._theirs) and not isinstance(error, self._ours):
            trip.end(failed=True)
        else:
            trip.drop()


class SyncPooled(Pooled[RequestT, ResponseT, InnerT]):
    """A transport for the library's sync client."""

    inner: Any

    def handle_request(self, request: RequestT) -> ResponseT:
        pool = pool_of(self.pools, request.url.host)
        if pool is None:
            passed_on: ResponseT = self.inner.handle_request(request)
            return passed_on
        tried, here = tried_so_far(), set[str]()
        while True:
            trip = self._trip(pool, tried, request)
            try:
                response: ResponseT = self.inner.handle_request(self._addressed(request, trip))
            except self._unreached:
                trip.end(failed=True)
                if gives_up(pool, here, trip.endpoint, self._connects_max):
                    raise
                continue
            except Exception as error:
                self._raised(error, trip)
                raise
            except BaseException:
                trip.cancelled()
                raise
            self._answered(response, trip)
            return response

    def close(self) -> None:
        self.inner.close()

    def __enter__(self) -> Self:
        self.inner.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.inner.__exit__(exc_type, exc_value, traceback)


class AsyncPooled(Pooled[RequestT, ResponseT, InnerT]):
    """A transport for the library's async client."""

    inner: Any

    async def handle_async_request(self, request: RequestT) -> ResponseT:
        pool = pool_of(self.pools, request.url.host)
        if pool is None:
            passed_on: ResponseT = await self.inner.handle_async_request(request)
            return passed_on
        tried, here = tried_so_far(), set[str]()
        while True:
            trip = self._trip(pool, tried, request)
            try:
                response: ResponseT = await self.inner.handle_async_request(self._addressed(request, trip))
            except self._unreached:
                trip.end(failed=True)
                if gives_up(pool, here, trip.endpoint, self._connects_max):
                    raise
                continue
            except Exception as error:
                self._raised(error, trip)
                raise
            except BaseException:
                trip.cancelled()
                raise
            self._answered(response, trip)
            return response

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.inner.__aexit__(exc_type, exc_value, traceback)


class SyncPooledBody:
    """A body whose endpoint has the call until it is closed, and the blame if it breaks off."""

    def __init__(self, stream: Any, trip: Trip, theirs: tuple[type[Exception], ...]) -> None:
        self._stream = stream
        self._trip = trip
        self._theirs = theirs

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except self._theirs:
            self._trip.end(failed=True)
            raise

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._trip.end()


class AsyncPooledBody:
    """The same for an async client."""

    def __init__(self, stream: Any, trip: Trip, theirs: tuple[type[Exception], ...]) -> None:
        self._stream = stream
        self._trip = trip
        self._theirs = theirs

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                yield chunk
        except self._theirs:
            self._trip.end(failed=True)
            raise

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._trip.end()
