from __future__ import annotations

from collections.abc import Callable
from typing import Any

from budao.aio import LagProbe


class Handle:
    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """A loop whose time is a number."""

    def __init__(self) -> None:
        self.now = 0.0
        self.armed: list[tuple[float, Callable[[], None], Handle]] = []
        self.is_over = False

    def time(self) -> float:
        return self.now

    def call_at(self, due: float, ring: Callable[[], None]) -> Handle:
        self.armed.append((due, ring, Handle()))
        return self.armed[-1][2]

    def is_closed(self) -> bool:
        return self.is_over

    def ring(self, late_s: float) -> None:
        due, ring, _ = self.armed.pop()
        self.now = due + late_s
        ring()


def probe(loop: Loop, lags: list[float], answers: Callable[[], bool] = lambda: True) -> LagProbe:
    def on_lag(lag_s: float) -> bool:
        lags.append(round(lag_s, 6))
        return answers()

    stand_in: Any = loop
    return LagProbe(stand_in, on_lag, every_s=0.1)


def test_it_tells_how_late_it_rang_each_time() -> None:
    loop, lags = Loop(), list[float]()
    probe(loop, lags)
    for late_s in (0.0, 0.25, 0.01):
        loop.ring(late_s)
    assert lags == [0.0, 0.25, 0.01]


def test_it_stops_when_nobody_wants_to_know_and_says_so() -> None:
    loop, lags = Loop(), list[float]()
    ringing = probe(loop, lags, lambda: False)
    assert not ringing.is_dead
    loop.ring(0.0)
    assert (loop.armed, ringing.is_dead) == ([], True)


def test_it_stops_when_it_is_told_to() -> None:
    loop, lags = Loop(), list[float]()
    ringing = probe(loop, lags)
    ringing.close()
    assert ringing.is_dead
    assert loop.armed[0][2].is_cancelled


def test_it_is_dead_when_its_loop_is() -> None:
    loop, lags = Loop(), list[float]()
    ringing = probe(loop, lags)
    loop.is_over = True
    assert ringing.is_dead
