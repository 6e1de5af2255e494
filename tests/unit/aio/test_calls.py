"""Time limits, retries and waiting of async calls, on real event loops and through a guard."""

from __future__ import annotations

import asyncio
import random
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from math import inf
from typing import Any

import pytest

from budao import (
    BreakerOpen,
    BreakerPolicy,
    BudgetPolicy,
    BulkheadPolicy,
    Guard,
    GuardPolicy,
    NoRoom,
    Priority,
    RetryPolicy,
    TimedOut,
    TimeoutPolicy,
    Why,
)
from budao.aio import repeat
from budao.guard import KeyView, Repeats
from budao.model import context
from budao.testkit import FakeClock

SOON = GuardPolicy(timeout=TimeoutPolicy(call_s=0.001, total_s=1.0), retry=None)
LATER = GuardPolicy(timeout=TimeoutPolicy(call_s=60.0, total_s=60.0), retry=None)


def only(guard: Guard) -> KeyView:
    (view,) = guard.snapshot().keys
    return view


def here() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


# -- time limits


def test_a_call_that_takes_too_long_raises_a_time_out_and_the_task_is_not_cancelled() -> None:
    guard = Guard("slow", policy=SOON)
    work = guard(for_ever)

    async def main() -> int:
        with pytest.raises(TimedOut, match="no answer within") as late:
            await work()
        assert isinstance(late.value, TimeoutError)
        assert isinstance(late.value.__cause__, asyncio.CancelledError)
        await asyncio.sleep(0)
        return here().cancelling()

    assert asyncio.run(main()) == 0
    assert (only(guard).failed, only(guard).dropped, only(guard).in_flight) == (1, 0, 0)


def test_a_time_out_is_a_failure_whatever_the_errors_of_the_other_side_are_called() -> None:
    guard = Guard("slow", policy=SOON, failed_if=KeyError)

    async def main() -> None:
        with suppress(TimedOut):
            await guard(for_ever)()

    asyncio.run(main())
    assert only(guard).failed == 1


def test_a_call_that_never_suspends_arms_no_timer_and_needs_no_loop() -> None:
    guard = Guard("quick", policy=LATER)

    @guard
    async def work() -> int:
        return 7

    with pytest.raises(StopIteration, match="7"):
        work().send(None)
    assert guard._suspended._timers == {}


def test_a_call_that_suspends_can_be_driven_by_hand_and_by_loops_of_another_kind() -> None:
    guard = Guard("foreign", policy=LATER)

    @types.coroutine
    def step(value: str) -> Generator[str, str, str]:
        return (yield value)

    @guard
    async def work() -> list[str]:
        return [await step("one"), await step("two"), await step("three")]

    coroutine = work()
    assert coroutine.send(None) == "one"
    assert coroutine.send("a") == "two"
    assert coroutine.send("b") == "three"
    with pytest.raises(StopIteration) as done:
        coroutine.send("c")
    assert done.value.value == ["a", "b", "c"]
    assert (only(guard).ok, only(guard).in_flight) == (1, 0)


def test_what_is_thrown_in_reaches_the_coroutine_each_time_and_it_may_go_on() -> None:
    guard = Guard("foreign", policy=LATER)

    @types.coroutine
    def step(value: int) -> Generator[int, None, None]:
        yield value

    @guard
    async def work() -> list[str]:
        heard = []
        for value in range(3):
            try:
                await step(value)
            except ValueError as error:
                heard.append(str(error))
        return heard

    coroutine = work()
    assert coroutine.send(None) == 0
    assert coroutine.throw(ValueError("a")) == 1
    assert coroutine.throw(ValueError("b")) == 2
    with pytest.raises(StopIteration) as done:
        coroutine.throw(ValueError("c"))
    assert done.value.value == ["a", "b", "c"]


def test_a_cancellation_from_outside_is_not_taken_for_a_time_out() -> None:
    guard = Guard("slow", policy=LATER)

    async def main() -> None:
        task = asyncio.ensure_future(guard(for_ever)())
        await asyncio.sleep(0)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        assert task.cancelled()

    asyncio.run(main())
    assert (only(guard).dropped, only(guard).failed) == (1, 0)


