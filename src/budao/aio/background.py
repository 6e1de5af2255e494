"""Tasks that nobody waits for, and that must not crash unheard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """Owns tasks until they end, and reports those that crashed.

    `on_crash` hears where and what, while the context of the task's creator is in force, so that the trace that caused
    the task can be named.
    """

    def __init__(self, on_crash: Callable[[str, BaseException], object]) -> None:
        self._on_crash = on_crash
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Starts a task that is kept from the collector until it ends."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Cancels what still runs on this loop, and waits until it is gone."""
        loop, here = asyncio.get_running_loop(), asyncio.current_task()
        while True:
            # A task cannot wait for its own end, and those of a closed loop have no more steps to take.
            self._tasks = {task for task in self._tasks if not task.get_loop().is_closed()}
            tasks = [task for task in self._tasks if task is not here and task.get_loop() is loop]
            if not tasks:
                return
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks.difference_update(tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_crash(f"task {task.get_name()}", error)
