"""The parts of a guard that live beside the calls, on loops and threads that really run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from budao import Guard, GuardPolicy, Priority, RetryPolicy, Shed, ShedPolicy, TimedOut, TimeoutPolicy
from budao.guard import Crashed
from budao.model import context

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SHED = GuardPolicy(breaker=None, retry=None, shed=ShedPolicy(lag_target_s=0.02, rise_per_s=50.0, fall_per_s=50.0))


async def until(claim: Callable[[], bool], *, within_s: float = 10.0) -> None:
    """Waits until a claim holds."""
    async with asyncio.timeout(within_s):
        while not claim():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def serve(guard: Guard, priority: Priority) -> bool:
    token = context.priority.set(priority)
    try:
        async with guard.block():
            return True
    except Shed:
        return False
    finally:
        context.priority.reset(token)


def test_a_loop_that_is_blocked_sheds_what_matters_least_and_recovers() -> None:
    guard = Guard("server", policy=SHED)

    async def main() -> None:
        async def fold() -> bool:
            return await serve(guard, Priority.SHEDDABLE)

        assert await fold()
        guard.snapshot()
        shed = False
        async with asyncio.timeout(20.0):
            while not shed:
                time.sleep(0.15)  # noqa: ASYNC251 - this is the lag
                await asyncio.sleep(0.01)
                guard.snapshot()
                shed = not await fold()
        while not await fold():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await guard.close()
        await asyncio.sleep(0)

    asyncio.run(main())


def test_shedding_that_is_switched_off_and_on_again_still_hears_of_lag() -> None:
    guard = Guard("server", policy=SHED)

    async def main() -> None:
        await serve(guard, Priority.HIGH)
        guard.snapshot()
        await until(lambda: guard._probe is not None)
        first = guard._probe
        assert first is not None
        guard.obey(GuardPolicy(breaker=None, retry=None))
        await until(lambda: first.is_dead)
        guard.obey(SHED)
        await serve(guard, Priority.HIGH)
        guard.snapshot()
        await until(lambda: guard._probe is not None and not guard._probe.is_dead)
        await guard.close()

    asyncio.run(main())


def test_crashes_from_everywhere_at_once_are_all_told_with_the_trace_that_caused_them() -> None:
    guard = Guard("background")
    heard: list[object] = []
    guard.listen(heard.append)

    def crash() -> None:
        raise OSError("down")

    async def later() -> None:
        await asyncio.sleep(0.001)
        crash()

    async def main() -> None:
        context.trace.set(TRACE)
        with ThreadPoolExecutor(4) as executor:
            futures = [guard.submit(executor, crash) for _ in range(20)]
            threads = [guard.thread(crash) for _ in range(20)]
            tasks = [guard.spawn(later()) for _ in range(20)]
            await asyncio.gather(*tasks, return_exceptions=True)
            for thread in threads:
                thread.join(10.0)
            for future in futures:
                future.exception(10.0)

    asyncio.run(main())
    crashes = [event for event in heard if isinstance(event, Crashed)]
    assert (guard.snapshot().crashes, len(crashes)) == (60, 60)
    assert {event.trace_id for event in crashes} == {TRACE.split("-")[1]}


def test_many_calls_with_different_limits_each_end_at_their_own() -> None:
    guards = [
        Guard(f"{span_s}", policy=GuardPolicy(timeout=TimeoutPolicy(call_s=span_s, total_s=1.0), retry=None))
        for span_s in (0.03, 0.01, 0.02)
    ]
    ended: list[str] = []

    async def call(guard: Guard) -> None:
        with suppress(TimedOut):
            await guard(never)()
        ended.append(guard.name)

    async def never() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        await asyncio.gather(*(call(guard) for guard in guards))

    asyncio.run(main())
    assert sorted(ended) == ["0.01", "0.02", "0.03"]


def test_one_guard_serves_many_loops_on_many_threads_and_every_limit_is_kept() -> None:
    guard = Guard(
        "shared", policy=GuardPolicy(breaker=None, timeout=TimeoutPolicy(call_s=0.005, total_s=1.0), retry=None)
    )
    late = [0] * 4

    @guard
    async def work(is_long: bool) -> None:
        await asyncio.sleep(10.0 if is_long else 0)

    async def main(lane: int) -> None:
        for index in range(50):
            try:
                await work(index % 10 == 0)
            except TimedOut:
                late[lane] += 1

    def thread(lane: int) -> None:
        for _ in range(3):
            asyncio.run(main(lane))

    threads = [threading.Thread(target=thread, args=(lane,)) for lane in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60.0)
    (view,) = guard.snapshot().keys
    assert min(late) >= 15
    assert view.ok + view.failed + view.slow == 4 * 3 * 50
    assert (view.failed, view.in_flight) == (sum(late), 0)


def test_a_retry_pauses_for_real_and_ends_within_its_total() -> None:
    policy = GuardPolicy(
        breaker=None,
        timeout=TimeoutPolicy(call_s=0.02, total_s=0.03),
        retry=RetryPolicy(attempts_max=5, pause_first_s=0.001, pause_max_s=0.001),
    )
    guard = Guard("retried", policy=policy)
    deadlines: list[float] = []

    @guard(safe=True)
    async def work() -> None:
        deadlines.append(context.deadline.get())
        await asyncio.sleep(10.0)

    async def main() -> None:
        with suppress(TimedOut):
            await work()

    asyncio.run(main())
    first, *others = deadlines
    assert all(deadline <= first - 0.02 + 0.03 + 1e-6 for deadline in others)