def test_a_cancellation_and_a_time_out_at_one_moment_end_as_a_cancellation() -> None:
    guard = Guard("slow", policy=SOON)

    async def main() -> None:
        task = asyncio.ensure_future(both())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1

    async def both() -> None:
        async def work() -> None:
            try:
                await for_ever()
            except asyncio.CancelledError:  # the time-out; now somebody else cancels as well
                here().cancel()
                raise

        await guard(work)()

    asyncio.run(main())


def test_a_coroutine_that_ends_although_it_was_interrupted_keeps_its_answer() -> None:
    guard = Guard("stubborn", policy=SOON)

    @guard
    async def work() -> str:
        try:
            await for_ever()
        except asyncio.CancelledError:
            return "late but there"
        return "never"

    async def main() -> tuple[str, int]:
        return await work(), here().cancelling()

    assert asyncio.run(main()) == ("late but there", 0)
    assert only(guard).in_flight == 0


def test_a_coroutine_that_raises_while_it_is_interrupted_raises_that() -> None:
    guard = Guard("stubborn", policy=SOON)

    @guard
    async def work() -> None:
        try:
            await for_ever()
        finally:
            raise OSError("while cleaning up")

    async def main() -> int:
        with pytest.raises(OSError, match="while cleaning up"):
            await work()
        return here().cancelling()

    assert asyncio.run(main()) == 0


@pytest.mark.parametrize("outer_s", [0.001, 60.0])
@pytest.mark.parametrize("inner_s", [0.001, 60.0])
def test_time_limits_nest_with_those_of_asyncio_either_way(outer_s: float, inner_s: float) -> None:
    guard = Guard("nested", policy=SOON if outer_s == inner_s == 60.0 else LATER)

    @guard
    async def inside() -> str:
        try:
            async with asyncio.timeout(inner_s):
                await for_ever()
        except TimeoutError:
            return "inner"
        return "never"

    async def main() -> tuple[str, int]:
        ending = "none"
        try:
            async with asyncio.timeout(outer_s):
                ending = await inside()
        except TimedOut:
            ending = "guard"
        except TimeoutError:
            ending = "outer"
        await asyncio.sleep(0)
        return ending, here().cancelling()

    expected = {(60.0, 60.0): {"guard"}, (0.001, 60.0): {"outer"}, (60.0, 0.001): {"inner"}}
    ending, cancelling = asyncio.run(main())
    assert cancelling == 0
    assert ending in expected.get((outer_s, inner_s), {"outer", "inner"})


def test_a_task_group_inside_and_around_is_ended_by_the_time_limit() -> None:
    guard = Guard("grouped", policy=SOON)
    ended = []

    async def child() -> None:
        try:
            await for_ever()
        finally:
            ended.append("child")

    @guard
    async def work() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(child())
            tasks.create_task(child())

    async def main() -> int:
        with pytest.raises(TimedOut):
            await work()
        cancelling = here().cancelling()
        with pytest.raises(ExceptionGroup) as failed:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(work())
        assert failed.group_contains(TimedOut)
        return cancelling

    assert asyncio.run(main()) == 0
    assert ended == ["child"] * 4


def test_wait_for_around_a_guarded_call_ends_it_as_always() -> None:
    guard = Guard("waited", policy=LATER)

    async def main() -> None:
        with pytest.raises(TimeoutError) as late:
            await asyncio.wait_for(guard(for_ever)(), 0.001)
        assert not isinstance(late.value, TimedOut)

    asyncio.run(main())
    assert (only(guard).dropped, only(guard).in_flight) == (1, 0)


def test_nested_guards_each_keep_their_own_limit_and_the_sooner_one_ends_the_call() -> None:
    outer, inner = Guard("outer", policy=LATER), Guard("inner", policy=SOON)

    @outer
    async def work() -> str:
        try:
            await inner(for_ever)()
        except TimedOut as late:
            return late.target
        return "never"

    assert asyncio.run(work()) == "inner"
    assert (only(outer).ok, only(inner).failed) == (1, 1)


