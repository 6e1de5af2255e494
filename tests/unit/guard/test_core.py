from __future__ import annotations

import contextlib
import gc
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from random import Random
from typing import Any

import pytest

from budao.guard import STREAMING, Core, Event, Home, Refused, State, Turned
from budao.guard.core import BATCH_AIM, EVERY_MIN_S, EVERY_S
from budao.guard.home import EVENTS_MAX
from budao.model import (
    BadSettings,
    BreakerOpen,
    BreakerPolicy,
    BudgetPolicy,
    BulkheadPolicy,
    CallRefused,
    Dropped,
    GuardPolicy,
    HedgePolicy,
    Mode,
    Mono,
    NoRoom,
    RatePolicy,
    Refusal,
    ThrottlePolicy,
    TooLate,
    Why,
    context,
)
from budao.protect import Guard

BREAKER = BreakerPolicy(calls_min=4, slow_s=1.0, rest_s=10.0, ramp_s=4.0)
POLICY = GuardPolicy(breaker=BREAKER)


class Die(Random):
    def __init__(self, falls: float) -> None:
        super().__init__()
        self.falls = falls

    def random(self) -> float:
        return self.falls


def made(policy: GuardPolicy = POLICY, *, failed_if: Callable[[Exception], bool] = lambda _: True) -> Core:
    home = Home("inventory", policy, lock=contextlib.nullcontext(), rng=Die(0.999), failed_if=failed_if)
    return Core(home, None, Mono(0.0))


def shape(**changed: Any) -> Core:
    return made(replace(POLICY, breaker=replace(BREAKER, **changed)))


def quiet(core: Core, calls: int, took_s: float = 0.01) -> None:
    """What compiled calls do that find nothing in their way."""
    core.batch.extend([took_s] * calls)


def call(core: Core, now: float, *, failed: bool = False, took_s: float = 0.01) -> None:
    core.done(core.enter(now), now, now + took_s, failed=failed)


def opened(core: Core, now: float = 0.0) -> Core:
    for number in range(4):
        core.fail(None, now + number / 10, ValueError("ill"), now + number / 10 + 0.01)
    return core


def state(core: Core, now: float) -> State:
    return core.view(Mono(now)).state


def events(core: Core) -> list[str]:
    return [event.moved.move.name for event in core.home.events if isinstance(event, Turned)]


# -- the quiet path


def test_quiet_calls_are_counted_by_whoever_folds_next() -> None:
    core = made()
    quiet(core, 7)
    assert (core.ok, len(core.batch)) == (0, 7)
    core.fold(0.5)
    view = core.view(Mono(0.5))
    assert (view.ok, view.window_ok, core.batch) == (7, 7, [])
    assert view.latency is not None
    assert sum(count for _, count in view.latency.occupied) == 7


def test_a_fold_is_due_ten_times_a_second_or_once_a_bucket() -> None:
    assert made().fold_at == EVERY_S
    assert shape(window_s=1.0).fold_at == 0.1
    assert shape(window_s=0.1).fold_at == pytest.approx(0.01)
    assert made(GuardPolicy(breaker=None)).fold_at == EVERY_S


def test_the_busier_the_sooner_it_folds_again_but_never_without_end() -> None:
    core = made()
    quiet(core, 100 * BATCH_AIM)
    core.fold(1.0)
    assert core.fold_at == pytest.approx(1.01)
    quiet(core, 1000 * BATCH_AIM)
    core.fold(1.02)
    assert core.fold_at == pytest.approx(1.02 + EVERY_MIN_S)
    core.fold(2.0)
    assert core.fold_at == 2.0 + EVERY_S


def test_a_fold_that_is_only_due_counts_and_leaves_learning_for_its_own_time() -> None:
    core = made()
    for step in range(1, 10):
        quiet(core, 50)
        assert core.enter(step * 0.11) is None
        assert core.batch == []
    assert core.ok == 450
    assert len(core.latencies.recent) == 0
    quiet(core, 50)
    assert core.enter(1.1) is None
    assert core.ok == 500
    assert 200 <= len(core.latencies.recent) <= 300
    snapshot = core.latencies.snapshot()
    assert snapshot is not None
    assert snapshot.count == 500


