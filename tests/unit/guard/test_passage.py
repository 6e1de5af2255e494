from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from math import inf
from random import Random

import pytest

from budao.guard import STREAMING, Core, Home, KeyView, Passage, State
from budao.model import (
    BreakerOpen,
    BreakerPolicy,
    BulkheadPolicy,
    CallRefused,
    GuardPolicy,
    Mono,
    Refusal,
    TimeoutPolicy,
    TooLate,
    Why,
    context,
)

POLICY = GuardPolicy(breaker=BreakerPolicy(calls_min=4, slow_s=1.0, rest_s=10.0, ramp_s=0.0))


def made(policy: GuardPolicy = POLICY) -> Core:
    home = Home(
        "inventory",
        policy,
        lock=contextlib.nullcontext(),
        rng=Random(1),
        failed_if=lambda error: not isinstance(error, KeyError),
    )
    return Core(home, None, Mono(0.0))


def entered(core: Core, now: float, until: float = inf) -> Passage:
    passage = Passage(core)
    passage.enter(now, until)
    return passage


def counts(core: Core, now: float = 0.9) -> dict[str, int]:
    view: KeyView = core.view(Mono(now))
    named = {name: getattr(view, name) for name in ("ok", "failed", "slow", "dropped", "broken", "stale")}
    assert view.in_flight == 0
    return {name: count for name, count in named.items() if count}


def opened(core: Core) -> Core:
    assert core.breaker is not None
    for number in range(4):
        if core.breaker.state is State.OPEN:
            break
        entered(core, number / 10).leave(ValueError("ill"), number / 10 + 0.01)
    return core


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (None, {"ok": 1}),
        (ValueError("ill"), {"failed": 1}),
        (KeyError("not found"), {"ok": 1}),
        (asyncio.CancelledError(), {"dropped": 1}),
        (CallRefused("database", Refusal(Why.NO_ROOM)), {"dropped": 1}),
    ],
)
def test_leaving_settles_by_how_the_block_ended(error: BaseException | None, counted: dict[str, int]) -> None:
    core = made()
    passage = entered(core, 0.1)
    assert core.in_flight == {0.1: None}
    passage.leave(error, 0.2)
    assert counts(core) == counted


def test_leaving_twice_settles_once() -> None:
    core = made()
    passage = entered(core, 0.1)
    passage.leave(None, 0.2)
    passage.leave(ValueError("ill"), 0.3)
    assert counts(core) == {"ok": 1}


@pytest.mark.parametrize("error", [None, KeyError("not found"), ValueError("ill")])
def test_a_block_that_says_it_failed_has_failed_whatever_it_raised(error: Exception | None) -> None:
    core = made()
    passage = entered(core, 0.1)
    passage.failed()
    passage.leave(error, 0.2)
    assert counts(core) == {"failed": 1}


def test_a_block_that_failed_and_was_cancelled_was_cancelled() -> None:
    core = made()
    passage = entered(core, 0.1)
    passage.failed()
    passage.leave(asyncio.CancelledError(), 0.2)
    assert counts(core) == {"dropped": 1}


@pytest.mark.parametrize("error", [None, ValueError("ill")])
def test_a_block_that_drops_itself_teaches_nothing(error: Exception | None) -> None:
    core = made()
    passage = entered(core, 0.1)
    passage.drop()
    passage.leave(error, 0.2)
    assert counts(core) == {"dropped": 1}


def test_an_answer_that_began_stops_the_clock_and_holds_the_place() -> None:
    core = made()
    passage = entered(core, 0.1)
    passage.answered(0.2)
    assert core.in_flight == {0.1: STREAMING}
    passage.answered(0.8)
    passage.leave(None, 50.0)
    assert counts(core, 50.0) == {"ok": 1}
    assert core.view(Mono(50.0)).p50_s == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (ValueError("ill"), {"ok": 1, "broken": 1}),
        (KeyError("not found"), {"ok": 1}),
        (asyncio.CancelledError(), {"ok": 1}),
        (None, {"ok": 1}),
    ],
)
def test_an_answer_that_breaks_off_is_one_more_failure(error: BaseException | None, counted: dict[str, int]) -> None:
    core = made()
    passage = entered(core, 0.1)
    passage.answered(0.2)
    passage.leave(error, 0.3)
    assert counts(core) == counted


def test_an_answer_that_was_bad_from_its_first_byte_is_one_failure_and_not_two() -> None:
    core = made()
    passage = entered(core, 0.1)
    passage.failed()
    passage.answered(0.2)
    passage.leave(ValueError("ill"), 0.3)
    assert counts(core) == {"failed": 1}


def test_an_answer_that_turns_out_bad_later_is_one_more_failure() -> None:
    core = made()
    passage = entered(core, 0.1)
    passage.answered(0.2)
    passage.failed()
    passage.leave(None, 0.3)
    assert counts(core) == {"ok": 1, "broken": 1}


def test_a_stream_from_before_the_trip_that_breaks_off_changes_nothing() -> None:
    core = made()
    old = entered(core, 0.05)
    old.answered(0.06)
    opened(core)
    probe = entered(core, 11.0)
    old.leave(ValueError("ill"), 11.1)
    assert core.view(Mono(11.2)).state is State.PROBING
    probe.leave(None, 11.3)
    assert core.view(Mono(11.4)).stale == 1


def test_a_refused_block_holds_nothing() -> None:
    core = opened(made())
    with pytest.raises(BreakerOpen):
        entered(core, 1.0)
    assert core.in_flight == {}


def test_a_probe_that_is_a_block_gives_its_place_back() -> None:
    core = opened(made())
    probe = entered(core, 11.0)
    assert probe.permit is not None
    probe.leave(asyncio.CancelledError(), 11.1)
    assert core.breaker is not None
    assert (core.breaker.state, core.breaker.probes_in_flight) == (State.PROBING, 0)


def test_it_must_end_by_the_earliest_of_deadline_and_time_limit() -> None:
    core = made(replace(POLICY, timeout=TimeoutPolicy(call_s=2.0, total_s=3.0)))
    assert (entered(core, 0.1).until, entered(core, 0.2).outer) == (2.1, inf)
    assert (entered(core, 0.3, until=1.0).until, entered(core, 0.4, until=9.0).until) == (1.0, 2.4)
    token = context.deadline.set(0.7)
    try:
        passage = entered(core, 0.5, until=1.0)
        assert (passage.until, passage.outer) == (0.7, 0.7)
    finally:
        context.deadline.reset(token)
    assert entered(made(), 0.1).until == inf


def test_a_block_whose_deadline_has_passed_is_too_late() -> None:
    with pytest.raises(TooLate):
        entered(made(), 0.5, until=0.5)


def test_it_is_crowded_once_there_are_more_than_places() -> None:
    core = made(replace(POLICY, bulkhead=BulkheadPolicy(calls_max=2)))
    assert [entered(core, number / 10).is_crowded for number in range(3)] == [False, False, True]
