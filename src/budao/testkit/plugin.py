"""Fixtures for pytest, found by it when Budao is installed.

`budao_clock` is a `FakeClock` at 0.0. `budao_guard` makes guards that go by it. `budao_events` listens to a guard until
the test is over. `budao_forced` is `forced` until the test is over. `budao_settled` fails a test that leaves calls in
flight or waiting; ask for it in a test, or for all of a module with `pytestmark = pytest.mark.usefixtures("budao_settled")`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from budao.protect import Guard
    from budao.testkit import Events, FakeClock, Rehearsal

# pytest loads this module in every project of an environment that has Budao; the fixtures import what they need.


@pytest.fixture
def budao_clock() -> FakeClock:
    """A clock that stands at 0.0 until it is advanced."""
    from budao.testkit import FakeClock

    return FakeClock()


@pytest.fixture
def budao_guard(budao_clock: FakeClock) -> Callable[..., Guard]:
    """Makes guards that go by `budao_clock`: `budao_guard("stock", policy=...)`. See `guard_for_tests`."""
    from budao.testkit import guard_for_tests

    def make(name: str = "tested", **said: Any) -> Guard:
        return guard_for_tests(name, **{"clock": budao_clock} | said)

    return make


@pytest.fixture
def budao_events() -> Iterator[Callable[[Guard], Events]]:
    """Listens to a guard until the test is over: `budao_events(guard).of(Refused)`."""
    from budao.testkit import events_of

    with ExitStack() as stack:
        yield lambda guard: stack.enter_context(events_of(guard))


@pytest.fixture
def budao_forced() -> Iterator[Callable[..., Rehearsal]]:
    """Makes a guard's calls end as ordered until the test is over: `budao_forced(guard, TimedOut, 7)`."""
    from budao.testkit import forced

    with ExitStack() as stack:
        yield lambda guard, *endings: stack.enter_context(forced(guard, *endings))


@pytest.fixture
def budao_settled() -> Iterator[None]:
    """Fails a test after which more calls are in flight, or waiting, than before it."""
    from budao.testkit import calls_open

    before = calls_open()
    yield
    left = {
        guard: held
        for guard, held in calls_open().items()
        if any(now > was for now, was in zip(held, before.get(guard, (0, 0)), strict=True))
    }
    if left:
        told = (f"{guard.name!r}: {held[0]} in flight, {held[1]} waiting" for guard, held in left.items())
        pytest.fail(f"the test is over, and calls are not: {'; '.join(told)}", pytrace=False)