def test_quiet_calls_are_counted_when_they_ended_and_not_when_somebody_came_to_look() -> None:
    core = made()
    quiet(core, 5)
    assert core.view(Mono(9.9)).window_ok == 5, "they ended before the fold was due, at 0.1 s"
    core = made()
    quiet(core, 5)
    assert core.view(Mono(10.9)).window_ok == 0


def test_failures_are_judged_beside_the_good_calls_of_the_same_second() -> None:
    core = made()
    quiet(core, 100)
    opened(core)
    view = core.view(Mono(0.5))
    assert (view.state, view.window_ok, view.window_failed) == (State.CLOSED, 100, 4)


def test_good_calls_of_an_older_generation_are_counted_and_teach_the_new_one_nothing() -> None:
    core = opened(made())
    quiet(core, 3)  # an append that lost the race against the trip
    core.reset(Mono(1.0))
    core.fold(2.0)
    view = core.view(Mono(2.0))
    assert (view.state, view.ok, view.window_ok) == (State.CLOSED, 3, 0)


def test_a_fold_measures_a_sample_and_weighs_it_to_the_whole() -> None:
    core = made()
    core.batch.extend([0.001] * 10_000 + [0.2])
    core.fold(1.0)
    view = core.view(Mono(1.0))
    assert view.ok == 10_001
    assert view.latency is not None
    assert sum(count for _, count in view.latency.occupied) == 10_001


def test_quantiles_are_those_of_recent_calls_and_none_without_any() -> None:
    core = made()
    assert core.view(Mono(0.0)).p99_s is None
    core.batch.extend(number / 1000 for number in range(1, 101))
    core.fold(1.0)
    view = core.view(Mono(1.0))
    assert (view.p50_s, view.p95_s, view.p99_s) == (0.05, 0.095, 0.099)


# -- letting in


def test_a_call_past_its_deadline_is_not_made() -> None:
    core = made()
    with pytest.raises(TooLate) as refused:
        core.enter(5.0, until=5.0)
    assert refused.value.refusal == Refusal(Why.TOO_LATE)
    assert core.enter(5.0, until=5.1) is None
    token = context.deadline.set(4.0)
    try:
        with pytest.raises(TooLate):
            core.enter(5.0)
    finally:
        context.deadline.reset(token)
    assert core.view(Mono(5.0)).refused == {Why.TOO_LATE: 2}


def test_an_open_breaker_refuses_counts_and_says_how_long() -> None:
    core = opened(made())
    for now in (1.0, 2.0):
        with pytest.raises(BreakerOpen) as refused:
            core.enter(now)
        assert refused.value.refusal.why is Why.BREAKER_OPEN
        assert refused.value.retry_after_s == pytest.approx(10.31 - now)
        assert refused.value.target == "inventory"
    assert core.view(Mono(2.0)).refused == {Why.BREAKER_OPEN: 2}


def test_refusals_are_told_to_listeners_one_by_one() -> None:
    core = opened(made())
    told: list[Event] = []
    core.home.listeners = (told.append,)
    with pytest.raises(BreakerOpen):
        core.enter(1.0)
    (event,) = (each for each in told if isinstance(each, Refused))
    assert (event.guard, event.key, event.at, event.refusal.why, event.shadow) == (
        "inventory", "", 1.0, Why.BREAKER_OPEN, False
    )  # fmt: skip
    assert core.view(Mono(2.0)).refused == {Why.BREAKER_OPEN: 1}


def test_the_target_of_a_refusal_names_the_key() -> None:
    home = made().home
    core = opened(Core(home, "sku-7", Mono(0.0)))
    with pytest.raises(BreakerOpen, match=r"inventory\[sku-7\]"):
        core.enter(1.0)
    assert Core(home, "x" * 1000, Mono(0.0)).label == "x" * 200


