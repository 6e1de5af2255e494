"""Guards in OpenTelemetry: through the real SDK's in-memory reader and exporter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from budao.adapters.otel import observe, trace, trace_of_span, traceparent
from budao.model import BreakerOpen, BreakerPolicy, GuardPolicy, RetryPolicy, context
from budao.protect import Guard


class Pretend:
    """A clock that goes where it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Spans:
    """A real tracer, and the spans that ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")

    def ended(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    yield spans
    spans.provider.shutdown()


@pytest.fixture
def reader() -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    yield reader
    reader.shutdown()


def a_guard(name: str = "stock", **parts: Any) -> Guard:
    given = {"breaker": BreakerPolicy(calls_min=4), "retry": None}
    return Guard(name, policy=GuardPolicy(**(given | parts)), clock=Pretend())


def points(reader: InMemoryMetricReader) -> dict[tuple[str, frozenset[tuple[str, Any]]], float]:
    collected = reader.get_metrics_data()
    assert collected is not None
    found = {}
    for resource in collected.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    found[metric.name, frozenset((point.attributes or {}).items())] = getattr(point, "value")  # noqa: B009 - a union of point types
    return found


def value(found: dict[tuple[str, frozenset[tuple[str, Any]]], float], name: str, **labels: Any) -> float | None:
    named = frozenset((f"budao.{label}", given) for label, given in labels.items())
    return found.get((f"budao.guard.{name}", named))


def fail(guard: Guard, times: int) -> None:
    def away(_key: str) -> None:
        raise OSError("away")

    guarded = guard.protect(away, key=lambda key: key)
    for _ in range(times):
        with pytest.raises(OSError, match="away"):
            guarded("a")


def test_a_collection_reads_calls_states_and_latency(reader: InMemoryMetricReader) -> None:
    provider = MeterProvider([reader], shutdown_on_exit=False)
    guard = a_guard()
    observe(provider.get_meter("test"), guard)
    for _ in range(3):
        guard.protect(lambda _key: None, key=lambda key: key)("a")
    found = points(reader)
    assert value(found, "calls", guard="stock", key="a", outcome="ok") == 3
    assert value(found, "state", guard="stock", key="a", state="closed") == 1
    assert value(found, "state", guard="stock", key="a", state="open") == 0
    assert value(found, "in_flight", guard="stock", key="a") == 0
    assert value(found, "retries", guard="stock") == 0
    assert value(found, "limit", guard="stock", key="a") is None


def test_the_next_collection_sees_what_happened_since(reader: InMemoryMetricReader) -> None:
    provider = MeterProvider([reader], shutdown_on_exit=False)
    guard, other = a_guard(), a_guard("mail")
    observe(provider.get_meter("test"), guard, other)
    points(reader)
    fail(guard, 4)
    with pytest.raises(BreakerOpen):
        guard.protect(lambda _key: None, key=lambda key: key)("a")
    found = points(reader)
    assert value(found, "calls", guard="stock", key="a", outcome="failed") == 4
    assert value(found, "refusals", guard="stock", key="a", why="breaker_open") == 1
    assert value(found, "state", guard="stock", key="a", state="open") == 1
    assert value(found, "retries", guard="mail") == 0


def test_one_collection_takes_one_snapshot_of_each_guard(reader: InMemoryMetricReader) -> None:
    class Counting:
        def __init__(self, guard: Guard) -> None:
            self.guard, self.taken = guard, 0

        def snapshot(self) -> object:
            self.taken += 1
            return self.guard.snapshot()

    counting = Counting(a_guard())
    provider = MeterProvider([reader], shutdown_on_exit=False)
    observe(provider.get_meter("test"), counting)  # type: ignore[arg-type]  # all that is read is a snapshot
    points(reader)
    points(reader)
    points(reader)
    assert counting.taken == 3


def test_transitions_refusals_and_repeats_are_spans_within_the_span_they_happen_in(spans: Spans) -> None:
    guard = a_guard(retry=RetryPolicy(attempts_max=2, pause_first_s=0.0), breaker=BreakerPolicy(calls_min=2))
    stop = trace(spans.tracer, guard)

    def away() -> None:
        raise OSError("away")

    with spans.tracer.start_as_current_span("request") as request:
        guarded = guard.protect(away, safe=True)
        with pytest.raises(OSError, match="away"):
            guarded()
        with pytest.raises(BreakerOpen):
            guarded()
    told = {span.name: span for span in spans.ended()}
    assert set(told) == {"request", "budao.guard.retry", "budao.guard.transition", "budao.guard.refusal"}
    for name in set(told) - {"request"}:
        span = told[name]
        assert span.parent is not None
        assert span.parent.span_id == request.get_span_context().span_id
        assert (span.attributes or {})["budao.guard"] == "stock"
    assert (told["budao.guard.transition"].attributes or {})["budao.state"] == "open"
    assert (told["budao.guard.refusal"].attributes or {})["budao.why"] == "breaker open"
    assert not told["budao.guard.refusal"].status.is_ok
    assert (told["budao.guard.retry"].attributes or {})["budao.attempt"] == 2

    stop()
    count = len(spans.ended())
    with pytest.raises(BreakerOpen):
        guarded()
    assert len(spans.ended()) == count


def test_a_call_that_goes_well_leaves_no_span(spans: Spans) -> None:
    guard = a_guard()
    trace(spans.tracer, guard)
    for _ in range(10):
        guard.protect(lambda: None)()
    assert spans.ended() == []


def test_the_current_spans_trace_is_carried_in_the_context(spans: Spans) -> None:
    assert traceparent() == ""
    token = context.trace.set("00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    with trace_of_span() as kept:
        assert kept == context.trace.get() == "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    with spans.tracer.start_as_current_span("request") as request:
        with trace_of_span() as said:
            assert said == context.trace.get() == traceparent()
            assert context.trace_id() == f"{request.get_span_context().trace_id:032x}"
            assert said.split("-")[2] == f"{request.get_span_context().span_id:016x}"
        assert context.trace_id() == "1" * 32
    context.trace.reset(token)
