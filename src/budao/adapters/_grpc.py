"""What the gRPC interceptors have in common: which statuses are failures, what travels as metadata, what is raised."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from contextlib import aclosing
from contextvars import copy_context
from dataclasses import dataclass
from math import ceil, inf, isfinite
from typing import Any, Final

import grpc
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata

from budao.guard import parse_pushback
from budao.model import (
    BreakerOpen,
    BudgetSpent,
    CallRefused,
    NobodyThere,
    NoRoom,
    Priority,
    Refusal,
    Shed,
    TimedOut,
    TooLate,
    Why,
    context,
)
from budao.protect import Block, Guard
from budao.wire import PRIORITY, TRACEPARENT, format_priority, parse_priority, parse_traceparent

FAILURES: Final = frozenset(
    {
        StatusCode.UNKNOWN,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.INTERNAL,
        StatusCode.UNAVAILABLE,
        StatusCode.DATA_LOSS,
    }
)
"""Statuses that count as failures of the other side.

The rest are right answers to wrong requests (INVALID_ARGUMENT, NOT_FOUND, ABORTED, UNIMPLEMENTED, ...), which the
healthiest server would give as well, and CANCELLED, which by its definition is mostly said by the caller. UNKNOWN is
what grpcio answers when a handler raises.

Source: gRPC, "Status codes and their use in gRPC".
"""

PUSHBACK: Final = "grpc-retry-pushback-ms"
"""The trailing metadata in which a server says when to come back. Source: gRFC A6, "Pushback"."""

METHODS_MAX: Final = 4096
"""Handlers kept. A server that answers to names which strangers make up must not remember them all."""

_PUSHBACK_MAX_MS = 2**31 - 1
_NO_DEADLINE_S = 1e9  # grpcio's sync server says "no deadline" as a number of seconds that no caller would wait


class _Status(AioRpcError):
    """The accessors of an RPC error over what the guard's own error says.

    An `AioRpcError` is a `grpc.RpcError`, so one class serves both stacks; and the intercepted calls of grpc.aio answer
    `code()` and `details()` from whatever `AioRpcError` an interceptor raised.
    """

    def code(self) -> StatusCode:
        return StatusCode.DEADLINE_EXCEEDED

    def details(self) -> str:
        return str(self)

    def initial_metadata(self) -> Metadata:
        return Metadata()

    def trailing_metadata(self) -> Metadata:  # type: ignore[override]  # what AioRpcError gives; it iterates as pairs
        return Metadata()

    def debug_error_string(self) -> str:
        return "raised by the guard of this process"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"


class RpcRefused(CallRefused, _Status):
    """A refused call in the shape of an RPC that failed: UNAVAILABLE, or what else fits the reason."""

    def __init__(self, target: str, refusal: Refusal) -> None:
        Exception.__init__(self, target, refusal)  # the one of AioRpcError wants other arguments

    def code(self) -> StatusCode:
        return status_of(self.refusal)

    def trailing_metadata(self) -> Metadata:  # type: ignore[override]  # what AioRpcError gives; it iterates as pairs
        return Metadata(*pushback_of(self.refusal))

    def __reduce__(self) -> tuple[type[RpcRefused], tuple[str, Refusal]]:
        return type(self), (self.target, self.refusal)


class RpcBreakerOpen(RpcRefused, BreakerOpen):
    """`BreakerOpen`, and an RPC error."""


class RpcNoRoom(RpcRefused, NoRoom):
    """`NoRoom`, and an RPC error."""


class RpcShed(RpcRefused, Shed):
    """`Shed`, and an RPC error."""


class RpcTooLate(RpcRefused, TooLate):
    """`TooLate`, and an RPC error with DEADLINE_EXCEEDED."""


class RpcBudgetSpent(RpcRefused, BudgetSpent):
    """`BudgetSpent`, and an RPC error."""


class RpcNobodyThere(RpcRefused, NobodyThere):
    """`NobodyThere`, and an RPC error."""

    def __init__(self, target: str, refusal: Refusal, found: str = "") -> None:
        Exception.__init__(self, target, refusal, found)

    def __reduce__(self) -> tuple[type[RpcNobodyThere], tuple[str, Refusal, str]]:  # type: ignore[override]
        return type(self), (self.target, self.refusal, self.found)


class RpcTimedOut(TimedOut, _Status):
    """`TimedOut`, and an RPC error with DEADLINE_EXCEEDED."""

    def __reduce__(self) -> tuple[type[RpcTimedOut], tuple[str, float]]:
        return type(self), (self.target, self.after_s)


_AS_RPC: dict[type[CallRefused], type[RpcRefused]] = {
    BreakerOpen: RpcBreakerOpen,
    NoRoom: RpcNoRoom,
    Shed: RpcShed,
    TooLate: RpcTooLate,
    BudgetSpent: RpcBudgetSpent,
}


def as_rpc(error: CallRefused | TimedOut) -> RpcRefused | RpcTimedOut:
    """The same error in the shape that handlers of RPC errors understand."""
    if isinstance(error, RpcRefused | RpcTimedOut):
        return error
    if isinstance(error, TimedOut):
        return RpcTimedOut(error.target, error.after_s)
    if isinstance(error, NobodyThere):
        return RpcNobodyThere(error.target, error.refusal, error.found)
    return _AS_RPC.get(type(error), RpcRefused)(error.target, error.refusal)


def status_of(refusal: Refusal) -> StatusCode:
    """The status that says a refusal.

    UNAVAILABLE for all that passes by itself; RESOURCE_EXHAUSTED where the caller sends too much; DEADLINE_EXCEEDED where
    nobody waits any more.
    """
    if refusal.why is Why.TOO_LATE:
        return StatusCode.DEADLINE_EXCEEDED
    return StatusCode.RESOURCE_EXHAUSTED if refusal.why is Why.RATE else StatusCode.UNAVAILABLE


def pushback_of(refusal: Refusal) -> tuple[tuple[str, str], ...]:
    """The trailing metadata of a refusal.

    None at all for a pause of 0: a client that is told "0" comes back at once, without the backoff of its own.
    """
    if not refusal.retry_after_s > 0.0 or not isfinite(refusal.retry_after_s) or refusal.why is Why.TOO_LATE:
        return ()
    return ((PUSHBACK, str(min(ceil(refusal.retry_after_s * 1000.0), _PUSHBACK_MAX_MS))),)


def pushback_in(metadata: Iterable[tuple[str, Any]] | None) -> float | None:
    """The pause that trailing metadata ask for, as `budao.guard.parse_pushback` reads it."""
    for name, value in metadata or ():
        if name.lower() == PUSHBACK:
            return parse_pushback(value if isinstance(value, str) else bytes(value).decode("ascii", "replace"))
    return None


def announced(metadata: Iterable[tuple[str, Any]] | None) -> list[tuple[str, Any]]:
    """The metadata of a call, with the priority and the trace that it should carry.

    A trace that is there stays: whoever set it knows the span that is really the parent. The default priority goes
    without saying. The remaining time needs no metadata of ours, since gRPC sends its own.
    """
    pairs = list(metadata or ())
    names = {name.lower() for name, _ in pairs}
    priority = context.priority.get()
    if priority is not Priority.HIGH and PRIORITY not in names:
        pairs.append((PRIORITY, format_priority(priority)))
    trace = context.trace.get()
    if trace and TRACEPARENT not in names:
        pairs.append((TRACEPARENT, trace))
    return pairs


def received(metadata: Iterable[tuple[str, Any]] | None) -> tuple[Priority | None, str]:
    """The priority and the trace that came with a call: None and "" where there is nothing one can read."""
    priority: Priority | None = None
    trace = ""
    for name, value in metadata or ():
        if name == PRIORITY and isinstance(value, str):
            priority = parse_priority(value)
        elif name == TRACEPARENT and isinstance(value, str):
            trace = parse_traceparent(value)
    return priority, trace


def until_of(now: float, remaining_s: float | None) -> float:
    """The instant a server has until, from what its context says is left."""
    return inf if remaining_s is None or remaining_s > _NO_DEADLINE_S else now + remaining_s


def ran_out(now: float, started: float, until: float) -> bool:
    """Whether a call that was cancelled had used its time up, or nearly.

    A caller whose deadline passes cancels, and its clock started earlier by one way through the network: the news comes
    before the deadline that this side counted. So the last tenth of the time counts as none.
    """
    return until != inf and until - now <= max(0.1 * (until - started), 0.001)


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished unary call, as its guard sees it."""

    call: Any
    code: StatusCode
    error: Any = None


