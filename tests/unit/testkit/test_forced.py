"""Calls that end as ordered, with a real guard around them."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from budao import (
    BreakerOpen,
    BreakerPolicy,
    BulkheadPolicy,
    Guard,
    GuardPolicy,
    HedgePolicy,
    NoRoom,
    PeerReset,
    Refusal,
    RetryPolicy,
    Shed,
    TimedOut,
    TimeoutPolicy,
    TooLate,
    Why,
)
from budao.guard import Refused, State, Turned
from budao.testkit import REAL, FakeClock, Slow, events_of, forced, guard_for_tests

PLAIN = GuardPolicy(retry=None)


def guard_and_clock(policy: GuardPolicy = PLAIN) -> tuple[Guard, FakeClock]:
    clock = FakeClock()
    return guard_for_tests("stock", clock=clock, policy=policy), clock


@pytest.mark.parametrize("kind", [BreakerOpen, NoRoom, Shed, TooLate])
def test_an_ordered_refusal_is_raised_counted_and_told_like_a_real_one(kind: type[Exception]) -> None:
    guard, _ = guard_and_clock()
    stock = guard(lambda: 1)
    with events_of(guard) as events, forced(guard, kind), pytest.raises(kind):
        stock()
    key = guard.snapshot().keys[0]
    assert sum(key.refused.values()) == len(events.of(Refused)) == 1
    assert (key.ok, key.failed, key.in_flight) == (0, 0, 0)
    assert stock() == 1


def test_a_refusal_may_be_ordered_by_reason_or_with_a_time_to_wait() -> None:
    guard, _ = guard_and_clock()
    stock = guard(lambda: 1)
    with forced(guard, Why.RATE, Refusal(Why.SHED, 3.0)):
        with pytest.raises(NoRoom):
            stock()
        with pytest.raises(Shed) as caught:
            stock()
    assert caught.value.retry_after_s == 3.0


def test_an_ordered_value_comes_back_and_the_function_is_not_called() -> None:
    guard, _ = guard_and_clock()
    called: list[str] = []

    @guard
    def stock(sku: str) -> int:
        called.append(sku)
        return 1

    with forced(guard, 7):
        assert stock("a") == 7
    assert called == []
    assert stock("b") == 1
    assert called == ["b"]


def test_endings_are_taken_in_turn_and_the_last_one_stays() -> None:
    guard, _ = guard_and_clock()
    stock = guard(lambda: 1)
    got: list[object] = []
    with forced(guard, 5, BreakerOpen, PeerReset, REAL) as rehearsal:
        for _ in range(5):
            try:
                got.append(stock())
            except (BreakerOpen, PeerReset) as error:
                got.append(type(error))
    assert got == [5, BreakerOpen, PeerReset, 1, 1]
    assert rehearsal.tries == 5


def test_an_ordered_exception_is_a_failure_that_opens_the_breaker() -> None:
    guard, _ = guard_and_clock(GuardPolicy(retry=None, breaker=BreakerPolicy(calls_min=3)))
    stock = guard(lambda: 1)
    with events_of(guard) as events, forced(guard, ValueError("broken")):
        for _ in range(3):
            with pytest.raises(ValueError, match="broken"):
                stock()
        with pytest.raises(BreakerOpen):
            stock()
    assert [event.moved.after for event in events.of(Turned)] == [State.OPEN]


def test_each_try_of_a_retried_call_takes_the_next_ending() -> None:
    guard, _ = guard_and_clock(GuardPolicy(retry=RetryPolicy(pause_first_s=0.0)))
    stock = guard(safe=True)(lambda: 1)
    with forced(guard, TimedOut, PeerReset, 7) as rehearsal:
        assert stock() == 7
    assert rehearsal.tries == 3
    assert guard.snapshot().retries == 2


def test_a_ladder_goes_down_when_a_call_is_ordered_to_fail() -> None:
    guard, _ = guard_and_clock()
    stock = guard.ladder(template=0)(lambda: 1)
    with forced(guard, TimedOut):
        assert stock() == 0
    with forced(guard, BreakerOpen):
        assert stock() == 0
    assert guard.snapshot().rungs == {"template": 2}


def test_a_slow_sync_call_takes_its_time_on_the_clock_and_counts_as_slow() -> None:
    guard, clock = guard_and_clock(GuardPolicy(retry=None, breaker=BreakerPolicy(slow_s=0.2)))
    stock = guard(lambda: 1)
    with forced(guard, Slow(0.5, clock)):
        assert stock() == 1
    assert clock.now == 0.5
    key = guard.snapshot().keys[0]
    assert (key.ok, key.slow) == (0, 1)
    assert key.p50_s == pytest.approx(0.5)


def test_a_slow_async_call_ends_at_its_deadline() -> None:
    guard, clock = guard_and_clock(GuardPolicy(retry=None, timeout=TimeoutPolicy(call_s=1.0)))

    @guard
    async def stock() -> int:
        return 1

    async def both() -> int:
        with forced(guard, Slow(5.0, clock), Slow(0.5, clock, then=8)):
            with pytest.raises(TimedOut) as caught:
                await stock()
            assert caught.value.after_s == pytest.approx(1.0)
            return await stock()

    assert asyncio.run(both()) == 8
    assert clock.now == pytest.approx(1.5)
    assert guard.snapshot().keys[0].failed == 1


def test_a_kind_of_time_out_says_how_long_was_waited() -> None:
    guard, _ = guard_and_clock(GuardPolicy(retry=None, timeout=TimeoutPolicy(call_s=1.5)))
    stock = guard(lambda: 1)
    with forced(guard, TimedOut), pytest.raises(TimedOut) as caught:
        stock()
    assert (caught.value.target, caught.value.after_s) == ("stock", 1.5)


def test_async_calls_and_streams_end_as_ordered() -> None:
    guard, _ = guard_and_clock()

    @guard
    async def one() -> int:
        return 1

    @guard
    def stream() -> Iterator[int]:
        yield 1

    @guard
    async def async_stream() -> AsyncIterator[int]:
        yield 1

    async def all_of() -> list[object]:
        return [await one(), list(stream()), [item async for item in async_stream()]]

    async def rehearsed() -> list[object]:
        with forced(guard, 4, [5, 6], [7], REAL):
            return [*await all_of(), *await all_of()]

    assert asyncio.run(rehearsed()) == [4, [5, 6], [7], 1, [1], [1]]
    with forced(guard, PeerReset), pytest.raises(PeerReset):
        list(stream())
    with forced(guard, NoRoom), pytest.raises(NoRoom):
        list(stream())


def test_a_block_can_be_refused() -> None:
    guard, _ = guard_and_clock()
    with forced(guard, BreakerOpen), pytest.raises(BreakerOpen), guard.block():
        raise AssertionError("not reached")
    with guard.block():
        pass
    assert guard.snapshot().keys[0].ok == 1


def test_a_function_protected_during_a_rehearsal_takes_part() -> None:
    guard, _ = guard_and_clock()
    with forced(guard, 7):
        stock = guard(lambda: 1)
        assert stock() == 7
    assert stock() == 1


def test_settings_may_change_during_a_rehearsal() -> None:
    guard, _ = guard_and_clock()
    stock = guard(lambda: 1)
    with forced(guard, 7, NoRoom):
        guard.obey(GuardPolicy(retry=None, bulkhead=BulkheadPolicy(calls_max=1)))
        assert stock() == 7
        with pytest.raises(NoRoom):
            stock()
    assert stock() == 1


def test_a_hedged_sync_call_ends_as_ordered() -> None:
    with ThreadPoolExecutor(2) as executor:
        guard = Guard("stock", policy=GuardPolicy(hedge=HedgePolicy(samples_min=2)), executor=executor)
        stock = guard(safe=True)(lambda: 1)
        for _ in range(60):
            stock()
        guard.snapshot()
        with forced(guard, 7):
            assert stock() == 7
        assert stock() == 1


def test_keyed_calls_are_forced_for_every_key_known_or_new() -> None:
    guard, _ = guard_and_clock()
    stock = guard(key=lambda sku: sku)(lambda sku: 1)
    stock("a")
    with forced(guard, BreakerOpen):
        for sku in ("a", "b"):
            with pytest.raises(BreakerOpen):
                stock(sku)
    assert [stock("a"), stock("b")] == [1, 1]


def test_two_rehearsals_of_one_guard_at_once_are_a_mistake() -> None:
    guard, _ = guard_and_clock()
    stock = guard(lambda: 1)
    with forced(guard, 7):
        with pytest.raises(RuntimeError, match="rehearsal already"), forced(guard, 8):
            raise AssertionError("not reached")
        assert stock() == 7
    with pytest.raises(ValueError, match="say how calls shall end"), forced(guard):
        raise AssertionError("not reached")


def test_a_hedged_async_call_ends_as_ordered() -> None:
    guard = Guard("stock", policy=GuardPolicy(hedge=HedgePolicy(samples_min=2)))

    @guard(safe=True)
    async def stock() -> int:
        await asyncio.sleep(0)
        return 1

    async def rehearsed() -> list[int]:
        for _ in range(20):
            await stock()
        guard.snapshot()
        with forced(guard, 7, REAL):
            return [await stock(), await stock()]

    assert asyncio.run(rehearsed()) == [7, 1]


def test_calls_that_share_a_flight_share_its_ending() -> None:
    guard, _ = guard_and_clock()

    @guard(single_flight=True)
    async def stock(sku: str) -> int:
        return 1

    async def rehearsed() -> list[int]:
        with forced(guard, 7, 8):
            return [*await asyncio.gather(stock("a"), stock("a")), await stock("a")]

    assert asyncio.run(rehearsed()) == [7, 7, 8]


def test_a_slow_ending_may_be_a_refusal_further_in() -> None:
    guard, clock = guard_and_clock()
    stock = guard(lambda: 1)
    with forced(guard, Slow(1.0, clock, then=Refusal(Why.SHED, 2.0))), pytest.raises(Shed):
        stock()
    key = guard.snapshot().keys[0]
    assert (key.dropped, key.failed, dict(key.refused)) == (1, 0, {})


def test_methods_and_context_managers_take_part() -> None:
    guard, _ = guard_and_clock()

    class Shop:
        @guard
        def stock(self, sku: str) -> int:
            return len(sku)

        @guard
        @staticmethod
        def name() -> str:
            return "shop"

    @guard
    @contextmanager
    def connection() -> Iterator[str]:
        yield "real"

    shop = Shop()
    with forced(guard, 7, "another", ["pretended"]):
        assert (shop.stock("ab"), shop.name()) == (7, "another")
        with connection() as held:
            assert held == "pretended"
    assert (shop.stock("ab"), shop.name()) == (2, "shop")


def test_a_call_behind_two_guards_is_forced_at_either() -> None:
    near, _ = guard_and_clock()
    far = guard_for_tests("far", clock=FakeClock(), policy=PLAIN)

    @near
    @far
    async def stock() -> int:
        return 1

    gc.collect()
    with forced(near, 7):
        assert asyncio.run(stock()) == 7
        assert far.snapshot().keys[0].ok == 0
    with forced(far, 8):
        assert asyncio.run(stock()) == 8
    assert asyncio.run(stock()) == 1


def test_counts_stay_exact_while_rehearsals_begin_and_end_under_threads() -> None:
    guard = Guard("stock", policy=GuardPolicy(retry=None, breaker=None))
    call = guard(lambda: "real")
    stop = threading.Event()
    ended: list[int] = []

    def run() -> None:
        made = 0
        while not stop.is_set() or made < 200:
            with suppress(NoRoom, ValueError):
                assert call() in {"real", "pretended"}
            made += 1
        ended.append(made)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        with forced(guard, "pretended", NoRoom, ValueError("broken"), Why.RATE, REAL):
            call_once_or_be_refused(call)
    stop.set()
    for thread in threads:
        thread.join()
    key = guard.snapshot().keys[0]
    assert key.in_flight == 0
    assert key.ok + key.slow + key.failed + key.dropped + sum(key.refused.values()) == sum(ended) + 50
    assert call() == "real"


def call_once_or_be_refused(call: Callable[[], object]) -> None:
    with suppress(NoRoom, ValueError):
        call()