def test_probes_are_let_in_by_permit_and_the_rest_is_told_to_come_back() -> None:
    core = opened(made())
    permits = [core.enter(11.0 + number / 100) for number in range(3)]
    assert all(permit is not None and permit.is_probe for permit in permits)
    with pytest.raises(BreakerOpen) as refused:
        core.enter(11.05)
    assert refused.value.refusal == Refusal(Why.PROBES_TAKEN, 1.0)
    for permit in permits:
        core.done(permit, 11.0, 11.1)
    assert state(core, 11.2) is State.RAMPING
    assert events(core) == ["TRIP", "REST", "PASS"]


def test_a_ramp_refuses_its_share_and_then_ends() -> None:
    core = opened(made())
    for number in range(3):
        call(core, 11.0 + number)
    with pytest.raises(BreakerOpen) as refused:
        core.enter(14.0)
    assert refused.value.why is Why.RAMPING
    core.home.rng = Die(0.0)
    assert core.enter(14.1) is None
    core.home.rng = Die(0.999)
    assert core.enter(18.0) is None
    assert core.quiet_until > 18.0
    assert events(core)[-1] == "RAMP"


def test_a_rate_refuses_what_comes_too_fast_and_gives_a_probe_back() -> None:
    core = made(replace(POLICY, rate=RatePolicy(calls_per_s=0.01, burst=2)))
    core.pay(None, 0.0)
    core.pay(None, 0.0)
    with pytest.raises(NoRoom) as refused:
        core.pay(None, 0.0)
    assert refused.value.refusal == Refusal(Why.RATE, 100.0)
    opened(core)
    permit = core.enter(11.0)
    with pytest.raises(NoRoom):
        core.pay(permit, 11.0)
    assert core.breaker is not None
    assert (core.breaker.state, core.breaker.probes_in_flight) == (State.PROBING, 0)
    core.home.adopt(POLICY)
    core.obey(Mono(12.0))
    core.pay(None, 12.0)
    assert core.view(Mono(12.0)).refused == {Why.RATE: 2}


def test_a_throttle_begins_where_the_other_side_refuses_much() -> None:
    core = made(GuardPolicy(breaker=None, throttle=ThrottlePolicy()))
    core.home.rng = Die(0.0)
    for number in range(10):
        core.fail(None, number / 100, ValueError("refused"), number / 100)
    with pytest.raises(CallRefused) as refused:
        core.enter(0.5)
    assert refused.value.why is Why.THROTTLED


# -- settling


def test_each_ending_is_counted_as_what_it_is() -> None:
    patient = replace(POLICY, breaker=replace(BREAKER, calls_min=50))
    core = made(patient, failed_if=lambda error: not isinstance(error, KeyError))
    core.done(None, 0.0, 0.5)
    core.done(None, 0.1, 1.5)
    core.done(None, 0.2, 0.3, failed=True)
    assert core.fail(None, 0.3, ValueError("ill"), 0.4) is True
    assert core.fail(None, 0.4, KeyError("not found"), 0.5) is False
    assert core.fail(None, 0.5, CallRefused("database", Refusal(Why.NO_ROOM)), 0.6) is False
    assert core.fail(None, 0.6, KeyboardInterrupt(), 0.7) is False
    assert core.fail(None, 0.7, GeneratorExit(), 0.8) is False
    core.drop(None, 0.8, Dropped.LEFT_EARLY, 0.9)
    view = core.view(Mono(0.95))
    assert (view.ok, view.slow, view.failed, view.dropped) == (2, 1, 2, 4)
    assert (view.window_ok, view.window_slow, view.window_failed) == (2, 1, 2)


def test_a_predicate_that_raises_calls_it_a_failure_and_the_caller_never_hears_of_it() -> None:
    def broken(error: Exception) -> bool:
        raise RuntimeError("in the predicate")

    core = made(failed_if=broken)
    assert core.fail(None, 0.0, ValueError("ill"), 0.1) is True
    assert (core.failed, core.home.inner_errors) == (1, 1)


