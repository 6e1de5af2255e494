"""Retries, waiting, hedges and ladders of sync calls, with threads that meet at barriers and events."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import inf
from typing import Any

import pytest

from budao import (
    BudgetPolicy,
    BulkheadPolicy,
    Guard,
    GuardPolicy,
    HedgePolicy,
    NoRoom,
    Priority,
    RetryPolicy,
    TimeoutPolicy,
    TooLate,
    Why,
)
from budao.guard import KeyView, Repeats, Retried
from budao.model import context
from budao.testkit import FakeClock
from budao.threads import repeat

LONG_S = 60.0  # never waited for: whoever waits so long has been forgotten


def only(guard: Guard) -> KeyView:
    (view,) = guard.snapshot().keys
    return view


# -- retries


def test_pauses_have_full_jitter_below_a_ceiling_that_doubles() -> None:
    clock = FakeClock()
    retry = RetryPolicy(attempts_max=4, pause_first_s=1.0, pause_max_s=2.0)
    guard = Guard("retried", policy=GuardPolicy(breaker=None, retry=retry), clock=clock, rng=random.Random(3))
    heard: list[Any] = []
    guard.listen(heard.append)
    endings = [OSError("two"), OSError("three"), None]
    pauses: list[float] = []

    def once() -> str:
        ending = endings.pop(0)
        if ending is not None:
            raise ending
        return "done"

    again = repeat(once, Repeats(True, None, None), None, guard.clock, pauses.append)
    assert again(guard._plain, OSError("one"), None, 0.0, (), {}) == "done"
    rng = random.Random(3)
    assert pauses == [rng.uniform(0.0, 1.0), rng.uniform(0.0, 2.0), rng.uniform(0.0, 2.0)]
    assert [(type(event), event.attempt, event.error) for event in heard] == [
        (Retried, 2, "OSError: one"),
        (Retried, 3, "OSError: two"),
        (Retried, 4, "OSError: three"),
    ]


def test_every_further_try_ends_with_the_total_and_none_begins_after_it() -> None:
    clock = FakeClock()
    policy = GuardPolicy(
        breaker=None,
        retry=RetryPolicy(attempts_max=9, pause_first_s=0.0, pause_max_s=0.0),
        timeout=TimeoutPolicy(call_s=5.0, total_s=8.0),
    )
    guard = Guard("retried", policy=policy, clock=clock)
    seen: list[float] = []

    def once() -> None:
        seen.append(context.deadline.get())
        raise OSError

    again = repeat(once, Repeats(True, None, lambda _: 3.0), None, guard.clock, clock.advance)
    with suppress(OSError):
        again(guard._plain, OSError(), None, 0.0, (), {})
    assert (seen, context.deadline.get()) == ([8.0, 8.0], inf)


def test_only_calls_that_are_safe_are_repeated_and_a_hook_that_raises_means_no() -> None:
    guard = Guard("safe", policy=GuardPolicy(breaker=None, retry=RetryPolicy(pause_first_s=0.0, pause_max_s=0.0)))
    made: list[int] = []

    def work(number: int) -> None:
        made.append(number)
        raise OSError("down")

    def broken(number: int) -> bool:
        raise ValueError(number)

    for protected in (guard(work), guard(safe=lambda number: number == 2)(work), guard(safe=broken)(work)):
        for number in (1, 2):
            with pytest.raises(OSError, match="down"):
                protected(number)
    assert made == [1, 2, 1, 2, 2, 2, 1, 2]


def test_a_refused_try_is_answered_with_the_failure_before_it() -> None:
    guard = Guard(
        "full", policy=GuardPolicy(retry=RetryPolicy(pause_first_s=0.0), bulkhead=BulkheadPolicy(calls_max=1))
    )
    blocks = []

    @guard(safe=True)
    def work() -> None:
        raise OSError("the real trouble")

    def fill(event: object) -> None:
        if isinstance(event, Retried):
            blocks.append(guard.block().__enter__())

    guard.listen(fill)
    with pytest.raises(OSError, match="the real trouble"):
        work()
    assert only(guard).refused == {Why.NO_ROOM: 1}
    blocks[0].__exit__(None, None, None)


def test_an_iterator_at_its_end_is_not_asked_again_and_says_so_itself() -> None:
    guard = Guard("iterator", policy=GuardPolicy(breaker=None, retry=RetryPolicy(pause_first_s=0.0)))
    endings: list[Exception] = [StopIteration("at once"), OSError("down"), StopIteration("later")]

    @guard(safe=True)
    def work() -> None:
        raise endings.pop(0)

    for word in ("at once", "later"):
        with pytest.raises(StopIteration, match=word):
            work()
    assert endings == []


def test_a_discard_that_raises_is_counted_and_the_call_goes_on() -> None:
    guard = Guard("bad", policy=GuardPolicy(breaker=None, retry=RetryPolicy(attempts_max=2, pause_first_s=0.0)))
    answers = [200, 503]

    def discard(answer: int) -> None:
        raise ValueError(answer)

    assert guard(safe=True, bad=lambda answer: answer >= 500, discard=discard)(answers.pop)() == 200
    assert guard.snapshot().inner_errors == 1


# -- places


def test_a_thread_without_a_place_waits_and_gets_the_one_that_comes_free() -> None:
    policy = GuardPolicy(retry=None, bulkhead=BulkheadPolicy(calls_max=1, waiting_max=5, wait_max_s=LONG_S))
    guard = Guard("crowded", policy=policy)
    inside, go = threading.Event(), threading.Event()
    order: list[str] = []

    @guard
    def work(name: str) -> None:
        order.append(name)
        inside.set()
        go.wait(LONG_S)

    def call(name: str, priority: Priority) -> None:
        context.priority.set(priority)
        work(name)

    with ThreadPoolExecutor(5) as executor:
        executor.submit(call, "first", Priority.LOW)
        inside.wait(LONG_S)
        for index, (name, priority) in enumerate([("low", Priority.LOW), ("critical", Priority.CRITICAL)]):
            executor.submit(call, name, priority)
            while only(guard).waiting == index:
                threading.Event().wait(0.0)
        go.set()
    assert order == ["first", "critical", "low"]
    assert (only(guard).ok, only(guard).in_flight, only(guard).waiting) == (3, 0, 0)


def test_a_thread_that_waits_in_vain_is_refused_even_if_the_clock_stands_still() -> None:
    policy = GuardPolicy(retry=None, bulkhead=BulkheadPolicy(calls_max=1, waiting_max=5, wait_max_s=0.001))
    guard = Guard("crowded", policy=policy, clock=FakeClock())
    with guard.block(), pytest.raises(NoRoom) as refused, guard.block():
        pytest.fail("entered")
    assert refused.value.why is Why.WAITED_OUT
    assert (only(guard).in_flight, only(guard).waiting) == (0, 0)


def test_places_that_are_limited_while_calls_run_are_handed_on_by_those_calls_too() -> None:
    guard = Guard("swapped", policy=GuardPolicy(retry=None))
    both, go = threading.Barrier(3), threading.Event()

    @guard
    def work(is_old: bool) -> None:
        if is_old:
            both.wait(LONG_S)
            go.wait(LONG_S)

    with ThreadPoolExecutor(3) as executor:
        old = [executor.submit(work, True) for _ in range(2)]
        both.wait(LONG_S)
        guard.obey(GuardPolicy(retry=None, bulkhead=BulkheadPolicy(calls_max=1, waiting_max=5, wait_max_s=LONG_S)))
        new = executor.submit(work, False)
        while not only(guard).waiting:
            threading.Event().wait(0.0)
        go.set()
        for each in (*old, new):
            each.result(LONG_S)
    assert (only(guard).ok, only(guard).in_flight, only(guard).waiting) == (3, 0, 0)


def test_a_deadline_that_has_passed_refuses_the_call() -> None:
    clock = FakeClock(10.0)
    guard = Guard("late", policy=GuardPolicy(), clock=clock)
    token = context.deadline.set(9.0)
    with pytest.raises(TooLate):
        guard(len)([])
    context.deadline.reset(token)
    assert guard(len)([]) == 0


# -- hedges


class Hedging:
    """A guard with an executor, one quick past, and a function that follows a script by the number of the call."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        policy = GuardPolicy(
            breaker=None,
            retry=None,
            hedge=HedgePolicy(samples_min=2, delay_min_s=0.0005),
            budget=BudgetPolicy(floor_per_s=100.0),
        )
        self.guard = Guard("hedged", policy=policy, executor=executor)
        self.made: list[str] = []
        self.script: Any = lambda number: None
        self.discarded: list[object] = []

        @self.guard(safe=True, discard=self.discarded.append)
        def work(is_script: bool) -> object:
            if not is_script:
                return None
            self.made.append(threading.current_thread().name)
            return self.script(len(self.made))

        for _ in range(20):
            work(False)
        self.guard.snapshot()
        self.work = work


