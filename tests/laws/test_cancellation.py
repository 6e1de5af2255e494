"""Thousands of cancelled calls leave nothing behind: no place, no permit, no waiter, no task, no deadline."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from math import inf

import pytest

from budao import (
    BreakerPolicy,
    BulkheadPolicy,
    Guard,
    GuardPolicy,
    HedgePolicy,
    LimitPolicy,
    Mode,
    RetryPolicy,
    TimeoutPolicy,
)
from budao.model import context

STORM = 10_000
HERE = random.Random(7)

FULL = GuardPolicy(
    timeout=TimeoutPolicy(call_s=60.0, total_s=60.0),
    bulkhead=BulkheadPolicy(calls_max=50_000),
    limit=LimitPolicy(calls_first=1000, calls_max=50_000, calls_min=1000),
    hedge=HedgePolicy(),
)


def waits_for_ever() -> Awaitable[None]:
    return asyncio.get_running_loop().create_future()


def assert_nothing_is_left(guard: Guard) -> None:
    for view in guard.snapshot().keys:
        assert (view.in_flight, view.waiting) == (0, 0), view
    assert context.deadline.get() == inf
    for timers in guard._suspended._timers.values():
        assert len(timers) == 0
    if guard._plain.breaker is not None:
        assert guard._plain.breaker.probes_in_flight == 0


async def storm(guard: Guard, call: Callable[[], Awaitable[object]], *, count: int = STORM, laps: int = 3) -> None:
    """Cancels each of many calls after a few turns of the loop: before its first step, or at any later one."""
    before = asyncio.all_tasks()
    for _ in range(10):
        tasks = [asyncio.ensure_future(call()) for _ in range(count // 10)]
        for lap in range(laps):
            for task in HERE.sample(tasks, len(tasks) // (laps - lap)):
                task.cancel()
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(each) for each in results} <= {asyncio.CancelledError}
    for _ in range(3):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert_nothing_is_left(guard)


@pytest.mark.parametrize(
    "policy", [FULL, GuardPolicy(), GuardPolicy(timeout=TimeoutPolicy())], ids=["full", "default", "timeout"]
)
def test_calls_cancelled_while_they_are_suspended_leave_nothing(policy: GuardPolicy) -> None:
    guard = Guard("stormy", policy=policy)

    @guard(safe=True)
    async def work() -> None:
        await asyncio.sleep(0)
        await waits_for_ever()

    asyncio.run(storm(guard, work))
    view = guard.snapshot().keys[0]
    assert (view.ok, view.failed, view.slow) == (0, 0, 0)
    assert 0 < view.dropped <= STORM


def test_calls_cancelled_at_their_own_key_leave_nothing() -> None:
    guard = Guard("stormy", policy=FULL)

    @guard(key=lambda sku: sku % 7)
    async def work(sku: int) -> None:
        await waits_for_ever()

    asyncio.run(storm(guard, lambda: work(HERE.randrange(100))))


def test_calls_cancelled_while_they_wait_for_a_place_leave_nothing() -> None:
    bulkhead = BulkheadPolicy(calls_max=5, waiting_max=20_000, wait_max_s=60.0, sojourn_target_s=60.0)
    guard = Guard("crowded", policy=GuardPolicy(bulkhead=bulkhead, timeout=TimeoutPolicy(call_s=60.0, total_s=60.0)))

    @guard
    async def work() -> None:
        await waits_for_ever()

    async def main() -> None:
        await storm(guard, work)
        # All places are free again, as each one proves.
        tasks = [asyncio.ensure_future(work()) for _ in range(5)]
        await asyncio.sleep(0)
        assert guard.snapshot().keys[0].in_flight == 5
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    assert_nothing_is_left(guard)


def test_a_place_handed_to_a_call_that_is_cancelled_at_that_moment_is_handed_on() -> None:
    bulkhead = BulkheadPolicy(calls_max=1, waiting_max=10, wait_max_s=60.0)
    guard = Guard("crowded", policy=GuardPolicy(bulkhead=bulkhead))

    async def main() -> None:
        go = asyncio.Event()

        @guard
        async def work(name: str) -> str:
            if name == "first":
                await go.wait()
            return name

        first, second, third = (asyncio.ensure_future(work(name)) for name in ("first", "second", "third"))
        for _ in range(3):
            await asyncio.sleep(0)
        assert guard.snapshot().keys[0].waiting == 2
        go.set()
        await first
        second.cancel()  # the place is its own by now, and it has not run since
        assert await third == "third"
        with pytest.raises(asyncio.CancelledError):
            await second

    asyncio.run(main())
    assert_nothing_is_left(guard)


def test_calls_cancelled_in_the_pause_before_a_retry_leave_nothing() -> None:
    policy = GuardPolicy(
        breaker=None, timeout=TimeoutPolicy(call_s=60.0, total_s=600.0), retry=RetryPolicy(pause_first_s=1.0)
    )
    guard = Guard("retried", policy=policy)

    @guard(safe=True)
    async def work() -> None:
        await asyncio.sleep(0)
        raise OSError("down")

    async def call() -> None:
        with suppress(OSError):  # those the budget has no retry for
            await work()
            await waits_for_ever()

    async def main() -> None:
        tasks = [asyncio.ensure_future(call()) for _ in range(STORM)]
        for _ in range(4):
            await asyncio.sleep(0)
        assert any(not task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert guard.snapshot().retries > 0
    assert_nothing_is_left(guard)


def test_calls_cancelled_during_a_hedge_leave_neither_of_the_two() -> None:
    policy = GuardPolicy(
        breaker=None,
        hedge=HedgePolicy(samples_min=2, delay_min_s=0.0),
        timeout=TimeoutPolicy(call_s=60.0, total_s=60.0),
    )
    guard = Guard("hedged", policy=policy)
    is_quick = True

    @guard(safe=True)
    async def work() -> None:
        if not is_quick:
            await waits_for_ever()

    async def main() -> None:
        nonlocal is_quick
        for _ in range(3_000):
            await work()
        guard.snapshot()
        is_quick = False
        enough = asyncio.Event()
        guard.listen(lambda _: enough.set() if guard.snapshot().hedges >= 300 else None)
        tasks = [asyncio.ensure_future(work()) for _ in range(500)]
        await enough.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(3):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert_nothing_is_left(guard)


def test_calls_cancelled_while_they_share_one_leave_nothing_and_end_it_with_the_last() -> None:
    guard = Guard("shared", policy=FULL)

    @guard(single_flight=True)
    async def work(sku: int) -> None:
        await waits_for_ever()

    asyncio.run(storm(guard, lambda: work(HERE.randrange(20))))


def test_streams_that_are_cancelled_leave_nothing() -> None:
    guard = Guard("streamed", policy=FULL)

    @guard
    async def items() -> AsyncIterator[int]:
        yield 1
        await waits_for_ever()

    async def call() -> None:
        async for _ in items():
            await asyncio.sleep(0)

    asyncio.run(storm(guard, call))


def test_blocks_that_are_cancelled_leave_nothing() -> None:
    guard = Guard("blocked", policy=FULL)

    async def call() -> None:
        async with guard.block():
            await waits_for_ever()

    asyncio.run(storm(guard, call))


def test_cancelled_probes_give_their_places_back_and_teach_nothing() -> None:
    policy = GuardPolicy(breaker=BreakerPolicy(calls_min=1, rest_s=1e-9, probes_max=3), retry=None)
    guard = Guard("probed", policy=policy)
    is_up = False

    @guard
    async def work() -> None:
        if not is_up:
            raise OSError("down")
        await waits_for_ever()

    async def main() -> None:
        nonlocal is_up
        with suppress(OSError):
            await work()
        is_up = True
        for _ in range(1_000):
            task = asyncio.ensure_future(work())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    view = guard.snapshot().keys[0]
    assert (view.state.value, view.dropped, view.failed) == ("probing", 1_000, 1)
    assert_nothing_is_left(guard)


def test_coroutines_that_are_dropped_before_or_in_the_middle_leave_nothing() -> None:
    guard = Guard("dropped", policy=FULL)

    @guard(safe=True)
    async def work() -> None:
        await waits_for_ever()

    async def main() -> None:
        for index in range(200):
            coroutine = work()
            if index % 2:
                coroutine.send(None)
            coroutine.close()
        for _ in range(200):
            coroutine = work()
            coroutine.send(None)
            del coroutine
        gc.collect()

    asyncio.run(main())
    assert guard.snapshot().keys[0].dropped == 300
    assert_nothing_is_left(guard)


def test_generators_that_nobody_reads_to_the_end_leave_nothing() -> None:
    guard = Guard("dropped", policy=FULL)

    @guard
    def items() -> Iterator[int]:
        yield 1
        yield 2

    @guard
    async def later() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def main() -> None:
        for _ in range(100):
            await anext(later())
            next(items())
        gc.collect()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert guard.snapshot().keys[0].ok == 200
    assert_nothing_is_left(guard)


def test_a_loop_that_ends_with_calls_in_flight_leaves_nothing_and_the_next_loop_works() -> None:
    guard = Guard("looped", policy=FULL)

    @guard(safe=True)
    async def work(is_long: bool) -> str:
        if is_long:
            await waits_for_ever()
        await asyncio.sleep(0)
        return "done"

    async def leave_some() -> str:
        tasks = [asyncio.ensure_future(work(True)) for _ in range(100)]
        await asyncio.sleep(0)
        assert guard.snapshot().keys[0].in_flight == len(tasks)
        return await work(False)

    for _ in range(3):
        assert asyncio.run(leave_some()) == "done"
        assert_nothing_is_left(guard)
    assert len(guard._suspended._timers) == 1


def test_a_shadow_breaker_and_a_disabled_one_lose_nothing_in_a_storm_either() -> None:
    for mode in (Mode.SHADOW, Mode.DISABLED):
        guard = Guard("mode", policy=GuardPolicy(breaker=BreakerPolicy(mode=mode), retry=None))

        @guard
        async def work() -> None:
            await waits_for_ever()

        asyncio.run(storm(guard, work, count=1_000))
