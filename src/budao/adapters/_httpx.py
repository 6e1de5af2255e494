"""The guarded transports of httpx, for any library of its family.

A subclass says which library it is for (`LIBRARY`), so that httpx and httpx2 share every line and neither is imported
for the other's sake.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Iterator
from functools import partial
from math import inf
from types import TracebackType
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from budao.adapters._http import (
    BAD,
    LATE,
    NotSent,
    Timeouts,
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
from budao.adapters._pool import one_call
from budao.model import CallRefused, TimedOut, context
from budao.protect import Guard


class Request(Protocol):
    """What is used of a request."""

    method: str
    extensions: Any
    stream: Any

    @property
    def url(self) -> Any: ...
    @property
    def headers(self) -> Any: ...


class Response(Protocol):
    """What is used of a response."""

    status_code: int
    stream: Any

    @property
    def headers(self) -> Any: ...


RequestT = TypeVar("RequestT", bound=Request)
ResponseT = TypeVar("ResponseT", bound=Response)
InnerT = TypeVar("InnerT")


class Guarded(Generic[RequestT, ResponseT, InnerT]):
    """What the sync and the async transport share: everything but sending.

    `inner` does the sending; the library's own transport if not given. `key` names the resource a request is for, else
    "host:port". `safe` says whether a request may be repeated, retried or hedged. `bad` are the statuses that count as
    failures. `body_s` bounds the time a body may take after its headers; without it only the caller's own deadline does.
    `announces` sends time left, priority and trace along: switch it off for servers of other people.
    """

    LIBRARY: ClassVar[Any]
    """The module of the library."""
    INNER: ClassVar[Any]
    """Its own transport."""
    BODY: ClassVar[Any]
    """`SyncBody` or `AsyncBody`, as a stream of the library."""

    def __init__(
        self,
        guard: Guard,
        inner: InnerT | None = None,
        *,
        key: Callable[[RequestT], Hashable] | None = None,
        safe: Callable[[RequestT], bool] | None = None,
        bad: Collection[int] = BAD,
        body_s: float | None = None,
        announces: bool = True,
    ) -> None:
        library = self.LIBRARY
        self.guard = guard
        self.inner: InnerT = type(self).INNER() if inner is None else inner
        self._key = key or _host_and_port
        self._safe = safe or self._may_repeat
        self._bad = frozenset(bad)
        self._body_s = body_s
        self._announces = announces
        self._theirs = (library.TransportError, OSError, CallRefused, TimedOut)
        # Trouble of our own making says nothing about the other side, and another try would end the same.
        self._ours = (library.PoolTimeout, library.UnsupportedProtocol, library.LocalProtocolError)
        self._send: Any = guard.protect(
            self._attempt,
            key=lambda request, _tries: self._key(request),
            safe=lambda request, _tries: self._safe(request),
            bad=lambda response: response.status_code in self._bad,
            retry_after=lambda ending: None if isinstance(ending, Exception) else asked_pause_s(ending.headers),
            discard=self._discard,
        )

    @abstractmethod
    def _attempt(self, request: RequestT, tries: Tries[ResponseT]) -> Any:
        """Sends once."""

    @abstractmethod
    def _discard(self, response: Any) -> Any:
        """Closes a response nobody will see."""

    def _may_repeat(self, request: RequestT) -> bool:
        # Only a body that is bytes can be sent again: a generator is spent, and a file has moved on.
        return isinstance(request.stream, self.LIBRARY.ByteStream) and may_repeat(request.method, request.headers)

    def _outgoing(self, request: RequestT) -> tuple[RequestT, Timeouts]:
        """A request for one try: tries may overlap, and each has its own time left."""
        until = context.deadline.get()
        timeouts = Timeouts(request.extensions.get("timeout") or {}, self.guard.clock, until)
        sent: RequestT = self.LIBRARY.Request(
            request.method,
            request.url,
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "timeout": timeouts},
        )
        if self._announces:
            announce(sent.headers, until - self.guard.clock())
        return sent, timeouts

    def _watch(self, response: ResponseT, sent: RequestT, timeouts: Timeouts, caller_until: float) -> None:
        """Bounds the body in time, and lets it tell the guard if it breaks off."""
        timeouts.until = body_until(self.guard.clock, caller_until, self._body_s)
        counts = response.status_code not in self._bad  # a bad reply has been counted already
        watch = _Watch(
            self.guard, partial(self._key, sent), timeouts.until, self._theirs, self.LIBRARY.ReadTimeout, counts
        )
        response.stream = self.BODY(response.stream, watch)

    def _is_ours(self, error: Exception) -> bool:
        return isinstance(error, self._ours) or not isinstance(error, self._theirs)

    def _translated(self, error: CallRefused | TimedOut) -> Exception:
        """What the caller gets to see instead of `error`, and can catch by the library's names."""
        if isinstance(error, NotSent):
            return error.error
        foreign: type[Exception] = self.LIBRARY.TransportError
        if isinstance(error, foreign):
            return error  # from a transport further in, which has translated it
        if isinstance(error, TimedOut):
            return translated(error, self.LIBRARY.ReadTimeout)
        return translated(error, self.LIBRARY.TransportError)


