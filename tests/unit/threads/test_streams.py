from __future__ import annotations

import inspect
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress

import pytest

from budao import BreakerPolicy, BulkheadPolicy, Guard, GuardPolicy, NoRoom
from budao.guard import KeyView
from budao.testkit import FakeClock


def only(guard: Guard) -> KeyView:
    (view,) = guard.snapshot().keys
    return view


def test_items_sends_throws_and_the_returned_value_come_through() -> None:
    guard = Guard("stream", policy=GuardPolicy())

    @guard
    def echo(word: str) -> Generator[str, str, int]:
        heard = 0
        while word != "stop":
            try:
                word = yield word
            except ValueError as error:
                word = f"caught {error}"
            heard += 1
        return heard

    assert inspect.isgeneratorfunction(echo)
    stream = echo("start")
    assert [next(stream), stream.send("a"), stream.throw(ValueError("b"))] == ["start", "a", "caught b"]
    with pytest.raises(StopIteration) as done:
        stream.send("stop")
    assert done.value.value == 3
    assert (only(guard).ok, only(guard).in_flight) == (1, 0)


def test_a_stream_delegated_to_returns_its_value() -> None:
    guard = Guard("stream", policy=GuardPolicy())

    @guard
    def inner() -> Generator[int, None, str]:
        yield 1
        return "inner"

    @guard
    def outer() -> Generator[int, None, str]:
        return "outer of " + (yield from inner())

    def read() -> Generator[int, None, str]:
        return (yield from outer())

    reading = read()
    assert next(reading) == 1
    with pytest.raises(StopIteration, match="outer of inner"):
        next(reading)


def test_a_stream_holds_its_place_from_the_first_item_asked_for_to_the_end() -> None:
    guard = Guard("stream", policy=GuardPolicy(bulkhead=BulkheadPolicy(calls_max=1)))

    @guard
    def items() -> Iterator[int]:
        yield from range(3)

    one, two = items(), items()
    assert only(guard).in_flight == 0
    assert next(one) == 0
    with pytest.raises(NoRoom):
        next(two)
    one.close()  # type: ignore[attr-defined]
    assert list(items()) == [0, 1, 2]
    assert (only(guard).ok, only(guard).in_flight) == (2, 0)


def test_its_latency_is_that_of_the_first_item() -> None:
    clock = FakeClock()
    guard = Guard("stream", policy=GuardPolicy(breaker=BreakerPolicy(slow_s=1.0)), clock=clock)

    @guard
    def items(first_s: float) -> Iterator[int]:
        clock.advance(first_s)
        yield 1
        clock.advance(100.0)

    for first_s in (0.5, 2.0):
        assert list(items(first_s)) == [1]
    assert (only(guard).ok, only(guard).slow) == (1, 1)


def test_it_fails_before_its_first_item_and_breaks_off_after_it() -> None:
    guard = Guard("stream", policy=GuardPolicy())

    @guard
    def items(good: int) -> Iterator[int]:
        yield from range(good)
        raise OSError("down")

    for good in (0, 2):
        with pytest.raises(OSError, match="down"):
            list(items(good))
    assert (only(guard).ok, only(guard).failed, only(guard).broken, only(guard).in_flight) == (1, 1, 1, 0)


def test_arguments_that_do_not_fit_take_no_place() -> None:
    guard = Guard("stream", policy=GuardPolicy())

    @guard
    def items(stop: int) -> Iterator[int]:
        yield stop

    with pytest.raises(TypeError):
        next(items())  # type: ignore[call-arg]
    assert only(guard).in_flight == 0


def test_a_context_manager_is_guarded_from_above_and_from_below() -> None:
    guard = Guard("session", policy=GuardPolicy())
    seen: list[str] = []

    def session(name: str) -> Iterator[str]:
        seen.append(f"open {name}")
        try:
            yield name
        finally:
            seen.append(f"close {name}")

    above, below = guard(contextmanager(session)), contextmanager(guard(session))
    with above("a") as one, below("b") as two:
        seen.append(one + two)
    with suppress(KeyError), above("c"):
        raise KeyError  # what happens in the body is not the session's failure

    @above("d")
    def decorated() -> str:
        return "body"

    assert decorated() == "body"
    assert seen[:5] == ["open a", "open b", "ab", "close b", "close a"]
    assert seen[5:] == ["open c", "close c", "open d", "close d"]
    assert (only(guard).ok, only(guard).failed, only(guard).broken, only(guard).in_flight) == (4, 0, 0, 0)


def test_a_session_that_fails_to_open_or_breaks_while_closing_is_the_other_sides_failure() -> None:
    guard = Guard("session", policy=GuardPolicy())

    @guard
    @contextmanager
    def session(when: str) -> Iterator[None]:
        if when == "opening":
            raise OSError(when)
        yield
        raise OSError(when)

    for when in ("opening", "closing"):
        with pytest.raises(OSError, match=when), session(when):
            pass
    assert (only(guard).failed, only(guard).broken) == (1, 1)
