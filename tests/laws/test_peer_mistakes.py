"""What other circuit breakers get wrong, each as a test that a guard with the same mistake fails.

The versions meant: circuitbreaker 2.1.3, purgatory 3.0.1, nopanic 0.3.0, pyresilience 0.4.1, pybreaker 1.4.1,
aiobreaker 1.2.0, hyx 0.0.2.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Generator
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from budao.guard import KeyView, State
from budao.model import BreakerOpen, BreakerPolicy, GuardPolicy, Mode, Why
from budao.protect import Guard

BREAKER = BreakerPolicy(calls_min=4, slow_s=1.0, rest_s=10.0, probes_max=3, probes_good=3, ramp_s=0.0)
REST_S = 10.5


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Pause:
    """Suspends a coroutine until a test sends the answer."""

    def __await__(self) -> Generator[None, object, object]:
        return (yield)


class Made:
    """A guard with a clock that is told, and an async call that answers what it is sent."""

    def __init__(self, **changed: Any) -> None:
        self.clock = Clock()
        policy = GuardPolicy(breaker=replace(BREAKER, **changed), retry=None)
        self.guard = Guard("inventory", policy=policy, clock=self.clock)
        self.suspending = self.guard(self._suspending)
        self.at_once = self.guard(self._at_once)

    @staticmethod
    async def _suspending() -> object:
        return await Pause()

    @staticmethod
    def _at_once(error: BaseException | None = None) -> str:
        if error is not None:
            raise error
        return "ok"

    def view(self) -> KeyView:
        return self.guard.snapshot().keys[0]

    def start(self) -> Any:
        """A call that is out: it has been let in and has not come back."""
        coroutine: Any = self.suspending()
        assert coroutine.send(None) is None
        return coroutine

    def open(self) -> None:
        for _ in range(4):
            with pytest.raises(ValueError, match="ill"):
                self.at_once(ValueError("ill"))
        assert self.view().state is State.OPEN

    def rest(self) -> None:
        self.clock.now += REST_S


def answers(coroutine: Any) -> None:
    with pytest.raises(StopIteration):
        coroutine.send("ok")


def fails(coroutine: Any) -> None:
    with pytest.raises(ValueError, match="ill"):
        coroutine.throw(ValueError("ill"))


def is_cancelled(coroutine: Any) -> None:
    with pytest.raises(asyncio.CancelledError):
        coroutine.throw(asyncio.CancelledError())


def is_abandoned(coroutine: Any) -> None:
    coroutine.close()


def test_the_decorator_counts_the_failures_of_a_coroutine_when_they_happen() -> None:
    """pybreaker#7: its decorator sees the coroutine object, a success, and never opens however many awaits fail."""
    made = Made()
    calls = [made.start() for _ in range(4)]
    assert made.view().ok == 0, "a coroutine that was made is no success yet"
    for call in calls:
        fails(call)
    assert (made.view().failed, made.view().ok, made.view().state) == (4, 0, State.OPEN)


