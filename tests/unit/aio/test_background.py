from __future__ import annotations

import asyncio

import pytest

from budao import Guard
from budao.aio import Background
from budao.guard import Crashed
from budao.model import context

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def crash() -> None:
    await asyncio.sleep(0)
    raise OSError("down")


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_crash_is_counted_and_told_with_the_trace_that_caused_it(caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard("background")
    heard: list[object] = []
    guard.listen(heard.append)

    async def main() -> None:
        token = context.trace.set(TRACE)
        task = guard.spawn(crash(), name="refill")
        context.trace.reset(token)
        await asyncio.wait((task,))
        await asyncio.sleep(0)

    asyncio.run(main())
    (event,) = heard
    assert isinstance(event, Crashed)
    assert (event.where, event.error) == ("task refill", "OSError: down")
    assert event.trace_id == TRACE.split("-")[1]
    assert guard.snapshot().crashes == 1
    assert "OSError: down" in caplog.text


async def done() -> str:
    await asyncio.sleep(0)
    return "done"


def test_a_task_is_kept_until_it_ends() -> None:
    crashes: list[str] = []
    background = Background(lambda where, _: crashes.append(where))

    async def main() -> None:
        background.spawn(for_ever())
        task = background.spawn(done())
        assert len(background) == 2
        assert await task == "done"
        await asyncio.sleep(0)
        assert len(background) == 1
        await background.close()
        assert len(background) == 0

    asyncio.run(main())
    assert crashes == []


def test_closing_waits_for_tasks_that_start_others_and_reports_what_they_raise() -> None:
    crashes: list[str] = []
    background = Background(lambda where, error: crashes.append(str(error)))

    async def stubborn() -> None:
        try:
            await for_ever()
        finally:
            background.spawn(for_ever())
            raise OSError("while closing")

    async def main() -> None:
        background.spawn(stubborn())
        await asyncio.sleep(0)
        await background.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert (crashes, len(background)) == (["while closing"], 0)


def test_a_task_may_close_what_owns_it() -> None:
    background = Background(lambda *_: None)

    async def closer() -> str:
        await background.close()
        return "closed"

    async def main() -> str:
        background.spawn(for_ever())
        return await background.spawn(closer())

    assert asyncio.run(main()) == "closed"


def test_a_crash_is_not_lost_when_the_loop_ends() -> None:
    crashes: list[str] = []
    background = Background(lambda where, error: crashes.append(str(error)))

    async def late() -> None:
        try:
            await for_ever()
        finally:
            raise OSError("at the end")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        background.spawn(late())
        await asyncio.sleep(0)

    asyncio.run(main())
    assert (crashes, len(background)) == (["at the end"], 0)


def test_tasks_of_a_closed_loop_do_not_hold_up_the_next_one() -> None:
    background = Background(lambda *_: None)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)

    async def start() -> None:
        background.spawn(for_ever())

    loop.run_until_complete(start())
    (left,) = asyncio.all_tasks(loop)
    loop.close()
    asyncio.run(background.close())
    assert len(background) == 0
    left._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_task_that_is_cancelled_did_not_crash() -> None:
    guard = Guard("background")

    async def main() -> None:
        task = guard.spawn(for_ever())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        await guard.close()

    asyncio.run(main())
    assert guard.snapshot().crashes == 0
