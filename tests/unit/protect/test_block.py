from __future__ import annotations

import asyncio
from contextlib import suppress
from math import inf

import pytest

from budao import BreakerPolicy, BulkheadPolicy, Guard, GuardPolicy, NoRoom, Priority, TimedOut, TimeoutPolicy, TooLate
from budao.guard import KeyView
from budao.model import context
from budao.testkit import FakeClock


def only(guard: Guard) -> KeyView:
    (view,) = guard.snapshot().keys
    return view


def test_a_block_that_ends_is_a_good_call_and_one_that_raises_is_a_failed_one() -> None:
    guard = Guard("block", policy=GuardPolicy())
    with guard.block():
        pass
    with pytest.raises(OSError, match="down"), guard.block():
        raise OSError("down")
    assert (only(guard).ok, only(guard).failed, only(guard).in_flight) == (1, 1, 0)


def test_a_block_says_of_itself_what_no_exception_says() -> None:
    guard = Guard("block", policy=GuardPolicy())
    with guard.block() as call:
        call.failed("status 500")
    with guard.block() as call:
        call.drop()
    with guard.block() as call:
        call.failed()
        call.drop()
    assert (only(guard).ok, only(guard).failed, only(guard).dropped) == (0, 1, 2)


def test_the_latency_of_a_block_ends_with_its_first_answer_and_its_place_with_the_block() -> None:
    clock = FakeClock()
    guard = Guard("block", policy=GuardPolicy(breaker=BreakerPolicy(slow_s=1.0)), clock=clock)
    with guard.block() as call:
        clock.advance(0.5)
        call.answered()
        call.answered()
        clock.advance(100.0)
        assert (only(guard).ok, only(guard).in_flight) == (1, 1)
    assert (only(guard).ok, only(guard).slow, only(guard).in_flight) == (1, 0, 0)


def test_an_answer_that_breaks_off_is_one_failed_call_more() -> None:
    guard = Guard("block", policy=GuardPolicy())
    with suppress(ConnectionError), guard.block() as call:
        call.answered()
        raise ConnectionError
    assert (only(guard).ok, only(guard).broken) == (1, 1)


def test_inside_a_block_the_context_has_its_deadline_and_priority_and_outside_it_has_not() -> None:
    clock = FakeClock(100.0)
    guard = Guard("block", policy=GuardPolicy(timeout=TimeoutPolicy(call_s=5.0, total_s=9.0)), clock=clock)
    with guard.block(priority=Priority.CRITICAL, until=102.0) as outer:
        assert (outer.until, context.deadline.get(), context.priority.get()) == (102.0, 102.0, Priority.CRITICAL)
        with guard.block(priority=Priority.LOW, until=300.0) as inner:
            assert (inner.until, context.deadline.get(), context.priority.get()) == (102.0, 102.0, Priority.LOW)
        assert (context.deadline.get(), context.priority.get()) == (102.0, Priority.CRITICAL)
    assert (context.deadline.get(), context.priority.get()) == (inf, Priority.HIGH)


def test_a_block_whose_deadline_has_passed_is_refused_and_leaves_the_context_alone() -> None:
    clock = FakeClock(100.0)
    guard = Guard("block", policy=GuardPolicy(), clock=clock)
    with pytest.raises(TooLate), guard.block(until=99.0, priority=Priority.LOW):
        pytest.fail("entered")
    assert (context.priority.get(), only(guard).in_flight) == (Priority.HIGH, 0)


def test_each_key_has_its_own_places() -> None:
    guard = Guard("block", policy=GuardPolicy(bulkhead=BulkheadPolicy(calls_max=1)))
    with guard.block("a"), guard.block("b"), pytest.raises(NoRoom, match=r"block\[a\]"), guard.block("a"):
        pytest.fail("entered")
    assert {view.key: (view.ok, view.in_flight) for view in guard.snapshot().keys if view.key} == {
        "a": (1, 0),
        "b": (1, 0),
    }


def test_an_async_block_that_takes_too_long_is_interrupted_and_counts_as_failed() -> None:
    guard = Guard("block", policy=GuardPolicy(timeout=TimeoutPolicy(call_s=0.001, total_s=9.0)))

    async def main() -> int:
        with pytest.raises(TimedOut) as late:
            async with guard.block():
                await asyncio.Event().wait()
        assert isinstance(late.value, TimeoutError)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert asyncio.run(main()) == 0
    assert (only(guard).failed, only(guard).in_flight) == (1, 0)
    assert context.deadline.get() == inf


def test_a_stream_that_answered_in_time_may_take_longer_than_a_call() -> None:
    guard = Guard("block", policy=GuardPolicy(timeout=TimeoutPolicy(call_s=0.001, total_s=9.0)))

    async def main() -> None:
        async with guard.block() as call:
            call.answered()
            late = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.005, late.set_result, None)
            await late

    asyncio.run(main())
    assert (only(guard).ok, only(guard).broken) == (1, 0)


def test_an_async_block_outside_any_event_loop_gives_its_place_back() -> None:
    guard = Guard("block", policy=GuardPolicy(timeout=TimeoutPolicy()))

    async def program() -> None:
        async with guard.block():
            pytest.fail("entered")

    with pytest.raises(RuntimeError):
        program().send(None)
    assert (only(guard).in_flight, only(guard).failed, context.deadline.get()) == (0, 0, inf)


def test_an_async_block_that_is_cancelled_from_outside_is_dropped() -> None:
    guard = Guard("block", policy=GuardPolicy(timeout=TimeoutPolicy()))

    async def block() -> None:
        async with guard.block():
            await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.ensure_future(block())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert (only(guard).dropped, only(guard).failed, only(guard).in_flight) == (1, 0, 0)