class Aside(CallRefused):
    """Carries out of a guarded call an answer that tells nothing about the other side; never seen by callers."""

    def __init__(self, call: Any) -> None:
        super().__init__("", Refusal(Why.NO_ROOM))
        self.call = call


class Plan:
    """How one guard protects the calls of one channel."""

    __slots__ = ("_is_safe", "_keys", "failures", "guard", "target")

    def __init__(
        self, guard: Guard, safe: Container[str] | Callable[[str], bool], target: str, failures: Container[StatusCode]
    ) -> None:
        assert not isinstance(safe, str), "safe is a set of methods, not the name of one"
        self.guard = guard
        self.target = target
        self.failures = failures
        self._is_safe = safe if callable(safe) else safe.__contains__
        self._keys: dict[Any, str] = {}

    def method(self, details: Any) -> str:
        """The full name of the method; grpc.aio gives it as bytes."""
        method = details.method
        return method.decode() if isinstance(method, bytes) else str(method)

    def key(self, details: Any) -> str:
        return self.target + self.method(details)

    def is_safe(self, details: Any) -> bool:
        return bool(self._is_safe(self.method(details)))

    def is_bad(self, answer: Answer) -> bool:
        return answer.code in self.failures

    def pause_s(self, asked: object) -> float | None:
        """The pause that the answer to a failed try asks for."""
        if not isinstance(asked, Answer) or asked.error is None:
            return None
        return pushback_in(asked.error.trailing_metadata())

    def until(self, timeout_s: float | None) -> float:
        """The instant by which a call with that timeout must be over."""
        outer = context.deadline.get()
        return outer if timeout_s is None else min(outer, self.guard.clock() + timeout_s)

    def left_s(self, until: float) -> float | None:
        """The timeout to send on, in seconds."""
        return None if until == inf else max(until - self.guard.clock(), 0.0)


