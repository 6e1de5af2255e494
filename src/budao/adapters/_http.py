"""What the HTTP client adapters have in common: what may be repeated, what is bad, what is sent along.

Nothing here imports a client library. `budao.adapters.httpx`, `httpx2` and `aiohttp` add the one they are named after.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from math import inf
from typing import Any, Final, Generic, Protocol, TypeVar

from budao.guard import parse_retry_after
from budao.model import CallRefused, Priority, Refusal, TimedOut, Wall, Why, context
from budao.protect import Guard
from budao.wire import PRIORITY, TIMEOUT, TRACEPARENT, format_priority, format_timeout

REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods whose effect is the same however often they arrive. Source: RFC 9110, section 9.2.2."""

IDEMPOTENCY_KEY: Final = "idempotency-key"
"""A request that carries it may be repeated whatever its method: the other side remembers the key."""

BAD: Final = frozenset({429, 500, 502, 503, 504})
"""Replies that count as failures.

The 5xx here speak of the other side's health, and 429 of its load. Every other 4xx is a right answer to a wrong
request, and 501 or 505 would be said again by the healthiest server.
"""

R = TypeVar("R")

LATE = "the deadline of the call passed"

_TIME_MIN_S = 0.001  # a socket timeout of 0 means "do not wait at all", and a negative one is an error


class Headers(Protocol):
    """The headers of any of the libraries, in which case does not matter."""

    def __contains__(self, name: object, /) -> bool: ...
    def __setitem__(self, name: str, value: str, /) -> None: ...


class NotSent(CallRefused):
    """Carries out of a guarded call an exception that tells nothing about the other side; never seen by callers."""

    def __init__(self, error: Exception) -> None:
        super().__init__("", Refusal(Why.NO_ROOM))
        self.error = error


def may_repeat(method: str, headers: Headers) -> bool:
    """Whether a request may arrive twice, as far as its method and headers say."""
    return method.upper() in REPEATABLE or IDEMPOTENCY_KEY in headers


def asked_pause_s(headers: Mapping[str, str]) -> float | None:
    """The pause a reply asks for in `Retry-After`."""
    text = headers.get("retry-after")
    return None if text is None else parse_retry_after(text, Wall(time.time()))


def announce(headers: Headers, remaining_s: float) -> None:
    """Writes into `headers` what the other side should know of this call: time left, priority, trace.

    Time and priority overwrite what is there, since a proxy may have copied the headers of somebody else's request. A
    trace stays: whoever set it knows the span that is really the parent. The default priority goes without saying.
    """
    remaining = format_timeout(remaining_s)
    if remaining is not None:
        headers[TIMEOUT] = remaining
    priority = context.priority.get()
    if priority is not Priority.HIGH or PRIORITY in headers:
        headers[PRIORITY] = format_priority(priority)
    trace = context.trace.get()
    if trace and TRACEPARENT not in headers:
        headers[TRACEPARENT] = trace


class Timeouts(dict[str, float | None]):
    """Timeouts of a request, in seconds, that never reach beyond an instant.

    The transports look a timeout up at the start of each phase, so connecting, sending and waiting share what is left
    instead of being given all of it each.
    """

    def __init__(self, own: Mapping[str, float | None], clock: Callable[[], float], until: float) -> None:
        super().__init__(own)
        self._clock = clock
        self.until = until

    def __missing__(self, name: str) -> None:
        return None

    def __getitem__(self, name: str) -> float | None:
        return self._bounded(super().__getitem__(name))

    def get(self, name: str, _default: object = None, /) -> float | None:
        return self[name]

    def _bounded(self, own_s: float | None) -> float | None:
        if self.until == inf:
            return own_s
        left_s = max(self.until - self._clock(), _TIME_MIN_S)
        return left_s if own_s is None else min(own_s, left_s)


class Tries(Generic[R]):
    """The tries of one call. Two of them may be answered, by a hedge, and then somebody has to close the other reply."""

    __slots__ = ("_answer", "_is_over", "_replies", "caller_until")

    def __init__(self) -> None:
        self.caller_until = context.deadline.get()
        """The instant until which the caller waits; a try has less time than that."""
        self._replies: list[R] = []
        self._answer: R | None = None
        self._is_over = False

    def is_lost(self, reply: R) -> bool:
        """Takes the reply of one try; True if the call is over without it, and whoever asks must close it."""
        # First noted, then looked: `over` does it the other way round, so in any order of threads one of them closes.
        self._replies.append(reply)
        return self._is_over and reply is not self._answer

    def over(self, answer: R | None) -> list[R]:
        """Ends the call with its answer, if it has one; the replies to close, some of which may be closed already."""
        self._answer, self._is_over = answer, True
        return [reply for reply in self._replies if reply is not answer]


def body_until(clock: Callable[[], float], caller_until: float, body_s: float | None) -> float:
    """The instant by which a body that starts now must be complete."""
    return caller_until if body_s is None else min(caller_until, clock() + body_s)


def time_left_s(guard: Guard) -> float | None:
    """What an async adapter itself must bound: the caller's deadline, if the guard's own timeout does not already."""
    until = context.deadline.get()
    return None if until == inf or guard.policy.timeout is not None else until - guard.clock()


def broke(guard: Guard, key: Hashable) -> None:
    """Counts one more failed call for `key`: its headers came, were counted as good, and then the body broke off.

    Never waits, so that it can be called from an event loop's callback.
    """
    guard.broke(key)


Error = TypeVar("Error", CallRefused, TimedOut)


def translated(error: Error, foreign: type[Exception]) -> Error:
    """The same error as one that is caught by the client library's own name as well."""
    kind: type[Error] = _both(type(error), foreign)
    return _made(kind, error.args, vars(error)).with_traceback(error.__traceback__)


def _made(kind: type[Error], args: tuple[object, ...], fields: Mapping[str, object]) -> Error:
    """An error from its parts. The constructors of two families do not fit together, so none is called."""
    made = kind.__new__(kind)
    made.args = args
    made.__dict__.update(fields)
    return made


def _join(ours: type[Exception], foreign: type[Exception]) -> type[Exception]:
    """One class with both families as parents. A copy or a pickle of such an error is ours alone."""

    def __reduce__(self: Exception) -> tuple[object, ...]:  # noqa: N807 - it becomes a method
        fields = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return _made, (ours, self.args, fields)

    # `_request` is what the constructor of an httpx error would have set.
    members = {"__module__": ours.__module__, "__reduce__": __reduce__, "_request": None}
    return type(ours.__name__, (ours, foreign), members)


_both: Any = cache(_join)  # type checkers do not take classes for hashable


def authority(host: str | None, port: int | None, scheme: str) -> Hashable:
    """The default key of a request: whom it is for, as "host:port"."""
    return f"{host}:{port or (443 if scheme in {'https', 'wss'} else 80)}"
