"""Hedged async calls: whoever answers first is taken, and nobody else is touched."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from budao import BudgetPolicy, Guard, GuardPolicy, HedgePolicy, RatePolicy, RetryPolicy, TimedOut, TimeoutPolicy
from budao.guard import Hedged

Script = Callable[[int], Awaitable[object]]


class Hedging:
    """A guard that has seen quick calls, and one function whose further calls follow a script by their number."""

    def __init__(self, *, is_safe: bool = True, discard: Callable[[Any], object] | None = None, **policy: Any) -> None:
        settings: dict[str, Any] = {
            "breaker": None,
            "retry": None,
            "hedge": HedgePolicy(samples_min=2, delay_min_s=0.0005),
            "budget": BudgetPolicy(floor_per_s=100.0),
        }
        self.guard = Guard("hedged", policy=GuardPolicy(**(settings | policy)), rng=random.Random(1))
        self.made: list[str] = []
        self.script: Script | None = None

        @self.guard(safe=is_safe, discard=discard)
        async def work() -> object:
            if self.script is None:
                return None
            task = asyncio.current_task()
            assert task is not None
            self.made.append(task.get_name())
            return await self.script(len(self.made))

        self.work = work

    async def run(self, script: Script) -> object:
        for _ in range(20):
            await self.work()
        self.guard.snapshot()
        self.script = script
        task = asyncio.current_task()
        assert task is not None
        task.set_name("caller")
        try:
            return await self.work()
        finally:
            for _ in range(5):  # whatever would still come would come now, to a task that is not cancelled
                await asyncio.sleep(0)
            assert task.cancelling() == 0
            assert asyncio.all_tasks() == {task}
            assert [view.in_flight for view in self.guard.snapshot().keys] == [0]

    @property
    def counted(self) -> tuple[int, int]:
        view = self.guard.snapshot()
        return view.hedges, view.hedges_won


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_second_call_that_answers_first_is_taken_and_the_first_is_cancelled() -> None:
    hedging = Hedging()
    ended: list[str] = []

    async def script(number: int) -> str:
        if number == 1:
            try:
                await for_ever()
            finally:
                ended.append("first")
        return "second"

    assert asyncio.run(hedging.run(script)) == "second"
    assert (hedging.counted, ended, len(hedging.made)) == ((1, 1), ["first"], 2)


def test_a_first_call_that_answers_first_is_taken_and_the_second_is_cancelled() -> None:
    hedging = Hedging()
    ended: list[str] = []

    async def script(number: int) -> str:
        if number == 1:
            await second_is_out.wait()
            return "first"
        second_is_out.set()
        try:
            await for_ever()
        finally:
            ended.append("second")
        return "never"

    async def main() -> object:
        return await hedging.run(script)

    second_is_out = asyncio.Event()
    assert asyncio.run(main()) == "first"
    assert (hedging.counted, ended) == ((1, 0), ["second"])


def test_a_first_call_that_fails_waits_for_the_second_to_answer() -> None:
    hedging = Hedging()
    second_is_out, first_failed = asyncio.Event(), asyncio.Event()

    async def script(number: int) -> str:
        if number == 1:
            await second_is_out.wait()
            asyncio.get_running_loop().call_soon(first_failed.set)
            raise OSError("first")
        second_is_out.set()
        await first_failed.wait()
        await asyncio.sleep(0)
        return "second"

    assert asyncio.run(hedging.run(script)) == "second"
    assert hedging.counted == (1, 1)


def test_when_both_fail_the_first_failure_is_raised() -> None:
    hedging = Hedging()
    second_is_out = asyncio.Event()

    async def script(number: int) -> str:
        if number == 1:
            await second_is_out.wait()
            raise OSError("first")
        second_is_out.set()
        await asyncio.sleep(0)
        raise OSError("second")

    with pytest.raises(OSError, match="first"):
        asyncio.run(hedging.run(script))
    assert hedging.counted == (1, 0)


def test_a_second_call_that_fails_leaves_the_first_alone() -> None:
    hedging = Hedging()
    second_failed = asyncio.Event()

    async def script(number: int) -> str:
        if number == 1:
            await second_failed.wait()
            await asyncio.sleep(0)
            return "first"
        asyncio.get_running_loop().call_soon(second_failed.set)
        raise OSError("second")

    assert asyncio.run(hedging.run(script)) == "first"
    assert hedging.counted == (1, 0)


@pytest.mark.parametrize("turns", range(4))
def test_two_answers_at_one_moment_cancel_nobody_afterwards(turns: int) -> None:
    hedging = Hedging()
    go = asyncio.Event()

    async def script(number: int) -> str:
        if number == 2:
            asyncio.get_running_loop().call_soon(go.set)
        await go.wait()
        for _ in range(turns if number == 1 else 1):
            await asyncio.sleep(0)
        return "done"

    assert asyncio.run(hedging.run(script)) == "done"


def test_a_first_call_that_raises_when_it_has_lost_changes_nothing() -> None:
    hedging = Hedging()

    async def script(number: int) -> str:
        if number == 1:
            try:
                await for_ever()
            finally:
                raise OSError("while cleaning up")
        return "second"

    assert asyncio.run(hedging.run(script)) == "second"
    assert hedging.counted == (1, 1)


def test_both_calls_end_at_the_time_limit() -> None:
    hedging = Hedging(timeout=TimeoutPolicy(call_s=0.3, total_s=30.0))  # much more than it takes to begin the second

    async def script(number: int) -> None:
        await for_ever()

    with pytest.raises(TimedOut):
        asyncio.run(hedging.run(script))
    assert (hedging.counted, len(hedging.made)) == ((1, 0), 2)


def test_an_unsafe_call_and_one_the_budget_does_not_pay_for_are_not_made_twice() -> None:
    async def script(number: int) -> str:
        ringing = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.005, ringing.set_result, "alone")
        return str(await ringing)

    for hedging in (Hedging(is_safe=False), Hedging(budget=BudgetPolicy(share=0.0, floor_per_s=0.0))):
        assert asyncio.run(hedging.run(script)) == "alone"
        assert (hedging.counted, len(hedging.made)) == ((0, 0), 1)


def test_retries_and_hedges_spend_from_one_budget() -> None:
    hedging = Hedging(
        retry=RetryPolicy(attempts_max=2, pause_first_s=0.0, pause_max_s=0.0),
        budget=BudgetPolicy(share=0.0, floor_per_s=0.1, window_s=10.0),
    )
    second_is_out = asyncio.Event()

    async def script(number: int) -> str:
        if number == 1:
            await second_is_out.wait()
        second_is_out.set()
        raise OSError(f"call {number}")

    with pytest.raises(OSError, match="call 1"):
        asyncio.run(hedging.run(script))
    assert (hedging.counted, hedging.guard.snapshot().retries, len(hedging.made)) == ((1, 0), 0, 2)


def test_a_guard_with_a_rate_hedges_as_well() -> None:
    hedging = Hedging(rate=RatePolicy(calls_per_s=1e6, burst=1_000_000))

    async def script(number: int) -> str:
        if number == 1:
            await for_ever()
        return "second"

    assert asyncio.run(hedging.run(script)) == "second"
    assert hedging.counted == (1, 1)


def test_a_losing_answer_is_discarded() -> None:
    discarded: list[object] = []

    async def discard(answer: object) -> None:
        discarded.append(answer)

    hedging = Hedging(discard=discard)
    go = asyncio.Event()

    async def script(number: int) -> str:
        if number == 2:
            asyncio.get_running_loop().call_soon(go.set)
        try:
            await go.wait()
        except asyncio.CancelledError:
            return "late"
        return "first" if number == 1 else "second"

    answer = asyncio.run(hedging.run(script))
    assert {answer, *discarded} <= {"first", "second", "late"}
    assert len(discarded) == 1


def test_a_listener_hears_of_each_hedge_and_the_second_runs_in_a_task_of_its_own() -> None:
    hedging = Hedging()
    heard: list[object] = []
    hedging.guard.listen(heard.append)

    async def script(number: int) -> str:
        if number == 1:
            await for_ever()
        return "second"

    asyncio.run(hedging.run(script))
    assert [type(event) for event in heard] == [Hedged]
    assert hedging.made[0] == "caller"
    assert hedging.made[1] != "caller"