def test_a_call_that_started_before_the_trip_is_stale_however_it_ends() -> None:
    core = made()
    opened(core, 1.0)
    core.done(None, 0.5, 1.5)
    core.fail(None, 0.6, ValueError("ill"), 1.6)
    core.drop(None, 0.7, Dropped.CANCELLED, 1.7)
    view = core.view(Mono(2.0))
    assert (view.stale, view.window_ok, view.window_failed, view.ok, view.failed) == (2, 0, 0, 1, 5)


def test_a_clock_that_went_back_gives_no_negative_latency() -> None:
    core = made()
    core.done(None, 5.0, 4.0)
    assert core.view(Mono(5.0)).p50_s == 0.0


def test_what_a_fold_finds_is_told_even_when_the_call_was_dropped() -> None:
    core = made()
    told: list[Event] = []
    core.home.listeners = (told.append,)
    core.in_flight.update(dict.fromkeys((0.1, 0.2, 0.3, 0.4)))
    core.drop(None, 0.5, Dropped.CANCELLED, 2.0)
    assert [type(event) for event in told] == [Turned]


def test_a_stream_that_breaks_off_is_one_more_failure() -> None:
    core = made()
    for number in range(4):
        core.broke(1.0, started=0.1 * number)
    view = core.view(Mono(1.0))
    assert (view.broken, view.failed, view.state) == (4, 0, State.OPEN)


def test_a_stream_of_an_older_generation_that_breaks_off_changes_nothing() -> None:
    core = opened(made())
    core.enter(11.0)
    core.broke(11.1, started=0.05)
    view = core.view(Mono(11.2))
    assert (view.state, view.broken, view.stale) == (State.PROBING, 1, 1)


def test_a_stream_that_was_a_probe_and_breaks_off_reopens() -> None:
    core = opened(made())
    permit = core.enter(11.0)
    core.done(permit, 11.0, 11.1)
    core.broke(11.2, started=11.0, permit=permit)
    assert state(core, 11.3) is State.OPEN


def test_a_stream_let_in_by_shadow_teaches_nothing_when_it_breaks() -> None:
    core = opened(shape(mode=Mode.SHADOW))
    permit = core.enter(1.0)
    core.broke(1.2, started=1.0, permit=permit)
    assert core.view(Mono(1.3)).stale == 1


# -- calls that hang


def test_calls_that_hang_trip_it_at_the_next_admission_although_none_ended() -> None:
    core = made()
    core.in_flight.update(dict.fromkeys((0.1, 0.2, 0.3, 0.4)))
    assert core.enter(0.9) is None
    with pytest.raises(BreakerOpen):
        core.enter(1.9)
    assert events(core) == ["TRIP"]


def test_a_stream_whose_first_item_came_is_not_stuck() -> None:
    core = made()
    core.in_flight.update(dict.fromkeys((0.1, 0.2, 0.3, 0.4), STREAMING))
    assert core.enter(50.0) is None
    assert core.view(Mono(50.0)).in_flight == 4


def test_calls_of_an_older_generation_are_not_stuck_again() -> None:
    core = made()
    core.in_flight.update(dict.fromkeys((0.1, 0.2, 0.3, 0.4)))
    core.fold(2.0)
    core.reset(Mono(3.0))
    core.fold(10.0)
    assert events(core) == ["TRIP", "RESET"]


def test_a_hung_probe_opens_it_again() -> None:
    core = opened(made())
    core.in_flight[11.0] = core.enter(11.0)
    with pytest.raises(BreakerOpen):
        core.enter(12.5)
    assert events(core) == ["TRIP", "REST", "FAIL"]


# -- modes


def test_shadow_decides_and_tells_and_refuses_nobody() -> None:
    core = opened(shape(mode=Mode.SHADOW))
    permit = core.enter(1.0)
    assert permit is not None
    core.fail(permit, 1.0, ValueError("ill"), 1.1)
    view = core.view(Mono(1.2))
    assert (view.state, view.stale, view.refused) == (State.OPEN, 1, {Why.BREAKER_OPEN: 1})
    (event,) = (each for each in core.home.events if isinstance(each, Refused))
    assert event.shadow
    for number in range(3):
        call(core, 11.0 + number)
    assert state(core, 14.0) is State.RAMPING


