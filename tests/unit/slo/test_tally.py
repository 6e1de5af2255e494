from __future__ import annotations

import pytest

from budao.model import Wall
from budao.slo import Counts, Tally


def test_events_are_counted_and_forgotten_after_the_window_and_at_most_one_slice() -> None:
    tally = Tally(60.0, 6)
    tally.add(3, 1, Wall(1000.0))
    assert tally.at(Wall(1000.0)) == Counts(3, 1)
    assert tally.at(Wall(1060.0)) == Counts(3, 1)
    assert tally.at(Wall(1070.0)) == Counts(0, 0)
    assert Counts(3, 1).total == 4


def test_looking_changes_nothing() -> None:
    tally = Tally(60.0, 6)
    tally.add(3, 1, Wall(1000.0))
    tally.at(Wall(9_999.0))
    assert tally.at(Wall(1000.0)) == Counts(3, 1)


def test_a_clock_that_jumps_ten_years_ahead_and_returns_forgets_nothing() -> None:
    tally = Tally(60.0, 6)
    for second in range(0, 60, 5):
        tally.add(1, 0, Wall(1000.0 + second))
    tally.add(1, 0, Wall(4e8))
    tally.add(1, 0, Wall(1060.0))
    assert tally.at(Wall(1060.0)) == Counts(13, 0)
    for second in range(0, 600, 10):
        tally.add(0, 1, Wall(1070.0 + second))
    assert tally.at(Wall(4e8)) == Counts(0, 0)


def test_it_holds_no_more_than_twice_its_slices() -> None:
    tally = Tally(60.0, 6)
    for second in range(0, 100_000, 7):
        tally.add(1, 1, Wall(float(second)))
        assert len(tally.kept()) <= 12


def test_what_is_kept_can_be_restored() -> None:
    tally, later = Tally(60.0, 6), Tally(60.0, 6)
    for second in range(0, 60, 5):
        tally.add(second, 1, Wall(1000.0 + second))
    later.add(100, 0, Wall(1062.0))
    later.restore(tally.kept())
    assert later.at(Wall(1062.0)) == Counts(tally.at(Wall(1062.0)).good + 100, 12)
    assert tally.kept() == tuple(sorted(tally.kept()))


def test_events_are_never_taken_back() -> None:
    with pytest.raises(AssertionError):
        Tally(60.0, 6).add(-1, 0, Wall(0.0))
