"""Guards for gRPC without an event loop: interceptors for channels and for servers.

    channel = grpc.intercept_channel(channel, ClientInterceptor(guard, safe={"/shop.Inventory/Stock"}))
    server = grpc.server(executor, interceptors=[ServerInterceptor(guard)])

The full name of the method is the key, so each method has a breaker, places and counts of its own. For `grpc.aio` see
`budao.adapters.grpc_aio`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

import grpc
from grpc import StatusCode

from budao.adapters import _grpc
from budao.adapters._grpc import (
    FAILURES,
    Answer,
    Aside,
    Held,
    Plan,
    RpcBreakerOpen,
    RpcBudgetSpent,
    RpcNoRoom,
    RpcRefused,
    RpcShed,
    RpcTimedOut,
    RpcTooLate,
    as_rpc,
)
from budao.adapters._load import wait_begins, wait_is_over
from budao.model import CallRefused, TimedOut, context
from budao.protect import Guard

__all__ = [
    "FAILURES", "ClientInterceptor", "RpcBreakerOpen", "RpcBudgetSpent", "RpcNoRoom", "RpcRefused", "RpcShed",
    "RpcTimedOut", "RpcTooLate", "ServerInterceptor",
]  # fmt: skip


class ClientInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Guards the calls of a channel, of all four kinds.

    - `safe` names the methods that may be repeated, such as "/shop.Inventory/Stock", or says so of a name. Only those
      are retried and hedged, and only if they are unary on both sides: the messages of a stream cannot be sent again.
      A call started with `.future()` is never repeated, since nobody waits in whose thread that could happen.
    - `target` comes before the method in the key, to tell several servers behind one guard apart.
    - `failures` are the statuses that count as failures.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        safe: Container[str] | Callable[[str], bool] = frozenset(),
        target: str = "",
        failures: Container[StatusCode] = FAILURES,
    ) -> None:
        plan = self._plan = Plan(guard, safe, target, failures)

        def attempt(continuation: Any, details: Any, request: Any) -> Answer:
            call = continuation(_sent_on(details, plan.left_s(context.deadline.get())), request)
            error = call.exception()
            if error is not None and (
                not isinstance(error, grpc.RpcError) or isinstance(error, CallRefused | TimedOut)
            ):
                raise error  # a mistake on this side, or another guard in an interceptor further in
            code = call.code()
            if code is StatusCode.CANCELLED:
                raise Aside(call)
            return Answer(call, code, error)

        self._send = guard.protect(
            attempt,
            safe=lambda _continuation, details, _request: plan.is_safe(details),
            key=lambda _continuation, details, _request: plan.key(details),
            bad=plan.is_bad,
            retry_after=plan.pause_s,
        )

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        if _is_future(continuation):
            return self._hold(continuation, client_call_details, request)[0]
        token = context.deadline.set(self._plan.until(client_call_details.timeout))
        try:
            return self._send(continuation, client_call_details, request).call
        except Aside as aside:
            return aside.call
        except (CallRefused, TimedOut) as error:
            raise as_rpc(error) from error
        finally:
            context.deadline.reset(token)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._stream(continuation, client_call_details, request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        call, _ = self._hold(continuation, client_call_details, request_iterator)
        return call

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return self._stream(continuation, client_call_details, request_iterator)

    def _stream(self, continuation: Any, details: Any, request: Any) -> Any:
        call, held = self._hold(continuation, details, request)
        return call if held is None else _Stream(call, held)

    def _hold(self, continuation: Any, details: Any, request: Any) -> tuple[Any, Held | None]:
        """Starts a call whose end is told by its callback."""
        plan = self._plan
        until = plan.until(details.timeout)
        try:
            held = Held(plan.guard.block(plan.key(details), until=until), plan.failures)
        except CallRefused as error:
            return _NotMade(as_rpc(error)), None
        try:
            call = continuation(_sent_on(details, plan.left_s(until)), request)
        except BaseException as error:
            held.raised(error)
            raise
        # The callback must not keep the call alive, which grpc cancels when nobody holds it any more.
        known = weakref.ref(call)

        def over() -> None:
            finished = known()
            held.end(None if finished is None else finished.code())

        if call.done() or not call.add_callback(over):
            over()
        return call, held


class ServerInterceptor(grpc.ServerInterceptor):
    """Guards the handlers of a server.

    Takes deadline, priority and trace from the call. A refusal is said as UNAVAILABLE, RESOURCE_EXHAUSTED (too many
    calls for a rate) or DEADLINE_EXCEEDED (nobody waits any more), with `grpc-retry-pushback-ms` where there is a wait.
    A call that waited for a thread until its caller gave up is not begun.
    """

    def __init__(self, guard: Guard, *, failures: Container[StatusCode] = FAILURES) -> None:
        self._guard = guard
        self._failures = failures
        self._wrapped = _grpc.Wrapped()

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method

        def wrap(behavior: Any) -> Any:
            return guard_sync(self._guard, self._failures, method, behavior, streams=handler.response_streaming)

        return self._wrapped.get(method, handler, lambda: _grpc.rewrapped(handler, wrap))


def guard_sync(
    guard: Guard, failures: Container[StatusCode], method: str, behavior: Any, *, streams: bool
) -> Callable[[Any, Any], Any]:
    """A handler that is not a coroutine, guarded; `streams` if it answers with a stream."""

    def serve(request: Any, servicer: Any) -> Any:
        return _serve_unary(guard, failures, method, behavior, request, _asked(servicer))

    def serve_stream(request: Any, servicer: Any) -> Any:
        return _Served(guard, failures, method, behavior, request, _asked(servicer))

    return serve_stream if streams else serve


# -- clients


@dataclass(frozen=True, slots=True)
class _Details(grpc.ClientCallDetails):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


def _sent_on(details: Any, timeout_s: float | None) -> _Details:
    return _Details(
        details.method,
        timeout_s,
        _grpc.announced(details.metadata),
        details.credentials,
        getattr(details, "wait_for_ready", None),
        getattr(details, "compression", None),
    )


def _is_future(continuation: Any) -> bool:
    """Whether the call was started with `.future()`, so that its caller must not be made to wait.

    grpcio does not tell an interceptor; only the name of the function it hands over does. Were that name to change, such
    calls would wait for their answer, and be right all the same.
    """
    return ".future." in getattr(continuation, "__qualname__", "")


class _Stream:
    """A call with a streamed answer, which tells when the first message came. All else is the call's own."""

    def __init__(self, call: Any, held: Held) -> None:
        self._call = call
        self._held: Held | None = held

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __iter__(self) -> _Stream:
        return self

    def __next__(self) -> Any:
        message = next(self._call)
        held, self._held = self._held, None
        if held is not None:
            held.answered()
        return message

    next = __next__