def test_forced_open_refuses_everybody_and_learns_from_who_is_still_out() -> None:
    core = shape(mode=Mode.FORCED_OPEN)
    assert core.quiet_until == -inf
    with pytest.raises(BreakerOpen) as refused:
        core.enter(0.1)
    assert refused.value.refusal == Refusal(Why.FORCED_OPEN, 10.0)
    core.done(None, 0.0, 0.2)
    assert core.view(Mono(0.3)).window_ok == 1


def test_disabled_refuses_nobody_and_learns_nothing() -> None:
    core = opened(shape(mode=Mode.DISABLED))
    quiet(core, 5)
    core.in_flight.update(dict.fromkeys((0.1, 0.2, 0.3, 0.4)))
    core.fold(5.0)
    core.broke(5.0)
    view = core.view(Mono(5.0))
    assert (view.state, view.ok, view.failed) == (State.CLOSED, 5, 4)
    assert (view.window_ok, view.window_failed, view.window_slow) == (0, 0, 0)
    assert core.enter(5.1) is None
    assert core.quiet_until > 5.1


def test_disabled_lets_in_what_was_open_before() -> None:
    core = opened(made())
    core.home.adopt(replace(POLICY, breaker=replace(BREAKER, mode=Mode.DISABLED)))
    core.obey(Mono(1.0))
    assert core.enter(1.1) is None
    core.home.adopt(POLICY)
    core.obey(Mono(2.0))
    with pytest.raises(BreakerOpen):
        core.enter(2.1)


# -- settings swapped while calls run


def test_new_settings_keep_counts_state_and_calls_in_flight() -> None:
    core = made()
    quiet(core, 3)
    call(core, 0.1, failed=True)
    core.in_flight[0.2] = None
    core.home.adopt(replace(POLICY, breaker=replace(BREAKER, calls_min=9), bulkhead=BulkheadPolicy(calls_max=5)))
    core.obey(Mono(0.5))
    view = core.view(Mono(0.5))
    assert (view.window_ok, view.window_failed, view.in_flight, view.calls_max) == (3, 1, 1, 5)


def test_a_breaker_that_is_switched_off_and_on_forgets_probes_without_a_fuss() -> None:
    core = opened(made())
    permit = core.enter(11.0)
    core.home.adopt(replace(POLICY, breaker=None))
    core.obey(Mono(12.0))
    assert core.view(Mono(12.0)).state is State.CLOSED
    core.home.adopt(POLICY)
    core.obey(Mono(13.0))
    opened(core, 14.0)
    core.enter(30.0)
    core.fail(permit, 11.0, ValueError("ill"), 30.1)
    assert core.breaker is not None
    assert (core.breaker.state, core.breaker.probes_in_flight) == (State.PROBING, 1)


def test_parts_come_and_go_with_the_settings() -> None:
    core = made(replace(POLICY, rate=RatePolicy(calls_per_s=1.0), throttle=ThrottlePolicy()))
    core.home.adopt(GuardPolicy(breaker=None))
    core.obey(Mono(1.0))
    assert (core.breaker, core.bucket, core.throttle, core.slow_s) == (None, None, None, inf)
    core.home.adopt(replace(POLICY, rate=RatePolicy(calls_per_s=1.0), throttle=ThrottlePolicy()))
    core.obey(Mono(2.0))
    assert core.breaker is not None
    assert core.bucket is not None
    assert core.throttle is not None


def test_a_hedge_waits_for_enough_samples() -> None:
    core = made(replace(POLICY, hedge=HedgePolicy(quantile=0.9, samples_min=10, delay_min_s=0.002)))
    core.batch.extend([0.1] * 9)
    core.fold(1.0)
    assert core.hedge_s == inf
    core.batch.extend([0.1])
    core.fold(2.0)
    assert core.hedge_s == 0.1


# -- listeners, memory, bounds


