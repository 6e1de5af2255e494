from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from budao.guard import NOTHING, Descended, Ladder, Remembered, Rung, answer_of, key_of
from budao.model import BadSettings, BreakerPolicy, GuardPolicy
from budao.protect import Guard


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Odd:
    """Can be told to raise when it is hashed or compared."""

    def __init__(self, *, in_hash: bool = False) -> None:
        self.in_hash = in_hash

    def __hash__(self) -> int:
        if self.in_hash:
            raise ValueError("in hash")
        return 1

    def __eq__(self, other: object) -> bool:
        raise ValueError("in comparison")


def ill(*args: Any, **kwargs: Any) -> Any:
    raise ValueError("ill")


def broken(*args: Any, **kwargs: Any) -> Any:
    raise KeyError("in the rung")


def guarded(function: Callable[..., Any] = ill, **rungs: Any) -> tuple[Guard, Callable[..., Any]]:
    guard = Guard("inventory", policy=GuardPolicy(breaker=BreakerPolicy(), retry=None), clock=Clock())
    return guard, guard.ladder(**rungs)(function)


def test_the_rungs_stand_in_their_order_and_only_those_that_are_there() -> None:
    named = Ladder(cache=1, empty=Rung(None, stale_s=5.0)).rungs()
    assert named == [("cache", Rung(1)), ("empty", Rung(None, stale_s=5.0))]
    assert Ladder().rungs() == []


def test_none_is_an_answer_and_nothing_is_none() -> None:
    assert answer_of(Rung(None), (), {}, 0.0) is None
    assert answer_of(Rung(NOTHING), (), {}, 0.0) is NOTHING
    assert answer_of(Rung(lambda a, b: a + b), (1,), {"b": 2}, 0.0) == 3


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"stale_s": -1.0}, "rung.stale_s: -1.0 must be at least 0"),
        ({"deadline_s": 0.0}, "rung.deadline_s: 0.0 must be above 0 and at most 3600"),
    ],
)
def test_an_impossible_rung_says_so(settings: dict[str, float], problem: str) -> None:
    with pytest.raises(BadSettings) as caught:
        Rung(1, **settings)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"fresh_s": 59.0}, "remembered.fresh_s: 59.0 must be at least 60"),
        ({"fresh_s": 120.0, "stale_s": 90.0}, "remembered.stale_s: 90 s is shorter than fresh_s, 120 s"),
        ({"size_max": 0}, "remembered.size_max: 0 must be from 1"),
    ],
)
def test_an_impossible_memory_says_so(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadSettings) as caught:
        Remembered(**settings)
    assert problem in str(caught.value)


def test_a_memory_gives_the_answer_and_its_age_until_it_is_too_old() -> None:
    memory = Remembered(fresh_s=60.0, stale_s=100.0)
    memory.put("a", 1, 10.0)
    assert memory.get("a", 10.0) == (1, 0.0)
    assert memory.get("a", 110.0) == (1, 100.0)
    assert memory.get("a", 110.1) is None
    assert memory.get("b", 10.0) is None
    assert memory.get("a", 0.0) == (1, 0.0), "a clock that went back makes nothing younger than new"


def test_a_memory_has_a_bound_and_what_was_remembered_longest_ago_leaves() -> None:
    memory = Remembered(size_max=2)
    memory.put("a", 1, 0.0)
    memory.put("b", 2, 1.0)
    memory.put("a", 3, 2.0)
    memory.put("c", 4, 3.0)
    assert len(memory) == 2
    assert memory.get("b", 3.0) is None
    assert memory.get("a", 3.0) == (3, 1.0)


def test_arguments_make_one_key_each_and_no_two_calls_share_one() -> None:
    assert key_of((1,), {"b": 2, "a": 1}) == key_of((1,), {"a": 1, "b": 2})
    assert key_of((1,), {"x": 2}) != key_of((1, (("x", 2),)), {})
    assert key_of((1,), {"x": 2}) != key_of(((1,), (("x", 2),)), {})
    assert key_of((), {}) is not None
    assert key_of(([],), {}) is None
    assert key_of((), {"a": {}}) is None
    assert key_of((Odd(in_hash=True),), {}) is None


