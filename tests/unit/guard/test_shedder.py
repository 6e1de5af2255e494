from __future__ import annotations

from math import inf, nan
from random import Random

import pytest

from budao.guard.shedder import CRITICAL_KEPT_SHARE, LEVEL_MAX, PATIENCE_S, RETRY_AFTER_MAX_S, RISE_AT_ONCE_S, Shedder
from budao.model import Mono, Priority, Refusal, ShedPolicy, Why

POLICY = ShedPolicy(lag_target_s=0.05, rise_per_s=2.0, fall_per_s=0.5)
LEAST_FIRST = (Priority.SHEDDABLE, Priority.LOW, Priority.HIGH, Priority.CRITICAL)


class NoDice(Random):
    def random(self) -> float:
        raise AssertionError("nothing to decide, and yet a die was rolled")


def overloaded(until_s: float, policy: ShedPolicy = POLICY, step_s: float = 0.125) -> Shedder:
    """Observed since 0.0 with too much lag all the time."""
    shedder = Shedder(policy)
    for step in range(int(until_s / step_s) + 1):
        shedder.observe(1.0, standing_queue=False, now=Mono(step * step_s))
    return shedder


def test_a_process_that_is_well_sheds_nothing_and_rolls_no_die() -> None:
    shedder = Shedder(POLICY)
    for now in range(100):
        shedder.observe(0.05, standing_queue=False, now=Mono(now))
        assert all(shedder.refuses(each, Mono(now), NoDice()) is None for each in Priority)
    assert shedder.level_at(Mono(100.0)) == 0.0


def test_the_level_rises_while_overloaded_up_to_its_maximum() -> None:
    assert [overloaded(until).level_at(Mono(until)) for until in (0.0, 0.5, 1.0, 1.5, 2.0, 9.0)] == [
        0.0, 1.0, 2.0, 3.0, 4.0, LEVEL_MAX,
    ]  # fmt: skip


def test_a_standing_queue_is_overload_without_any_lag() -> None:
    shedder = Shedder(POLICY)
    shedder.observe(0.0, standing_queue=True, now=Mono(0.0))
    shedder.observe(0.0, standing_queue=True, now=Mono(0.25))
    assert shedder.level_at(Mono(0.25)) == 0.5


def test_the_level_falls_afterwards_and_slower() -> None:
    shedder = overloaded(1.0)
    shedder.observe(0.0, standing_queue=False, now=Mono(1.0))
    assert [shedder.level_at(Mono(now)) for now in (1.0, 2.0, 3.0, 5.0, 99.0)] == [2.0, 1.5, 1.0, 0.0, 0.0]
    shedder.observe(0.0, standing_queue=False, now=Mono(2.0))
    shedder.observe(0.0, standing_queue=False, now=Mono(3.0))
    assert shedder.level_at(Mono(3.0)) == 1.0, "how often one looks makes no difference"


def test_whole_classes_are_shed_below_the_level_and_a_share_of_the_one_at_the_edge() -> None:
    shares = {
        until: [overloaded(until).share_at(each, Mono(until)) for each in LEAST_FIRST]
        for until in (0.25, 0.5, 0.75, 1.25, 1.75, 2.0)
    }
    critical = 1.0 - CRITICAL_KEPT_SHARE
    assert shares == {
        0.25: [0.5, 0.0, 0.0, 0.0],
        0.5: [1.0, 0.0, 0.0, 0.0],
        0.75: [1.0, 0.5, 0.0, 0.0],
        1.25: [1.0, 1.0, 0.5, 0.0],
        1.75: [1.0, 1.0, 1.0, 0.5 * critical],
        2.0: [1.0, 1.0, 1.0, critical],
    }


def test_dice_are_rolled_only_at_the_edge() -> None:
    shedder = overloaded(0.75)
    assert shedder.refuses(Priority.SHEDDABLE, Mono(0.75), NoDice()) is not None
    assert shedder.refuses(Priority.HIGH, Mono(0.75), NoDice()) is None
    rng = Random(2)
    refused = sum(shedder.refuses(Priority.LOW, Mono(0.75), rng) is not None for _ in range(1000))
    assert refused == pytest.approx(500, abs=50)


def test_some_critical_calls_are_served_even_at_the_top() -> None:
    shedder, rng = overloaded(60.0), Random(5)
    served = sum(shedder.refuses(Priority.CRITICAL, Mono(60.0), rng) is None for _ in range(1000))
    assert served == pytest.approx(1000 * CRITICAL_KEPT_SHARE, abs=30)