def test_a_listener_that_raises_is_counted_and_fails_no_call() -> None:
    core = made()
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("in the listener")

    core.home.listeners = (broken, heard.append)
    opened(core)
    assert core.home.inner_errors == 1
    assert [type(event) for event in heard] == [Turned]


def test_events_kept_for_later_have_a_bound() -> None:
    core = shape(mode=Mode.SHADOW)
    opened(core)
    for number in range(2 * EVENTS_MAX):
        core.enter(1.0 + number / 1000)
    assert len(core.home.events) == EVENTS_MAX
    assert len(core.home.news) == 0


def test_every_call_pays_into_the_budget() -> None:
    core = made(replace(POLICY, budget=BudgetPolicy(share=0.1, floor_per_s=0.0)))
    quiet(core, 90)
    for number in range(10):
        core.done(None, number / 100, number / 100)
    core.fold(0.5)
    assert core.home.budget.left(Mono(0.5)) == 10


@pytest.fixture
def traced() -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_idle_key_costs_at_most_two_kibibytes(traced: None) -> None:
    keys = 10_000
    names = [f"sku-{number}" for number in range(keys)]
    guard = Guard("inventory", policy=replace(POLICY, keys_max=keys), clock=Clock())

    @guard(key=lambda sku: sku)
    def stock(sku: str) -> str:
        return sku

    before, _ = tracemalloc.get_traced_memory()
    for name in names:
        stock(name)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    assert (after - before) / keys <= 2048


def test_keys_without_end_stay_within_their_bound() -> None:
    guard = Guard("inventory", policy=replace(POLICY, keys_max=100), clock=Clock())

    @guard(key=lambda sku: sku)
    def stock(sku: int) -> int:
        return sku

    for sku in range(5_000):
        assert stock(sku) == sku
    view = guard.snapshot()
    assert len(view.keys) <= 101
    assert view.evicted >= 4_900


@pytest.mark.parametrize("key", [lambda sku: [sku], lambda sku: 1 / 0, lambda: 1])
def test_a_key_that_raises_or_has_no_hash_means_the_resource_without_key(key: Callable[..., Any]) -> None:
    guard = Guard("inventory", policy=POLICY, clock=Clock())

    @guard(key=key)
    def stock(sku: int) -> int:
        return sku

    assert stock(3) == 3
    view = guard.snapshot()
    assert ([each.key for each in view.keys], view.inner_errors) == ([""], 1)


# -- clocks


@pytest.mark.parametrize(
    "instants", [[0.0] * 400, [100.0] * 100 + [0.0] * 300, [0.0, 1e12] * 200, [float("nan"), inf, -inf] * 100]
)
def test_a_clock_that_stands_jumps_or_says_nonsense_fails_no_call(instants: list[float]) -> None:
    told = iter(instants)
    guard = Guard("inventory", policy=POLICY, clock=lambda: next(told, 0.0))

    @guard
    def stock(sku: int) -> int:
        return sku

    for sku in range(100):
        assert stock(sku) == sku
    view = guard.snapshot().keys[0]
    assert (view.ok + view.slow, view.in_flight) == (100, 0)


def test_a_guard_without_a_name_or_with_impossible_settings_says_so() -> None:
    with pytest.raises(BadSettings, match="is not a name"):
        Guard("")
    with pytest.raises(BadSettings, match="breaker: 3 is not a BreakerPolicy or None"):
        GuardPolicy(breaker=3)  # type: ignore[arg-type]
    with pytest.raises(BadSettings, match="keys_max: 0 must be from 1"):
        GuardPolicy(keys_max=0)


def test_a_reset_in_the_middle_of_a_ramp_makes_what_is_out_stale() -> None:
    core = opened(made())
    for number in range(3):
        call(core, 11.0 + number)
    assert state(core, 13.5) is State.RAMPING
    core.reset(Mono(14.0))
    core.fail(None, 13.9, ValueError("ill"), 14.1)
    view = core.view(Mono(14.2))
    assert (view.window_failed, view.stale) == (0, 1)
