"""gRPC interceptors that tell callers how busy this server is, in the trailing metadata `budao-load` of each reply.

    grpc.aio.server(interceptors=[AioLoadInterceptor(), ServerInterceptor(guard)])
    grpc.server(executor, interceptors=[LoadInterceptor(), ServerInterceptor(guard)])

Before a guard's interceptor they count calls that wait for a place there, and leave that wait out of the service time
(but for streams of sync handlers). A service with a queue of its own says so: `with waiting(): await places.acquire()`.
A call that is aborted tells nothing: its status is on its way before anything could be added.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import grpc
from grpc import aio

from budao.adapters import _grpc
from budao.adapters._load import waiting
from budao.adapters._load import work as current
from budao.discovery import LoadMeter, Work
from budao.wire import LOAD, format_load

__all__ = ["AioLoadInterceptor", "LoadInterceptor", "waiting"]


class _Told:
    """One meter with a lock, since sync handlers run on threads."""

    def __init__(self, meter: LoadMeter | None, *, tells: bool) -> None:
        self.meter = LoadMeter() if meter is None else meter
        self._tells = tells
        self._lock = threading.Lock()
        self.wrapped = _grpc.Wrapped()

    def begin(self) -> Work:
        with self._lock:
            return self.meter.begin(perf_counter())

    def answered(self, work: Work, servicer: Any) -> None:
        """The handler came back: tells the load beside whatever the handler tells."""
        with self._lock:
            self.meter.learn(work, perf_counter())
            load = self.meter.load()
        if not self._tells or load is None:
            return
        ask = getattr(servicer, "trailing_metadata", None)
        servicer.set_trailing_metadata((*((ask() if ask else None) or ()), (LOAD, format_load(load))))

    def end(self, work: Work) -> None:
        with self._lock:
            self.meter.end(work)

    def sync_unary(self, behavior: Any) -> Any:
        def serve(request: Any, servicer: Any) -> Any:
            work = self.begin()
            token = current.set(work)
            try:
                response = behavior(request, servicer)
                if not _is_bad(servicer):
                    self.answered(work, servicer)
                return response
            finally:
                current.reset(token)
                self.end(work)

        return serve

    def sync_stream(self, behavior: Any) -> Any:
        def serve(request: Any, servicer: Any) -> Any:
            work = self.begin()
            # The iterator of a caller who left is never finished; the end of the call is always told.
            if not servicer.add_callback(over := _once(self, work)):
                over()
            yield from behavior(request, servicer)
            if not _is_bad(servicer):
                self.answered(work, servicer)

        return serve


def _once(told: _Told, work: Work) -> Callable[[], None]:
    def over() -> None:
        told.end(work)

    return over


def _is_bad(servicer: Any) -> bool:
    return _grpc.status_in(servicer) in _grpc.FAILURES


class LoadInterceptor(grpc.ServerInterceptor):
    """Counts the calls of a server with threads. The first of its interceptors sees most.

    With `tells=False` it only measures; `meter` may be shared with others who look. The service time of a stream is the
    time until its last message is made.
    """

    def __init__(self, *, meter: LoadMeter | None = None, tells: bool = True) -> None:
        self._told = _Told(meter, tells=tells)

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        told = self._told
        wrap = told.sync_stream if handler.response_streaming else told.sync_unary
        return told.wrapped.get(handler_call_details.method, handler, lambda: _grpc.rewrapped(handler, wrap))


class AioLoadInterceptor(aio.ServerInterceptor):
    """The same for a server of `grpc.aio`, sync handlers included."""

    def __init__(self, *, meter: LoadMeter | None = None, tells: bool = True) -> None:
        self._told = _Told(meter, tells=tells)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        told = self._told

        def wrap(behavior: Any) -> Any:
            if inspect.isasyncgenfunction(behavior):
                return _aio_generator(told, behavior)
            if inspect.iscoroutinefunction(behavior):
                return _aio_unary(told, behavior)
            return told.sync_stream(behavior) if handler.response_streaming else told.sync_unary(behavior)

        return told.wrapped.get(handler_call_details.method, handler, lambda: _grpc.rewrapped(handler, wrap))


def _aio_unary(told: _Told, behavior: Any) -> Any:
    """A coroutine: it answers with one message, or writes many."""

    async def serve(request: Any, servicer: Any) -> Any:
        work = told.begin()
        current.set(work)  # every call is served in a task of its own
        try:
            response = await behavior(request, servicer)
            if not _is_bad(servicer):
                told.answered(work, servicer)
            return response
        finally:
            told.end(work)

    return serve


def _aio_generator(told: _Told, behavior: Any) -> Any:
    written = _grpc.written(behavior)
    return _aio_unary(told, written)