class Held:
    """An admitted call that ends somewhere else than it began: in a callback, in another thread, in the collector."""

    __slots__ = ("_block", "_failures", "_open", "run")

    def __init__(self, block: Block, failures: Container[StatusCode]) -> None:
        """Enters the block, in a context of its own: what the block sets there must not stay behind with the caller.

        Raises: CallRefused.
        """
        self.run = copy_context().run
        self._block = block
        self._failures = failures
        self.run(block.__enter__)
        self._open = [block]

    def answered(self) -> None:
        """The first message came."""
        self._block.answered()

    def end(self, code: StatusCode | None) -> None:
        """The call ended with a status; None if nobody can say. Only the first call counts."""
        try:
            block = self._open.pop()  # atomic, so two threads cannot both settle
        except IndexError:
            return
        if code is None or code is StatusCode.CANCELLED:
            block.drop()
        elif code in self._failures:
            block.failed(code.name)
        block.__exit__(None, None, None)

    def raised(self, error: BaseException) -> None:
        """The call ended with an exception, which the guard judges itself."""
        try:
            block = self._open.pop()
        except IndexError:
            return
        block.__exit__(type(error), error, error.__traceback__)


def status_in(context_of_call: Any) -> StatusCode | None:
    """The status a handler has set, if any. Handlers may set it as a number, and not every context can be asked."""
    ask = getattr(context_of_call, "code", None)
    code = ask() if ask is not None else None
    if isinstance(code, StatusCode):
        return code
    return next((status for status in StatusCode if status.value[0] == code), None) if isinstance(code, int) else None


def rewrapped(handler: Any, wrap: Callable[[Any], Any]) -> Any:
    """The same method handler around another behaviour."""
    make, behavior = (
        (grpc.stream_stream_rpc_method_handler, handler.stream_stream)
        if handler.request_streaming and handler.response_streaming
        else (grpc.stream_unary_rpc_method_handler, handler.stream_unary)
        if handler.request_streaming
        else (grpc.unary_stream_rpc_method_handler, handler.unary_stream)
        if handler.response_streaming
        else (grpc.unary_unary_rpc_method_handler, handler.unary_unary)
    )
    return make(wrap(behavior), handler.request_deserializer, handler.response_serializer)


class Wrapped:
    """The guarded handlers of a server, made once for each method."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[str, tuple[Any, Any]] = {}

    def get(self, method: str, handler: Any, make: Callable[[], Any]) -> Any:
        known, guarded = self._made.get(method, (None, None))
        if known is handler:
            return guarded
        guarded = make()
        if method in self._made or len(self._made) < METHODS_MAX:
            self._made[method] = (handler, guarded)
        return guarded


def written(behavior: Any) -> Any:
    """A generator as a coroutine that writes: everything then happens in the one task that serves the call.

    grpc leaves a generator whose caller went away to the collector, and a place would be held until then.
    """

    async def serve(request: Any, servicer: Any) -> None:
        async with aclosing(behavior(request, servicer)) as messages:
            async for message in messages:
                await servicer.write(message)

    return serve
