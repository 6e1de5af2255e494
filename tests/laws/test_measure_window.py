"""A window counts what was added in its last whole buckets, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from budao.measure import Window
from budao.model import Mono

COLUMNS = ("ok", "failed", "slow")
SHAPES = st.tuples(st.sampled_from([1.0, 0.1, 0.7, 1 / 3, 2.42]), st.integers(1, 12))
# Near each other, on the edges of buckets, and far apart; forwards and backwards.
INSTANTS = st.one_of(st.floats(-30.0, 30.0), st.integers(-40, 40).map(lambda n: n * 0.1), st.floats(-1e9, 1e9))
ADDITIONS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1000), INSTANTS), max_size=40)


class Twin:
    """Keeps the bucket number of every addition, and counts when asked."""

    def __init__(self, bucket_s: float, buckets: int) -> None:
        self.bucket_s, self.buckets = bucket_s, buckets
        self.added: list[tuple[int, int, int]] = []

    def number(self, now: float) -> int:
        number = int(now / self.bucket_s) - 2
        while (number + 1) * self.bucket_s <= now:
            number += 1
        return max([number, *(each for each, _, _ in self.added)])

    def add(self, column: int, amount: int, now: float) -> None:
        self.added.append((self.number(now), column, amount))

    def totals(self, now: float) -> tuple[int, ...]:
        first = self.number(now) - self.buckets + 1
        return tuple(
            sum(amount for number, of, amount in self.added if of == column and number >= first)
            for column in range(len(COLUMNS))
        )


def both(shape: tuple[float, int], additions: list[tuple[int, int, float]]) -> tuple[Window, Twin]:
    bucket_s, buckets = shape
    window = Window(COLUMNS, window_s=bucket_s * buckets, buckets=buckets)
    twin = Twin(window.window_s / buckets, buckets)
    twin.bucket_s = window._bucket_s
    for column, amount, now in additions:
        window.add(column, amount, Mono(now))
        twin.add(column, amount, now)
    return window, twin


@given(SHAPES, ADDITIONS, st.lists(INSTANTS, max_size=10))
def test_a_window_counts_its_last_whole_buckets_whatever_the_clock_does(
    shape: tuple[float, int], additions: list[tuple[int, int, float]], looks: list[float]
) -> None:
    window, twin = both(shape, [])
    for column, amount, now in additions:
        for look in looks:
            assert window.totals(Mono(look)) == twin.totals(look)
        window.add(column, amount, Mono(now))
        twin.add(column, amount, now)
        assert window.totals(Mono(now)) == twin.totals(now)


@given(SHAPES, ADDITIONS, ADDITIONS, st.lists(INSTANTS, max_size=10))
def test_windows_merge_in_any_order_into_the_window_of_both_histories(
    shape: tuple[float, int],
    here: list[tuple[int, int, float]],
    there: list[tuple[int, int, float]],
    looks: list[float],
) -> None:
    one, twin = both(shape, here)
    other, twin_other = both(shape, there)
    swapped, _ = both(shape, there)
    swapped.merge(one)
    one.merge(other)
    twin.added += twin_other.added
    for look in looks:
        assert one.totals(Mono(look)) == swapped.totals(Mono(look)) == twin.totals(look)


@given(SHAPES, ADDITIONS, INSTANTS, ADDITIONS, st.lists(INSTANTS, max_size=10))
def test_a_cleared_window_counts_only_what_came_after(
    shape: tuple[float, int],
    before: list[tuple[int, int, float]],
    cleared: float,
    after: list[tuple[int, int, float]],
    looks: list[float],
) -> None:
    window, twin = both(shape, before)
    window.clear(Mono(cleared))
    twin.added = [(twin.number(cleared), 0, 0)]
    for column, amount, now in after:
        window.add(column, amount, Mono(now))
        twin.add(column, amount, now)
    for look in looks:
        assert window.totals(Mono(look)) == twin.totals(look)
