"""A program of a user: blocks, background work, looking and steering, all with exact types."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import assert_type

from budao import (
    Availability,
    BreakerOpen,
    CallRefused,
    Guard,
    GuardPolicy,
    GuardView,
    Mode,
    Priority,
    RetryPolicy,
    TimedOut,
    Why,
    follow,
)

guard = Guard("inventory", objective=Availability(0.999), failed_if=(OSError, TimedOut))
picky = Guard("picky", policy=GuardPolicy(retry=RetryPolicy(attempts_max=2)), failed_if=lambda error: bool(error.args))


def add(one: int, two: int) -> int:
    return one + two


async def later() -> str:
    return "done"


async def program() -> None:
    with guard.block("key", until=guard.clock() + 1.0, priority=Priority.CRITICAL) as call:
        call.failed("status 500")
        call.answered()
        assert_type(call.until, float)
    async with guard.block() as other:
        other.drop()
    assert_type(guard.spawn(later()), asyncio.Task[str])
    with ThreadPoolExecutor() as executor:
        assert_type(guard.submit(executor, add, 1, 2), Future[int])
    assert_type(guard.thread(add, 1, 2), threading.Thread)
    view = guard.snapshot()
    assert_type(view, GuardView)
    for key in view.keys:
        assert_type(key.refused, dict[Why, int])
        assert_type(key.p99_s, float | None)
    stop = guard.listen(print)
    assert_type(stop, Callable[[], None])
    guard.set_mode(Mode.SHADOW)
    guard.obey(GuardPolicy())
    assert_type(guard.explain(), str)
    try:
        await later()
    except BreakerOpen as refused:
        assert_type(refused.why, Why)
    except CallRefused as refused:
        assert_type(refused.retry_after_s, float)
    except TimedOut as late:
        assert_type(late.after_s, float)
    with follow("budao.toml", [guard, picky]) as following:
        assert_type(following.problems, tuple[tuple[str, str], ...])
    await guard.close()
