"""What a gateway counts, and how a scrape reads it."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from budao.aio.gateway.metrics import CONTENT_TYPE, GatewayMetrics


def read(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def busy() -> GatewayMetrics:
    metrics = GatewayMetrics()
    metrics.transports["ws"].connections = 3
    metrics.transports["sse"].deliveries += 7
    metrics.published += 2
    metrics.count_error("reset")
    metrics.count_gap("slow")
    metrics.count_end("going-away")
    metrics.count_handshake_failure("expired")
    metrics.count_ticket("replayed")
    metrics.count_publish_refusal("too-large")
    metrics.count_reload(True)
    metrics.publish.record_s(0.004)
    metrics.publish_to_deliver.record_s(0.5)
    metrics.publish_to_deliver.record_s(30.0)
    for score in (4, 73, 100):
        metrics.health.record(score)
    return metrics


def test_what_was_counted_is_what_a_scrape_reads() -> None:
    samples = read(busy().text().decode())
    assert samples["budao_push_connections", (("transport", "ws"),)] == 3
    assert samples["budao_push_deliveries_total", (("transport", "sse"),)] == 7
    assert samples["budao_push_published_total", ()] == 2
    assert samples["stream_push_errors_total", (("kind", "reset"),)] == 1
    assert samples["stream_push_errors_total", (("kind", "handshake"),)] == 1
    assert samples["budao_push_gaps_total", (("why", "slow"),)] == 1
    assert samples["budao_push_ends_total", (("why", "going-away"),)] == 1
    assert samples["budao_push_handshake_failures_total", (("cause", "expired"),)] == 1
    assert samples["budao_push_tickets_total", (("result", "replayed"),)] == 1
    assert samples["budao_push_publish_refusals_total", (("why", "too-large"),)] == 1
    assert samples["budao_push_certificate_reloads_total", (("result", "loaded"),)] == 1


def test_a_histogram_is_cumulative_and_ends_with_everything() -> None:
    samples = read(busy().text().decode())
    assert samples["budao_push_publish_to_deliver_seconds_bucket", (("le", "0.25"),)] == 0
    assert samples["budao_push_publish_to_deliver_seconds_bucket", (("le", "0.5"),)] == 1
    assert samples["budao_push_publish_to_deliver_seconds_bucket", (("le", "+Inf"),)] == 2
    assert samples["budao_push_publish_to_deliver_seconds_count", ()] == 2
    assert samples["budao_push_publish_to_deliver_seconds_sum", ()] == pytest.approx(30.5)
    assert samples["connection_health_score_bucket", (("le", "10"),)] == 1
    assert samples["connection_health_score_bucket", (("le", "70"),)] == 1
    assert samples["connection_health_score_bucket", (("le", "80"),)] == 2
    assert samples["connection_health_score_bucket", (("le", "100"),)] == 3
    assert samples["connection_health_score_sum", ()] == 177


def test_every_family_has_a_help_and_a_type_before_its_samples_and_none_comes_twice() -> None:
    names = []
    current = ""
    for line in busy().text().decode().splitlines():
        if line.startswith("# HELP "):
            current = line.split()[2]
            names.append(current)
        elif line.startswith("# TYPE "):
            assert line.split()[2] == current
            assert line.split()[3] in {"counter", "gauge", "histogram"}
            assert current.endswith("_total") == (line.split()[3] == "counter")
        else:
            assert line.startswith(current)
    assert len(names) == len(set(names))
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_a_registry_of_prometheus_client_shows_the_same_numbers() -> None:
    metrics = busy()
    registry = CollectorRegistry()
    registry.register(metrics.collector())
    assert read(generate_latest(registry).decode()) == read(metrics.text().decode())


def test_a_word_that_nobody_listed_makes_no_series() -> None:
    metrics = GatewayMetrics()
    before = len(metrics.text().splitlines())
    for count in (
        metrics.count_error,
        metrics.count_gap,
        metrics.count_end,
        metrics.count_handshake_failure,
        metrics.count_ticket,
        metrics.count_publish_refusal,
    ):
        count('made"up\n')
    samples = read(metrics.text().decode())
    assert len(metrics.text().splitlines()) == before
    assert samples["stream_push_errors_total", (("kind", "other"),)] == 1
    assert samples["budao_push_gaps_total", (("why", "other"),)] == 1
    assert samples["budao_push_tickets_total", (("result", "other"),)] == 1


def test_what_is_looked_up_is_asked_for_at_each_scrape() -> None:
    metrics = GatewayMetrics()
    waiting = [5, 9]

    def look(into: GatewayMetrics) -> None:
        into.outbox_bytes = waiting.pop(0)

    metrics.before_scrape(look)
    assert read(metrics.text().decode())["budao_push_outbox_bytes", ()] == 5
    assert read(metrics.text().decode())["budao_push_outbox_bytes", ()] == 9


def test_an_instant_keeps_its_digits() -> None:
    metrics = GatewayMetrics()
    metrics.certificate_until = 1_900_000_000.5
    assert read(metrics.text().decode())["budao_push_certificate_until_seconds", ()] == 1_900_000_000.5
