from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import replace
from math import inf, nan
from random import Random
from typing import Any

import pytest

from budao.guard import Core, Home, Repeats, Retried
from budao.guard.repeats import Again, Discard, Pause
from budao.model import (
    BudgetPolicy,
    CallRefused,
    GuardPolicy,
    Mono,
    NoRoom,
    Refusal,
    RetryPolicy,
    TimeoutPolicy,
    Why,
    context,
)

RETRY = RetryPolicy(attempts_max=3, pause_first_s=0.1, pause_max_s=1.0, retry_after_max_s=5.0)
POLICY = GuardPolicy(retry=RETRY, budget=BudgetPolicy(share=1.0, floor_per_s=1.0))


class Full(Random):
    """Always draws the upper end."""

    def uniform(self, a: float, b: float) -> float:
        return b


def made(policy: GuardPolicy = POLICY, failed_if: Callable[[Exception], bool] = lambda _: True) -> Core:
    home = Home("inventory", policy, lock=contextlib.nullcontext(), rng=Full(), failed_if=failed_if)
    return Core(home, None, Mono(0.0))


def steps(repeats: Repeats, core: Core, error: Exception | None, result: object = None) -> Generator[Any, Any, Any]:
    return repeats.tries(core, error, result, 0.0, ("sku",), {}, lambda: 0.0)


def returned(tries: Generator[Any, Any, Any], sent: object) -> Any:
    with pytest.raises(StopIteration) as stop:
        tries.send(sent)
    return stop.value.value


def ill(number: int = 0) -> ValueError:
    return ValueError(f"ill {number}")


def test_a_failed_call_is_tried_again_after_a_pause_and_its_answer_is_the_answer() -> None:
    core = made()
    tries = steps(Repeats(True, None, None), core, ill())
    assert next(tries) == Pause(0.1)
    assert tries.send(None) is Again.NOW
    assert returned(tries, "ok") == "ok"
    assert core.home.retries == 1


def test_pauses_grow_and_tries_end_with_the_last_error() -> None:
    core = made()
    tries = steps(Repeats(True, None, None), core, ill(1))
    assert next(tries) == Pause(0.1)
    assert next(tries) is Again.NOW
    assert tries.throw(ill(2)) == Pause(0.2)
    assert next(tries) is Again.NOW
    with pytest.raises(ValueError, match="ill 3"):
        tries.throw(ill(3))
    told = [event for event in core.home.events if isinstance(event, Retried)]
    assert [(event.attempt, event.pause_s, event.error) for event in told] == [
        (2, 0.1, "ValueError: ill 1"), (3, 0.2, "ValueError: ill 2")
    ]  # fmt: skip


def test_a_bad_result_is_discarded_tried_again_and_returned_if_it_stays_bad() -> None:
    repeats = Repeats(True, lambda result: result >= 500, None)
    tries = steps(repeats, made(), None, 503)
    assert next(tries) == Discard(503)
    assert next(tries) == Pause(0.1)
    assert next(tries) is Again.NOW
    assert tries.send(502) == Discard(502)
    assert next(tries) == Pause(0.2)
    assert next(tries) is Again.NOW
    assert returned(tries, 500) == 500


def test_the_result_of_the_last_try_is_not_discarded() -> None:
    core = made(replace(POLICY, retry=replace(RETRY, attempts_max=1)))
    with pytest.raises(StopIteration) as stop:
        next(steps(Repeats(True, lambda _: True, None), core, None, 503))
    assert stop.value.value == 503


@pytest.mark.parametrize("safe", [False, lambda sku: sku != "sku", lambda sku: 1 / 0, lambda: True])
def test_a_call_that_is_not_safe_or_cannot_say_so_is_not_tried_again(safe: Any) -> None:
    repeats = Repeats(safe, None, None)
    with pytest.raises(ValueError, match="ill"):
        next(steps(repeats, made(), ill()))
    assert repeats.can_repeat is (safe is not False)


def test_a_predicate_sees_the_arguments() -> None:
    seen: list[object] = []

    def is_safe(*args: object, **kwargs: object) -> bool:
        seen.append((args, kwargs))
        return True

    repeats = Repeats(is_safe, None, None)
    assert repeats.is_safe((1,), {"a": 2})
    assert seen == [((1,), {"a": 2})]


