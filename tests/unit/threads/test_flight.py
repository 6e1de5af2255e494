from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from budao.threads import single

LONG_S = 60.0


class Made:
    """A function that counts its calls and ends when it is told to."""

    def __init__(self, *endings: BaseException | str) -> None:
        self.endings = list(endings)
        self.calls = 0
        self.entered, self.go = threading.Event(), threading.Event()

    def __call__(self, key: object) -> object:
        self.calls += 1
        self.entered.set()
        self.go.wait(LONG_S)
        ending = self.endings.pop(0)
        if isinstance(ending, BaseException):
            raise ending
        return ending


def share(made: Made, callers: int) -> list[Future[object]]:
    """Lets one thread lead and the others join it, then lets it end."""
    flown = single(made)
    joined = threading.Semaphore(0)

    class Key(str):
        """Counts how often it is looked for: a caller that has looked is about to wait."""

        __slots__ = ()

        def __hash__(self) -> int:
            joined.release()
            return 1

        def __eq__(self, other: object) -> bool:
            return True

    with ThreadPoolExecutor(callers) as executor:
        futures = [executor.submit(flown, Key("a"))]
        made.entered.wait(LONG_S)
        futures += [executor.submit(flown, Key("a")) for _ in range(callers - 1)]
        for _ in range(2 * callers):  # once for `key_of`, once for the dict
            joined.acquire(timeout=LONG_S)
        made.go.set()
    return futures


def test_callers_with_equal_arguments_share_one_call() -> None:
    made = Made(*["answer"] * 9)
    assert [future.result() for future in share(made, 5)] == ["answer"] * 5
    assert made.calls <= 2


def test_a_failure_is_shared_and_not_kept() -> None:
    made = Made(OSError("down"), *["answer"] * 9)
    futures = share(made, 5)
    assert str(futures[0].exception()) == "down"
    assert {str(future.exception() or future.result()) for future in futures} <= {"down", "answer"}
    assert single(made)("a") == "answer"


def test_what_ends_the_leaders_thread_is_not_raised_in_the_others() -> None:
    made = Made(SystemExit("leader"), *["answer"] * 9)
    leader, *others = share(made, 4)
    assert isinstance(leader.exception(), SystemExit)
    assert [future.result() for future in others] == ["answer"] * 3


def test_the_call_after_the_shared_one_is_made_anew() -> None:
    made = Made("one", "two")
    made.go.set()
    flown = single(made)
    assert [flown("a"), flown("a")] == ["one", "two"]


def test_arguments_without_a_hash_are_not_shared() -> None:
    made = Made("one", "two")
    made.go.set()
    flown = single(made)
    assert [flown([1]), flown([1])] == ["one", "two"]


def test_a_function_that_calls_itself_is_not_waited_for_by_itself() -> None:
    depths = iter(range(1, 9))

    def nest(key: str) -> int:
        depth = next(depths)
        return depth if depth == 3 else flown(key)

    flown = single(nest)
    assert flown("a") == 3


def test_a_recursion_over_other_arguments_is_a_recursion() -> None:
    def fibonacci(number: int) -> int:
        return number if number < 2 else flown(number - 1) + flown(number - 2)

    flown = single(fibonacci)
    assert flown(10) == 55
    with pytest.raises(TypeError):
        flown("ten")
