"""Traces from publish to delivery, where OpenTelemetry is there and the program has configured a provider.

The W3C context of a publisher always travels with its message; here it becomes spans. A publish is a span within the publisher's,
and what travels on is that span. Each gateway that hands a message to readers makes one span of it, however many they are, from when
the log took it. Messages whose trace is not sampled cost a look at their flags.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from budao.push import Draft, Placed, Problem, Recent
from budao.wire import parse_traceparent

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer, TracerProvider

SYSTEM: Final = "budao"

Done = Callable[[Placed | Problem], None]


def find_traces(gateway: str, provider: TracerProvider | None = None) -> Traces | None:
    """Spans for a gateway of this name; None without OpenTelemetry, or while nobody has configured a provider."""
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    found = trace.get_tracer_provider() if provider is None else provider
    if isinstance(found, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    return Traces(trace.get_tracer("budao.push", tracer_provider=found), gateway)


class Traces:
    """Makes the spans of one gateway."""

    def __init__(self, tracer: Tracer, gateway: str) -> None:
        from opentelemetry import trace
        from opentelemetry.context import Context

        self._api = trace
        self._empty = Context()
        self._tracer = tracer
        self._gateway = gateway

    def publishing(self, draft: Draft, done: Done) -> tuple[Draft, Done]:
        """The draft with a span in its trace, and what ends the span before it calls `done`."""
        api = self._api
        span = self._tracer.start_span(
            "budao.push.publish",
            context=self._within(draft.trace),
            kind=api.SpanKind.PRODUCER,
            attributes={
                "messaging.system": SYSTEM,
                "messaging.operation.type": "send",
                "messaging.destination.name": draft.channel,
                "messaging.message.body.size": len(draft.data),
                "budao.gateway": self._gateway,
            },
        )

        def ended(result: Placed | Problem) -> None:
            if isinstance(result, Placed):
                span.set_attribute("budao.epoch", result.position.epoch)
                span.set_attribute("budao.seq", result.position.seq)
                span.set_attribute("budao.is_repeat", result.is_repeat)
            else:
                span.set_attribute("error.type", result.why)
                span.set_status(api.Status(api.StatusCode.ERROR, result.happened))
            span.end()
            done(result)

        context = span.get_span_context()
        if not context.is_valid:
            return draft, ended
        trace = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        return Draft(draft.channel, draft.data, draft.kind, draft.id, trace), ended

    def delivered(self, _: object, recent: Sequence[Recent], readers: int) -> None:
        """These messages went to so many readers of this gateway."""
        if not readers:
            return
        for each in recent:
            message = each.message
            if message.trace is None or not _is_sampled(message.trace):
                continue
            within = self._within(message.trace)
            if within is self._empty:
                continue
            now_ns = time.time_ns()
            span = self._tracer.start_span(
                "budao.push.deliver",
                context=within,
                kind=self._api.SpanKind.CONSUMER,
                start_time=min(int(message.at * 1e9), now_ns),
                attributes={
                    "messaging.system": SYSTEM,
                    "messaging.operation.type": "process",
                    "messaging.destination.name": message.channel,
                    "budao.gateway": self._gateway,
                    "budao.epoch": message.position.epoch,
                    "budao.seq": message.position.seq,
                    "budao.readers": readers,
                },
            )
            span.end(now_ns)

    def _within(self, trace: str | None) -> Any:
        """The context of a traceparent; an empty one without it, whatever this task is within."""
        said = parse_traceparent(trace) if trace else ""
        if not said:
            return self._empty
        api = self._api
        _, trace_id, span_id, flags = said.split("-")
        remote = api.SpanContext(
            int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=api.TraceFlags(int(flags, 16))
        )
        return api.set_span_in_context(api.NonRecordingSpan(remote), self._empty)


def _is_sampled(trace: str) -> bool:
    return trace[-1:] in set("13579bdf")
