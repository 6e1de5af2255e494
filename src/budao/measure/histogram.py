"""How large, how often: a histogram of whole numbers whose answers are within one percent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from budao.measure.rank import nearest_rank
from budao.model import Checks

# Each power of two is cut into 64 equal buckets, so a bucket is at most 1/64 of its values wide and its middle at most
# 1/128 from any of them. Values below 128 have a bucket each. A value of `bits` bits, shifted right by `bits - 7`,
# gives a number from 64 to 127: its place in the row of that length. All lengths up to 7 share one row.
_PLACES = 128
_SHIFTS = tuple(max(0, bits - 7) for bits in range(64))
_UNOPENED: list[int] = []

VALUE_MAX = 2**63 - 1
"""Larger values are recorded as this one: 292 years in nanoseconds."""

BUCKETS_MAX = 128 + 56 * 64
"""How many buckets there can be, whatever is recorded: 3712."""


class Histogram:
    """Counts of whole numbers in buckets that grow with the numbers, so that each answer is within 1/128 of the truth.

    `record(value)` counts one value; a negative one, which a clock that went back may cause, counts as 0. It is a
    closure rather than a method, which is a little faster, and it is not locked: exact counts
    under several threads are the caller's business.

    Units:  values are whole numbers of a unit, `units_per_s` of them in a second: by default nanoseconds.
    Raises: BadSettings if `units_per_s` is not a whole number above 0; AttributeError for a value that is no `int`.
    Cost:   recording is two look-ups, a shift, and the exact total. Memory: 0.6 KiB when empty, and 1 KiB for each
            power of two met, so 3 to 6 KiB for usual latencies and at most 58 lists whatever is recorded. Every
            reading takes a snapshot first and costs a pass over the opened buckets.
    """

    __slots__ = ("_read_total", "_rows", "_weigh", "record", "units_per_s")

    record: Callable[[int], None]
    """Count one value."""

    def __init__(self, *, units_per_s: int = 1_000_000_000) -> None:
        check = Checks("histogram")
        check.count("units_per_s", units_per_s, 1, 10**12)
        check.done()
        self.units_per_s = units_per_s
        self._rows = [_UNOPENED] * 64
        self.record, self._weigh, self._read_total = _compile(self._rows)

    def record_s(self, seconds: float) -> None:
        """Count one span given in seconds; what is less than one unit of it is dropped.

        Raises: ValueError for a span that is not a number.
        """
        units = seconds * self.units_per_s
        try:
            self.record(int(units))
        except OverflowError:  # infinite, and the sign says which way
            self.record(VALUE_MAX if units > 0.0 else 0)

    def record_many(self, values: Iterable[int], weight: int = 1) -> None:
        """Count each of the values, in any order, `weight` times: cheaper than one by one."""
        assert weight > 0, "a value is counted at least once"
        rows, shifts = self._rows, _SHIFTS
        total = 0
        try:
            for each in values:
                value = each if each > 0 else 0  # noqa: FURB136 - calling `max` costs several times this
                bits = value.bit_length()
                try:
                    rows[bits][value >> shifts[bits]] += weight
                except IndexError:
                    value = _count_in_new_row(rows, value, weight)
                total += value
        finally:  # a value that is no number leaves counts and total agreeing on those before it
            self._weigh(total * weight)

    def merge(self, other: Histogram | HistogramSnapshot) -> None:
        """Become the histogram that would stand here had everything `other` recorded been recorded here too."""
        snapshot = other.snapshot() if isinstance(other, Histogram) else other
        assert snapshot.units_per_s == self.units_per_s, "histograms of different units cannot be added"
        for index, count in snapshot.occupied:
            _count_in_new_row(self._rows, _edges(index)[0], count)
        self._weigh(snapshot.total)

    def snapshot(self) -> HistogramSnapshot:
        """Everything recorded so far, as a value that stays as it is.

        It stands for itself: nothing needs to be subtracted from it. For "the last five minutes", merge those minutes.
        """
        found: list[tuple[int, int]] = []
        for bits in range(7, 64):
            base = _SHIFTS[bits] << 6
            found += [(base + place, count) for place, count in enumerate(self._rows[bits]) if count]
        return HistogramSnapshot(units_per_s=self.units_per_s, total=self._read_total(), occupied=tuple(found))

    @property
    def count(self) -> int:
        """How many values were recorded."""
        return self.snapshot().count

    @property
    def total(self) -> int:
        """The exact sum of the recorded values."""
        return self._read_total()

    @property
    def least(self) -> int | None:
        """No recorded value is smaller; see `HistogramSnapshot.least`."""
        return self.snapshot().least

    @property
    def greatest(self) -> int | None:
        """No recorded value is larger; see `HistogramSnapshot.greatest`."""
        return self.snapshot().greatest

    def quantile(self, share: float) -> int | None:
        """See `HistogramSnapshot.quantile`."""
        return self.snapshot().quantile(share)

    def quantile_s(self, share: float) -> float | None:
        """See `HistogramSnapshot.quantile_s`."""
        return self.snapshot().quantile_s(share)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramSnapshot:
    """What a histogram held at one moment. Snapshots of one unit merge in any order and any grouping.

    Shapes: `occupied` has an `(index, count)` for each bucket that is not empty, in ascending order of index.
    """

    units_per_s: int = 1_000_000_000
    total: int = 0
    """The exact sum of the values."""
    occupied: tuple[tuple[int, int], ...] = ()

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(count for _, count in self.occupied)

    @property
    def least(self) -> int | None:
        """Where the lowest occupied bucket starts, or None without values: exact up to 127, else at most 1/64 low."""
        return _edges(self.occupied[0][0])[0] if self.occupied else None

    @property
    def greatest(self) -> int | None:
        """Where the highest occupied bucket ends, or None without values: exact up to 127, else at most 1/64 high."""
        return _edges(self.occupied[-1][0])[1] if self.occupied else None

    def quantile(self, share: float) -> int | None:
        """The value at the nearest rank, within 1/128 of it and exact up to 127; None without values.

        Units: `share` from 0 to 1; see `nearest_rank`.
        """
        if not self.occupied:
            return None
        left = nearest_rank(share, self.count)
        indexes = iter(self.occupied)
        index, count = next(indexes)
        while count < left:  # ranks end at the count, so the buckets cannot run out first
            left -= count
            index, count = next(indexes)
        low, high = _edges(index)
        return (low + high) // 2

    def quantile_s(self, share: float) -> float | None:
        """The same in seconds."""
        value = self.quantile(share)
        return None if value is None else value / self.units_per_s

    def count_at_most(self, value: int) -> int:
        """How many values are no larger than `value`, with `value` taken to the end of its bucket: at most 1/64 more."""
        bits = min(max(value, 0), VALUE_MAX).bit_length()
        last = (_SHIFTS[bits] << 6) + (min(value, VALUE_MAX) >> _SHIFTS[bits])
        return sum(count for index, count in self.occupied if index <= last)

    def buckets(self) -> tuple[tuple[int, int], ...]:
        """The occupied buckets, ascending: the largest value each can hold, and its count."""
        return tuple((_edges(index)[1], count) for index, count in self.occupied)

    def merged(self, other: HistogramSnapshot) -> HistogramSnapshot:
        """Both together. An empty snapshot changes nothing."""
        assert other.units_per_s == self.units_per_s, "histograms of different units cannot be added"
        counts = dict(self.occupied)
        for index, count in other.occupied:
            counts[index] = counts.get(index, 0) + count
        return HistogramSnapshot(
            units_per_s=self.units_per_s, total=self.total + other.total, occupied=tuple(sorted(counts.items()))
        )


def _compile(
    rows: list[list[int]],
) -> tuple[Callable[[int], None], Callable[[int], None], Callable[[], int]]:
    """Three closures over the rows and one total: record a value, add to the total, read the total.

    Names in cells cost a little less than attributes: about 6 % of a record. See bench/sketches.py.
    """
    shifts = _SHIFTS
    total = 0

    def record(value: int) -> None:
        nonlocal total
        # A negative index would silently count from the end of a row.
        if value < 0:  # noqa: PLR1730 - calling `max` costs several times this
            value = 0
        bits = value.bit_length()
        try:
            rows[bits][value >> shifts[bits]] += 1
        except IndexError:
            value = _count_in_new_row(rows, value, 1)
        total += value

    def weigh(amount: int) -> None:
        nonlocal total
        total += amount

    def read_total() -> int:
        return total

    return record, weigh, read_total


def _count_in_new_row(rows: list[list[int]], value: int, weight: int) -> int:
    """Count a value whose row may not exist yet; the answer is the value as counted, which has a bound."""
    value = min(value, VALUE_MAX)
    bits = value.bit_length()
    if not rows[bits]:
        if bits > 7:
            rows[bits] = [0] * _PLACES  # half of it stays unused, which is cheaper than one more operation per record
        else:
            rows[:8] = [[0] * _PLACES] * 8
    rows[bits][value >> _SHIFTS[bits]] += weight
    return value


def _edges(index: int) -> tuple[int, int]:
    """The smallest and the largest value of a bucket."""
    shift = max(0, (index >> 6) - 1)
    low = (index - (shift << 6)) << shift
    return low, low + (1 << shift) - 1
