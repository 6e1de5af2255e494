"""Guards as Prometheus metrics, read when Prometheus asks and at no other time.

    registry.register(GuardCollector(inventory, payments))

A protected call pays nothing for it: a scrape takes one snapshot of each guard. Label values are bounded by each
guard's `keys_max`; a key that made room for another takes its series with it, and starts again from zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import inf, isfinite
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from budao.guard import KeyView, State
from budao.measure import HistogramSnapshot
from budao.model import Checks
from budao.protect import Guard, GuardView

__all__ = ["BOUNDS_S", "GuardCollector"]

BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of the latency buckets, in seconds. A call counts up to 1/64 above an end still counts below it."""

OUTCOMES: Final = ("ok", "failed", "slow", "dropped", "stale")


class GuardCollector(Collector):
    """What some guards have done and how they stand, one snapshot of each guard per scrape.

    Units:   `bounds_s` are seconds, ascending.
    Raises:  BadSettings for bounds that are not positive, finite and ascending.
    Cost:    nothing between scrapes; a scrape walks the keys, and each key's occupied buckets once per bound.
    """

    def __init__(self, *guards: Guard, bounds_s: Sequence[float] = BOUNDS_S) -> None:
        check = Checks("collector")
        fits = all(0.0 < bound < inf for bound in bounds_s) and list(bounds_s) == sorted(set(bounds_s))
        check.need(fits, "bounds_s", f"{tuple(bounds_s)!r} must be finite, above 0 and ascending")
        check.done()
        self._guards = list(guards)
        self._bounds_s = tuple(bounds_s)

    def add(self, guard: Guard) -> None:
        """Show one more guard from the next scrape on."""
        self._guards.append(guard)

    def describe(self) -> Iterable[Metric]:
        """The families without samples, so that a registry sees clashing names and takes no snapshot for it."""
        return _Families(self._bounds_s).all()

    def collect(self) -> Iterator[Metric]:
        """One family after the other, each with the samples of all guards."""
        families = _Families(self._bounds_s)
        for guard in self._guards:
            families.add(guard.snapshot())
        yield from families.all()


class _Families:
    """The metric families of one scrape."""

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        each = ("guard", "key")
        self._bounds_s = bounds_s
        self.calls = _counter("calls", "Calls that ended, by outcome.", *each, "outcome")
        self.refusals = _counter("refusals", "Calls that were not made, by reason.", *each, "why")
        self.state = _gauge("state", "1 for the state the breaker is in, 0 for the others.", *each, "state")
        self.in_flight = _gauge("in_flight", "Calls under way.", *each)
        self.waiting = _gauge("waiting", "Calls that wait for a place.", *each)
        self.limit = _gauge("limit", "Calls that may be under way at once.", *each)
        self.slow = _gauge("slow_seconds", "A call that takes longer is slow.", *each)
        self.latency = HistogramMetricFamily("budao_guard_latency_seconds", "How long calls took.", labels=each)
        self.retries = _counter("retries", "Calls that were sent again.", "guard")
        self.hedges = _counter("hedges", "Second calls sent while the first was under way.", "guard")
        self.hedges_won = _counter("hedges_won", "Second calls that answered first.", "guard")
        self.rungs = _counter("rung", "Calls answered, by rung of the ladder.", "guard", "rung")
        self.crashes = _counter("crashes", "Things in the background that raised.", "guard")

    def all(self) -> list[Metric]:
        return [family for family in vars(self).values() if isinstance(family, Metric)]

    def add(self, view: GuardView) -> None:
        name = view.name
        self.retries.add_metric((name,), view.retries)
        self.hedges.add_metric((name,), view.hedges)
        self.hedges_won.add_metric((name,), view.hedges_won)
        self.crashes.add_metric((name,), view.crashes)
        for rung, count in view.rungs.items():
            self.rungs.add_metric((name, rung), count)
        for key in view.keys:
            self._add_key((name, key.key), key)

    def _add_key(self, labels: tuple[str, str], key: KeyView) -> None:
        for outcome in OUTCOMES:
            self.calls.add_metric((*labels, outcome), getattr(key, outcome))
        for why, count in key.refused.items():
            self.refusals.add_metric((*labels, why.name.lower()), count)
        for state in State:
            self.state.add_metric((*labels, state.value), float(key.state is state))
        self.in_flight.add_metric(labels, key.in_flight)
        self.waiting.add_metric(labels, key.waiting)
        if key.calls_max is not None:
            self.limit.add_metric(labels, key.calls_max)
        if isfinite(key.slow_s):
            self.slow.add_metric(labels, key.slow_s)
        if key.latency is not None:
            self.latency.add_metric(
                labels, _buckets(key.latency, self._bounds_s), key.latency.total / key.latency.units_per_s
            )


def _buckets(latency: HistogramSnapshot, bounds_s: tuple[float, ...]) -> list[tuple[str, float]]:
    """Cumulative counts as Prometheus wants them; the last one holds everything."""
    counts = [(str(bound), float(latency.count_at_most(round(bound * latency.units_per_s)))) for bound in bounds_s]
    return [*counts, ("+Inf", float(latency.count))]


def _counter(name: str, says: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"budao_guard_{name}", says, labels=labels)


def _gauge(name: str, says: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"budao_guard_{name}", says, labels=labels)
