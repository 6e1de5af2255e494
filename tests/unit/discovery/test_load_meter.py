from __future__ import annotations

import pytest

from budao.discovery import LoadMeter
from budao.model import Load


def test_a_server_tells_the_calls_it_has_beside_the_one_it_answers() -> None:
    meter = LoadMeter()
    first, second = meter.begin(0.0), meter.begin(0.0)
    meter.learn(first, 0.02)
    assert meter.load() == Load(1, 0.02)
    meter.end(first)
    meter.learn(second, 0.04)
    load = meter.load()
    assert load is not None
    assert load.in_flight == 0
    assert load.service_s == pytest.approx(0.022)


def test_a_server_that_answered_nothing_well_tells_nothing() -> None:
    meter = LoadMeter()
    work = meter.begin(0.0)
    assert meter.load() is None
    meter.end(work)
    assert meter.in_flight == 0


def test_waiting_for_a_place_is_no_work() -> None:
    meter = LoadMeter()
    work = meter.begin(1.0)
    work.wait(1.0)
    assert work.worked_s(2.0) == 0.0
    work.go_on(4.0)
    work.wait(5.0)
    work.go_on(5.5)
    work.go_on(9.0)
    assert work.worked_s(6.0) == pytest.approx(1.5)


def test_a_call_ends_once() -> None:
    meter = LoadMeter()
    work = meter.begin(0.0)
    meter.end(work)
    with pytest.raises(AssertionError):
        meter.end(work)
    assert meter.in_flight == 0
