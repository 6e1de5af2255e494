from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from budao.aio import single


class Made:
    """A function that counts its calls and answers when it is told to."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.cancelled = 0
        self.go = asyncio.Event()

    async def __call__(self, key: object) -> object:
        self.calls.append(key)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return key


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_callers_with_equal_arguments_share_one_call() -> None:
    made = Made()

    async def main() -> list[object]:
        flown: Callable[..., object] = single(made)
        tasks = [asyncio.ensure_future(single_call) for single_call in map(flown, "aabab")]  # type: ignore[arg-type]
        await turns()
        made.go.set()
        return list(await asyncio.gather(*tasks))

    assert asyncio.run(main()) == list("aabab")
    assert made.calls == ["a", "b"]


def test_the_call_after_the_shared_one_is_made_anew() -> None:
    made = Made()

    async def main() -> None:
        made.go.set()
        flown = single(made)
        await flown("a")
        await flown("a")

    asyncio.run(main())
    assert made.calls == ["a", "a"]


def test_a_leader_that_is_cancelled_does_not_take_the_others_along() -> None:
    made = Made()

    async def main() -> object:
        flown = single(made)
        leader, other = asyncio.ensure_future(flown("a")), asyncio.ensure_future(flown("a"))
        await turns()
        leader.cancel()
        await turns()
        made.go.set()
        with pytest.raises(asyncio.CancelledError):
            await leader
        return await other

    assert asyncio.run(main()) == "a"
    assert (len(made.calls), made.cancelled) == (1, 0)


def test_the_call_ends_when_nobody_waits_for_it_any_more_and_the_next_one_is_new() -> None:
    made = Made()

    async def main() -> object:
        flown = single(made)
        tasks = [asyncio.ensure_future(flown("a")) for _ in range(3)]
        await turns()
        for task in tasks:
            task.cancel()
        await turns()
        assert made.cancelled == 1
        made.go.set()
        return await flown("a")

    assert asyncio.run(main()) == "a"
    assert len(made.calls) == 2


def test_a_failure_is_shared_and_not_kept() -> None:
    calls = 0

    async def fail(key: str) -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        if calls == 1:
            raise OSError("down")
        return key

    async def main() -> None:
        flown = single(fail)
        results = await asyncio.gather(*(flown("a") for _ in range(3)), return_exceptions=True)
        assert [str(each) for each in results] == ["down"] * 3
        assert await flown("a") == "a"

    asyncio.run(main())


def test_arguments_without_a_hash_are_not_shared() -> None:
    made = Made()

    async def main() -> None:
        made.go.set()
        flown = single(made)
        await asyncio.gather(flown([1]), flown([1]))

    asyncio.run(main())
    assert len(made.calls) == 2


def test_a_function_that_calls_itself_is_not_waited_for_by_itself() -> None:
    depth = 0

    async def nest(key: str) -> int:
        nonlocal depth
        depth += 1
        return depth if depth == 3 else await flown(key)

    flown = single(nest)
    assert asyncio.run(flown("a")) == 3


def test_a_recursion_over_different_arguments_shares_what_is_equal() -> None:
    made: list[int] = []

    async def fibonacci(number: int) -> int:
        made.append(number)
        await asyncio.sleep(0)
        if number < 2:
            return number
        return sum(await asyncio.gather(flown(number - 1), flown(number - 2)))

    flown = single(fibonacci)
    assert asyncio.run(flown(10)) == 55
    assert len(made) < 177  # what it takes without sharing


def test_two_loops_do_not_wait_for_each_other() -> None:
    made = Made()
    flown = single(made)

    async def leave() -> None:
        task = asyncio.ensure_future(flown("a"))
        await turns()
        task.cancel()

    async def finish() -> object:
        made.go = asyncio.Event()
        made.go.set()
        return await flown("a")

    asyncio.run(leave())
    assert asyncio.run(finish()) == "a"
