"""What a compiled sync call needs where it has to wait: for a place, before a retry, for a hedge."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextvars import ContextVar, copy_context
from math import inf
from typing import Any

from budao.guard import NOTHING, Core, Discard, Hedged, Ladder, Pause, Permit, Repeats, Steps, answer_of
from budao.model import Mono, Refusal, Why, context

LOOK_S = 0.05
"""So often a waiting call looks for a place itself: calls that began before places were limited tell nobody they end."""


_WITHIN: ContextVar[Executor | None] = ContextVar("budao_within", default=None)
"""The executor that runs this very call as one of two."""


class _Parked:
    """A thread that waits for a place."""

    __slots__ = ("answer", "woken")

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.answer: float | Refusal | None = None

    def wake(self, answer: float | Refusal) -> None:
        self.answer = answer
        self.woken.set()


def crowd(clock: Callable[[], float]) -> Callable[[Core, Permit | None, float], float]:
    """Waits for a place, or refuses; returns when the call may start."""

    def crowd_here(core: Core, permit: Permit | None, started: float) -> float:
        refusal = core.crowded(started)
        if refusal is not None:
            raise core.refuse(refusal, permit, started)
        policy = core.home.policy.bulkhead
        assert policy is not None, "only a bulkhead has a waiting room"
        until = min(started + policy.wait_max_s, context.deadline.get())
        parked = _Parked()
        number = core.join(parked, until, started)
        try:
            left_s = until - clock()
            while left_s > 0.0 and not parked.woken.wait(min(left_s, LOOK_S)):
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
    discard: Callable[[Any], object] | None,
    clock: Callable[[], float],
    pause: Callable[[float], object] = time.sleep,
) -> Callable[..., Any]:
    """Tries a failed call again for as long as settings, budget and deadline allow."""

    def repeat_here(
        core: Core, error: Exception | None, result: Any, first: float, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if isinstance(error, StopIteration):
            raise error  # an iterator is at its end, which no repeat changes and no generator can carry
        steps = repeats.tries(core, error, result, first, args, kwargs, clock)
        ended = StopIteration()
        timeout = core.home.policy.timeout
        total_s = timeout.total_s if timeout is not None else inf
        token = context.deadline.set(min(context.deadline.get(), first + total_s))  # holds for each further try
        try:
            step = next(steps)
            while True:
                reply: Any = None
                if isinstance(step, Pause):
                    pause(step.pause_s)
                elif isinstance(step, Discard):
                    try:
                        if discard is not None:
                            discard(step.result)
                    except Exception:  # noqa: BLE001 - a hook's mistake must not fail the call
                        core.home.inner_errors += 1
                else:
                    try:
                        reply = once(*args, **kwargs)
                    except StopIteration as end:
                        ended = end
                        break
                    except Exception as again:  # noqa: BLE001 - `tries` decides which exceptions go on
                        step = steps.throw(again)
                        continue
                step = steps.send(reply)
        except StopIteration as stop:
            return stop.value
        finally:
            context.deadline.reset(token)
        raise ended

    return repeat_here


def race(
    function: Callable[..., Any],
    once: Callable[..., Any],
    repeats: Repeats,
    discard: Callable[[Any], object] | None,
    executor: Executor | None,
    clock: Callable[[], float],
) -> Callable[..., Any]:
    """Sends a second, identical call once the first has taken long, and takes whichever answers first.

    A running sync call cannot be interrupted: the loser goes on in its thread until it ends by itself.
    """

    def race_here(core: Core, started: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if executor is None or core.hedge_s == inf or not repeats.is_safe(args, kwargs):
            return function(*args, **kwargs)
        here = copy_context()
        if here.get(_WITHIN) is executor:
            return function(
                *args, **kwargs
            )  # on a thread of that executor already: waiting for another could be for ever
        here.run(_WITHIN.set, executor)
        try:
            first: Future[Any] = executor.submit(here.run, function, *args, **kwargs)
        except RuntimeError:  # shut down: no hedge, but the call itself can be made
            return function(*args, **kwargs)
        done, _ = wait((first,), max(0.0, started + core.hedge_s - clock()))
        if done or not _may_hedge(core, started, clock()):
            return first.result()
        there = copy_context()
        there.run(_WITHIN.set, executor)
        try:
            second: Future[Any] = executor.submit(there.run, once, *args, **kwargs)
        except RuntimeError:
            return first.result()
        done, _ = wait((first, second), return_when=FIRST_COMPLETED)
        winner = first if first in done else second
        if winner.exception() is not None:
            winner = second if winner is first else first
            if winner.exception() is not None:
                return first.result()
        if winner is second:
            with core.home.lock:
                core.home.hedges_won += 1
        loser = second if winner is first else first
        if not loser.cancel() and discard is not None:
            loser.add_done_callback(_in_vain(discard))
        return winner.result()

    return race_here


def _in_vain(discard: Callable[[Any], object]) -> Callable[[Future[Any]], None]:
    def ended(loser: Future[Any]) -> None:
        if loser.exception() is None:
            discard(loser.result())

    return ended


def _may_hedge(core: Core, started: float, now: float) -> bool:
    core.fold(now)
    home = core.home
    with home.lock:
        if not core.is_clear or not home.budget.spend(Mono(now)):
            return False
        home.hedges += 1
        home.note(Hedged(home.name, core.label, now, now - started))
    home.tell()
    return True


def descend(steps: Steps, ladder: Ladder, clock: Callable[[], float]) -> Callable[..., Any]:
    """Goes down the ladder until a rung has an answer; otherwise the error goes up."""

    def descend_here(error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if steps.must_raise(error):
            raise error
        for name, rung in ladder.rungs():
            try:
                answer = answer_of(rung, args, kwargs, clock())
            except Exception as trouble:  # noqa: BLE001 - a rung that breaks leads to the next one
                steps.broke(name, trouble, error)
                continue
            if answer is not NOTHING:
                steps.served(name, error, clock())
                return answer
        raise error

    return descend_here
