from __future__ import annotations

import sys

import pytest

from budao.measure import Samples
from budao.model import BadSettings


def test_without_values_there_is_no_quantile() -> None:
    samples = Samples()
    assert (len(samples), list(samples), samples.ordered(), samples.quantile(0.99)) == (0, [], (), None)
    assert samples.size == 300


def test_the_quantile_is_one_of_the_values() -> None:
    samples = Samples(10)
    samples.extend([0.5, 0.1, 0.4, 0.2, 0.3])
    assert [samples.quantile(share) for share in (0.0, 0.2, 0.21, 0.5, 1.0)] == [0.1, 0.1, 0.2, 0.3, 0.5]


def test_the_oldest_value_leaves_when_a_new_one_needs_its_room() -> None:
    samples = Samples(3)
    for value in range(1, 8):
        samples.add(value)
        assert list(samples) == [each for each in range(value - 2, value + 1) if each > 0]
    assert samples.ordered() == (5.0, 6.0, 7.0)


@pytest.mark.parametrize("held", range(9))
@pytest.mark.parametrize("more", range(9))
def test_many_at_once_leave_the_same_as_one_by_one(held: int, more: int) -> None:
    one_by_one, at_once = Samples(4), Samples(4)
    for value in range(held):
        one_by_one.add(value)
        at_once.add(value)
    for value in range(100, 100 + more):
        one_by_one.add(value)
    at_once.extend(iter(range(100, 100 + more)))
    assert list(at_once) == list(one_by_one)
    at_once.add(7.0)
    one_by_one.add(7.0)
    assert list(at_once) == list(one_by_one)


def test_extending_by_itself_keeps_the_order() -> None:
    samples = Samples(4)
    samples.extend([1.0, 2.0, 3.0])
    samples.extend(samples)
    assert list(samples) == [3.0, 1.0, 2.0, 3.0]


def test_a_value_that_is_no_number_changes_nothing() -> None:
    samples = Samples(4)
    samples.extend([1.0, 2.0])
    with pytest.raises(TypeError):
        samples.extend([3.0, "four"])  # type: ignore[list-item]
    assert list(samples) == [1.0, 2.0]


def test_an_ordered_snapshot_stays_as_it_is() -> None:
    samples = Samples(4)
    samples.extend([2.0, 1.0])
    ordered = samples.ordered()
    samples.add(0.0)
    assert ordered == (1.0, 2.0)


def test_idle_samples_hold_no_memory_and_clearing_gives_it_back() -> None:
    samples = Samples(300)
    assert samples._ring is None
    assert sys.getsizeof(samples) <= 56
    samples.extend(range(1000))
    assert len(samples) == 300
    assert sys.getsizeof(samples._ring) <= 300 * 8 * 1.2 + 100
    samples.clear()
    assert samples._ring is None
    samples.extend([])
    assert samples._ring is None
    samples.extend([1.0])
    assert list(samples) == [1.0]


@pytest.mark.parametrize("size", [0, -1, 1_000_001, 1.5])
def test_an_impossible_size_is_refused_by_name(size: int) -> None:
    with pytest.raises(BadSettings, match=r"samples\.size"):
        Samples(size)
