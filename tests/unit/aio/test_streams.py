from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

import pytest

from budao import BadSettings, BreakerPolicy, BulkheadPolicy, Guard, GuardPolicy, NoRoom, TimedOut, TimeoutPolicy
from budao.guard import KeyView
from budao.testkit import FakeClock


def only(guard: Guard) -> KeyView:
    (view,) = guard.snapshot().keys
    return view


async def counting(stop: int) -> AsyncIterator[int]:
    for number in range(stop):
        await asyncio.sleep(0)
        yield number


def test_every_item_comes_through_and_the_stream_counts_as_one_good_call() -> None:
    guard = Guard("stream", policy=GuardPolicy())
    guarded = guard(counting)
    assert inspect.isasyncgenfunction(guarded)

    async def main() -> list[int]:
        return [number async for number in guarded(3)] + [number async for number in guarded(0)]

    assert asyncio.run(main()) == [0, 1, 2]
    assert (only(guard).ok, only(guard).in_flight) == (2, 0)


def test_the_stream_is_let_in_at_the_first_item_asked_for_and_holds_its_place_to_the_end() -> None:
    guard = Guard("stream", policy=GuardPolicy(bulkhead=BulkheadPolicy(calls_max=1)))
    guarded = guard(counting)

    async def main() -> None:
        one, two = guarded(2), guarded(2)
        assert only(guard).in_flight == 0
        await anext(one)
        assert only(guard).in_flight == 1
        with pytest.raises(NoRoom):
            await anext(two)
        await one.aclose()  # type: ignore[attr-defined]
        assert only(guard).in_flight == 0

    asyncio.run(main())


def test_the_latency_of_a_stream_is_that_of_its_first_item() -> None:
    clock = FakeClock()
    guard = Guard("stream", policy=GuardPolicy(breaker=BreakerPolicy(slow_s=1.0)), clock=clock)

    @guard
    async def items(first_s: float) -> AsyncIterator[int]:
        clock.advance(first_s)
        yield 1
        clock.advance(100.0)
        yield 2

    async def main() -> None:
        for first_s in (0.5, 2.0):
            assert [item async for item in items(first_s)] == [1, 2]

    asyncio.run(main())
    assert (only(guard).ok, only(guard).slow) == (1, 1)


def test_a_stream_that_fails_before_its_first_item_is_failed_and_later_broken() -> None:
    guard = Guard("stream", policy=GuardPolicy())

    @guard
    async def items(good: int) -> AsyncIterator[int]:
        for number in range(good):
            yield number
        raise OSError("down")

    async def main() -> None:
        for good in (0, 2):
            with pytest.raises(OSError, match="down"):
                async for _ in items(good):
                    pass

    asyncio.run(main())
    assert (only(guard).ok, only(guard).failed, only(guard).broken, only(guard).in_flight) == (1, 1, 1, 0)


def test_a_reader_that_stops_early_is_no_failure_and_the_source_is_closed() -> None:
    guard = Guard("stream", policy=GuardPolicy())
    closed: list[str] = []

    @guard
    async def items() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append("source")

    async def main() -> None:
        async with aclosing(items()) as stream:
            async for _ in stream:
                break

    asyncio.run(main())
    assert closed == ["source"]
    assert (only(guard).ok, only(guard).failed, only(guard).broken, only(guard).in_flight) == (1, 0, 0, 0)


def test_what_the_reader_sends_and_throws_reaches_the_source() -> None:
    guard = Guard("stream", policy=GuardPolicy())

    @guard
    async def echo() -> AsyncGenerator[str, str]:
        heard = "start"
        while True:
            try:
                heard = yield heard
            except ValueError as error:
                heard = f"caught {error}"

    async def main() -> list[str]:
        stream = echo()
        told = [await anext(stream), await stream.asend("a"), await stream.athrow(ValueError("b"))]
        with pytest.raises(KeyError):
            await stream.athrow(KeyError("mine"))
        return told

    assert asyncio.run(main()) == ["start", "a", "caught b"]
    assert (only(guard).ok, only(guard).broken, only(guard).in_flight) == (1, 0, 0)


def test_a_first_item_that_takes_too_long_is_a_time_out() -> None:
    guard = Guard("stream", policy=GuardPolicy(timeout=TimeoutPolicy(call_s=0.001, total_s=1.0)))

    @guard
    async def items() -> AsyncIterator[int]:
        await asyncio.get_running_loop().create_future()
        yield 1

    async def main() -> None:
        with pytest.raises(TimedOut):
            await anext(items())

    asyncio.run(main())
    assert (only(guard).failed, only(guard).in_flight) == (1, 0)


def test_arguments_that_do_not_fit_take_no_place() -> None:
    guard = Guard("stream", policy=GuardPolicy())

    async def main() -> None:
        with pytest.raises(TypeError):
            await anext(guard(counting)())  # type: ignore[call-arg]

    asyncio.run(main())
    assert (only(guard).in_flight, only(guard).failed) == (0, 0)


def test_a_stream_waits_for_a_place_as_a_call_does() -> None:
    guard = Guard("stream", policy=GuardPolicy(bulkhead=BulkheadPolicy(calls_max=1, waiting_max=5, wait_max_s=60.0)))
    guarded = guard(counting)

    async def read() -> int:
        return sum([number async for number in guarded(3)])

    async def main() -> list[int]:
        return await asyncio.gather(*(read() for _ in range(5)))

    assert asyncio.run(main()) == [3] * 5
    assert (only(guard).ok, only(guard).in_flight, only(guard).waiting) == (5, 0, 0)


def test_a_context_manager_is_guarded_from_above_and_from_below() -> None:
    guard = Guard("session", policy=GuardPolicy())
    seen: list[str] = []

    async def session(name: str) -> AsyncIterator[str]:
        seen.append(f"open {name}")
        try:
            yield name
        finally:
            seen.append(f"close {name}")

    above, below = guard(asynccontextmanager(session)), asynccontextmanager(guard(session))

    async def main() -> None:
        async with above("a") as one, below("b") as two:
            seen.append(one + two)
        with suppress(KeyError):
            async with above("c"):
                raise KeyError  # what happens in the body is not the session's failure

    asyncio.run(main())
    assert seen == ["open a", "open b", "ab", "close b", "close a", "open c", "close c"]
    assert (only(guard).ok, only(guard).failed, only(guard).broken, only(guard).in_flight) == (3, 0, 0, 0)


def test_a_stream_cannot_be_promised_what_needs_a_whole_answer() -> None:
    guard = Guard("stream", policy=GuardPolicy())
    with pytest.raises(BadSettings, match="ladder"):
        guard.ladder(template=1)(counting)
    with pytest.raises(BadSettings) as wrong:
        guard(single_flight=True, bad=bool)(counting)
    assert [path for path, _ in wrong.value.problems] == ["protect.bad", "protect.single_flight"]