def test_a_judge_that_raises_says_the_result_is_good() -> None:
    assert Repeats(True, lambda _: 1 / 0 > 0, None).is_bad(503) is False
    assert Repeats(True, None, None).is_bad(503) is False
    assert Repeats(True, lambda _: True, None).is_bad(503) is True


def test_an_exception_that_is_an_answer_is_raised_at_once() -> None:
    core = made(failed_if=lambda error: not isinstance(error, KeyError))
    tries = steps(Repeats(True, None, None), core, ill())
    next(tries)
    next(tries)
    with pytest.raises(KeyError):
        tries.throw(KeyError("not found"))


def test_a_repeat_that_is_refused_leaves_the_failure_to_speak() -> None:
    tries = steps(Repeats(True, None, None), made(), ill())
    next(tries)
    next(tries)
    with pytest.raises(ValueError, match="ill"):
        tries.throw(NoRoom("inventory", Refusal(Why.NO_ROOM)))


def test_a_repeat_of_a_bad_result_that_is_refused_raises_the_refusal() -> None:
    tries = steps(Repeats(True, lambda _: True, None), made(), None, 503)
    for _ in range(3):
        next(tries)
    with pytest.raises(CallRefused):
        tries.throw(NoRoom("inventory", Refusal(Why.NO_ROOM)))


def test_without_a_retry_policy_there_is_no_repeat() -> None:
    core = made(replace(POLICY, retry=None))
    assert Repeats(True, None, None).pause(core, 1, 0.0, 0.0, ill()) is None


@pytest.mark.parametrize(
    ("asked", "pause_s"),
    [
        (None, 0.1), (2.0, 2.0 + 0.2), (5.0, 5.0 + 0.5), (5.1, None), (0.0, 0.1), (-3.0, 0.1), (inf, None),
        (-inf, None), (nan, None), ("2", 2.2), ("soon", 0.1), ([], 0.1),
    ],
)  # fmt: skip
def test_a_wait_that_was_asked_for_is_honoured_and_nonsense_is_ignored(asked: Any, pause_s: float | None) -> None:
    repeats = Repeats(True, None, lambda problem: asked)
    assert repeats.pause(made(), 1, 0.0, 0.0, ill()) == (None if pause_s is None else pytest.approx(pause_s))


def test_a_hook_that_raises_asked_for_nothing() -> None:
    assert Repeats(True, None, lambda problem: 1 / 0).pause(made(), 1, 0.0, 0.0, ill()) == 0.1


def test_no_repeat_is_begun_that_would_end_past_the_deadline() -> None:
    repeats, core = Repeats(True, None, None), made(replace(POLICY, timeout=TimeoutPolicy(call_s=1.0, total_s=2.0)))
    assert repeats.pause(core, 1, 0.0, 1.8, ill()) == 0.1
    assert repeats.pause(core, 1, 0.0, 1.95, ill()) is None
    token = context.deadline.set(0.05)
    try:
        assert repeats.pause(core, 1, 0.0, 0.0, ill()) is None
    finally:
        context.deadline.reset(token)
    assert core.home.retries == 1


def test_a_spent_budget_refuses_the_repeat_and_counts_it() -> None:
    core = made(replace(POLICY, budget=BudgetPolicy(share=0.1, window_s=10.0, floor_per_s=0.1)))
    repeats = Repeats(True, None, None)
    assert repeats.pause(core, 1, 0.0, 0.0, ill()) is not None
    assert repeats.pause(core, 1, 0.0, 0.0, ill()) is None
    assert core.view(Mono(0.0)).refused == {Why.BUDGET_SPENT: 1}
    assert core.home.retries == 1


def test_quiet_calls_pay_for_repeats_before_anybody_folds() -> None:
    core = made(replace(POLICY, budget=BudgetPolicy(share=0.1, floor_per_s=0.0)))
    repeats = Repeats(True, None, None)
    assert repeats.pause(core, 1, 0.0, 0.0, ill()) is None
    core.batch.extend([0.01] * 10)
    assert repeats.pause(core, 1, 0.0, 0.1, ill()) is not None


def test_an_exception_that_cannot_say_what_it_is_is_retried_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    core = made()
    assert Repeats(True, None, None).pause(core, 1, 0.0, 0.0, Mute()) == 0.1
    assert Repeats(True, lambda _: True, None).pause(core, 1, 0.0, 0.0, 503) == 0.1
    told = [event.error for event in core.home.events if isinstance(event, Retried)]
    assert told == ["Mute", "a bad result"]
