from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import linecache
import traceback
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from budao.guard import ANY, Shape, compile_call, signature_of, source_of
from budao.guard.shape import BUILTINS, FREE, PREFIX
from budao.model import BulkheadPolicy, GuardPolicy, HedgePolicy, TimeoutPolicy
from budao.protect import Guard

SWITCHES = [each.name for each in fields(Shape)]
SHAPES = [
    Shape(**dict(zip(SWITCHES, values, strict=True)))
    for values in itertools.product((False, True), repeat=len(SWITCHES))
    if sum(values) <= 2 or sum(values) >= len(SWITCHES) - 1
]
"""Every pair of switches, everything, and everything but one."""
EVERYTHING = GuardPolicy(timeout=TimeoutPolicy(), hedge=HedgePolicy(), bulkhead=BulkheadPolicy(waiting_max=3))


def positional_only(a: int, b: int = 2, /) -> Any:
    return a, b


def mixed(a: int, /, b: int = 2, *rest: int, c: int, d: int = 4, **more: int) -> Any:
    return a, b, rest, c, d, more


def keyword_only(*, c: int, d: int = 4) -> Any:
    return c, d


def plain(a: int, b: int = 2) -> Any:
    return a, b


def nothing() -> Any:
    return "nothing"


@pytest.mark.parametrize(
    ("function", "arguments", "keywords"),
    [
        (positional_only, (1,), {}),
        (positional_only, (1, 3), {}),
        (mixed, (1,), {"c": 3}),
        (mixed, (1, 5, 6, 7), {"c": 3, "d": 9, "e": 8}),
        (keyword_only, (), {"c": 1}),
        (plain, (), {"a": 1, "b": 0}),
        (plain, (1,), {}),
        (nothing, (), {}),
    ],
)
def test_a_compiled_call_hands_on_every_kind_of_argument(
    function: Callable[..., Any], arguments: tuple[int, ...], keywords: dict[str, int]
) -> None:
    guarded = Guard("inventory")(function)
    assert guarded(*arguments, **keywords) == function(*arguments, **keywords)
    assert guarded.__code__.co_argcount == function.__code__.co_argcount
    assert inspect.signature(guarded) == inspect.signature(function)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (positional_only, "a, b=None, /"),
        (mixed, "a, /, b=None, *rest, c, d=None, **more"),
        (keyword_only, "*, c, d=None"),
        (plain, "a, b=None"),
        (nothing, ""),
    ],
)
def test_the_signature_is_written_out_and_defaults_stay_objects(function: Callable[..., Any], text: str) -> None:
    signature = signature_of(function)
    assert signature.parameters == text
    assert signature.defaults == function.__defaults__
    assert signature.keyword_defaults == function.__kwdefaults__


def test_arguments_are_packed_as_they_were_given() -> None:
    assert signature_of(mixed).packed == "(a, b, *rest, ), {'c': c, 'd': d, **more}"
    assert signature_of(nothing).packed == "(), {}"


def test_wrong_arguments_are_the_callers_typeerror_and_no_failure_of_the_other_side() -> None:
    guard = Guard("inventory")
    guarded: Any = guard(plain)
    with pytest.raises(TypeError, match="plain"):
        guarded(1, 2, 3)
    view = guard.snapshot().keys[0]
    assert (view.ok, view.failed, view.in_flight) == (0, 0, 0)


async def let_others_run() -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize("name", sorted(BUILTINS))
def test_a_parameter_may_have_the_name_of_a_builtin_that_the_guard_uses(name: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"async def find({name}):\n    await pause()\n    return {name}", {"pause": let_others_run}, namespace)
    guarded = Guard("inventory", policy=EVERYTHING)(namespace["find"])
    assert asyncio.run(guarded("a word")) == "a word"
    assert signature_of(namespace["find"]) is ANY


@pytest.mark.parametrize("name", ["<lambda>", "class", "_b_core", "len", "two words", ""])
def test_a_name_that_cannot_be_written_in_source_is_kept_on_the_function_all_the_same(name: str) -> None:
    def answer(a: int) -> int:
        return a

    answer.__name__ = name
    guarded = Guard("inventory", policy=EVERYTHING)(answer)
    assert guarded(3) == 3
    assert guarded.__name__ == name


def test_what_has_no_exact_signature_is_called_with_whatever_comes() -> None:
    @functools.wraps(plain)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return plain(*args, **kwargs)

    def taken(_b_core: int) -> int:
        return _b_core

    for function in (len, functools.partial(plain, 1), wrapped, taken, Guard):
        assert signature_of(function) is ANY
    guard = Guard("inventory")
    assert guard(len)([1, 2]) == 2
    assert guard(functools.partial(plain, 1))(7) == (1, 7)
    assert guard(wrapped)(1, b=5) == (1, 5)
    assert guard(taken)(_b_core=6) == 6


@pytest.mark.parametrize("signature", [signature_of(mixed), signature_of(nothing), ANY])
def test_each_of_the_shapes_compiles_and_closes_over_the_same_names(signature: Any) -> None:
    for shape in SHAPES:
        namespace: dict[str, Any] = {}
        exec(source_of(shape, signature, "stock"), namespace)
        made = namespace["_b_make"](*FREE)
        assert made.__code__.co_freevars == tuple(sorted(FREE))
        assert inspect.iscoroutinefunction(made) is shape.is_async


def test_a_shape_holds_only_the_lines_its_settings_need() -> None:
    least = source_of(Shape(), signature_of(plain), "plain")
    for word in ("_b_token", "calls_max", "_b_repeat(", "_b_race(", "_b_judge(", "_b_served(", "_b_here", "await"):
        assert word not in least.rsplit("\n", 3)[0], word
    most = source_of(SHAPES[-1], signature_of(plain), "plain")
    for word in ("_b_token", "calls_max", "_b_repeat(", "_b_race(", "_b_judge(", "_b_served(", "_b_here", "await"):
        assert word in most, word


def test_every_free_name_carries_the_prefix_that_parameters_may_not_have() -> None:
    assert all(name.startswith(PREFIX) for name in FREE)
    assert list(FREE) == sorted(set(FREE))


def test_the_code_of_a_held_function_can_be_exchanged_for_any_other_shape() -> None:
    signature = signature_of(plain)
    held = compile_call(Shape(), signature, "plain", {})
    for shape in SHAPES:
        if not shape.is_async:
            held.__code__ = compile_call(shape, signature, "plain", {}).__code__
    assert held.__defaults__ == (2,)


def test_a_traceback_shows_the_generated_lines() -> None:
    def boom() -> None:
        raise ValueError("the other side")

    with pytest.raises(ValueError, match="the other side") as caught:
        Guard("inventory")(boom)()
    shown = "".join(traceback.format_exception(caught.value))
    assert "_b_result = _b_function()" in shown
    assert "<budao guard around boom>" in linecache.cache
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_guarded_method_still_finds_its_object() -> None:
    guard = Guard("inventory")

    class Shop:
        @guard
        def stock(self, sku: str, *, of: int = 3) -> tuple[object, str, int]:
            return self, sku, of

        @guard
        @staticmethod
        def hello() -> str:
            return "hello"

        @guard
        @classmethod
        def kind(cls) -> type:
            return cls

    shop = Shop()
    assert shop.stock("a", of=4) == (shop, "a", 4)
    assert shop.hello() == "hello"
    assert shop.kind() is Shop
