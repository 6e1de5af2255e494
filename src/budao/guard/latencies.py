"""How long the calls of one resource took: the last few exactly, and all of them in buckets."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from budao.measure import Histogram, HistogramSnapshot, Samples

RECENT_SIZE = 300
"""Durations kept exactly, for quantiles of what is happening now."""

NS_PER_S = 1_000_000_000


class Latencies:
    """Recent quantiles, and a histogram of every call since the beginning.

    A guard may have a thousand keys, of which few are busy. So there is no histogram while the recent durations are all
    there are, and `rest` packs it away once a resource has been idle for long.

    Units: seconds.
    Cost:  0.1 KiB when new, 8 bytes for each of the first `RECENT_SIZE` calls, then 3 to 6 KiB while in use; 16 bytes
           for each bucket that is not empty while at rest.
    """

    __slots__ = ("_all", "_packed", "_total", "recent")

    def __init__(self) -> None:
        self.recent = Samples(RECENT_SIZE)
        self._all: Histogram | None = None
        self._packed: array[int] | None = None
        self._total = 0

    def add(self, durations: Sequence[float], weight: int = 1) -> None:
        """Counts durations, each of them for `weight` calls."""
        if not durations:
            return
        if self._all is None and (
            weight > 1 or self._packed is not None or len(self.recent) + len(durations) > RECENT_SIZE
        ):
            self._all = self._unpacked()
        if self._all is not None:
            self._all.record_many(_in_ns(durations), weight)
        self.recent.extend(durations)

    def snapshot(self) -> HistogramSnapshot | None:
        """Every call so far, or None if there was none."""
        if self._all is not None:
            return self._all.snapshot()
        return self._unpacked().snapshot() if len(self.recent) or self._packed is not None else None

    def rest(self) -> None:
        """Gives back what an idle resource does not need: recent durations are no longer recent."""
        snapshot = self.snapshot()
        if snapshot is None or not len(self.recent):
            return
        self._packed = array("Q", (number for bucket in snapshot.occupied for number in bucket))
        self._total = snapshot.total
        self._all = None
        self.recent.clear()

    def _unpacked(self) -> Histogram:
        histogram = Histogram()
        if self._packed is None:
            histogram.record_many(_in_ns(self.recent))
        else:
            pairs = iter(self._packed)
            histogram.merge(HistogramSnapshot(total=self._total, occupied=tuple(zip(pairs, pairs, strict=True))))
        return histogram


def _in_ns(durations: Iterable[float]) -> list[int]:
    return [int(each * NS_PER_S) for each in durations]