class _NotMade(grpc.RpcError):
    """A call that was refused, where grpc wants a call and not an exception."""

    def __init__(self, error: Any) -> None:
        super().__init__(str(error))
        self._error = error

    def result(self, timeout: float | None = None) -> Any:  # noqa: ARG002 - grpc's signature
        raise self._error

    def exception(self, timeout: float | None = None) -> Any:  # noqa: ARG002 - grpc's signature
        return self._error

    def traceback(self, timeout: float | None = None) -> Any:  # noqa: ARG002 - grpc's signature
        return self._error.__traceback__

    def __iter__(self) -> _NotMade:
        return self

    def __next__(self) -> Any:
        raise self._error

    def code(self) -> StatusCode:
        status: StatusCode = self._error.code()
        return status

    def details(self) -> str:
        return str(self._error.details())

    def initial_metadata(self) -> Any:
        return ()

    def trailing_metadata(self) -> Any:
        return tuple(self._error.trailing_metadata())

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def running(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> float:
        return 0.0

    def add_callback(self, callback: Any) -> bool:  # noqa: ARG002 - grpc's signature
        return False

    def add_done_callback(self, fn: Any) -> None:
        fn(self)


# Registered and not inherited: the methods of the bases would hide those of the call behind a `_Stream`.
grpc.Call.register(_Stream)
grpc.Future.register(_Stream)
grpc.Call.register(_NotMade)
grpc.Future.register(_NotMade)


# -- servers


class _Asked:
    """A context that remembers the status a handler sets, for contexts of grpc.aio's sync handlers, which cannot say."""

    def __init__(self, servicer: Any) -> None:
        self._servicer = servicer
        self._code: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._servicer, name)

    def code(self) -> Any:
        return self._code

    def set_code(self, code: Any) -> None:
        self._code = code
        self._servicer.set_code(code)

    def abort(self, code: Any, *details: Any, **more: Any) -> None:
        self._code = code
        self._servicer.abort(code, *details, **more)


def _asked(servicer: Any) -> Any:
    return servicer if hasattr(servicer, "code") else _Asked(servicer)


def _say_no(servicer: Any, error: CallRefused | TimedOut) -> None:
    """Ends the call with the status of a refusal; raises what grpc ends calls with."""
    refused = as_rpc(error)
    pairs = tuple(refused.trailing_metadata())
    if pairs:
        ask = getattr(servicer, "trailing_metadata", None)
        servicer.set_trailing_metadata((*((ask() if ask else None) or ()), *pairs))
    servicer.abort(refused.code(), refused.details())


