"""The clock that a test turns."""

from __future__ import annotations

from math import inf, nan

import pytest

from budao import BreakerOpen, BreakerPolicy, Guard, GuardPolicy
from budao.testkit import FakeClock


def test_a_fake_clock_moves_only_when_it_is_told_to() -> None:
    clock = FakeClock(5.0)
    assert [clock(), clock()] == [5.0, 5.0]
    assert clock.advance(2.5) == clock() == 7.5


@pytest.mark.parametrize("span_s", [-1.0, inf, nan])
def test_no_span_that_cannot_pass_passes(span_s: float) -> None:
    clock = FakeClock()
    with pytest.raises(ValueError, match="can pass"):
        clock.advance(span_s)
    assert clock.now == 0.0


def test_a_breaker_rests_by_the_fake_clock() -> None:
    clock = FakeClock()
    breaker = BreakerPolicy(calls_min=2, rest_s=60.0, probes_good=1, ramp_s=0.0)
    guard = Guard("stock", policy=GuardPolicy(retry=None, breaker=breaker), clock=clock)

    @guard
    def divide(by: int) -> float:
        return 1 / by

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            divide(0)
    with pytest.raises(BreakerOpen):
        divide(1)
    clock.advance(59.0)
    with pytest.raises(BreakerOpen):
        divide(1)
    clock.advance(1.1)
    assert divide(1) == 1.0
