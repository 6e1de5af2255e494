"""For the tests of programs that use guards: a clock turned by hand, endings on order, events caught, no patching.

Nothing here is for production, and nothing here needs pytest; `budao.testkit.plugin` brings the same as fixtures.
"""

from budao.testkit.clock import FakeClock
from budao.testkit.endings import REAL, Slow
from budao.testkit.events import Events, events_of
from budao.testkit.forced import Rehearsal, forced
from budao.testkit.guards import calls_open, guard_for_tests

__all__ = [
    "REAL",
    "Events",
    "FakeClock",
    "Rehearsal",
    "Slow",
    "calls_open",
    "events_of",
    "forced",
    "guard_for_tests",
]
