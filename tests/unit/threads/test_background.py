from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from budao import BreakerOpen, Guard, Refusal, Why
from budao.guard import Crashed
from budao.model import context

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
LONG_S = 60.0


def crashes_of(guard: Guard) -> list[Crashed]:
    return [event for event in guard.snapshot().events if isinstance(event, Crashed)]


def crash(word: str) -> None:
    raise OSError(word)


@pytest.fixture
def traced() -> object:
    token = context.trace.set(TRACE)
    yield None
    context.trace.reset(token)


def test_a_crash_in_an_executor_is_counted_with_its_trace_and_stays_in_the_future(traced: None) -> None:
    guard = Guard("background")
    with ThreadPoolExecutor(1) as executor:
        future = guard.submit(executor, crash, "down")
        assert guard.submit(executor, divmod, 7, 2).result() == (3, 1)
    assert str(future.exception()) == "down"
    (event,) = crashes_of(guard)
    assert (event.error, event.trace_id) == ("OSError: down", TRACE.split("-")[1])
    assert event.where.endswith("crash")


def test_a_crash_in_a_thread_is_counted_with_its_trace_and_ends_the_thread_quietly(traced: None) -> None:
    guard = Guard("background")
    seen: list[str] = []
    guard.thread(lambda: seen.append(context.trace.get())).join(LONG_S)
    guard.thread(crash, word="down").join(LONG_S)
    assert seen == [TRACE]
    (event,) = crashes_of(guard)
    assert (event.error, event.trace_id) == ("OSError: down", TRACE.split("-")[1])
    assert guard.snapshot().crashes == 1


def test_a_refused_call_in_the_background_says_that_it_was_refused() -> None:
    guard = Guard("background")

    def refused() -> None:
        raise BreakerOpen("stock", Refusal(Why.BREAKER_OPEN, 1.0))

    guard.thread(refused).join(LONG_S)
    (event,) = crashes_of(guard)
    assert event.where.endswith("(refused)")
