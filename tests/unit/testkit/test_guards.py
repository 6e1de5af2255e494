"""Guards for tests, and what they hold when a test is over."""

from __future__ import annotations

from budao import GuardPolicy, Latency, RetryPolicy
from budao.guard import Retried
from budao.testkit import FakeClock, calls_open, events_of, forced, guard_for_tests


def test_two_guards_for_tests_roll_the_same_dice() -> None:
    pauses = []
    for _ in range(2):
        guard = guard_for_tests(clock=FakeClock(), policy=GuardPolicy(retry=RetryPolicy(pause_first_s=0.001)))
        call = guard(safe=True)(lambda: 1)
        with events_of(guard) as events, forced(guard, ValueError("broken"), 1):
            call()
        pauses.append([event.pause_s for event in events.of(Retried)])
    assert pauses[0] == pauses[1] != []


def test_a_guard_for_tests_may_have_an_objective() -> None:
    guard = guard_for_tests("stock", clock=FakeClock(), objective=Latency(0.99, under_s=0.2))
    assert guard.snapshot().keys[0].slow_s == 0.2


def test_a_guard_with_a_call_open_is_found_until_the_call_ends() -> None:
    guard = guard_for_tests(clock=FakeClock())
    assert guard not in calls_open()
    with guard.block():
        assert calls_open()[guard] == (1, 0)
    assert guard not in calls_open()