def test_the_deadline_inside_is_the_sooner_of_both_and_gone_afterwards() -> None:
    clock = FakeClock(100.0)
    guard = Guard("deadline", policy=GuardPolicy(timeout=TimeoutPolicy(call_s=5.0, total_s=9.0)), clock=clock)
    seen: list[float] = []

    @guard
    async def work() -> None:
        seen.append(context.deadline.get())

    async def main() -> None:
        await work()
        token = context.deadline.set(102.0)
        await work()
        context.deadline.reset(token)
        assert context.deadline.get() == inf

    asyncio.run(main())
    assert seen == [pytest.approx(105.0), 102.0]


def test_an_iteration_inside_a_guarded_call_is_not_disturbed() -> None:
    guard = Guard("iterating", policy=LATER)

    async def numbers() -> Any:
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    @guard
    async def work() -> list[int]:
        return [number async for number in numbers()]

    assert asyncio.run(work()) == [0, 1, 2]


# -- retries


def tries(
    guard: Guard, endings: list[object], pauses: list[float], *, asked: Callable[[Any], float | None] | None = None
) -> tuple[Callable[..., Coroutine[Any, Any, Any]], list[float]]:
    """The retrying part alone, with its pauses told instead of waited for."""
    made: list[float] = []

    async def once() -> object:
        made.append(context.deadline.get())
        ending = endings.pop(0)
        if isinstance(ending, Exception):
            raise ending
        return ending

    async def pause(span_s: float) -> None:
        pauses.append(span_s)
        if isinstance(guard._told, FakeClock):  # type: ignore[attr-defined]
            guard._told.advance(span_s)  # type: ignore[attr-defined]

    repeats = Repeats(True, None, asked)
    return repeat(once, repeats, None, guard.clock, pause), made


def guard_at(clock: FakeClock, **policy: Any) -> Guard:
    guard = Guard("retried", policy=GuardPolicy(breaker=None, **policy), clock=clock, rng=random.Random(3))
    guard._told = clock  # type: ignore[attr-defined]
    return guard


def test_pauses_have_full_jitter_below_a_ceiling_that_doubles() -> None:
    guard = guard_at(FakeClock(), retry=RetryPolicy(attempts_max=4, pause_first_s=1.0, pause_max_s=2.0))
    pauses: list[float] = []
    retry, _ = tries(guard, [OSError(), OSError(), "done"], pauses)
    assert asyncio.run(retry(guard._plain, OSError(), None, 0.0, (), {})) == "done"
    rng = random.Random(3)
    assert pauses == [rng.uniform(0.0, 1.0), rng.uniform(0.0, 2.0), rng.uniform(0.0, 2.0)]
    assert guard.snapshot().retries == 3


def test_a_pause_that_the_other_side_asked_for_is_never_cut_short() -> None:
    guard = guard_at(FakeClock(), retry=RetryPolicy(pause_first_s=0.01))
    pauses: list[float] = []
    retry, _ = tries(guard, ["done"], pauses, asked=lambda _: 7.0)
    asyncio.run(retry(guard._plain, OSError(), None, 0.0, (), {}))
    assert 7.0 <= pauses[0] <= 7.7


def test_the_last_failure_is_raised_when_no_try_is_left() -> None:
    guard = guard_at(FakeClock(), retry=RetryPolicy(attempts_max=2))
    retry, made = tries(guard, [OSError("second")], [])
    with pytest.raises(OSError, match="second"):
        asyncio.run(retry(guard._plain, OSError("first"), None, 0.0, (), {}))
    assert len(made) == 1


def test_every_further_try_ends_with_the_total_and_none_begins_after_it() -> None:
    guard = guard_at(
        FakeClock(),
        retry=RetryPolicy(attempts_max=9, pause_first_s=0.0, pause_max_s=0.0),
        timeout=TimeoutPolicy(call_s=5.0, total_s=8.0),
    )
    pauses: list[float] = []
    retry, made = tries(guard, [OSError()] * 3 + ["done"], pauses, asked=lambda _: 3.0)
    with suppress(OSError):
        asyncio.run(retry(guard._plain, OSError(), None, 0.0, (), {}))
    assert made == [8.0, 8.0]
    assert context.deadline.get() == inf


