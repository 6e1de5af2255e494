from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import BadSettings, Mono
from budao.push import PoolSize, PoolSizePolicy


def pool(connections_max: int = 4) -> PoolSize:
    return PoolSize(PoolSizePolicy(connections_max=connections_max))


def look(size: PoolSize, cpu: float, use: float, now: float) -> int:
    return size.look(cpu, use, Mono(now))


@pytest.mark.parametrize(("cpu", "use", "wanted"), [(0.8, 0.0, 2), (0.79, 0.89, 1), (0.0, 0.9, 2), (1.0, 1.0, 2)])
def test_it_grows_at_80_percent_cpu_or_90_percent_use(cpu: float, use: float, wanted: int) -> None:
    assert look(pool(), cpu, use, 10.0) == wanted


def test_it_grows_one_by_one_and_lets_each_show_whether_it_was_enough() -> None:
    size = pool()
    assert [look(size, 0.0, 1.0, at) for at in (0.0, 0.5, 0.9, 1.0, 1.5, 2.0, 3.0, 60.0)] == [2, 2, 2, 3, 3, 4, 4, 4]


def test_it_shrinks_after_five_quiet_minutes_and_then_one_every_half_minute() -> None:
    size = pool()
    for at in (0.0, 1.0, 2.0):
        look(size, 0.0, 1.0, at)
    assert look(size, 0.0, 0.0, 3.0) == 4
    assert look(size, 0.0, 0.0, 302.9) == 4
    assert [look(size, 0.0, 0.0, at) for at in (303.0, 320.0, 333.0, 363.0, 393.0)] == [3, 3, 2, 1, 1]


def test_a_moment_of_use_begins_the_quiet_anew() -> None:
    size = pool()
    look(size, 0.0, 1.0, 0.0)
    look(size, 0.0, 0.1, 1.0)
    look(size, 0.0, 0.3, 200.0)  # over one connection that would be 0.6
    assert look(size, 0.0, 0.1, 302.0) == 2
    assert look(size, 0.0, 0.1, 601.0) == 2
    assert look(size, 0.0, 0.1, 602.0) == 1


def test_it_does_not_grow_within_half_a_minute_of_shrinking() -> None:
    size = pool()
    look(size, 0.0, 1.0, 0.0)
    look(size, 0.0, 0.0, 1.0)
    assert look(size, 0.0, 0.0, 301.0) == 1
    assert look(size, 1.0, 1.0, 330.9) == 1
    assert look(size, 1.0, 1.0, 331.0) == 2


@given(st.lists(st.tuples(st.floats(0, 200), st.floats(0, 1), st.floats(0, 1)), max_size=80))
def test_it_never_turns_around_within_half_a_minute(looks: list[tuple[float, float, float]]) -> None:
    size, now, before, changes = pool(), 0.0, 1, list[tuple[float, int]]()
    for after, cpu, use in looks:
        now += after
        wanted = look(size, cpu, use, now)
        assert 1 <= wanted <= 4
        assert abs(wanted - before) <= 1
        if wanted != before:
            changes.append((now, wanted - before))
        before = wanted
    for (one, way), (other, back) in pairwise(changes):
        assert way == back or other - one >= 30.0


def test_settings_that_make_no_sense_are_named() -> None:
    with pytest.raises(BadSettings, match=r"(?s)pool\.connections_max.*pool\.use_grow_share"):
        PoolSizePolicy(connections_max=0, use_grow_share=2.0)
