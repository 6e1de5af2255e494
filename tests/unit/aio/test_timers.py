from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from budao.aio.timers import DEAD_MIN, Flight, Timers


class StandIn:
    """A task that only counts how often it is cancelled."""

    def __init__(self) -> None:
        self.cancels = 0

    def cancelling(self) -> int:
        return self.cancels

    def cancel(self) -> None:
        self.cancels += 1


class Loop:
    """A loop that only remembers what it shall ring for."""

    def __init__(self) -> None:
        self.armed: list[Any] = []

    def call_later(self, span_s: float, ring: Callable[[], None]) -> Any:
        handle = asyncio.Handle(ring, (), self)  # type: ignore[arg-type]
        self.armed.append((span_s, handle))
        return handle

    def get_debug(self) -> bool:
        return False

    @property
    def live(self) -> list[float]:
        return [span_s for span_s, handle in self.armed if not handle.cancelled()]


class Bench:
    def __init__(self) -> None:
        self.now = 0.0
        self.loop = Loop()
        self.timers = Timers(self.loop, lambda: self.now)  # type: ignore[arg-type]

    def fly(self, until: float) -> Flight:
        flight = Flight(StandIn(), until)  # type: ignore[arg-type]
        self.timers.add(flight)
        return flight

    def ring_at(self, now: float) -> None:
        self.now = now
        _, handle = self.loop.armed.pop()
        handle._run()


def test_only_the_nearest_limit_has_a_handle_on_the_loop() -> None:
    bench = Bench()
    for until in (5.0, 7.0, 3.0, 9.0):
        bench.fly(until)
    assert bench.loop.live == [3.0]
    assert len(bench.timers) == 4


def test_a_flight_is_cancelled_once_when_its_time_is_up_and_the_next_limit_is_armed() -> None:
    bench = Bench()
    late, later = bench.fly(3.0), bench.fly(5.0)
    bench.ring_at(3.0)
    assert (late.is_over, later.is_over) == (True, False)
    assert late.task.cancels == 1  # type: ignore[union-attr]
    assert bench.loop.live == [2.0]
    bench.ring_at(5.0)
    assert later.is_over
    assert late.task.cancels == 1  # type: ignore[union-attr]
    assert bench.loop.live == []


def test_a_flight_that_came_back_is_left_alone_and_its_task_let_go() -> None:
    bench = Bench()
    quick, slow = bench.fly(3.0), bench.fly(5.0)
    bench.timers.back(quick)
    assert (quick.task, len(bench.timers)) == (None, 1)
    bench.ring_at(3.0)
    assert (quick.is_over, slow.is_over) == (False, False)
    assert bench.loop.live == [2.0]


def test_a_ring_a_hair_early_is_no_reason_to_ring_again() -> None:
    bench = Bench()
    flight = bench.fly(3.0)
    bench.ring_at(2.9999)
    assert flight.is_over
    assert bench.loop.live == []


def test_entries_of_calls_that_came_back_are_bounded() -> None:
    bench = Bench()
    stays = bench.fly(1_000.0)
    for _ in range(50 * DEAD_MIN):
        bench.timers.back(bench.fly(900.0))
    assert len(bench.timers._heap) <= 2 * DEAD_MIN
    assert len(bench.timers) == 1
    bench.ring_at(1_000.0)
    assert stays.is_over


def test_a_flight_that_comes_back_while_others_are_rung_for_disturbs_nothing() -> None:
    bench = Bench()
    others = [bench.fly(3.0) for _ in range(2 * DEAD_MIN)]
    last = bench.fly(3.0)

    class Clumsy(StandIn):
        def cancel(self) -> None:
            super().cancel()
            for each in others:
                bench.timers.back(each)

    others.insert(0, bench.fly(2.0))
    others[0].task = Clumsy()  # type: ignore[assignment]
    bench.ring_at(3.0)
    assert last.is_over
    assert last.task.cancels == 1  # type: ignore[union-attr]
    assert bench.loop.live == []