def test_no_lock_is_held_across_a_call() -> None:
    """pybreaker#55: five threads of 0.1 s took 0.5 s. Here all are inside at once, or the barrier breaks."""
    inside = threading.Barrier(5, timeout=10)
    guard = Guard("inventory", policy=GuardPolicy(breaker=BREAKER))

    @guard
    def meet() -> int:
        return inside.wait()

    threads = [threading.Thread(target=meet) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    view = guard.snapshot().keys[0]
    assert (view.ok, view.failed, view.in_flight) == (5, 0, 0)


def test_a_late_success_does_not_close_an_open_breaker() -> None:
    """Circuitbreaker closes it, and sends everybody back to something that is ill."""
    made = Made()
    late = [made.start() for _ in range(5)]
    made.open()
    for call in late:
        answers(call)
    view = made.view()
    assert (view.state, view.stale, view.ok) == (State.OPEN, 5, 5)
    with pytest.raises(BreakerOpen):
        made.at_once()


def test_of_fifty_callers_at_once_a_half_open_breaker_lets_three_through() -> None:
    """circuitbreaker, purgatory, pyresilience, pybreaker, aiobreaker and hyx let all fifty through."""
    made = Made()
    made.open()
    made.rest()
    probes, refused = [], 0
    for _ in range(50):
        try:
            probes.append(made.start())
        except BreakerOpen as refusal:
            refused += refusal.why is Why.PROBES_TAKEN
    assert (len(probes), refused) == (3, 47)
    for probe in probes:
        answers(probe)
    assert made.view().state is State.CLOSED


@pytest.mark.parametrize("goes_away", [is_cancelled, is_abandoned])
def test_a_cancelled_probe_neither_fails_nor_succeeds_nor_keeps_its_slot(goes_away: Callable[[Any], None]) -> None:
    """Purgatory and pybreaker reopen, circuitbreaker closes, and others leak the slot for ever.

    litellm#39701, maverick-mcp#272, deer-flow#3991 and OmniRoute#13836, the last with 49,607 calls refused.
    """
    made = Made(probes_max=1)
    made.open()
    made.rest()
    for _ in range(100):
        goes_away(made.start())
        assert made.view().state is State.PROBING
    view = made.view()
    assert (view.dropped, view.in_flight) == (100, 0)
    for _ in range(3):
        answers(made.start())
    assert made.view().state is State.CLOSED


def test_cancelled_calls_do_not_open_a_closed_breaker() -> None:
    """Purgatory and pybreaker open after a handful of clients have gone away."""
    made = Made()
    for call in [made.start() for _ in range(100)]:
        is_cancelled(call)
    view = made.view()
    assert (view.state, view.dropped, view.failed, view.ok, view.in_flight) == (State.CLOSED, 100, 0, 0, 0)


@pytest.mark.parametrize("ending", [answers, fails, is_cancelled])
def test_a_call_admitted_before_the_trip_changes_nothing_while_half_open(ending: Callable[[Any], None]) -> None:
    """circuitbreaker, purgatory, pyresilience, pybreaker, aiobreaker and hyx reopen when it fails."""
    made = Made()
    late = [made.start() for _ in range(10)]
    made.open()
    made.rest()
    probe = made.start()
    before = made.view()
    for call in late:
        ending(call)
    after = made.view()
    for name in ("state", "generation", "since", "window_ok", "window_failed", "window_slow"):
        assert getattr(after, name) == getattr(before, name)
    assert after.stale == (0 if ending is is_cancelled else 10)
    answers(probe)
    for _ in range(2):
        answers(made.start())
    assert made.view().state is State.CLOSED


def test_probes_that_never_return_do_not_wedge_the_breaker() -> None:
    """Nopanic and interlock have no age limit: one hung probe refuses everybody until it returns, if it ever does."""
    made = Made()
    made.open()
    made.rest()
    hung = [made.start() for _ in range(3)]
    made.clock.now += 1.5
    with pytest.raises(BreakerOpen) as refused:
        made.at_once()
    assert refused.value.why is Why.BREAKER_OPEN
    assert made.view().state is State.OPEN
    made.clock.now += 2 * REST_S
    for _ in range(3):
        assert made.at_once() == "ok"
    assert made.view().state is State.CLOSED
    for probe in hung:
        answers(probe)
    assert (made.view().in_flight, made.view().stale) == (0, 3)


def test_a_stale_probe_does_not_count_towards_closing() -> None:
    """Nopanic remembers the state a call was admitted under, not the round: a probe of an earlier one can close it."""
    made = Made(probes_max=2, probes_good=2)
    made.open()
    made.rest()
    first, second = made.start(), made.start()
    fails(second)
    made.clock.now += 2 * REST_S
    third = made.start()
    answers(first)
    answers(third)
    assert made.view().state is State.PROBING, "one good probe of the two asked for"
    assert made.view().stale == 1
    answers(made.start())
    assert made.view().state is State.CLOSED


def test_every_refusal_is_a_fresh_exception_and_leaves_nothing_behind() -> None:
    """Purgatory raises one object for ever, whose traceback grows; nopanic leaves 11 objects to the collector."""
    made = Made()
    made.open()
    seen: set[int] = set()

    def depth() -> int:
        try:
            made.at_once()
        except BreakerOpen as refused:
            seen.add(id(refused.args))
            trace, entries = refused.__traceback__, 0
            while trace is not None:
                trace, entries = trace.tb_next, entries + 1
            return entries
        return 0

    depths = {depth() for _ in range(10)}
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        depths |= {depth() for _ in range(1000)}
        assert gc.collect() == 0
    finally:
        if was_on:
            gc.enable()
    assert len(depths) == 1, "the thousandth traceback is as deep as the first"


def test_the_call_that_trips_gets_its_own_exception() -> None:
    """Pybreaker and aiobreaker hand the caller an exception of their own instead."""
    made = Made()
    told: list[str] = []
    for number in range(4):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the object itself is compared
            made.at_once(error := ValueError(number))
        told.append(made.view().state.value)
        assert caught.value is error
        assert caught.value.__context__ is None
    assert told == ["closed", "closed", "closed", "open"]


def test_a_slow_probe_is_a_bad_probe() -> None:
    """Pyresilience counts it as a good one."""
    made = Made()
    made.open()
    made.rest()
    probe = made.start()
    made.clock.now += 1.25
    answers(probe)
    assert made.view().state is State.OPEN


def test_what_fails_while_open_does_not_stretch_the_rest() -> None:
    """Pyresilience begins the rest anew with each late failure."""
    made = Made()
    late = [made.start() for _ in range(10)]
    made.open()
    since = made.view().since
    made.clock.now += 9.0
    for call in late:
        fails(call)
    assert made.view().since == since
    made.clock.now += 1.5
    assert made.view().state is State.PROBING


def test_a_breaker_that_is_open_is_the_last_to_make_room_for_new_keys() -> None:
    """Nopanic forgets the key unused for longest, open or not, and it comes back closed."""
    clock = Clock()
    guard = Guard("shop", policy=GuardPolicy(breaker=BREAKER, keys_max=16), clock=clock)

    @guard(key=lambda key, error: key)
    def call(key: int, error: Exception | None) -> None:
        if error is not None:
            raise error

    for _ in range(4):
        with pytest.raises(ValueError, match="ill"):
            call(0, ValueError("ill"))
    for key in range(1, 1000):
        call(key, None)
    with pytest.raises(BreakerOpen):
        call(0, None)


def test_calls_that_hang_open_it_although_none_has_ended() -> None:
    """Asked for and missing: resilience4j#1597."""
    made = Made()
    hung = [made.start() for _ in range(4)]
    made.clock.now += 5.0
    with pytest.raises(BreakerOpen):
        made.at_once()
    moved = [event.moved.reason for event in made.guard.snapshot().events if hasattr(event, "moved")]
    assert moved == ["0 failed and 4 slow (4 of them still in flight) of 4 calls in 10 s"]
    for call in hung:
        answers(call)
    assert made.view().in_flight == 0


@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.DISABLED])
def test_a_breaker_that_only_watches_never_refuses(mode: Mode) -> None:
    """Interlock's METRICS_ONLY is the model; refusing nobody must include probes and ramps."""
    made = Made(mode=mode, slow_s=inf)
    for _ in range(100):
        with pytest.raises(ValueError, match="ill"):
            made.at_once(ValueError("ill"))
        made.clock.now += 1.0
        answers(made.start())
    assert (made.view().failed, made.view().ok) == (100, 100)
