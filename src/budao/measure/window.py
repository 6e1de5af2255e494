"""Counts over the last while."""

from __future__ import annotations

from array import array
from math import floor, inf

from budao.measure.instant import Instant
from budao.model import Checks


class Window:
    """Counts in named columns over the last `window_s`, forgotten one whole bucket at a time.

    Bucket `n` holds `[n * bucket_s, (n + 1) * bucket_s)`. The window is the bucket that `now` falls in and the
    `buckets - 1` before it, so it reaches back between `window_s - bucket_s` and `window_s`.

    Shapes: `totals` has one count for each column, in the order of `columns`; a column is given by its index.
    Units:  spans in seconds; counts are whole and not negative.
    Raises: BadSettings if the window is smaller than its buckets could be, or a column has no name of its own;
            OverflowError, with nothing counted, once a total passes 2**63 - 1.
    Cost:   8 bytes for each bucket and column, about 450 in all for 10 buckets of 3, however busy. Adding touches two
            cells; a bucket's end costs one pass over the columns; any longer silence costs no more than one window.
    """

    __slots__ = ("_bucket_s", "_counts", "_offset", "_until", "columns")

    def __init__(self, columns: tuple[str, ...], *, window_s: float = 10.0, buckets: int = 10) -> None:
        check = Checks("window")
        check.number("window_s", window_s, 0.0, 1e9, open_low=True)
        check.count("buckets", buckets, 1, 100_000)
        check.need(0 < len(columns) == len(set(columns)), "columns", f"{columns!r} needs names, each of them once")
        if not check.problems:
            shortest_s = 1e-6
            problem = f"{window_s:g} s is smaller than {buckets} buckets of at least {shortest_s:g} s"
            check.need(window_s / buckets >= shortest_s, "window_s", problem)
        check.done()
        self.columns = columns
        self._bucket_s = window_s / buckets
        # First the totals, one for each column, then the buckets as a ring, each with one count for each column.
        # An array costs a little more time than a list and stays small when the counts grow.
        self._counts = array("q", (0,)) * (len(columns) * (buckets + 1))
        self._offset = len(columns)  # where the newest bucket starts
        self._until = -inf  # when the newest bucket ends; before anything is told, long ago

    @property
    def buckets(self) -> int:
        """How many buckets the window has."""
        return len(self._counts) // len(self.columns) - 1

    @property
    def window_s(self) -> float:
        """How far back the window reaches at most, in seconds."""
        return self._bucket_s * self.buckets

    def add(self, column: int, amount: int, now: Instant) -> None:
        """Count `amount` in the column with that index, in the bucket of `now`."""
        assert amount >= 0 <= column < len(self.columns), "a count is not negative, and in one of the columns"
        if now >= self._until:
            self._turn(self._ends_at(now))
        counts = self._counts
        counts[column] += amount
        counts[self._offset + column] += amount

    def totals(self, now: Instant) -> tuple[int, ...]:
        """What each column counts in the window that ends at `now`."""
        width = len(self.columns)
        counts = self._counts
        if now < self._until:
            return tuple(counts[:width])
        gone = self._buckets_to(self._ends_at(now))
        if gone == self.buckets:
            return (0,) * width
        # The bucket after the newest is the oldest. What is past the end of the ring starts again behind the totals.
        start = self._offset + width
        stop = start + gone * width
        old = counts[start:stop] + counts[width : max(width, stop - len(counts) + width)]
        return tuple(counts[column] - sum(old[column::width]) for column in range(width))

    def clear(self, now: Instant) -> None:
        """Forget every count; `now` is the earliest instant the window still takes."""
        self._counts = array("q", (0,)) * len(self._counts)
        self._until = max(self._until, self._ends_at(now))

    def merge(self, other: Window) -> None:
        """Become the window that would stand here had everything `other` counted been counted here too.

        Both are told the same clock. Buckets that the later of the two has already forgotten stay forgotten.
        """
        assert other.columns == self.columns, "windows of different columns cannot be added"
        assert (other._bucket_s, other.buckets) == (self._bucket_s, self.buckets), "nor those of different buckets"
        if other._until > self._until:
            self._turn(other._until)
        width = len(self.columns)
        apart = other._buckets_to(self._until)
        ours, theirs = self._counts, other._counts[:]  # a copy, since other may be self
        for back in range(self.buckets - apart):
            here, there = self._start(back + apart), other._start(back)
            for column in range(width):
                ours[column] += theirs[there + column]
                ours[here + column] += theirs[there + column]

    def _start(self, back: int) -> int:
        """Where the bucket that is `back` before the newest starts."""
        width = len(self.columns)
        return (self._offset // width - 1 - back) % self.buckets * width + width

    def _ends_at(self, now: float) -> float:
        """When the bucket of `now` ends."""
        bucket_s = self._bucket_s
        number = floor(now / bucket_s)
        # Division rounds. What counts is on which side of a multiple `now` stands, so that all paths agree.
        if (number + 1) * bucket_s <= now:
            number += 1
        elif number * bucket_s > now:
            number -= 1
        return (number + 1) * bucket_s

    def _buckets_to(self, end: float) -> int:
        """How many buckets further a bucket that ends at `end` is than the newest; all of them if it is out of sight."""
        return round(min(self.buckets, (end - self._until) / self._bucket_s)) if end > self._until else 0

    def _turn(self, end: float) -> None:
        """Make the bucket that ends at `end` the newest."""
        gone = self._buckets_to(end)
        counts = self._counts
        if gone == self.buckets:
            self._counts = array("q", (0,)) * len(counts)
        else:
            width = len(self.columns)
            for _ in range(gone):
                self._offset += width
                if self._offset == len(counts):
                    self._offset = width
                for column in range(width):
                    counts[column] -= counts[self._offset + column]
                    counts[self._offset + column] = 0
        self._until = max(self._until, end)
