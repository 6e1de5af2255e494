"""A call, and the second, identical one that may overtake it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from typing import Any

from budao.guard import Core, Hedged
from budao.model import Mono


async def as_coroutine(awaitable: Awaitable[Any]) -> Any:
    """Any awaitable as a coroutine, which can be stepped and made a task of."""
    return await awaitable


class Duel:
    """Watches one slow call, sends the second, and cancels the first if the second answers before it.

    The first call runs in the caller's own task, which is cancelled to interrupt it; `has_won` says that this is why,
    and whoever catches the cancellation takes it back. Once closed, nothing here touches that task again.
    """

    __slots__ = (
        "_again", "_clock", "_core", "_discard", "_handle", "_is_open", "_is_taken", "_second", "_started", "_task",
        "cancelling", "has_won",
    )  # fmt: skip

    def __init__(
        self,
        core: Core,
        task: asyncio.Task[Any],
        started: float,
        again: Callable[[], Awaitable[Any]],
        discard: Callable[[Any], Any] | None,
        clock: Callable[[], float],
    ) -> None:
        self._core = core
        self._task = task
        self._started = started
        self._again = again
        self._discard = discard
        self._clock = clock
        self._second: asyncio.Task[Any] | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._is_open = True
        self._is_taken = False
        self.cancelling = task.cancelling()
        self.has_won = False

    def begin(self) -> None:
        """Arms the timer of the second call."""
        delay_s = max(0.0, self._started + self._core.hedge_s - self._clock())
        self._handle = self._task.get_loop().call_later(delay_s, self._hedge)

    def take(self) -> Any:
        """The second call's answer, which the caller gets."""
        assert self._second is not None, "only a second call that answered has a result"
        self._is_taken = True
        with self._core.home.lock:
            self._core.home.hedges_won += 1
        return self._second.result()

    async def may_still_answer(self, until: float) -> bool:
        """The first call failed: waits for the second, if there is one, and says whether it answered."""
        self._is_open = False  # there is nothing left to interrupt
        if self._second is None:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(None if until == inf else max(0.0, until - self._clock())):
                await asyncio.wait((self._second,))
        return self._has_answered()

    def close(self) -> None:
        """The race is over. A second call that still runs is dropped, and what it brought in vain is discarded."""
        self._is_open = False
        if self._handle is not None:
            self._handle.cancel()
        second = self._second
        if second is None or self._is_taken:
            return
        second.cancel()
        second.add_done_callback(self._in_vain)

    def _hedge(self) -> None:
        core, now = self._core, self._clock()
        home = core.home
        core.fold(now)
        with home.lock:
            if not core.is_clear or not home.budget.spend(Mono(now)):
                return
            home.hedges += 1
            home.note(Hedged(home.name, core.label, now, now - self._started))
        home.tell()
        # The call is made inside the task: a task cancelled before its first step must not leave a coroutine behind.
        self._second = self._task.get_loop().create_task(self._call_again())
        self._second.add_done_callback(self._ended)

    async def _call_again(self) -> Any:
        return await self._again()

    def _ended(self, _: asyncio.Task[Any]) -> None:
        if self._is_open and self._has_answered():
            self.has_won = True
            self._is_open = False
            self._task.cancel()

    def _has_answered(self) -> bool:
        second = self._second
        return second is not None and second.done() and not second.cancelled() and second.exception() is None

    def _in_vain(self, second: asyncio.Task[Any]) -> None:
        # Looking at the exception is what keeps asyncio from logging that nobody did.
        if second.cancelled() or second.exception() is not None or self._discard is None:
            return
        discarded = self._discard(second.result())
        if isinstance(discarded, Awaitable):
            task = second.get_loop().create_task(as_coroutine(discarded))
            _DISCARDING.add(task)
            task.add_done_callback(_DISCARDING.discard)


_DISCARDING: set[asyncio.Task[Any]] = set()
"""Keeps what closes a discarded answer alive until it is closed; each removes itself."""
