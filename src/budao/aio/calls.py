"""What a compiled async call needs where it has to wait: for an answer, a place, a retry, a hedge.

A time limit is watched only once a call suspends.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from math import inf
from typing import Any

from budao.aio.duel import Duel
from budao.aio.timers import Flight, Timers
from budao.guard import NOTHING, Core, Discard, Ladder, Pause, Permit, Repeats, Steps, answer_of
from budao.model import Refusal, TimedOut, Why, context

LOOK_S = 0.05
"""So often a waiting call looks for a place itself: calls that began before places were limited tell nobody they end."""


def reset_anywhere(token: Any) -> None:
    """Takes the deadline out of the context, if this still is the context that it was put into."""
    with suppress(ValueError):
        context.deadline.reset(token)


class Suspended:
    """Brings suspended coroutines to their end, within their time."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self._name = name
        self._clock = clock
        self._timers: dict[asyncio.AbstractEventLoop, Timers] = {}

    def timers(self, loop: asyncio.AbstractEventLoop) -> Timers:
        """The timers of a loop; those of closed loops are forgotten."""
        found = self._timers.get(loop)
        if found is None:
            for dead in [each for each in tuple(self._timers) if each.is_closed()]:
                self._timers.pop(dead, None)  # a loop on another thread may be doing the same
            found = self._timers[loop] = Timers(loop, self._clock)
        return found

    @types.coroutine
    def rest(
        self, core: Core, coroutine: Coroutine[Any, Any, Any], first: Any, started: float, until: float
    ) -> Generator[Any, Any, Any]:
        """The rest of a coroutine that has been stepped once and has yielded `first`.

        Raises: TimedOut if it is not done at `until`; asyncio.CancelledError only if somebody else cancelled.
        """
        task = _task_here()
        if task is None:  # driven by hand, or by a loop of another kind: nobody could ring
            return (yield from _proceed(coroutine, first))
        timers = self.timers(task.get_loop())
        flight = Flight(task, until)
        timers.add(flight)
        try:
            result = yield from _proceed(coroutine, first)
        except asyncio.CancelledError as cancelled:
            if flight.is_over and task.uncancel() <= flight.cancelling:
                raise TimedOut(core.home.name, max(0.0, until - started)) from cancelled
            raise
        except BaseException:
            if flight.is_over:
                task.uncancel()
            raise
        else:
            if flight.is_over:
                task.uncancel()
            return result
        finally:
            timers.back(flight)

    def race(
        self, once: Callable[..., Any], repeats: Repeats, discard: Callable[[Any], Any] | None
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Sends a second, identical call once the first has taken long, and takes whichever answers first."""

        async def race_here(
            core: Core, coroutine: Coroutine[Any, Any, Any], first: Any, started: float, until: float | None,
            args: tuple[Any, ...], kwargs: dict[str, Any],
        ) -> Any:  # fmt: skip
            until = inf if until is None else until
            task = _task_here()
            is_late = core.hedge_s == inf or started + core.hedge_s >= until
            if task is None or is_late or not repeats.is_safe(args, kwargs):
                return await self._within(core, coroutine, first, started, until)
            duel = Duel(core, task, started, lambda: once(*args, **kwargs), discard, self._clock)
            duel.begin()
            try:
                result = await self._within(core, coroutine, first, started, until)
            except asyncio.CancelledError:
                if duel.has_won and task.uncancel() <= duel.cancelling:
                    return duel.take()
                raise
            except Exception:
                if duel.has_won:  # it was interrupted, and something else came of that
                    task.uncancel()
                    return duel.take()
                # The first try failed; the second may be on its way and still answer within the time.
                if await duel.may_still_answer(until):
                    return duel.take()
                raise
            else:
                if duel.has_won:
                    task.uncancel()
                return result
            finally:
                duel.close()

        return race_here

    async def _within(
        self, core: Core, coroutine: Coroutine[Any, Any, Any], first: Any, started: float, until: float
    ) -> Any:
        if until == inf:
            return await _alone(coroutine, first)
        return await self.rest(core, coroutine, first, started, until)


def _task_here() -> asyncio.Task[Any] | None:
    """The running task; None for a coroutine that no asyncio loop drives."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


@types.coroutine
def _alone(coroutine: Coroutine[Any, Any, Any], first: Any) -> Generator[Any, Any, Any]:
    return (yield from _proceed(coroutine, first))


@types.coroutine
def _proceed(coroutine: Coroutine[Any, Any, Any], first: Any) -> Generator[Any, Any, Any]:
    """Hands on what a stepped coroutine yielded, and then drives it to its end."""
    try:
        sent = yield first
    except BaseException as thrown:  # noqa: BLE001 - whatever is thrown in belongs to the coroutine
        try:
            following = coroutine.throw(thrown)
        except StopIteration as stop:
            return stop.value
        return (yield from _proceed(coroutine, following))
    if sent is None:
        return (yield from coroutine)  # inside types.coroutine a coroutine may be delegated to
    try:
        following = coroutine.send(sent)
    except StopIteration as stop:
        return stop.value
    return (yield from _proceed(coroutine, following))


class _Parked:
    """A task that waits for a place."""

    __slots__ = ("_future", "_loop", "answer")

    def __init__(self, future: asyncio.Future[None]) -> None:
        self._future = future
        self._loop = future.get_loop()
        self.answer: float | Refusal | None = None

    def wake(self, answer: float | Refusal) -> None:
        self.answer = answer
        # May come from another thread, or from a task of another loop.
        with suppress(RuntimeError):  # that loop is closed, and nobody waits there any more
            self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


def crowd(clock: Callable[[], float]) -> Callable[[Core, Permit | None, float], Coroutine[Any, Any, float]]:
    """Waits for a place, or refuses; returns when the call may start."""

    async def crowd_here(core: Core, permit: Permit | None, started: float) -> float:
        refusal = core.crowded(started)
        if refusal is not None:
            raise core.refuse(refusal, permit, started)
        policy = core.home.policy.bulkhead
        assert policy is not None, "only a bulkhead has a waiting room"
        until = min(started + policy.wait_max_s, context.deadline.get())
        future = asyncio.get_running_loop().create_future()
        parked = _Parked(future)
        number = core.join(parked, until, started)
        try:
            left_s = until - clock()
            while left_s > 0.0 and not future.done():
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(left_s, LOOK_S)):
                        await asyncio.shield(future)
                core.release(clock())
                left_s = min(left_s - LOOK_S, until - clock())  # the clock may stand still; the wait must end
        except BaseException:
            core.leave(number, clock())  # from here on nobody else gives an answer
            core.give_up(number, parked.answer, permit, clock())
            raise
        now = clock()
        core.leave(number, now)
        if isinstance(parked.answer, float):
            return parked.answer
        raise core.refuse(parked.answer or Refusal(Why.WAITED_OUT, policy.wait_max_s), permit, now)

    return crowd_here


