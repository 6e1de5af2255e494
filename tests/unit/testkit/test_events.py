"""Events, kept for a test."""

from __future__ import annotations

from contextlib import suppress

from budao import BreakerOpen, GuardPolicy, Mode
from budao.guard import Adjusted, Refused, Turned
from budao.testkit import FakeClock, events_of, forced, guard_for_tests


def test_events_are_kept_in_order_filtered_by_kind_and_no_longer_once_closed() -> None:
    guard = guard_for_tests(clock=FakeClock(), policy=GuardPolicy(retry=None))
    call = guard(lambda: 1)
    with events_of(guard) as events:
        guard.set_mode(Mode.FORCED_OPEN)
        with suppress(BreakerOpen):
            call()
        guard.set_mode(Mode.ENFORCING)
        assert [type(event) for event in events] == [Adjusted, Refused, Adjusted]
        assert len(events) == 3
        assert events.of(Turned) == []
        events.clear()
    with forced(guard, BreakerOpen), suppress(BreakerOpen):
        call()
    assert events.all == []
