"""What a new policy changes in an old one."""

from __future__ import annotations

from budao.model import BreakerPolicy, GuardPolicy, HedgePolicy, Mode, ThresholdPolicy
from budao.settings import Change, describe, diff

OLD = GuardPolicy()


def test_equal_policies_differ_in_nothing() -> None:
    assert diff(OLD, GuardPolicy()) == ()
    assert describe(()) == "nothing changed"


def test_each_number_that_differs_is_one_change() -> None:
    new = GuardPolicy(breaker=BreakerPolicy(rest_s=30, mode=Mode.SHADOW), keys_max=7)
    changes = diff(OLD, new)
    assert changes == (
        Change(path="breaker.rest_s", old=60.0, new=30),
        Change(path="breaker.mode", old=Mode.ENFORCING, new=Mode.SHADOW),
        Change(path="keys_max", old=1024, new=7),
    )
    assert describe(changes) == "breaker.rest_s: 60 -> 30; breaker.mode: enforcing -> shadow; keys_max: 1024 -> 7"


def test_a_part_that_goes_on_or_off_is_one_change() -> None:
    hedging = GuardPolicy(hedge=HedgePolicy(quantile=0.9))
    assert diff(OLD, hedging) == (Change(path="hedge", old=None, new=HedgePolicy(quantile=0.9)),)
    assert describe(diff(OLD, hedging)) == "hedge: off -> on (quantile = 0.9, delay_min_s = 0.001, samples_min = 50)"
    assert describe(diff(hedging, OLD)) == "hedge: on -> off"


def test_yes_and_no_are_written_as_in_the_file() -> None:
    old, new = (GuardPolicy(threshold=ThresholdPolicy(hardened=each)) for each in (True, False))
    assert describe(diff(old, new)) == "threshold.hardened: true -> false"