def repeat(
    once: Callable[..., Any],
    repeats: Repeats,
    discard: Callable[[Any], Any] | None,
    clock: Callable[[], float],
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Tries a failed call again for as long as settings, budget and deadline allow."""

    async def repeat_here(
        core: Core, error: Exception | None, result: Any, first: float, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        steps = repeats.tries(core, error, result, first, args, kwargs, clock)
        timeout = core.home.policy.timeout
        total_s = timeout.total_s if timeout is not None else inf
        token = context.deadline.set(min(context.deadline.get(), first + total_s))  # holds for each further try
        try:
            step = next(steps)
            while True:
                reply: Any = None
                if isinstance(step, Pause):
                    await pause(step.pause_s)
                elif isinstance(step, Discard):
                    try:
                        discarded = discard(step.result) if discard is not None else None
                        if isinstance(discarded, Awaitable):
                            await discarded
                    except Exception:  # noqa: BLE001 - a hook's mistake must not fail the call
                        core.home.inner_errors += 1
                else:
                    try:
                        reply = await once(*args, **kwargs)
                    except Exception as again:  # noqa: BLE001 - `tries` decides which exceptions go on
                        step = steps.throw(again)
                        continue
                step = steps.send(reply)
        except StopIteration as stop:
            return stop.value
        finally:
            reset_anywhere(token)

    return repeat_here


def descend(steps: Steps, ladder: Ladder, clock: Callable[[], float]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Goes down the ladder until a rung has an answer; otherwise the error goes up."""

    async def descend_here(error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if steps.must_raise(error):
            raise error
        for name, rung in ladder.rungs():
            try:
                answer = answer_of(rung, args, kwargs, clock())
                if isinstance(answer, Awaitable):
                    async with asyncio.timeout(rung.deadline_s):
                        answer = await answer
            except Exception as trouble:  # noqa: BLE001 - a rung that breaks leads to the next one
                steps.broke(name, trouble, error)
                continue
            if answer is not NOTHING:
                steps.served(name, error, clock())
                return answer
        raise error

    return descend_here