def test_only_calls_that_are_safe_are_repeated() -> None:
    guard = Guard("safe", policy=GuardPolicy(breaker=None, retry=RetryPolicy(pause_first_s=0.0, pause_max_s=0.0)))
    made: list[int] = []

    async def work(number: int) -> None:
        made.append(number)
        raise OSError

    async def main() -> None:
        for protected in (guard(work), guard(safe=lambda number: number == 2)(work), guard(safe=True)(work)):
            for number in (1, 2):
                with suppress(OSError):
                    await protected(number)

    asyncio.run(main())
    assert made == [*(1, 2), *(1, 2, 2, 2), *(1, 1, 1, 2, 2, 2)]


def test_retries_stop_when_a_tenth_more_calls_were_made() -> None:
    policy = GuardPolicy(
        breaker=None,
        retry=RetryPolicy(pause_first_s=0.0, pause_max_s=0.0),
        budget=BudgetPolicy(share=0.1, floor_per_s=0.0, window_s=3_600.0),
    )
    guard = Guard("budget", policy=policy)
    made = 0

    @guard(safe=True)
    async def work() -> None:
        nonlocal made
        made += 1
        raise OSError

    async def main() -> None:
        for _ in range(1_000):
            with suppress(OSError):
                await work()

    asyncio.run(main())
    view = guard.snapshot()
    assert made == 1_000 + view.retries
    assert 100 <= view.retries <= 112  # repeats are calls too, and pay for a tenth of themselves
    assert view.keys[0].refused[Why.BUDGET_SPENT] > 0


def test_a_breaker_that_opens_between_two_tries_ends_them_with_the_failure_itself() -> None:
    policy = GuardPolicy(
        breaker=BreakerPolicy(calls_min=2, rest_s=60.0), retry=RetryPolicy(attempts_max=5, pause_first_s=0.0)
    )
    guard = Guard("opening", policy=policy)
    made = 0

    @guard(safe=True)
    async def work() -> None:
        nonlocal made
        made += 1
        raise OSError(f"try {made}")

    async def main() -> None:
        with pytest.raises(OSError, match="try 2"):
            await work()
        with pytest.raises(BreakerOpen):
            await work()

    asyncio.run(main())
    assert made == 2


def test_a_bad_answer_is_discarded_and_tried_again_and_the_last_one_is_given_out() -> None:
    guard = Guard("bad", policy=GuardPolicy(breaker=None, retry=RetryPolicy(attempts_max=2, pause_first_s=0.0)))
    discarded: list[int] = []
    answers = iter([503, 200, 503, 504])

    async def discard(answer: int) -> None:
        await asyncio.sleep(0)
        discarded.append(answer)

    @guard(safe=True, bad=lambda answer: answer >= 500, discard=discard)
    async def work() -> int:
        return next(answers)

    async def main() -> list[int]:
        return [await work(), await work()]

    assert asyncio.run(main()) == [200, 504]
    assert discarded == [503, 503]
    assert (only(guard).ok, only(guard).failed) == (1, 3)


def test_a_discard_that_raises_is_counted_and_the_call_goes_on() -> None:
    guard = Guard("bad", policy=GuardPolicy(breaker=None, retry=RetryPolicy(attempts_max=2, pause_first_s=0.0)))
    answers = [200, 503]

    async def discard(answer: int) -> None:
        raise ValueError(answer)

    @guard(safe=True, bad=lambda answer: answer >= 500, discard=discard)
    async def work() -> int:
        return answers.pop()

    assert asyncio.run(work()) == 200
    assert guard.snapshot().inner_errors == 1


# -- places


def crowded(**bulkhead: Any) -> Guard:
    return Guard("crowded", policy=GuardPolicy(retry=None, bulkhead=BulkheadPolicy(**bulkhead)))


def test_a_call_without_a_place_is_refused_or_waits_and_is_served_in_turn() -> None:
    guard = crowded(calls_max=1, waiting_max=1, wait_max_s=60.0)
    go = asyncio.Event()

    @guard
    async def work(name: str) -> str:
        await go.wait()
        return name

    async def main() -> list[object]:
        tasks = [asyncio.ensure_future(work(name)) for name in "abc"]
        for _ in range(3):
            await asyncio.sleep(0)
        assert (only(guard).in_flight, only(guard).waiting) == (1, 1)
        go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, third = asyncio.run(main())
    assert (first, second, type(third)) == ("a", "b", NoRoom)
    assert (only(guard).in_flight, only(guard).waiting, only(guard).ok) == (0, 0, 2)


