"""What a gateway counts: plain numbers that others add to, put into words when somebody asks.

    metrics.transports["ws"].deliveries += len(writers)
    metrics.count_error("reset")
    metrics.publish_to_deliver.record_s(took_s)

Nothing is formatted, locked or called between scrapes. What is cheaper to look up than to keep (sessions, bytes in outboxes) is
set by a function that `before_scrape` names. Every label has its values listed here, and whatever is not listed counts as "other",
so no peer can make a new series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from budao.measure import Histogram, HistogramSnapshot
from budao.push import BY_WHY, Flaw, Hole

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

OTHER: Final = "other"
TRANSPORTS: Final = ("ws", "sse", "tcp", "h2")
ERROR_KINDS: Final = (
    "reset",
    "timed-out",
    "unreachable",
    "silent",
    "blocked",
    "slow",
    "cut",
    "head",
    "frame",
    "flood",
    "timeout",
    "handshake",
    "unauthorized",
    "forbidden",
    "expired",
    "ticket",
    "rate",
    "full",
    "too-large",
    "log-away",
    "mistake",
    OTHER,
)
"""What goes wrong with a stream: how its peer went away, what it did, or why it was not served."""
KINDS_OF_ENDS: Final[Mapping[str, str]] = {
    **{kind: kind for kind in ERROR_KINDS},
    **dict.fromkeys(("bad-frame", "protocol-error", "bad-text", "unsupported", "version"), "frame"),
    "bad-ticket": "ticket",
}
"""Which kind of error the end of a connection is, by its word; ends in order are not there."""
CUT: Final = frozenset({"reset", "timed-out", "unreachable", "flood", ""})
"""Ends without a goodbye: as the code 1006 has it, `cut`."""
HANDSHAKE_CAUSES: Final = (
    "expired",
    "not-yet-valid",
    "unknown-authority",
    "wrong-key",
    "wrong-name",
    "revoked",
    "no-certificate",
    "bad-certificate",
    "no-shared-cipher",
    "no-shared-version",
    "no-shared-protocol",
    "plain-http",
    "not-tls",
    "refused-by-client",
    "timeout",
    "closed",
    OTHER,
)
GAP_REASONS: Final = (*(hole.value for hole in Hole), OTHER)
ENDINGS: Final = (*BY_WHY, OTHER)
TICKET_RESULTS: Final = ("written", "taken", *(flaw.value for flaw in Flaw), OTHER)
REFUSALS: Final = (
    "too-large",
    "no-room",
    "no-space",
    "bad-data",
    "bad-request",
    "log-away",
    "refused",
    "bad-channel",
    "busy",
    "standby",
    "forbidden",
    "unauthorized",
    "expired",
    "rate",
    OTHER,
)
RELOAD_RESULTS: Final = ("loaded", "refused")

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of the buckets of what takes time."""
SCORES: Final = (10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0)


@dataclass(slots=True)
class TransportMetrics:
    """What is counted of one transport."""

    connections: int = 0
    """Open now."""
    opened: int = 0
    deliveries: int = 0
    """Messages handed to transports, one for each reader."""
    bytes_out: int = 0


def _counts(names: Sequence[str]) -> dict[str, int]:
    return dict.fromkeys(names, 0)


