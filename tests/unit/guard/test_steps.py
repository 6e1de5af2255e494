from __future__ import annotations

import contextlib
from random import Random

import pytest

from budao.guard import Descended, Home, Ladder, Remembered, Rung, Steps
from budao.model import CallRefused, GuardPolicy, Refusal, Why, context


def made(ladder: Ladder) -> tuple[Home, Steps]:
    home = Home(
        "inventory",
        GuardPolicy(),
        lock=contextlib.nullcontext(),
        rng=Random(1),
        failed_if=lambda error: not isinstance(error, KeyError),
    )
    return home, Steps(home, ladder)


def test_only_an_answer_must_be_raised() -> None:
    _, steps = made(Ladder(empty=0))
    assert steps.must_raise(KeyError("not found"))
    assert not steps.must_raise(ValueError("ill"))
    assert not steps.must_raise(CallRefused("inventory", Refusal(Why.BREAKER_OPEN)))


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_direct_answer_is_counted_and_remembered(is_wrapped: bool) -> None:
    memory = Remembered()
    home, steps = made(Ladder(cache=Rung(memory) if is_wrapped else memory))
    steps.direct("answer", ("a",), {}, 1.0)
    steps.direct("answer", ([],), {}, 1.0)
    assert home.rungs == {"direct": 2}
    assert len(memory) == 1


def test_without_a_memory_a_direct_answer_is_only_counted() -> None:
    home, steps = made(Ladder(cache=lambda: 1))
    steps.direct("answer", (), {}, 1.0)
    steps.direct("answer", (), {}, 1.0)
    assert (home.rungs, home.inner_errors) == ({"direct": 2}, 0)


def test_a_rung_that_answers_is_counted_and_told_with_the_trace() -> None:
    home, steps = made(Ladder(empty=0))
    told: list[object] = []
    home.listeners = (told.append,)
    token = context.trace.set("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    try:
        steps.served("empty", ValueError("x" * 1000), 5.0)
        steps.served("empty", ValueError("ill"), 6.0)
    finally:
        context.trace.reset(token)
    assert home.rungs == {"empty": 2}
    first, _ = told
    assert isinstance(first, Descended)
    assert (first.guard, first.at, first.rung, first.trace_id) == (
        "inventory", 5.0, "empty", "0af7651916cd43dd8448eb211c80319c"
    )  # fmt: skip
    assert len(first.error) == 200


def test_a_rung_that_breaks_is_counted_and_noted_on_the_error() -> None:
    home, steps = made(Ladder(empty=0))
    error = ValueError("ill")
    steps.broke("cache", KeyError("gone"), error)
    steps.broke("template", OSError("x" * 1000), error)
    assert home.rungs == {"broken": 2}
    assert error.__notes__[0] == "the cache rung failed as well: KeyError: 'gone'"
    assert len(error.__notes__[1]) < 300
