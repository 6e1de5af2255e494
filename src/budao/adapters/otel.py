"""Guards in OpenTelemetry: instruments that are read when an exporter asks, and spans for the unusual.

    observe(get_meter("shop"), inventory, payments)      # numbers, pulled
    stop = trace(get_tracer("shop"), inventory)          # a span for each transition, refusal and repeat
    with trace_of_span(): ...                            # the current span's trace, for what Budao records and sends

A protected call that goes well pays nothing for any of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import isfinite
from threading import Lock
from typing import Final

from opentelemetry import trace as otel_trace
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from budao.guard import Event, KeyView, Refused, Retried, State, Turned
from budao.model import context
from budao.protect import Guard, GuardView

__all__ = ["observe", "trace", "trace_of_span", "traceparent"]

OUTCOMES: Final = ("ok", "failed", "slow", "dropped", "stale")
QUANTILES: Final = {"0.5": "p50_s", "0.95": "p95_s", "0.99": "p99_s", "0.999": "p999_s"}

Attributes = dict[str, AttributeValue]


def observe(meter: Meter, *guards: Guard) -> None:
    """Give `meter` instruments that read these guards whenever they are collected. Call it once per meter.

    The API has no histogram that is read rather than written, so latency is shown as recent quantiles, in seconds.
    """
    source = _Snapshots(guards)

    def counter(name: str, unit: str, says: str, read: _Read) -> None:
        meter.create_observable_counter(f"budao.guard.{name}", [source.callback(name, read)], unit, says)

    def gauge(name: str, unit: str, says: str, read: _Read) -> None:
        meter.create_observable_gauge(f"budao.guard.{name}", [source.callback(name, read)], unit, says)

    counter("calls", "{call}", "Calls that ended, by outcome.", _of_keys(_calls))
    counter("refusals", "{call}", "Calls that were not made, by reason.", _of_keys(_refusals))
    counter("retries", "{call}", "Calls that were sent again.", lambda view: [_of_guard(view, view.retries)])
    counter("hedges", "{call}", "Second calls sent.", lambda view: [_of_guard(view, view.hedges)])
    counter(
        "hedges_won", "{call}", "Second calls that answered first.", lambda view: [_of_guard(view, view.hedges_won)]
    )
    counter("rung", "{call}", "Calls answered, by rung of the ladder.", _rungs)
    counter("crashes", "{crash}", "Things in the background that raised.", lambda view: [_of_guard(view, view.crashes)])
    gauge("state", "1", "1 for the state the breaker is in, 0 for the others.", _of_keys(_state))
    gauge("in_flight", "{call}", "Calls under way.", _of_keys(lambda key: [(key.in_flight, {})]))
    gauge("waiting", "{call}", "Calls that wait for a place.", _of_keys(lambda key: [(key.waiting, {})]))
    gauge("limit", "{call}", "Calls that may be under way at once.", _of_keys(_limit))
    gauge("latency.recent", "s", "Quantiles of recent calls.", _of_keys(_latency))


def trace(tracer: Tracer, *guards: Guard) -> Callable[[], None]:
    """Make a short span of each transition, refusal and repeat, within the span it happens in. The answer stops it."""

    def tell(event: Event) -> None:
        told = _told(event)
        if told is None:
            return
        name, attributes, has_failed = told
        span = tracer.start_span(name, kind=SpanKind.INTERNAL, attributes=attributes)
        if has_failed and span.is_recording():
            span.set_status(Status(StatusCode.ERROR, str(attributes.get("budao.why", ""))))
        span.end()

    stops = [guard.listen(tell) for guard in guards]

    def stop() -> None:
        for each in stops:
            each()

    return stop


def traceparent() -> str:
    """The current span as a W3C `traceparent`, or "" outside one."""
    span = otel_trace.get_current_span().get_span_context()
    if not span.is_valid:
        return ""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


@contextmanager
def trace_of_span() -> Iterator[str]:
    """Inside, `context.trace` is the current span's: crashes and rungs are recorded with it, clients send it on.

    Outside a span it leaves what is there, such as a header's, alone.
    """
    said = traceparent()
    if not said:
        yield context.trace.get()
        return
    token = context.trace.set(said)
    try:
        yield said
    finally:
        context.trace.reset(token)


# ---------------------------------------------------------------------------------------------------------- reading

_Read = Callable[[GuardView], list[Observation]]
_Values = list[tuple[float, Attributes]]


class _Snapshots:
    """One snapshot of each guard serves all instruments of one collection.

    A collection reads each instrument once, so an instrument that comes again begins the next one.
    """

    def __init__(self, guards: Iterable[Guard]) -> None:
        self._guards = tuple(guards)
        self._views: tuple[GuardView, ...] = ()
        self._served: set[str] = set()
        self._lock = Lock()  # two readers may collect from two threads

    def callback(self, name: str, read: _Read) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def answer(_options: CallbackOptions) -> Iterable[Observation]:
            return [observation for view in self._for(name) for observation in read(view)]

        return answer

    def _for(self, name: str) -> tuple[GuardView, ...]:
        with self._lock:
            if name in self._served or not self._served:
                self._served.clear()
                self._views = tuple(guard.snapshot() for guard in self._guards)
            self._served.add(name)
            return self._views


def _of_guard(view: GuardView, value: float) -> Observation:
    return Observation(value, {"budao.guard": view.name})


def _of_keys(read: Callable[[KeyView], _Values]) -> _Read:
    def observations(view: GuardView) -> list[Observation]:
        return [
            Observation(value, {"budao.guard": view.name, "budao.key": key.key, **more})
            for key in view.keys
            for value, more in read(key)
        ]

    return observations


def _calls(key: KeyView) -> _Values:
    return [(getattr(key, outcome), {"budao.outcome": outcome}) for outcome in OUTCOMES]


def _refusals(key: KeyView) -> _Values:
    return [(count, {"budao.why": why.name.lower()}) for why, count in key.refused.items()]


def _state(key: KeyView) -> _Values:
    return [(int(key.state is state), {"budao.state": state.value}) for state in State]


def _limit(key: KeyView) -> _Values:
    return [] if key.calls_max is None else [(key.calls_max, {})]


def _latency(key: KeyView) -> _Values:
    measured = ((share, getattr(key, name)) for share, name in QUANTILES.items())
    return [(value, {"budao.quantile": share}) for share, value in measured if value is not None and isfinite(value)]


def _rungs(view: GuardView) -> list[Observation]:
    return [Observation(count, {"budao.guard": view.name, "budao.rung": rung}) for rung, count in view.rungs.items()]


def _told(event: Event) -> tuple[str, Attributes, bool] | None:
    """The name, the attributes and whether it is an error, for the events that become spans."""
    attributes: Attributes = {"budao.guard": event.guard, "budao.key": event.key}
    match event:
        case Turned(moved=moved):
            attributes |= {
                "budao.state.before": moved.before.value,
                "budao.state": moved.after.value,
                "budao.reason": moved.reason,
            }
            return "budao.guard.transition", attributes, moved.after is State.OPEN
        case Refused(refusal=refusal, shadow=shadow):
            attributes |= {
                "budao.why": refusal.why.value,
                "budao.retry_after_s": refusal.retry_after_s,
                "budao.shadow": shadow,
            }
            return "budao.guard.refusal", attributes, not shadow
        case Retried(attempt=attempt, pause_s=pause_s, error=error):
            attributes |= {"budao.attempt": attempt, "budao.pause_s": pause_s, "budao.error": error}
            return "budao.guard.retry", attributes, False
    return None