@dataclass(slots=True)
class GatewayMetrics:
    """The numbers of one gateway. Add to them with `+=`; by label, use the `count_…` methods or keys that are listed.

    Cost:    an addition is an addition; a histogram's record is some 100 ns; 20 KiB in all.
    """

    gateway: str = ""
    transports: dict[str, TransportMetrics] = field(
        default_factory=lambda: {name: TransportMetrics() for name in TRANSPORTS}
    )
    sessions: int = 0
    subscriptions: int = 0
    channels: int = 0
    lagging: int = 0
    """Connections that are behind the head of a channel of theirs."""
    outbox_bytes: int = 0
    """Waiting in this process for peers that do not read."""
    ring_bytes: int = 0
    """Recent messages that are kept for those who catch up."""
    upgrades: int = 0
    resumed: int = 0
    """Sessions that went on from a place they had elsewhere or before."""
    published: int = 0
    repeats: int = 0
    moves: int = 0
    promotions: int = 0
    slots_given: int = 0
    """Clients that were told to come back at a time of their own."""
    log_up: int = 0
    draining: int = 0
    certificate_until: float = 0.0
    """Unix seconds; 0 without TLS."""
    traces_dropped: int = 0
    """Trace contexts of publishers that were not valid."""
    loop_lag_s: float = 0.0
    load_share: float = 0.0
    """Of one core, over the last seconds."""
    errors: dict[str, int] = field(default_factory=lambda: _counts(ERROR_KINDS))
    gaps: dict[str, int] = field(default_factory=lambda: _counts(GAP_REASONS))
    ends: dict[str, int] = field(default_factory=lambda: _counts(ENDINGS))
    handshake_failures: dict[str, int] = field(default_factory=lambda: _counts(HANDSHAKE_CAUSES))
    tickets: dict[str, int] = field(default_factory=lambda: _counts(TICKET_RESULTS))
    publish_refusals: dict[str, int] = field(default_factory=lambda: _counts(REFUSALS))
    reloads: dict[str, int] = field(default_factory=lambda: _counts(RELOAD_RESULTS))
    publish: Histogram = field(default_factory=Histogram)
    """From the request to its acknowledgement."""
    publish_to_deliver: Histogram = field(default_factory=Histogram)
    """From when the log took a message to when it was handed to the transports of this gateway."""
    health: Histogram = field(default_factory=lambda: Histogram(units_per_s=1))
    """Scores of 0 to 100, one for each sample of a connection."""
    _sources: list[Callable[[GatewayMetrics], None]] = field(default_factory=list)

    def before_scrape(self, source: Callable[[GatewayMetrics], None]) -> None:
        """Call this right before each scrape; it sets what is looked up rather than kept."""
        self._sources.append(source)

    def count_error(self, kind: str) -> None:
        """One more in `stream_push_errors_total`."""
        self.errors[kind if kind in self.errors else OTHER] += 1

    def count_gap(self, why: str) -> None:
        """One more gap told to a reader."""
        self.gaps[why if why in self.gaps else OTHER] += 1

    def count_end(self, why: str) -> None:
        """One more connection that ended, by the word of its `Ending`."""
        self.ends["cut" if why in CUT else why if why in self.ends else OTHER] += 1

    def count_handshake_failure(self, cause: str) -> None:
        """One more TLS handshake that failed; also an error of the kind `handshake`."""
        self.handshake_failures[cause if cause in self.handshake_failures else OTHER] += 1
        self.errors["handshake"] += 1

    def count_ticket(self, result: str) -> None:
        """One more ticket, by what became of it."""
        self.tickets[result if result in self.tickets else OTHER] += 1

    def count_publish_refusal(self, why: str) -> None:
        """One more draft that was not taken."""
        self.publish_refusals[why if why in self.publish_refusals else OTHER] += 1

    def count_reload(self, is_loaded: bool) -> None:
        """One more look at changed certificates: taken, or the old ones stay."""
        self.reloads["loaded" if is_loaded else "refused"] += 1

    def families(self) -> tuple[Family, ...]:
        """Everything as values, after the sources have been asked."""
        for source in self._sources:
            source(self)
        each = self.transports.items()
        return (
            _labelled("stream_push_errors", "Streams that went wrong, by how.", "kind", self.errors),
            _histogram("connection_health_score", "Health of connections, 0 to 100, as sampled.", self.health, SCORES),
            _labelled(
                "budao_push_connections",
                "Open connections.",
                "transport",
                {t: m.connections for t, m in each},
                is_gauge=True,
            ),
            _labelled(
                "budao_push_opened", "Connections that were opened.", "transport", {t: m.opened for t, m in each}
            ),
            _labelled(
                "budao_push_deliveries",
                "Messages handed to transports, one for each reader.",
                "transport",
                {t: m.deliveries for t, m in each},
            ),
            _labelled(
                "budao_push_sent_bytes", "Bytes handed to transports.", "transport", {t: m.bytes_out for t, m in each}
            ),
            _labelled("budao_push_ends", "Connections that ended, by why.", "why", self.ends),
            _gauge("budao_push_sessions", "Sessions that are here.", self.sessions),
            _gauge("budao_push_subscriptions", "Subscriptions of the sessions.", self.subscriptions),
            _gauge("budao_push_channels", "Channels that are followed.", self.channels),
            _gauge("budao_push_lagging", "Connections behind the head of a channel.", self.lagging),
            _gauge("budao_push_outbox_bytes", "Bytes that wait for peers that do not read.", self.outbox_bytes),
            _gauge("budao_push_ring_bytes", "Bytes of recent messages kept for those who catch up.", self.ring_bytes),
            _counter("budao_push_upgrades", "Upgrades to WebSocket.", self.upgrades),
            _counter("budao_push_resumed", "Sessions that went on from a place.", self.resumed),
            _counter("budao_push_published", "Messages that the log took.", self.published),
            _counter("budao_push_repeats", "Messages that the log had already.", self.repeats),
            _labelled(
                "budao_push_publish_refusals", "Messages that were not taken, by why.", "why", self.publish_refusals
            ),
            _histogram("budao_push_publish_seconds", "From a publish to its acknowledgement.", self.publish, SECONDS),
            _histogram(
                "budao_push_publish_to_deliver_seconds",
                "From the log to the transports.",
                self.publish_to_deliver,
                SECONDS,
            ),
            _labelled("budao_push_gaps", "Gaps that readers were told of, by why.", "why", self.gaps),
            _labelled(
                "budao_push_handshake_failures",
                "TLS handshakes that failed, by cause.",
                "cause",
                self.handshake_failures,
            ),
            _labelled("budao_push_tickets", "Tickets, by what became of them.", "result", self.tickets),
            _labelled(
                "budao_push_certificate_reloads",
                "Changed certificates, by what became of them.",
                "result",
                self.reloads,
            ),
            _gauge(
                "budao_push_certificate_until_seconds",
                "When the certificate expires, in Unix time.",
                self.certificate_until,
            ),
            _counter("budao_push_moves", "Clients that were told to move.", self.moves),
            _counter("budao_push_promotions", "Standbys that were promoted.", self.promotions),
            _counter("budao_push_slots", "Clients that were given a time to come back.", self.slots_given),
            _counter("budao_push_traces_dropped", "Trace contexts that were not valid.", self.traces_dropped),
            _gauge("budao_push_log_up", "Whether the log answers.", self.log_up),
            _gauge("budao_push_draining", "Whether this gateway is leaving.", self.draining),
            _gauge("budao_push_loop_lag_seconds", "How late the event loop was last.", self.loop_lag_s),
            _gauge("budao_push_load_ratio", "Share of one core used over the last seconds.", self.load_share),
        )

    def text(self) -> bytes:
        """The answer to a scrape, in the text format of Prometheus; its type is `CONTENT_TYPE`."""
        return "".join(line for family in self.families() for line in _lines(family)).encode()

    def collector(self) -> Collector:
        """For a registry of `prometheus_client`, where the program around a gateway answers scrapes itself.

        Raises:  ImportError without `prometheus-client` (in the extra `push`).
        """
        return _collector(self)


