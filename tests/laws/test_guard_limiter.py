"""A limiter in a closed loop with a queueing server: it finds the server's capacity and follows it, in virtual time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from math import log
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.guard.limiter import Limiter
from budao.model import LimitPolicy, Mono

Draw = Callable[[Random], float]

MEAN_S = 0.05


def always(_rng: Random) -> float:
    return MEAN_S


def lognormal(rng: Random) -> float:
    """A usual spread of service times: the slowest of a hundred takes three times the median."""
    sigma = 0.5
    return rng.lognormvariate(log(MEAN_S) - sigma * sigma / 2.0, sigma)


def exponential(rng: Random) -> float:
    """An unusual one: the fastest of a hundred takes a seventieth of the median."""
    return rng.expovariate(1.0 / MEAN_S)


@dataclass(frozen=True)
class Fold:
    at: float
    calls_max: int
    goodput_share: float
    """Calls answered, of those that the server could have answered."""
    typical_s: float


class World:
    """Calls come at random, half as many again as the server can serve, and are refused where the limit says so."""

    def __init__(self, workers: int, draw: Draw, seed: int, policy: LimitPolicy | None = None) -> None:
        self.limiter = Limiter(policy or LimitPolicy())
        self.workers, self.slowness, self.draw = workers, 1.0, draw
        self.rng = Random(seed)
        self.now = 0.0
        self.busy = 0
        self.queue: deque[float] = deque()
        self.ends: list[tuple[float, float]] = []  # when a call ends, when it came
        self.next_at = 0.0
        self.folds: list[Fold] = []

    def run(self, until: int) -> list[Fold]:
        first = len(self.folds)
        while self.now < until:
            self.fold()
        return self.folds[first:]

    def fold(self) -> None:
        ends_at = self.now + 1.0
        took_s: list[float] = []
        peak = self.busy + len(self.queue)
        capacity = self.workers / (MEAN_S * self.slowness)
        while min(self.next_at, self.ends[0][0] if self.ends else self.next_at) < ends_at:
            if self.ends and self.ends[0][0] <= self.next_at:
                now, came = heappop(self.ends)
                self.busy -= 1
                took_s.append(now - came)
                while self.queue and self.busy < self.workers:
                    self.serve(self.queue.popleft(), now)
                continue
            now, self.next_at = self.next_at, self.next_at + self.rng.expovariate(1.5 * capacity)
            if self.busy + len(self.queue) < self.limiter.calls_max:
                peak = max(peak, self.busy + len(self.queue) + 1)
                if self.busy < self.workers:
                    self.serve(now, now)
                else:
                    self.queue.append(now)
        self.now = ends_at
        self.limiter.learn(took_s, peak, 0, Mono(self.now))
        typical_s = self.limiter.view().typical_s or 0.0
        self.folds.append(Fold(self.now, self.limiter.calls_max, len(took_s) / capacity, typical_s))

    def serve(self, came: float, now: float) -> None:
        self.busy += 1
        heappush(self.ends, (now + self.draw(self.rng) * self.slowness, came))


def goodput(folds: list[Fold]) -> float:
    return sum(fold.goodput_share for fold in folds) / len(folds)


def limit(folds: list[Fold]) -> float:
    return sum(fold.calls_max for fold in folds) / len(folds)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("draw", [always, lognormal, exponential])
@pytest.mark.parametrize("workers", [5, 20, 60])
def test_a_limiter_finds_the_capacity_of_a_server(workers: int, draw: Draw, seed: int) -> None:
    settled = World(workers, draw, seed).run(120)[30:]
    assert workers <= limit(settled) <= 3.0 * workers
    assert goodput(settled) >= 0.9


@pytest.mark.parametrize("draw", [always, lognormal])
def test_a_limiter_follows_a_server_that_loses_half_of_its_workers(draw: Draw) -> None:
    world = World(40, draw, seed=3)
    world.run(60)
    world.workers = 20
    changing, settled = world.run(90), world.run(150)
    assert goodput(changing) >= 0.9
    assert 20 <= limit(settled) <= 50
    assert goodput(settled) >= 0.9


@pytest.mark.parametrize("draw", [always, lognormal])
def test_a_limiter_follows_a_server_that_doubles_its_workers(draw: Draw) -> None:
    world = World(20, draw, seed=4)
    world.run(60)
    world.workers = 40
    changing, settled = world.run(90), world.run(150)
    assert goodput(changing) >= 0.85
    assert 40 <= limit(settled) <= 100
    assert goodput(settled) >= 0.9


@pytest.mark.parametrize("draw", [always, lognormal])
@pytest.mark.parametrize("slowness", [2.0, 5.0])
def test_a_limiter_follows_a_server_that_becomes_slower_without_serving_fewer_at_once(
    slowness: float, draw: Draw
) -> None:
    world = World(40, draw, seed=5)
    world.run(60)
    world.slowness = slowness
    changing, settled = world.run(130), world.run(200)
    assert goodput(changing) >= 0.75
    assert limit(settled) >= 36
    assert goodput(settled) >= 0.9


def test_a_limiter_does_not_drift_though_the_overload_never_ends() -> None:
    world = World(10, lognormal, seed=6)
    world.run(60)
    early, late = world.run(180), world.run(1200)[-300:]
    assert limit(late) == pytest.approx(limit(early), rel=0.1)
    assert goodput(late) >= 0.9
    assert sum(fold.typical_s for fold in late) / len(late) < 3.0 * MEAN_S


POLICIES = st.builds(
    LimitPolicy,
    calls_min=st.integers(1, 8),
    calls_first=st.integers(8, 30),
    calls_max=st.integers(30, 200),
    tolerance=st.sampled_from([1.0, 1.5, 4.0]),
    smoothing=st.sampled_from([0.05, 0.2, 1.0]),
    floor_window_s=st.sampled_from([1.0, 10.0, 60.0]),
)
FOLDS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, 1.0, 30.0, 1000.0, -1.0]),
        st.floats(0.0, 10.0),
        st.integers(0, 100),
        st.floats(0.0, 2.0),
        st.sampled_from([0, 0, 0, 0, 1, 50]),
    ),
    max_size=60,
)


@given(POLICIES, FOLDS)
def test_whatever_it_learns_a_limiter_keeps_to_its_bounds_and_grows_only_if_used(
    policy: LimitPolicy, folds: list[tuple[float, float, int, float, int]]
) -> None:
    limiter, now, pending = Limiter(policy), 0.0, False
    for step_s, took_s, calls, used_share, failed in folds:
        now += step_s
        before, view = limiter._limit, limiter.view()
        in_flight = int(limiter.calls_max * used_share)
        limiter.learn([took_s] * calls, in_flight, failed, Mono(now))
        after = limiter.view()
        assert policy.calls_min <= after.calls_max == limiter.calls_max <= policy.calls_max
        assert before / 2.0 - 1e-9 <= limiter._limit <= before * (1.0 + policy.smoothing) + 1e-9
        assert after.floor_s is None or 0.0 < after.floor_s <= 10.0
        assert len(limiter._pool) < 30
        if calls == failed == 0:
            assert after == view
        if limiter._limit > before:
            assert pending or in_flight >= 0.9 * view.calls_max
        pending = len(limiter._pool) > 0
