"""Eight threads make 200,000 calls each, and every count is exact to the last call."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import pytest

from budao import BreakerPolicy, BudgetPolicy, BulkheadPolicy, Guard, GuardPolicy, NoRoom, RatePolicy, RetryPolicy

THREADS = 8
CALLS = 200_000

# Judged, but never tripped: a breaker that opens would refuse an amount that depends on timing.
STEADY = GuardPolicy(
    breaker=BreakerPolicy(failed_share=1.0, slow_share=1.0, slow_s=1.0, calls_min=10_000_000), retry=None
)


class Away(BaseException):
    """Like a cancellation: ends a call without saying anything about the other side."""


class OwnTime(threading.local):
    """Each thread has its own time, and no two threads ever read the same instant."""

    def __init__(self) -> None:
        self.ticks = 0
        self.lane = 0

    def __call__(self) -> float:
        self.ticks += 1
        return (self.ticks * THREADS + self.lane) * 1e-6

    def pass_by(self, span_s: float) -> None:
        self.ticks += int(span_s * 1e6) // THREADS


def on_threads(work: Callable[[int], object], count: int = THREADS) -> None:
    threads = [threading.Thread(target=work, args=(lane,)) for lane in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def guard_with(policy: GuardPolicy, time: OwnTime) -> Guard:
    guard = Guard("counted", policy=policy)
    guard.clock = time  # unfiltered: as the filter makes one time of all, it would make calls of other threads slow
    return guard


def planned(index: int) -> str:
    if index % 50 == 7:
        return "failed"
    if index % 500 == 11:
        return "slow"
    return "dropped" if index % 1000 == 13 else "ok"


def expected(calls: int) -> dict[str, int]:
    counts = {"ok": 0, "failed": 0, "slow": 0, "dropped": 0}
    for index in range(calls):
        counts[planned(index)] += 1
    return counts


@pytest.mark.parametrize("policy", [STEADY, GuardPolicy(breaker=STEADY.breaker, retry=None, bulkhead=BulkheadPolicy(calls_max=8))], ids=["bare", "with places"])  # fmt: skip
def test_every_call_of_eight_threads_is_counted_once(policy: GuardPolicy) -> None:
    time = OwnTime()
    guard = guard_with(policy, time)
    calls = CALLS if policy.bulkhead is None else CALLS // 10

    @guard
    def work(plan: str) -> str:
        if plan == "failed":
            raise OSError("down")
        if plan == "dropped":
            raise Away
        if plan == "slow":
            time.pass_by(2.0)
        return plan

    def thread(lane: int) -> None:
        time.lane = lane
        for index in range(calls):
            with contextlib.suppress(OSError, Away):
                work(planned(index))

    on_threads(thread)
    view = guard.snapshot().keys[0]
    once = expected(calls)
    counted = {"ok": view.ok, "failed": view.failed, "slow": view.slow, "dropped": view.dropped}
    assert counted == {name: THREADS * count for name, count in once.items()}
    assert view.in_flight == 0
    assert view.refused == {}
    assert view.latency is not None
    assert view.latency.count == view.ok + view.slow


def test_every_call_is_counted_at_its_own_key() -> None:
    time = OwnTime()
    guard = guard_with(STEADY, time)
    calls, keys = CALLS // 8, 10

    @guard(key=lambda index: index % keys)
    def work(index: int) -> None:
        if index % 30 == 3:
            raise OSError("down")

    def thread(lane: int) -> None:
        time.lane = lane
        for index in range(calls):
            with contextlib.suppress(OSError):
                work(index)

    on_threads(thread)
    views = {view.key: view for view in guard.snapshot().keys if view.key}
    assert sorted(views) == [str(key) for key in range(keys)]
    for key in range(keys):
        failed = THREADS * sum(1 for index in range(key, calls, keys) if index % 30 == 3)
        assert views[str(key)].failed == failed
        assert views[str(key)].ok == THREADS * len(range(key, calls, keys)) - failed
        assert views[str(key)].in_flight == 0


def test_no_more_calls_are_inside_than_there_are_places() -> None:
    guard = Guard("small", policy=GuardPolicy(retry=None, bulkhead=BulkheadPolicy(calls_max=3)))
    lock, inside, most = threading.Lock(), 0, 0

    @guard
    def work() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        with lock:
            inside -= 1

    outcomes = [[0, 0] for _ in range(THREADS)]

    def thread(lane: int) -> None:
        for _ in range(5_000):
            try:
                work()
                outcomes[lane][0] += 1
            except NoRoom:
                outcomes[lane][1] += 1

    on_threads(thread)
    view = guard.snapshot().keys[0]
    assert most <= 3
    assert view.ok == sum(done for done, _ in outcomes)
    assert sum(view.refused.values()) == sum(refused for _, refused in outcomes)
    assert view.in_flight == 0


def test_whoever_waits_gets_a_place_or_a_refusal_and_no_place_is_lost() -> None:
    bulkhead = BulkheadPolicy(calls_max=2, waiting_max=16, wait_max_s=60.0, sojourn_target_s=60.0)
    guard = Guard("queued", policy=GuardPolicy(retry=None, bulkhead=bulkhead))
    lock, inside, most = threading.Lock(), 0, 0

    @guard
    def work() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        with lock:
            inside -= 1

    def thread(_: int) -> None:
        for _ in range(500):
            work()

    on_threads(thread)
    view = guard.snapshot().keys[0]
    assert (most <= 2, view.ok, view.refused) == (True, THREADS * 500, {})
    assert (view.in_flight, view.waiting) == (0, 0)


def test_a_rate_is_exact_under_threads() -> None:
    guard = Guard("paced", policy=GuardPolicy(retry=None, rate=RatePolicy(calls_per_s=1e-6, burst=1000)))
    served = [0] * THREADS

    @guard
    def work() -> None: ...

    def thread(lane: int) -> None:
        for _ in range(500):
            try:
                work()
                served[lane] += 1
            except NoRoom:
                pass

    on_threads(thread)
    assert sum(served) == 1000


def test_threads_that_retry_share_one_budget() -> None:
    policy = GuardPolicy(
        breaker=None,
        retry=RetryPolicy(attempts_max=2, pause_first_s=0.0, pause_max_s=0.0),
        budget=BudgetPolicy(share=0.1, window_s=3_600.0, floor_per_s=0.0),
    )
    guard = Guard("shared", policy=policy)
    lock, made = threading.Lock(), 0

    @guard(safe=True)
    def work() -> None:
        nonlocal made
        with lock:
            made += 1
        raise OSError("down")

    def thread(_: int) -> None:
        for _ in range(1_000):
            with contextlib.suppress(OSError):
                work()

    on_threads(thread)
    view = guard.snapshot()
    assert made == THREADS * 1_000 + view.retries
    assert view.keys[0].failed == made
    assert view.retries <= 0.1 * made + 1


def test_a_clock_that_stands_still_tells_no_two_threads_the_same_instant() -> None:
    guard = Guard("still", policy=STEADY, clock=lambda: 5.0)

    @guard
    def work() -> None: ...

    def thread(_: int) -> None:
        for _ in range(5_000):
            work()

    on_threads(thread)
    view = guard.snapshot().keys[0]
    assert (view.ok, view.in_flight) == (THREADS * 5_000, 0)