@dataclass(frozen=True, slots=True)
class Family:
    """Metrics of one name. `name` is without the `_total` that counters get."""

    name: str
    kind: str
    says: str
    label: str
    values: Mapping[str, float]
    """By label value; by upper end for a histogram; under "" without a label."""
    total: float = 0.0
    """The sum of a histogram."""


def _counter(name: str, says: str, value: float) -> Family:
    return Family(name, "counter", says, "", {"": value})


def _gauge(name: str, says: str, value: float) -> Family:
    return Family(name, "gauge", says, "", {"": value})


def _labelled(name: str, says: str, label: str, values: Mapping[str, float], *, is_gauge: bool = False) -> Family:
    return Family(name, "gauge" if is_gauge else "counter", says, label, dict(values))


def _histogram(name: str, says: str, histogram: Histogram, bounds: Sequence[float]) -> Family:
    snapshot = histogram.snapshot()
    return Family(name, "histogram", says, "le", _buckets(snapshot, bounds), snapshot.total / snapshot.units_per_s)


def _buckets(snapshot: HistogramSnapshot, bounds: Sequence[float]) -> dict[str, float]:
    """Cumulative, as Prometheus wants them; the last one holds everything."""
    counts = {_number(bound): snapshot.count_at_most(round(bound * snapshot.units_per_s)) for bound in bounds}
    return {**counts, "+Inf": snapshot.count}


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _lines(family: Family) -> Iterable[str]:
    name = f"{family.name}_total" if family.kind == "counter" else family.name
    yield f"# HELP {name} {family.says}\n# TYPE {name} {family.kind}\n"
    sample = f"{name}_bucket" if family.kind == "histogram" else name
    for value, count in family.values.items():
        # Label values are words from the tuples above: there is nothing in them to escape.
        labels = f'{{{family.label}="{value}"}}' if family.label else ""
        yield f"{sample}{labels} {_number(count)}\n"
    if family.kind == "histogram":
        yield f"{name}_sum {_number(family.total)}\n{name}_count {_number(family.values['+Inf'])}\n"


def _collector(metrics: GatewayMetrics) -> Collector:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.registry import Collector

    def converted(family: Family) -> Metric:
        if family.kind == "histogram":
            whole = HistogramMetricFamily(family.name, family.says)
            whole.add_metric((), list(family.values.items()), family.total)
            return whole
        labels = (family.label,) if family.label else ()
        kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
        made = kind(family.name, family.says, labels=labels)
        for value, count in family.values.items():
            made.add_metric((value,) if family.label else (), count)
        return made

    class GatewayCollector(Collector):
        def collect(self) -> Iterable[Metric]:
            return [converted(family) for family in metrics.families()]

    return GatewayCollector()