def test_the_more_important_call_gets_the_place_that_comes_free() -> None:
    guard = crowded(calls_max=1, waiting_max=5, wait_max_s=60.0)
    order: list[str] = []

    @guard
    async def work(name: str) -> None:
        order.append(name)
        await asyncio.sleep(0)

    async def call(name: str, priority: Priority) -> None:
        context.priority.set(priority)
        await work(name)

    async def main() -> None:
        await asyncio.gather(
            call("first", Priority.LOW),
            call("low", Priority.LOW),
            call("sheddable", Priority.SHEDDABLE),
            call("critical", Priority.CRITICAL),
        )

    asyncio.run(main())
    assert order == ["first", "critical", "low", "sheddable"]


def test_a_wait_ends_with_a_refusal_even_if_the_clock_stands_still() -> None:
    policy = GuardPolicy(retry=None, bulkhead=BulkheadPolicy(calls_max=1, waiting_max=5, wait_max_s=0.002))
    guard = Guard("crowded", policy=policy, clock=FakeClock())

    async def main() -> None:
        first = asyncio.ensure_future(guard(for_ever)())
        await asyncio.sleep(0)
        with pytest.raises(NoRoom) as refused:
            await guard(for_ever)()
        assert refused.value.why is Why.WAITED_OUT
        first.cancel()

    asyncio.run(main())
    assert (only(guard).in_flight, only(guard).waiting) == (0, 0)


def test_places_that_are_limited_while_calls_run_are_handed_on_by_those_calls_too() -> None:
    guard = Guard("swapped", policy=GuardPolicy(retry=None))
    go = asyncio.Event()

    @guard
    async def work(name: str) -> str:
        if name == "old":
            await go.wait()
        return name

    async def main() -> list[str]:
        old = [asyncio.ensure_future(work("old")) for _ in range(5)]
        await asyncio.sleep(0)
        guard.obey(GuardPolicy(retry=None, bulkhead=BulkheadPolicy(calls_max=2, waiting_max=9, wait_max_s=60.0)))
        new = [asyncio.ensure_future(work("new")) for _ in range(3)]
        await asyncio.sleep(0)
        assert (only(guard).in_flight, only(guard).waiting) == (5, 3)
        go.set()
        return list(await asyncio.gather(*old, *new))

    assert asyncio.run(main()) == ["old"] * 5 + ["new"] * 3
    assert (only(guard).in_flight, only(guard).waiting, only(guard).ok) == (0, 0, 8)


def test_waiting_calls_are_let_in_when_places_are_no_longer_limited() -> None:
    guard = crowded(calls_max=1, waiting_max=9, wait_max_s=60.0)
    go = asyncio.Event()

    @guard
    async def work() -> None:
        await go.wait()

    async def main() -> None:
        tasks = [asyncio.ensure_future(work()) for _ in range(4)]
        await asyncio.sleep(0)
        assert only(guard).waiting == 3
        guard.obey(GuardPolicy(retry=None))
        assert (only(guard).waiting, only(guard).in_flight) == (0, 4)
        go.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert (only(guard).in_flight, only(guard).ok) == (0, 4)


# -- the ladder


def test_a_rung_that_takes_too_long_or_raises_leads_to_the_next_one() -> None:
    from budao import Rung

    guard = Guard("ladder", policy=GuardPolicy(retry=None))

    async def broken() -> str:
        raise OSError("cache is down")

    async def hanging() -> str:
        await for_ever()
        return "never"

    @guard.ladder(cache=broken, template=Rung(hanging, deadline_s=0.001), empty="nothing", safe=True)
    async def work() -> str:
        raise OSError("down")

    assert asyncio.run(work()) == "nothing"
    assert guard.snapshot().rungs == {"broken": 2, "empty": 1}


def test_any_awaitable_is_awaited() -> None:
    guard = Guard("awaitable", policy=LATER)

    class Later:
        def __await__(self) -> Generator[None, None, str]:
            yield
            return "done"

    class Client:
        async def __call__(self) -> str:
            return await Later()

    async def gives() -> Awaitable[str]:
        return Later()

    async def main() -> tuple[str, str]:
        return await guard.protect(Client())(), await (await guard(gives)())

    assert asyncio.run(main()) == ("done", "done")