def test_each_rung_is_tried_in_turn_and_the_first_answer_is_the_answer() -> None:
    guard, stock = guarded(cache=lambda sku: NOTHING, template=lambda sku: f"some {sku}", empty="none")
    assert stock("shoes") == "some shoes"
    view = guard.snapshot()
    assert view.rungs == {"template": 1}
    (event,) = view.events
    assert isinstance(event, Descended)
    assert (event.rung, event.error) == ("template", "ValueError: ill")


def test_a_rung_that_raises_leads_to_the_next_one() -> None:
    guard, stock = guarded(cache=broken, template=broken, empty=0)
    assert stock("shoes") == 0
    assert guard.snapshot().rungs == {"broken": 2, "empty": 1}


def test_when_every_rung_raises_the_error_goes_up_with_a_note_from_each() -> None:
    guard, stock = guarded(cache=broken, template=broken, empty=broken)
    with pytest.raises(ValueError, match="ill") as caught:
        stock("shoes")
    assert caught.value.__notes__ == [
        f"the {rung} rung failed as well: KeyError: 'in the rung'" for rung in ("cache", "template", "empty")
    ]
    assert guard.snapshot().rungs == {"broken": 3}


def test_a_refused_call_is_answered_from_the_ladder_too() -> None:
    guard, stock = guarded(empty=0)
    for _ in range(30):
        assert stock("shoes") == 0
    view = guard.snapshot()
    assert view.keys[0].state.value == "open"
    assert view.rungs == {"empty": 30}


def test_an_exception_that_is_an_answer_is_not_papered_over() -> None:
    guard = Guard("inventory", failed_if=lambda error: not isinstance(error, KeyError), clock=Clock())
    with pytest.raises(KeyError):
        guard.ladder(empty=0)(broken)("shoes")


def test_a_memory_remembers_good_answers_and_gives_them_when_the_call_fails() -> None:
    answers: dict[str, Any] = {"shoes": 3}

    def stock(sku: str, *, size: int = 0) -> Any:
        return answers[sku]

    guard, call = guarded(stock, cache=Remembered(), empty=-1)
    assert call("shoes") == 3
    del answers["shoes"]
    assert call("shoes") == 3
    assert call("shoes", size=4) == -1
    assert guard.snapshot().rungs == {"direct": 1, "cache": 1, "empty": 1}


@pytest.mark.parametrize("argument", [[], Odd(in_hash=True), Odd()])
def test_arguments_that_cannot_be_remembered_fail_no_call(argument: object) -> None:
    _, call = guarded(lambda argument: "direct", cache=Rung(Remembered()), empty="empty")
    assert call(argument) == "direct"
    assert call(argument) == "direct"


def test_arguments_that_cannot_be_compared_are_counted_and_fail_no_call() -> None:
    guard, call = guarded(lambda argument: "direct", cache=Remembered(), empty="empty")
    assert call(Odd()) == "direct"
    assert call(Odd()) == "direct"
    assert guard.snapshot().inner_errors == 1
    assert guard.snapshot().rungs == {"direct": 2}


def test_an_exception_that_cannot_say_what_it_is_goes_down_the_ladder_too() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def mute() -> int:
        raise Mute

    guard, call = guarded(mute, cache=mute, empty=0)
    assert call() == 0
    assert guard.snapshot().rungs == {"broken": 1, "empty": 1}


def test_async_rungs_are_awaited_and_bounded_by_their_own_deadline() -> None:
    async def stock(sku: str) -> int:
        raise ValueError("ill")

    async def never(sku: str) -> int:
        await asyncio.get_running_loop().create_future()
        return 1

    async def best_guess(sku: str) -> int:
        return 7

    guard, call = guarded(stock, cache=Rung(never, deadline_s=0.001), template=best_guess)
    assert asyncio.run(call("shoes")) == 7
    assert guard.snapshot().rungs == {"broken": 1, "template": 1}


def test_a_ladder_that_makes_no_sense_is_refused_where_it_is_written() -> None:
    guard = Guard("inventory")
    with pytest.raises(BadSettings, match="has no rung below the direct call"):
        guard.ladder()
    with pytest.raises(BadSettings, match="only for idempotent reads"):
        guard.ladder(template=1, safe=False)
