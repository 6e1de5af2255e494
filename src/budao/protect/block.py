"""A guarded block of code: `with guard.block():` or `async with guard.block():`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, Token
from math import inf
from types import TracebackType
from typing import Any, Self

from budao import aio, threads
from budao.guard import Core, Passage
from budao.model import Priority, TimedOut, context


class Block:
    """One call that is a block of code. Used once."""

    __slots__ = ("_clock", "_core", "_limit", "_passage", "_priority", "_tokens", "_until")

    def __init__(self, core: Core, clock: Callable[[], float], until: float | None, priority: Priority | None) -> None:
        self._core = core
        self._clock = clock
        self._until = inf if until is None else until
        self._priority = priority
        self._passage = Passage(core)
        self._tokens: list[tuple[ContextVar[Any], Token[Any]]] = []
        self._limit: asyncio.Timeout | None = None

    @property
    def until(self) -> float:
        """The instant after which nobody waits for this call any more, on the guard's clock; inf for never."""
        return self._passage.until

    def failed(self, why: str = "") -> None:  # noqa: ARG002 - said for whoever reads the call
        """The call counts as failed, although nothing was raised."""
        self._passage.failed()

    def answered(self) -> None:
        """The answer began to come: its latency is known now, and the place is held to the end of the block.

        From here on only the caller's own deadline counts: how long a stream may take is not how long a call may.
        """
        now = self._clock()
        self._passage.answered(now)
        outer = self._passage.outer
        if self._limit is not None and outer > self._passage.until:
            loop = asyncio.get_running_loop()
            self._limit.reschedule(None if outer == inf else loop.time() + max(0.0, outer - now))
            self._passage.until = outer

    def drop(self) -> None:
        """The call says nothing about the other side."""
        self._passage.drop()

    def __enter__(self) -> Self:
        self._set(context.priority, self._priority)
        try:
            self._passage.enter(self._clock(), self._until)
            if self._passage.is_crowded:
                wait = threads.crowd(self._clock)
                self._passage.started = wait(self._core, self._passage.permit, self._passage.started)
        except BaseException:
            self._restore()
            raise
        if self._passage.until != inf:
            self._set(context.deadline, self._passage.until)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        self._passage.leave(error, self._clock())

    async def __aenter__(self) -> Self:
        self._set(context.priority, self._priority)
        try:
            self._passage.enter(self._clock(), self._until)
            if self._passage.is_crowded:
                wait = aio.crowd(self._clock)
                self._passage.started = await wait(self._core, self._passage.permit, self._passage.started)
        except BaseException:
            self._restore()
            raise
        if self._passage.until != inf:
            self._set(context.deadline, self._passage.until)
            try:
                self._limit = asyncio.timeout(max(0.0, self._passage.until - self._clock()))
                await self._limit.__aenter__()
            except BaseException:  # not in a task of an asyncio loop
                self._restore()
                self._passage.drop()
                self._passage.leave(None, self._clock())
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if self._limit is None:
            self._passage.leave(error, self._clock())
            return
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError as late:
            timed_out = TimedOut(self._core.home.name, self._passage.until - self._passage.started)
            self._passage.leave(timed_out, self._clock())
            raise timed_out from late
        self._passage.leave(error, self._clock())

    def _set(self, variable: ContextVar[Any], value: object) -> None:
        if value is not None:
            self._tokens.append((variable, variable.set(value)))

    def _restore(self) -> None:
        for variable, token in reversed(self._tokens):
            with suppress(ValueError):  # closed by the collector, in another context than its own
                variable.reset(token)
        self._tokens.clear()
