"""The script of the demo: five phases, end to end, for any length."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from budao.apps.script import SECONDS_MAX, SECONDS_MIN, Manner, phase_at, phases


@given(seconds=st.integers(SECONDS_MIN, SECONDS_MAX))
def test_phases_lie_end_to_end_and_none_is_empty(seconds: int) -> None:
    script = phases(seconds)
    assert [phase.start_s for phase in script] == [0, *(phase.end_s for phase in script[:-1])]
    assert script[-1].end_s == seconds
    assert all(phase.end_s > phase.start_s for phase in script)


def test_inventory_is_well_at_both_ends_and_ill_in_each_way_between() -> None:
    manners = [phase.manner for phase in phases(60)]
    assert manners == [Manner.WELL, Manner.SLOW, Manner.HANGING, Manner.FAILING, Manner.WELL]
    assert [phase.is_ill for phase in phases(60)] == [False, True, True, True, False]


def test_the_shortest_demo_gives_each_phase_a_second() -> None:
    assert [phase.end_s for phase in phases(5)] == [1, 2, 3, 4, 5]


def test_an_instant_belongs_to_the_phase_that_starts_at_it() -> None:
    script = phases(5)
    assert [phase_at(script, at_s).name for at_s in (-1.0, 0.0, 0.99, 1.0, 4.5, 99.0)] == [
        "healthy", "healthy", "healthy", "slow", "recovered", "recovered",
    ]  # fmt: skip
