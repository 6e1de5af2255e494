"""What one record costs in ours and other latency histograms, side by side in one run.

    python -m bench.sketches [--turns N] [--seed N]

Peers that are not installed (ddsketch, prometheus_client, opentelemetry-sdk) are named and left out. Every row is fed
the same thousand lognormal latencies around 10 ms, in its own unit. The rows take turns, so that a busy moment of the
machine strikes all of them, and each keeps its best turn. The loop around them is measured as a row of its own and
taken off.

The reference is the least Python that counts into integer log-linear buckets: a list, one look-up, no total, no bound,
no care for values below zero.
"""

from __future__ import annotations

import argparse
import platform
import random
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from time import perf_counter_ns
from typing import Any

from budao.measure import Histogram, Samples

Row = tuple[str, str, Callable[[Any], object], list[Any]]
"""A name, what it keeps, what takes one value, and the values."""


def reference() -> Callable[[int], None]:
    counts = [0] * 4096

    def record(value: int) -> None:
        if value < 128:
            counts[value] += 1
        else:
            shift = value.bit_length() - 7
            counts[(shift << 6) + (value >> shift)] += 1

    return record


def rows(nanoseconds: list[int]) -> Iterable[Row]:
    seconds = [each / 1e9 for each in nanoseconds]
    yield "loop over a function that does nothing", "nothing", lambda value: None, nanoseconds  # noqa: ARG005
    yield "reference: integer log-linear, list", "counts", reference(), nanoseconds
    yield "budao Histogram.record", "counts, exact total, bound", Histogram().record, nanoseconds
    yield "budao Histogram.record_s", "the same, from seconds", Histogram().record_s, seconds
    yield "budao Samples.add", "the last 300", Samples().add, seconds
    try:
        from ddsketch import DDSketch

        yield f"ddsketch {version('ddsketch')}", "counts, total, ends", DDSketch(0.01).add, seconds
    except ImportError:
        print("ddsketch is not installed", file=sys.stderr)
    try:
        from prometheus_client import CollectorRegistry
        from prometheus_client import Histogram as Prometheus

        observe = Prometheus("latency", "Seconds.", registry=CollectorRegistry()).observe
        yield f"prometheus_client {version('prometheus_client')}", "15 counts, total; locked", observe, seconds
    except ImportError:
        print("prometheus_client is not installed", file=sys.stderr)
    try:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader

        meter = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False).get_meter("bench")
        named = f"opentelemetry-sdk {version('opentelemetry-sdk')}"
        yield named, "15 counts, total, ends; locked", meter.create_histogram("latency").record, seconds
    except ImportError:
        print("opentelemetry-sdk is not installed", file=sys.stderr)


def turn_ns(record: Callable[[Any], object], values: list[Any], loops: int) -> float:
    """One turn of one row: nanoseconds per value, the loop included."""
    began = perf_counter_ns()
    for _ in range(loops):
        for value in values:
            record(value)
    return (perf_counter_ns() - began) / loops / len(values)


def turn_many_ns(values: list[int], loops: int) -> float:
    record_many = Histogram().record_many
    began = perf_counter_ns()
    for _ in range(loops):
        record_many(values)
    return (perf_counter_ns() - began) / loops / len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--turns", type=int, default=60, help="turns of each row; the best one counts")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    nanoseconds = [int(rng.lognormvariate(16.1, 0.5)) for _ in range(1000)]

    table = list(rows(nanoseconds))
    best = [float("inf")] * len(table)
    best_many = float("inf")
    for _ in range(given.turns):
        for index, (_, _, record, values) in enumerate(table):
            best[index] = min(best[index], turn_ns(record, values, 3))
        best_many = min(best_many, turn_many_ns(nanoseconds, 3))

    loop, against = best[0], best[1] - best[0]
    print(f"CPython {platform.python_version()}, {platform.machine()}; seed {given.seed}; best of {given.turns} turns")
    print(f"{'one record':42}{'keeps':34}{'ns':>8}{'x reference':>13}")
    for (name, keeps, _, _), took in zip(table[1:], best[1:], strict=True):
        print(f"{name:42}{keeps:34}{took - loop:8.1f}{(took - loop) / against:13.2f}")
    print(f"{'budao Histogram.record_many, per value':42}{'counts, exact total, bound':34}", end="")
    print(f"{best_many:8.1f}{best_many / against:13.2f}")


if __name__ == "__main__":
    main()
