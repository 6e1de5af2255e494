"""Guards for tests, and what guards still hold when a test is over."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable

from budao.model import GuardPolicy
from budao.protect import FailedIf, Guard
from budao.slo import Availability, Latency


def guard_for_tests(
    name: str = "tested",
    *,
    clock: Callable[[], float],
    objective: Availability | Latency | None = None,
    policy: GuardPolicy | None = None,
    failed_if: FailedIf | None = None,
    seed: int = 0,
) -> Guard:
    """A guard whose time is a clock of yours and whose dice always fall alike."""
    return Guard(name, objective=objective, policy=policy, failed_if=failed_if, clock=clock, rng=random.Random(seed))


def calls_open() -> dict[Guard, tuple[int, int]]:
    """Calls in flight and calls waiting, of every guard alive that has any.

    Collects garbage first, since a coroutine that nobody can await any more gives its place back when it is collected.

    Cost: a look at every object of the process; for tests.
    """
    gc.collect()
    found: dict[Guard, tuple[int, int]] = {}
    for guard in [each for each in gc.get_objects() if issubclass(type(each), Guard)]:
        keys = guard.snapshot().keys
        held = sum(key.in_flight for key in keys), sum(key.waiting for key in keys)
        if any(held):
            found[guard] = held
    return found
