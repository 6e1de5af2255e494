"""Guards for `grpc.aio`: interceptors for channels and for servers.

    channel = grpc.aio.insecure_channel(target, interceptors=client_interceptors(guard, safe={"/shop.Inventory/Stock"}))
    server = grpc.aio.server(interceptors=[ServerInterceptor(guard)])

The full name of the method is the key, so each method has a breaker, places and counts of its own.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from typing import Any

from grpc import StatusCode, aio
from grpc.aio import AioRpcError, Metadata

from budao.adapters import _grpc
from budao.adapters._grpc import (
    FAILURES,
    Answer,
    Aside,
    Held,
    Plan,
    RpcBreakerOpen,
    RpcBudgetSpent,
    RpcNobodyThere,
    RpcNoRoom,
    RpcRefused,
    RpcShed,
    RpcTimedOut,
    RpcTooLate,
    as_rpc,
)
from budao.adapters._load import wait_begins, wait_is_over
from budao.adapters._pool import begin_call
from budao.adapters.grpc import guard_sync
from budao.model import CallRefused, TimedOut, context
from budao.protect import Block, Guard

__all__ = [
    "FAILURES", "RpcBreakerOpen", "RpcBudgetSpent", "RpcNoRoom", "RpcNobodyThere", "RpcRefused", "RpcShed", "RpcTimedOut", "RpcTooLate",
    "ServerInterceptor", "client_interceptors",
]  # fmt: skip


def client_interceptors(
    guard: Guard,
    *,
    safe: Container[str] | Callable[[str], bool] = frozenset(),
    target: str = "",
    failures: Container[StatusCode] = FAILURES,
) -> list[aio.ClientInterceptor]:
    """What to give a channel of `grpc.aio` as `interceptors`, one for each kind of call.

    - `safe` names the methods that may be repeated, such as "/shop.Inventory/Stock", or says so of a name. Only those
      are retried and hedged, and only if they are unary on both sides: the messages of a stream cannot be sent again.
    - `target` comes before the method in the key, to tell several servers behind one guard apart.
    - `failures` are the statuses that count as failures.

    There are four objects because grpc.aio uses an interceptor for one kind of call only, even if it fits more.
    """
    plan = Plan(guard, safe, target, failures)
    return [_UnaryUnary(plan), _UnaryStream(plan), _StreamUnary(plan), _StreamStream(plan)]


class ServerInterceptor(aio.ServerInterceptor):
    """Guards the handlers of a `grpc.aio` server, sync handlers included.

    Takes deadline, priority and trace from the call. A refusal is said as UNAVAILABLE, RESOURCE_EXHAUSTED (too many
    calls for a rate) or DEADLINE_EXCEEDED (nobody waits any more), with `grpc-retry-pushback-ms` where there is a wait.
    """

    def __init__(self, guard: Guard, *, failures: Container[StatusCode] = FAILURES) -> None:
        self._guard = guard
        self._failures = failures
        self._wrapped = _grpc.Wrapped()

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        return self._wrapped.get(method, handler, lambda: _grpc.rewrapped(handler, self._wrap(method, handler)))

    def _wrap(self, method: str, handler: Any) -> Callable[[Any], Any]:
        def wrap(behavior: Any) -> Any:
            is_generator = inspect.isasyncgenfunction(behavior)
            if not is_generator and not inspect.iscoroutinefunction(behavior):
                return guard_sync(self._guard, self._failures, method, behavior, streams=handler.response_streaming)
            if not handler.response_streaming:
                return _serve_unary(self._guard, self._failures, method, behavior)
            return _serve_stream(
                self._guard, self._failures, method, _grpc.written(behavior) if is_generator else behavior
            )

        return wrap


# -- clients


def _sent_on(details: Any, timeout_s: float | None) -> aio.ClientCallDetails:
    return aio.ClientCallDetails(
        details.method,
        timeout_s,
        Metadata(*_grpc.announced(details.metadata)),
        details.credentials,
        details.wait_for_ready,
    )


class _UnaryUnary(aio.UnaryUnaryClientInterceptor):
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

        async def attempt(continuation: Any, details: Any, request: Any) -> Answer:
            call = await continuation(_sent_on(details, plan.left_s(context.deadline.get())), request)
            try:
                await call
            except AioRpcError as error:
                if isinstance(error, CallRefused | TimedOut):  # from another guard, in an interceptor further in
                    raise
                if error.code() is StatusCode.CANCELLED:
                    raise Aside(call) from error
                return Answer(call, error.code(), error)
            return Answer(call, StatusCode.OK)

        self._send = plan.guard.protect(
            attempt,
            safe=lambda _continuation, details, _request: plan.is_safe(details),
            key=lambda _continuation, details, _request: plan.key(details),
            bad=plan.is_bad,
            retry_after=plan.pause_s,
        )

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        # This is the task of this very call, so what is set here ends with it.
        context.deadline.set(self._plan.until(client_call_details.timeout))
        begin_call()
        try:
            answer = await self._send(continuation, client_call_details, request)
        except Aside as aside:
            return aside.call
        except (CallRefused, TimedOut) as error:
            raise as_rpc(error) from error
        return answer.call


async def _held(guard: Guard, block: Block, failures: Container[StatusCode]) -> Held:
    """Lets a streaming call in.

    The place is given back by a callback, where nothing can be awaited, so this is the block of threads. It holds no
    timer of the loop either, and a stream may last longer than the time limit of one try. Where calls may wait for a
    place, a thread waits.

    Raises: CallRefused.
    """
    bulkhead = guard.policy.bulkhead
    if bulkhead is None or bulkhead.waiting_max == 0:
        return Held(block, failures)
    ahead = asyncio.ensure_future(asyncio.to_thread(Held, block, failures))
    try:
        return await asyncio.shield(ahead)
    except asyncio.CancelledError:
        ahead.add_done_callback(_give_back)
        raise


def _give_back(ahead: asyncio.Future[Held]) -> None:
    if not ahead.cancelled() and ahead.exception() is None:
        ahead.result().end(None)


async def _streamed(plan: Plan, continuation: Any, details: Any, request: Any) -> tuple[Any, Held]:
    """Starts a call whose end is told by its callback."""
    until = plan.until(details.timeout)
    try:
        held = await _held(plan.guard, plan.guard.block(plan.key(details), until=until), plan.failures)
    except CallRefused as error:
        raise as_rpc(error) from error
    try:
        call = await continuation(_sent_on(details, plan.left_s(until)), request)
    except BaseException as error:
        held.raised(error)
        raise

    def done(finished: Any) -> None:
        held.end(_status_of(finished))

    call.add_done_callback(done)
    return call, held


def _status_of(finished: Any) -> StatusCode | None:
    """The status of a call that is over; its coroutine then answers in one step."""
    asked = finished.code()
    try:
        asked.send(None)
    except StopIteration as stop:
        status: StatusCode = stop.value
        return status
    except Exception:  # noqa: BLE001 - a callback of grpc must not raise; a status nobody can tell teaches nothing
        return None
    asked.close()
    return None


class _UnaryStream(aio.UnaryStreamClientInterceptor):
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return _WatchedUnaryStream(*await _streamed(self._plan, continuation, client_call_details, request))


class _StreamUnary(aio.StreamUnaryClientInterceptor):
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        # Nothing may be awaited here beyond the start: grpc.aio hands over what the caller writes only afterwards.
        call, _ = await _streamed(self._plan, continuation, client_call_details, request_iterator)
        return call


class _StreamStream(aio.StreamStreamClientInterceptor):
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return _WatchedStreamStream(*await _streamed(self._plan, continuation, client_call_details, request_iterator))


class _Watched:
    """A call with a streamed answer, which tells when the first message came. All else is the call's own."""

    def __init__(self, call: Any, held: Held) -> None:
        self._call = call
        self._held: Held | None = held
        self._messages: AsyncIterator[Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._messages is None:
            self._messages = self._iterate()
        return self._messages

    async def _iterate(self) -> AsyncIterator[Any]:
        async for message in self._call:
            self._came()
            yield message

    async def read(self) -> Any:
        message = await self._call.read()
        if message is not aio.EOF:
            self._came()
        return message

    def _came(self) -> None:
        if self._held is not None:
            self._held.answered()
            self._held = None


class _WatchedUnaryStream(_Watched):
    pass


class _WatchedStreamStream(_Watched):
    pass


# grpc.aio asks what an interceptor returned whether it is a call. Inheriting would hide the call behind base methods.
aio.UnaryStreamCall.register(_WatchedUnaryStream)
aio.StreamStreamCall.register(_WatchedStreamStream)


# -- servers


async def _say_no(servicer: Any, error: CallRefused | TimedOut) -> None:
    """Ends the call with the status of a refusal."""
    refused = as_rpc(error)
    pairs = tuple(refused.trailing_metadata())
    if pairs:
        servicer.set_trailing_metadata((*(servicer.trailing_metadata() or ()), *pairs))
    await servicer.abort(refused.code(), refused.details())


def _serve_unary(guard: Guard, failures: Container[StatusCode], method: str, behavior: Any) -> Any:
    async def serve(request: Any, servicer: Any) -> Any:
        priority, trace = _grpc.received(servicer.invocation_metadata())
        started = guard.clock()
        until = _grpc.until_of(started, servicer.time_remaining())
        context.trace.set(trace)  # every call is served in a task of its own
        response: Any = None
        aborted: aio.AbortError | None = None
        try:
            work = wait_begins()
            async with guard.block(method, until=until, priority=priority) as call:
                wait_is_over(work)
                try:
                    response = await behavior(request, servicer)
                except asyncio.CancelledError as cancelled:
                    if not _grpc.ran_out(guard.clock(), started, until):
                        raise
                    # grpc cancels the handler as soon as the caller's time is over: that is our failure, not a whim.
                    raise TimedOut(guard.name, until - started) from cancelled
                except aio.AbortError as error:
                    aborted = error  # the status tells what it means, not the exception
                if _grpc.status_in(servicer) in failures:
                    call.failed("status")
        except (CallRefused, TimedOut) as error:
            await _say_no(servicer, error)
        if aborted is not None:
            raise aborted
        return response

    return serve


def _serve_stream(guard: Guard, failures: Container[StatusCode], method: str, behavior: Any) -> Any:
    async def serve(request: Any, servicer: Any) -> None:
        priority, trace = _grpc.received(servicer.invocation_metadata())
        started = guard.clock()
        until = _grpc.until_of(started, servicer.time_remaining())
        context.trace.set(trace)
        try:
            work = wait_begins()
            held = await _held(guard, guard.block(method, until=until, priority=priority), failures)
            wait_is_over(work)
        except CallRefused as error:
            await _say_no(servicer, error)
            return
        context.deadline.set(until)
        if priority is not None:
            context.priority.set(priority)
        try:
            await behavior(request, _WatchedServicer(servicer, held))
        except asyncio.CancelledError:
            is_late = _grpc.ran_out(guard.clock(), started, until)
            held.end(StatusCode.DEADLINE_EXCEEDED if is_late else StatusCode.CANCELLED)
            raise
        except aio.AbortError:
            held.end(_grpc.status_in(servicer))
            raise
        except (CallRefused, TimedOut) as error:
            held.raised(error)
            await _say_no(servicer, error)
        except BaseException as error:
            held.raised(error)
            raise
        else:
            held.end(_grpc.status_in(servicer) or StatusCode.OK)

    return serve


class _WatchedServicer:
    """A context that tells when the first message was written. All else is the context's own."""

    def __init__(self, servicer: Any, held: Held) -> None:
        self._servicer = servicer
        self._held: Held | None = held

    def __getattr__(self, name: str) -> Any:
        return getattr(self._servicer, name)

    async def write(self, message: Any) -> None:
        await self._servicer.write(message)
        if self._held is not None:
            self._held.answered()
            self._held = None