def test_a_second_thread_that_answers_first_is_taken_and_the_late_answer_is_discarded() -> None:
    done = threading.Event()
    with ThreadPoolExecutor(2) as executor:
        hedging = Hedging(executor)

        def script(number: int) -> str:
            if number == 1:
                done.wait(LONG_S)
                return "first"
            return "second"

        hedging.script = script
        assert hedging.work(True) == "second"
        done.set()
    view = hedging.guard.snapshot()
    assert (view.hedges, view.hedges_won, hedging.discarded) == (1, 1, ["first"])
    assert only(hedging.guard).in_flight == 0


def test_a_first_thread_that_fails_waits_for_the_second_and_two_failures_are_the_first() -> None:
    second_is_out = threading.Event()
    with ThreadPoolExecutor(2) as executor:
        hedging = Hedging(executor)
        ending: list[str] = []

        def script(number: int) -> str:
            if number % 2 == 1:
                second_is_out.wait(LONG_S)
                raise OSError("first")
            second_is_out.set()
            if ending:
                raise OSError("second")
            return "second"

        hedging.script = script
        assert hedging.work(True) == "second"
        ending.append("failed")
        second_is_out.clear()
        with pytest.raises(OSError, match="first"):
            hedging.work(True)


def test_a_hedged_call_within_a_hedged_call_does_not_wait_for_a_thread_that_waits_for_it() -> None:
    with ThreadPoolExecutor(1) as executor:
        inner = Hedging(executor)
        inner.script = lambda number: "inner"

        @Hedging(executor).guard(safe=True)
        def outer() -> object:
            return inner.work(True)

        assert Hedging(executor).guard(safe=True)(outer)() == "inner"


def test_an_executor_that_was_shut_down_costs_the_hedge_and_not_the_call() -> None:
    executor = ThreadPoolExecutor(1)
    hedging = Hedging(executor)
    executor.shutdown()
    hedging.script = lambda number: "alone"
    assert hedging.work(True) == "alone"
    assert hedging.made == [threading.current_thread().name]


# -- the ladder


def test_a_broken_rung_leads_to_the_next_and_an_answer_such_as_not_found_is_raised() -> None:
    guard = Guard("ladder", policy=GuardPolicy(retry=None), failed_if=OSError)

    def broken(sku: str) -> int:
        raise ValueError(sku)

    @guard.ladder(cache=broken, template=7)
    def stock(sku: str) -> int:
        raise KeyError(sku) if sku == "unknown" else OSError("down")

    assert stock("a") == 7
    with pytest.raises(KeyError):
        stock("unknown")
    assert guard.snapshot().rungs == {"broken": 1, "template": 1}