class SyncGuarded(Guarded[RequestT, ResponseT, InnerT]):
    """A transport for the library's sync client."""

    inner: Any

    def handle_request(self, request: RequestT) -> ResponseT:
        tries: Tries[ResponseT] = Tries()
        answer: ResponseT | None = None
        try:
            with one_call():
                answer = self._send(request, tries)
        except (CallRefused, TimedOut) as error:
            said = self._translated(error)
            raise said from said.__cause__
        finally:
            for lost in tries.over(answer):
                self._discard(lost)
        return answer

    def _attempt(self, request: RequestT, tries: Tries[ResponseT]) -> ResponseT:
        sent, timeouts = self._outgoing(request)
        try:
            response: ResponseT = self.inner.handle_request(sent)
        except Exception as error:
            if self._is_ours(error):
                raise NotSent(error) from error
            raise
        self._watch(response, sent, timeouts, tries.caller_until)
        if tries.is_lost(response):
            self._discard(response)
        return response

    def _discard(self, response: Any) -> None:
        response.close()

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


class AsyncGuarded(Guarded[RequestT, ResponseT, InnerT]):
    """A transport for the library's async client, under asyncio."""

    inner: Any

    async def handle_async_request(self, request: RequestT) -> ResponseT:
        tries: Tries[ResponseT] = Tries()
        answer: ResponseT | None = None
        try:
            with one_call():
                answer = await self._send(request, tries)
        except (CallRefused, TimedOut) as error:
            said = self._translated(error)
            raise said from said.__cause__
        finally:
            for lost in tries.over(answer):
                await self._discard(lost)
        return answer

    async def _attempt(self, request: RequestT, tries: Tries[ResponseT]) -> ResponseT:
        sent, timeouts = self._outgoing(request)
        try:
            async with asyncio.timeout(time_left_s(self.guard)):
                response: ResponseT = await self.inner.handle_async_request(sent)
        except TimeoutError:
            raise self.LIBRARY.ReadTimeout(LATE) from None
        except Exception as error:
            if self._is_ours(error):
                raise NotSent(error) from error
            raise
        self._watch(response, sent, timeouts, tries.caller_until)
        if tries.is_lost(response):
            await self._discard(response)
        return response

    async def _discard(self, response: Any) -> None:
        await response.aclose()

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


class _Watch:
    """What is known of a body under way. Its place in the guard was given back when the headers came."""

    __slots__ = ("_broken", "_counts", "_guard", "_key", "_late", "until")

    def __init__(
        self,
        guard: Guard,
        key: Callable[[], Hashable],
        until: float,
        broken: tuple[type[Exception], ...],
        late: type[Exception],
        counts: bool,
    ) -> None:
        self._guard = guard
        self._key = key
        self.until = until
        self._broken = broken
        self._late = late
        self._counts = counts

    def is_over(self) -> bool:
        return self.until != inf and self._guard.clock() >= self.until

    def left_s(self) -> float | None:
        """Seconds until the end; None if there is none."""
        return None if self.until == inf else max(0.0, self.until - self._guard.clock())

    def late(self) -> Exception:
        return self._late(LATE)

    def tell(self, error: Exception, *, was_over: bool) -> None:
        """Tells the guard of a body that broke off, unless it was its reader who let the time pass."""
        if self._counts and not was_over and isinstance(error, self._broken):
            self._counts = False
            broke(self._guard, self._key())


class SyncBody:
    """A body that tells the guard when it breaks off or is late. Leaving it early is fine."""

    def __init__(self, stream: Any, watch: _Watch) -> None:
        self._stream = stream
        self._watch = watch

    def __iter__(self) -> Iterator[bytes]:
        watch, chunks = self._watch, iter(self._stream)
        while True:
            was_over = watch.is_over()
            try:
                chunk: bytes | None = next(chunks, None)
                if chunk is not None and watch.is_over():
                    raise watch.late()
            except Exception as error:
                watch.tell(error, was_over=was_over)
                raise
            if chunk is None:
                return
            yield chunk

    def close(self) -> None:
        self._stream.close()


class AsyncBody:
    """The same for an async client, and exact: a wait for more ends at the deadline."""

    def __init__(self, stream: Any, watch: _Watch) -> None:
        self._stream = stream
        self._watch = watch

    async def __aiter__(self) -> AsyncIterator[bytes]:
        watch, chunks = self._watch, aiter(self._stream)
        while True:
            was_over = watch.is_over()
            try:
                try:
                    async with asyncio.timeout(watch.left_s()):
                        chunk: bytes | None = await anext(chunks, None)
                except TimeoutError:
                    raise watch.late() from None
                if chunk is not None and watch.is_over():
                    raise watch.late()
            except Exception as error:
                watch.tell(error, was_over=was_over)
                raise
            if chunk is None:
                return
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _host_and_port(request: Request) -> Hashable:
    url = request.url
    return authority(url.host, url.port, url.scheme)