def _ending(servicer: Any, error: Exception | None, *, is_late: bool) -> StatusCode | None:
    """The status a handler ended with; None if only its exception tells."""
    code = _grpc.status_in(servicer)
    if is_late and (error is None or code is not None):
        return StatusCode.DEADLINE_EXCEEDED  # an answer nobody waits for any more
    if error is None:
        return code or StatusCode.OK
    if code is not None and code is not StatusCode.OK:
        return code  # aborted: the status tells what it means, not the exception
    is_active = getattr(servicer, "is_active", None)
    if is_active is not None and not is_active():
        return StatusCode.DEADLINE_EXCEEDED if is_late else StatusCode.CANCELLED
    return None


def _serve_unary(
    guard: Guard, failures: Container[StatusCode], method: str, behavior: Any, request: Any, servicer: Any
) -> Any:
    priority, trace = _grpc.received(servicer.invocation_metadata())
    started = guard.clock()
    until = _grpc.until_of(started, servicer.time_remaining())
    response: Any = None
    raised: Exception | None = None
    token = context.trace.set(trace)
    try:
        work = wait_begins()
        with guard.block(method, until=until, priority=priority) as call:
            wait_is_over(work)
            try:
                response = behavior(request, servicer)
            except Exception as error:  # noqa: BLE001 - raised again below, once it is judged
                raised = error
            code = _ending(servicer, raised, is_late=guard.clock() >= until)
            if code is None and raised is not None:
                raise raised
            if code is StatusCode.CANCELLED:
                call.drop()
            elif code in failures:
                call.failed("status")
    except (CallRefused, TimedOut) as error:
        _say_no(servicer, error)
    finally:
        context.trace.reset(token)
    if raised is not None:
        raise raised
    return response


class _Served:
    """The messages of one streamed answer.

    grpc leaves an iterator whose caller went away where it stands, so the place is given back when the call is over,
    but not while the handler still works.
    """

    def __init__(
        self, guard: Guard, failures: Container[StatusCode], method: str, behavior: Any, request: Any, servicer: Any
    ) -> None:
        self._guard = guard
        self._failures = failures
        self._method = method
        self._behavior = behavior
        self._request = request
        self._servicer = servicer
        self._started = guard.clock()
        self._until = _grpc.until_of(self._started, servicer.time_remaining())
        self._held: Held | None = None
        self._messages: Any = None
        self._has_answered = self._is_stepping = self._is_over = False
        self._lock = threading.RLock()

    def __iter__(self) -> _Served:
        return self

    def __next__(self) -> Any:
        held = self._held or self._enter()
        with self._lock:
            self._is_stepping = True
        try:
            if self._messages is None:
                self._messages = iter(held.run(self._behavior, self._request, self._servicer))
            message = held.run(next, self._messages)
        except StopIteration:
            held.end(_ending(self._servicer, None, is_late=self._is_late()))
            raise
        except Exception as error:
            code = _ending(self._servicer, error, is_late=self._is_late())
            if code is None:
                held.raised(error)
            else:
                held.end(code)
            if isinstance(error, CallRefused | TimedOut):
                _say_no(self._servicer, error)
            raise
        else:
            if not self._has_answered and not self._is_over:
                self._has_answered = True
                held.answered()
            return message
        finally:
            with self._lock:
                self._is_stepping = False
            if self._is_over:
                self._leave()

    def _enter(self) -> Held:
        # Here and not when the call came: grpc.aio asks a sync handler for its messages on the thread of the loop.
        priority, trace = _grpc.received(self._servicer.invocation_metadata())
        block = self._guard.block(self._method, until=self._until, priority=priority)
        try:
            held = self._held = Held(block, self._failures)
        except CallRefused as error:
            _say_no(self._servicer, error)
            raise
        held.run(context.trace.set, trace)
        if self._servicer.add_callback(self._over) is False:
            self._over()
        return held

    def _over(self) -> None:
        """The call is over, on whatever thread grpc says so."""
        with self._lock:
            self._is_over = True
            if self._is_stepping:
                return
        self._leave()

    def _leave(self) -> None:
        if self._held is not None:
            self._held.end(StatusCode.DEADLINE_EXCEEDED if self._is_late() else StatusCode.CANCELLED)

    def _is_late(self) -> bool:
        return _grpc.ran_out(self._guard.clock(), self._started, self._until)