def test_a_refusal_says_when_the_level_may_have_fallen_enough() -> None:
    shedder, now = overloaded(1.25), Mono(1.25)  # level 2.5
    assert shedder.refuses(Priority.SHEDDABLE, now, NoDice()) == Refusal(Why.SHED, 5.0)
    assert shedder.refuses(Priority.LOW, now, NoDice()) == Refusal(Why.SHED, 3.0)
    slow = overloaded(2.0, ShedPolicy(rise_per_s=2.0, fall_per_s=0.001))
    assert slow.refuses(Priority.LOW, Mono(2.0), NoDice()) == Refusal(Why.SHED, RETRY_AFTER_MAX_S)


def test_whoever_observes_and_dies_does_not_shed_for_ever() -> None:
    shedder = overloaded(1.0)
    assert shedder.level_at(Mono(1.0 + PATIENCE_S)) == 2.0
    assert shedder.level_at(Mono(1.0 + PATIENCE_S + 2.0)) == 1.0
    assert shedder.level_at(Mono(1.0 + PATIENCE_S + 4.0)) == 0.0
    assert all(shedder.refuses(each, Mono(1000.0), NoDice()) is None for each in Priority)


def test_one_long_stall_is_not_a_long_overload() -> None:
    shedder = Shedder(POLICY)
    shedder.observe(0.0, standing_queue=False, now=Mono(0.0))
    shedder.observe(60.0, standing_queue=False, now=Mono(60.0))
    assert shedder.level_at(Mono(60.0)) == 2.0 * RISE_AT_ONCE_S


def test_looking_changes_nothing() -> None:
    shedder = overloaded(1.0)
    for now in (1e9, 2.0, 1.0):
        shedder.level_at(Mono(now))
        shedder.share_at(Priority.LOW, Mono(now))
        shedder.refuses(Priority.SHEDDABLE, Mono(now), Random(1))
    assert shedder.level_at(Mono(1.0)) == 2.0


@pytest.mark.parametrize("lag_s", [nan, -1.0, -inf])
def test_a_lag_that_is_no_lag_is_no_overload(lag_s: float) -> None:
    shedder = Shedder(POLICY)
    for now in range(4):
        shedder.observe(lag_s, standing_queue=False, now=Mono(now))
    assert shedder.level_at(Mono(4.0)) == 0.0


def test_a_clock_that_stands_still_or_goes_back_raises_nothing() -> None:
    shedder = overloaded(0.5)
    for _ in range(1000):
        shedder.observe(1.0, standing_queue=True, now=Mono(0.5))
    shedder.observe(1.0, standing_queue=True, now=Mono(0.1))
    assert shedder.level_at(Mono(0.5)) == 1.0


def test_new_settings_keep_the_level() -> None:
    shedder = overloaded(1.0)
    shedder.observe(0.0, standing_queue=False, now=Mono(1.0))
    shedder.obey(ShedPolicy(rise_per_s=2.0, fall_per_s=1.5), Mono(2.0))
    assert shedder.level_at(Mono(2.0)) == 1.5
    assert shedder.level_at(Mono(3.0)) == 0.0


def test_a_server_finds_the_level_at_which_it_serves_what_it_can() -> None:
    """Twice what it can serve, half of it sheddable: the lag stays low, and nothing more important is shed for long."""
    shedder, rng = Shedder(POLICY), Random(7)
    backlog, served = 0.0, dict.fromkeys(Priority, 0)
    asked = dict.fromkeys(Priority, 0)
    for step in range(600):  # a minute in tenths of a second, ten calls' worth of work done in each
        now = Mono(step / 10)
        for _ in range(5):
            for priority in (Priority.SHEDDABLE, Priority.SHEDDABLE, Priority.LOW, Priority.HIGH):
                asked[priority] += 1
                if shedder.refuses(priority, now, rng) is None:
                    backlog += 1.0
                    served[priority] += 1
        backlog = max(0.0, backlog - 10.0)
        shedder.observe(backlog / 100, standing_queue=False, now=now)
    shares = {each: served[each] / asked[each] for each in asked if asked[each]}
    assert shares[Priority.HIGH] > 0.95
    assert shares[Priority.LOW] > 0.7
    assert shares[Priority.SHEDDABLE] < 0.5
    assert sum(served.values()) > 0.7 * 6000
