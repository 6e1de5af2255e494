"""An event loop in a thread of its own, for programs that have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Self, TypeVar

T = TypeVar("T")


class BackgroundLoop:
    """Runs coroutines for threads while its block is open. What still runs at its end is cancelled and waited for."""

    def __init__(self, name: str = "budao loop") -> None:
        self.name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the loop, and waits for its end. Never call it on the loop itself."""
        loop = self._loop
        if loop is None:
            coroutine.close()
            raise RuntimeError(f"{self.name} is not running: enter its block first")
        assert threading.current_thread() is not self._thread, "the loop cannot wait for itself"
        running = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return running.result()
        except CancelledError:
            raise RuntimeError(f"{self.name} was closed while this ran") from None
        except BaseException:
            running.cancel()  # a KeyboardInterrupt reaches the thread that waits, not the loop
            raise

    def __enter__(self) -> Self:
        assert self._thread is None, "a loop is entered once"
        # A daemon: a program that forgets to leave the block still ends.
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), name=self.name, daemon=True)
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._thread is not None
        loop, self._loop = self._loop, None
        if loop is not None and self._stop is not None:
            loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _live(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._started.set()
        await self._stop.wait()


@contextmanager
def in_thread(opened: Callable[[], AbstractAsyncContextManager[T]], *, name: str = "budao loop") -> Iterator[T]:
    """Opens an asynchronous block on a loop in a thread, and holds it open while this block is.

    `opened` is called on that loop, so that whatever it makes belongs there. For a directory in a threaded program:

        with in_thread(lambda: Directory(StoreSource(store), "orders")) as directory:
            directory.roster  # from any thread
    """
    with BackgroundLoop(name) as loop:
        leave: asyncio.Event | None = None
        entered: asyncio.Future[T] | None = None

        async def hold() -> None:
            # Entered and left by one task: a time limit or a task group inside may not pass from one to another.
            nonlocal leave
            assert entered is not None
            leave = asyncio.Event()
            try:
                async with opened() as inside:
                    entered.set_result(inside)
                    await leave.wait()
            except BaseException as error:
                if entered.done():
                    raise
                entered.set_exception(error)

        async def start() -> tuple[T, asyncio.Task[None]]:
            nonlocal entered
            entered = asyncio.get_running_loop().create_future()
            task = asyncio.create_task(hold(), name=name)
            return await entered, task

        async def end(task: asyncio.Task[None]) -> None:
            assert leave is not None
            leave.set()
            await task

        inside, task = loop.run(start())
        try:
            yield inside
        finally:
            loop.run(end(task))
