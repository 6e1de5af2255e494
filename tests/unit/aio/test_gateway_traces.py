"""Spans of publishes and deliveries."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from budao.aio.gateway.traces import Traces, find_traces
from budao.model import Wall
from budao.push import Draft, Kind, Message, Placed, Position, Problem, Recent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = f"00-{TRACE}-00f067aa0ba902b7-01"


class Collected:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(1.0)), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        found = find_traces("here", provider)
        assert found is not None
        self.traces: Traces = found

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def publish(self, draft: Draft, result: Placed | Problem) -> Draft:
        told: list[Placed | Problem] = []
        traced, done = self.traces.publishing(draft, told.append)
        assert told == []
        done(result)
        assert told == [result]
        return traced


def recent(said: str | None, at: float = 1_000.0) -> Recent:
    return Recent(Message("news", Position("e", 7), b"1", Kind.JSON, Wall(at), None, said), 0)


def test_a_publish_is_a_span_within_the_callers_and_what_travels_on_is_that_span() -> None:
    it = Collected()
    draft = Draft("news", b"{}", Kind.JSON, "an id", CALLER)
    traced = it.publish(draft, Placed(Position("e", 3), True))
    (span,) = it.spans
    assert span.parent is not None
    assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, "00f067aa0ba902b7")
    assert span.parent.is_remote
    assert traced.trace == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert (traced.channel, traced.data, traced.kind, traced.id) == ("news", b"{}", Kind.JSON, "an id")
    assert span.kind is trace.SpanKind.PRODUCER
    assert dict(span.attributes or {}) == {
        "messaging.system": "budao",
        "messaging.operation.type": "send",
        "messaging.destination.name": "news",
        "messaging.message.body.size": 2,
        "budao.gateway": "here",
        "budao.epoch": "e",
        "budao.seq": 3,
        "budao.is_repeat": True,
    }


def test_a_publish_without_a_trace_begins_one() -> None:
    it = Collected()
    traced = it.publish(Draft("news", b"{}"), Placed(Position("e", 3)))
    (span,) = it.spans
    assert span.parent is None
    context = span.context
    assert traced.trace == f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert context.trace_flags & 1


def test_a_publish_that_is_not_taken_is_an_error() -> None:
    it = Collected()
    it.publish(Draft("news", b"{}", trace=CALLER), Problem(why="full", happened="there is no room"))
    (span,) = it.spans
    assert span.status.status_code is trace.StatusCode.ERROR
    assert (span.status.description, (span.attributes or {})["error.type"]) == ("there is no room", "full")


def test_a_message_is_one_span_however_many_read_it_from_when_the_log_took_it() -> None:
    it = Collected()
    it.traces.delivered(None, [recent(CALLER), recent(None), recent(CALLER)], 2_000)
    assert len(it.spans) == 2
    span = it.spans[0]
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "00f067aa0ba902b7"
    assert span.start_time == 1_000_000_000_000
    assert span.end_time is not None
    assert span.end_time > span.start_time
    assert (span.attributes or {})["budao.readers"] == 2_000
    assert (span.attributes or {})["budao.seq"] == 7


def test_a_clock_that_is_ahead_makes_no_span_that_ends_before_it_begins() -> None:
    it = Collected()
    it.traces.delivered(None, [recent(CALLER, at=9e9)], 1)
    (span,) = it.spans
    assert span.start_time == span.end_time


@pytest.mark.parametrize("said", [None, "", "nonsense", f"00-{TRACE}-00f067aa0ba902b7-00", "00-" + "0" * 32 + "-1-01"])
def test_what_is_not_sampled_or_no_trace_makes_no_span_of_a_delivery(said: str | None) -> None:
    it = Collected()
    it.traces.delivered(None, [recent(said)], 3)
    assert it.spans == ()


def test_nobody_to_read_it_makes_no_span() -> None:
    it = Collected()
    it.traces.delivered(None, [recent(CALLER)], 0)
    assert it.spans == ()


def test_what_the_caller_does_not_sample_stays_so_on_its_way() -> None:
    it = Collected()
    unsampled = CALLER[:-2] + "00"
    traced = it.publish(Draft("news", b"{}", trace=unsampled), Placed(Position("e", 3)))
    assert it.spans == ()
    assert traced.trace is not None
    assert (traced.trace[:36], traced.trace[-3:]) == (CALLER[:36], "-00")


def test_it_is_off_until_somebody_configures_a_provider() -> None:
    assert find_traces("here", trace.NoOpTracerProvider()) is None
    assert find_traces("here", trace.ProxyTracerProvider()) is None
