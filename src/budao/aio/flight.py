"""Single flight for coroutines: equal calls at one time are one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

from budao.guard import key_of


class _Shared:
    """One call and how many wait for it."""

    __slots__ = ("loop", "task", "waiting")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.loop = task.get_loop()
        self.waiting = 0


def single(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Callers with equal arguments share one call. It goes on while at least one of them waits."""
    flights: dict[Hashable, _Shared] = {}

    async def flown(*args: Any, **kwargs: Any) -> Any:
        key = key_of(args, kwargs)
        if key is None:
            return await function(*args, **kwargs)
        loop = asyncio.get_running_loop()
        shared = flights.get(key)
        if shared is not None and shared.task is asyncio.current_task():
            return await function(*args, **kwargs)  # it called itself, and waiting for itself would be for ever
        if shared is None or shared.loop is not loop:
            shared = flights[key] = _Shared(loop.create_task(function(*args, **kwargs)))

            def land(_: asyncio.Task[Any], landed: _Shared = shared) -> None:
                if flights.get(key) is landed:
                    del flights[key]

            shared.task.add_done_callback(land)
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if not shared.waiting and not shared.task.done():
                if flights.get(key) is shared:
                    del flights[key]  # nobody may join a call that is being given up
                shared.task.cancel()

    return flown
