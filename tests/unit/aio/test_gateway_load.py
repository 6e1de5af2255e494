"""How busy a gateway is, told with numbers."""

from __future__ import annotations

import pytest

from budao.aio.gateway.load import Load


def test_a_core_that_is_busy_all_the_time_is_at_one_within_seconds() -> None:
    load = Load(10.0, 100.0)
    assert load.share == 0.0
    for tick in range(1, 21):
        load.look(10.0 + tick * 0.25, 100.0 + tick * 0.25)
    assert load.share == pytest.approx(1.0 - 2.0**-5)


def test_a_burst_of_a_moment_is_no_load_and_fades() -> None:
    load = Load(0.0, 0.0)
    load.look(0.25, 0.25)
    assert load.share == pytest.approx(0.159, abs=0.001)
    load.look(0.25, 5.25)
    assert load.share < 0.01


def test_a_steady_share_is_what_is_told_however_often_it_is_looked_at() -> None:
    often, seldom = Load(0.0, 0.0), Load(0.0, 0.0)
    for tick in range(1, 401):
        often.look(tick * 0.05 * 0.4, tick * 0.05)
    for tick in range(1, 21):
        seldom.look(tick * 0.4, float(tick))
    assert often.share == pytest.approx(0.4, abs=0.001)
    assert seldom.share == pytest.approx(0.4, abs=0.001)


def test_it_is_a_share_whatever_the_clocks_say() -> None:
    load = Load(5.0, 5.0)
    load.look(9.0, 5.0)  # no time has passed
    assert load.share == 0.0
    load.look(99.0, 6.0)  # more CPU than time: a clock that was set
    assert load.share == 0.5
    load.look(0.0, 7.0)
    assert load.share == 0.25
