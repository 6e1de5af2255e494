"""Tests of `budao.guard.latencies`."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from budao.guard.latencies import RECENT_SIZE, Latencies
from budao.measure import Histogram

ADDS = st.lists(st.tuples(st.lists(st.floats(0.0, 100.0), max_size=200), st.integers(1, 3), st.booleans()), max_size=12)


def test_nothing_is_known_of_no_calls() -> None:
    latencies = Latencies()
    latencies.add(())
    latencies.rest()
    assert latencies.snapshot() is None
    assert latencies.recent.quantile(0.5) is None


@given(adds=ADDS)
def test_the_histogram_counts_every_call_whatever_was_packed_away_in_between(
    adds: list[tuple[list[float], int, bool]],
) -> None:
    latencies, twin = Latencies(), Histogram()
    for durations, weight, rests in adds:
        latencies.add(durations, weight)
        if durations:
            twin.record_many([int(each * 1e9) for each in durations], weight)
        if rests:
            latencies.rest()
    snapshot = latencies.snapshot()
    assert (snapshot.count if snapshot else 0) == twin.count
    if snapshot is not None:
        assert snapshot.buckets() == twin.snapshot().buckets()
        assert snapshot.total == twin.total


def test_recent_durations_are_forgotten_at_rest_and_counted_ones_are_not() -> None:
    latencies = Latencies()
    latencies.add([0.1] * 10)
    latencies.rest()
    assert latencies.recent.quantile(0.5) is None
    snapshot = latencies.snapshot()
    assert snapshot is not None
    assert snapshot.count == 10
    latencies.add([0.2])
    snapshot = latencies.snapshot()
    assert snapshot is not None
    assert snapshot.count == 11


def test_a_resource_at_rest_takes_little_memory() -> None:
    made = [Latencies() for _ in range(100)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for latencies in made:
        latencies.add([0.001 * each for each in range(2 * RECENT_SIZE)])
        latencies.rest()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    buckets = latencies.snapshot()
    assert buckets is not None
    assert (after - before) / len(made) < 512 + 16 * len(buckets.occupied)
