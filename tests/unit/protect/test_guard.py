"""What a guard makes of a function: the same one, guarded."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import pickle
import subprocess
import sys
import typing
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import fastapi
import httpx
import pytest

from budao import (
    BadReply,
    BadSettings,
    BreakerOpen,
    BreakerPolicy,
    BulkheadPolicy,
    Guard,
    GuardPolicy,
    HedgePolicy,
    Latency,
    LimitPolicy,
    Mode,
    NoRoom,
    PeerReset,
    Priority,
    RatePolicy,
    Refusal,
    RetryPolicy,
    Shed,
    ShedPolicy,
    ThrottlePolicy,
    TimedOut,
    TimeoutPolicy,
    Why,
    follow,
)
from budao.guard import KeyView, State
from budao.model import context
from budao.settings import parse
from budao.testkit import FakeClock

DEFAULT = object()
guard = Guard("module", policy=GuardPolicy())

FULL = GuardPolicy(
    timeout=TimeoutPolicy(),
    hedge=HedgePolicy(),
    bulkhead=BulkheadPolicy(waiting_max=5),
    limit=LimitPolicy(),
    rate=RatePolicy(calls_per_s=1e9, burst=1_000_000),
    throttle=ThrottlePolicy(),
    shed=ShedPolicy(),
)


@guard
def at_module_level(number: int) -> int:
    """Doubles."""
    return 2 * number


@guard(safe=True)
async def async_at_module_level(number: int) -> int:
    return 2 * number


def only(of: Guard) -> KeyView:
    (view,) = of.snapshot().keys
    return view


# -- the same function


def everything(
    one: Any, /, two: Any, three: Any = DEFAULT, *more: Any, four: Any, five: Any = DEFAULT, **rest: Any
) -> Any:
    """All kinds of parameters."""
    return one, two, three, more, four, five, rest


async def everything_async(
    one: Any, /, two: Any, three: Any = DEFAULT, *more: Any, four: Any, five: Any = DEFAULT, **rest: Any
) -> Any:
    """All kinds of parameters."""
    return one, two, three, more, four, five, rest


def shadowing(type: str, len: int, Exception: str = "e", *, BaseException: int = 1, StopIteration: int = 2) -> Any:  # noqa: A002, N803
    return type, len, Exception, BaseException, StopIteration


async def shadowing_async(type: str, len: int, Exception: str = "e") -> Any:  # noqa: A002, N803
    await asyncio.sleep(0)
    return type, len, Exception


def only_positional(one: int, two: int = 2, /) -> Any:
    return one, two


def only_keywords(*, one: int, two: int = 2) -> Any:
    return one, two


def prefixed(_b_core: int) -> int:
    return _b_core


ARGUMENTS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    (everything, (1, 2), {"four": 4}),
    (everything, (1, 2, 3, 4, 5), {"four": 4, "five": 5, "six": 6, "one": "by keyword"}),
    (everything_async, (1,), {"two": 2, "four": 4}),
    (everything_async, (1, 2, 3, 4), {"four": 4, "six": 6}),
    (shadowing, ("t", 1), {}),
    (shadowing_async, ("t", 1), {}),
    (only_positional, (1,), {}),
    (only_keywords, (), {"one": 1}),
    (prefixed, (1,), {}),
    (lambda number=3: number, (), {}),
]


def ended(result: Any) -> Any:
    async def wait() -> Any:
        return await result

    return asyncio.run(wait()) if inspect.isawaitable(result) else result


@pytest.mark.parametrize(
    "policy", [GuardPolicy(), FULL, replace(FULL, breaker=None)], ids=["default", "full", "no breaker"]
)
@pytest.mark.parametrize("said", [{}, {"safe": True, "bad": lambda _: False}, {"key": lambda *_, **__: "k"}], ids=["plain", "safe", "keyed"])  # fmt: skip
def test_arguments_of_every_kind_arrive_as_they_were_given(policy: GuardPolicy, said: dict[str, Any]) -> None:
    protecting = Guard("exact", policy=policy)
    for function, args, kwargs in ARGUMENTS:
        guarded = protecting.protect(function, **said)
        assert ended(guarded(*args, **kwargs)) == ended(function(*args, **kwargs))
        assert inspect.iscoroutinefunction(guarded) == inspect.iscoroutinefunction(function)


def test_arguments_that_do_not_fit_are_refused_as_the_function_would_refuse_them() -> None:
    for function in (everything, only_positional, only_keywords, shadowing):
        guarded: Any = guard(function)
        for kwargs in ({}, {"no such": 1}):
            with pytest.raises(TypeError):
                guarded(**kwargs)
    assert only(guard).in_flight == 0


def test_what_can_be_seen_of_a_function_stays_as_it_was() -> None:
    for function in (everything, everything_async, only_positional, only_keywords):
        guarded: Any = guard(function)
        assert guarded.__wrapped__ is function
        assert guarded.__name__ == function.__name__
        assert guarded.__doc__ == function.__doc__
        assert guarded.__module__ == function.__module__
        assert inspect.signature(guarded) == inspect.signature(function)
        assert guarded.__defaults__ == function.__defaults__
        assert typing.get_type_hints(guarded) == typing.get_type_hints(function)
    assert inspect.signature(guard(everything)).parameters["three"].default is DEFAULT


def test_functions_named_like_what_the_guard_uses_inside_are_no_trouble() -> None:
    protecting = Guard("named", policy=FULL)

    @protecting
    def len(number: int) -> int:  # noqa: A001
        return number

    @protecting
    async def type(number: int) -> int:  # noqa: A001
        await asyncio.sleep(0)
        return number

    strange: Any = functools.partial(int)
    strange.__name__ = "class"
    assert (len(1), asyncio.run(type(2)), protecting.protect(strange)("3")) == (1, 2, 3)
    protecting.obey(GuardPolicy())
    assert (len(1), asyncio.run(type(2))) == (1, 2)


def test_methods_of_every_kind_are_bound_as_always() -> None:
    class Shop:
        word = "class"

        def __init__(self) -> None:
            self.word = "instance"

        @guard
        def plain(self, suffix: str = "") -> str:
            return self.word + suffix

        @guard(safe=True, key=lambda self, suffix: suffix)
        async def later(self, suffix: str) -> str:
            return self.word + suffix

        @guard
        @staticmethod
        def static_under(word: str) -> str:
            return word

        @staticmethod
        @guard
        def static_over(word: str) -> str:
            return word

        @guard
        @classmethod
        def class_under(cls) -> str:
            return cls.word

        @classmethod
        @guard
        def class_over(cls) -> str:
            return cls.word

        @property
        @guard
        def size(self) -> str:
            return self.word

        @guard
        def items(self) -> Iterator[str]:
            yield self.word

    shop = Shop()
    assert (shop.plain("!"), Shop.plain(shop), asyncio.run(shop.later("?"))) == ("instance!", "instance", "instance?")
    assert (shop.static_under("a"), Shop.static_over("b")) == ("a", "b")
    assert (Shop.class_under(), shop.class_over(), shop.size, list(shop.items())) == (
        "class",
        "class",
        "instance",
        ["instance"],
    )
    assert guard.protect(shop.plain)("#") == "instance#"


def test_partials_callable_objects_builtins_and_guarded_functions_can_be_guarded() -> None:
    class Client:
        def __call__(self, number: int) -> int:
            return number + 1

    async def add(one: int, two: int) -> int:
        return one + two

    protecting = Guard("odd", policy=FULL)
    assert protecting.protect(Client())(1) == 2
    assert asyncio.run(protecting.protect(functools.partial(add, 1))(2)) == 3
    assert protecting.protect(len)([1]) == 1
    assert protecting.protect(int)("7") == 7
    assert protecting.protect(guard.protect(at_module_level))(4) == 8
    with pytest.raises(TypeError, match="callable"):
        protecting.protect(7)  # type: ignore[type-var]


def test_functions_at_module_level_are_pickled_and_copied_by_name() -> None:
    for function in (at_module_level, async_at_module_level):
        assert copy.copy(function) is function
        assert copy.deepcopy(function) is function
        if sys.modules.get(__name__) is not None:
            assert pickle.loads(pickle.dumps(function)) is function


@pytest.mark.parametrize(
    "error",
    [
        TimedOut("stock", 0.25),
        PeerReset("stock", "reset"),
        BadReply("stock", "status 500", "repeat it"),
        BreakerOpen("stock", Refusal(Why.BREAKER_OPEN, 1.5)),
        BadSettings([("breaker.window_s", "is too short")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling_and_copying(error: Any) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert (str(again), vars(again)) == (str(error), vars(error))
    for field in ("target", "after_s", "refusal", "problems"):
        assert getattr(pickle.loads(pickle.dumps(error)), field, None) == getattr(error, field, None)


def test_a_guard_keeps_no_function_alive_and_forgets_those_that_are_gone() -> None:
    protecting = Guard("many", policy=GuardPolicy())

    def protect_one() -> Any:
        guarded = protecting(lambda: 1)
        assert guarded() == 1
        return weakref.ref(guarded)

    gone = [protect_one() for _ in range(300)]
    gc.collect()
    assert {each() for each in gone} == {None}
    assert len(protecting._compiled) < 200


# -- settings that change


def test_functions_that_people_hold_obey_new_settings_of_another_shape() -> None:
    clock = FakeClock()
    protecting = Guard("changing", policy=GuardPolicy(), clock=clock)
    made = 0

    def work() -> int:
        nonlocal made
        made += 1
        if made % 2:
            raise OSError("down")
        return made

    held: Callable[[], int] = protecting(safe=True)(work)
    assert held() == 2
    protecting.obey(GuardPolicy(retry=None))
    with pytest.raises(OSError, match="down"):
        held()
    protecting.obey(GuardPolicy(retry=None, bulkhead=BulkheadPolicy(calls_max=1), timeout=TimeoutPolicy()))
    with protecting.block(), pytest.raises(NoRoom):
        held()
    protecting.set_mode(Mode.FORCED_OPEN)
    with pytest.raises(BreakerOpen):
        held()
    protecting.obey(GuardPolicy())
    assert held() == 4


def test_windows_and_counts_are_kept_when_settings_change() -> None:
    protecting = Guard("changing", policy=GuardPolicy(retry=None), clock=FakeClock())

    @protecting
    def fail(error: Exception) -> None:
        raise error

    for _ in range(10):
        with suppress(OSError):
            fail(OSError())
    assert (only(protecting).failed, only(protecting).window_failed) == (10, 10)
    protecting.obey(GuardPolicy(retry=None, breaker=BreakerPolicy(calls_min=11)))
    assert (only(protecting).failed, only(protecting).window_failed, only(protecting).state) == (10, 10, State.CLOSED)
    with suppress(OSError):
        fail(OSError())
    assert only(protecting).state is State.OPEN


def test_calls_in_flight_during_a_change_of_shape_end_in_the_shape_they_began_in() -> None:
    protecting = Guard("changing", policy=GuardPolicy())
    policies = [
        GuardPolicy(bulkhead=BulkheadPolicy(calls_max=50, waiting_max=5)),
        FULL,
        GuardPolicy(breaker=None, retry=None),
        GuardPolicy(timeout=TimeoutPolicy(call_s=60.0, total_s=60.0)),
        GuardPolicy(),
    ]

    @protecting(safe=True)
    async def work(go: asyncio.Event) -> str:
        await go.wait()
        return "done"

    async def main() -> list[str]:
        go = asyncio.Event()
        tasks = []
        for _ in range(3):
            for policy in policies:
                tasks.append(asyncio.ensure_future(work(go)))
                await asyncio.sleep(0)
                protecting.obey(policy)
        go.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == ["done"] * 15
    assert (only(protecting).ok, only(protecting).in_flight, only(protecting).waiting) == (15, 0, 0)


def test_a_file_changes_the_guard_and_a_bad_one_changes_nothing(tmp_path: Any) -> None:
    protecting = Guard("stock", objective=Latency(0.99, under_s=0.2))
    held = protecting(lambda: "done")
    path = tmp_path / "budao.toml"
    path.write_text('[guard.stock.breaker]\nmode = "forced open"\n')
    with follow(path, [protecting]):
        assert protecting.policy.breaker is not None
        assert protecting.policy.breaker.mode is Mode.FORCED_OPEN
        with pytest.raises(BreakerOpen):
            held()
    before = protecting.policy
    with pytest.raises(BadSettings):
        protecting.reconfigure(parse(b"[guard.stock.breaker]\nprobes_max = 0\n"))
    assert protecting.policy == before
    protecting.reconfigure(parse(b""))
    assert held() == "done"


# -- what a guard decides


def test_calls_of_low_priority_are_shed_while_the_loop_lags_and_critical_ones_are_not() -> None:
    clock = FakeClock()
    protecting = Guard("server", policy=GuardPolicy(breaker=None, shed=ShedPolicy(lag_target_s=0.05)), clock=clock)
    served: list[Priority] = []
    held = protecting.protect(lambda: served.append(context.priority.get()))

    def ask(priority: Priority) -> None:
        token = context.priority.set(priority)
        try:
            held()
        finally:
            context.priority.reset(token)

    for _ in range(12):
        clock.advance(0.1)
        protecting._lagged(0.5)
    for priority in (Priority.SHEDDABLE, Priority.LOW):
        with pytest.raises(Shed):
            ask(priority)
    ask(Priority.CRITICAL)
    assert served == [Priority.CRITICAL]
    for _ in range(100):
        clock.advance(0.1)
        protecting._lagged(0.0)
    ask(Priority.SHEDDABLE)
    assert served == [Priority.CRITICAL, Priority.SHEDDABLE]


def test_a_throttle_refuses_what_the_other_side_would_refuse_anyway() -> None:
    clock = FakeClock()
    protecting = Guard(
        "throttled", policy=GuardPolicy(breaker=None, retry=None, throttle=ThrottlePolicy()), clock=clock
    )

    @protecting
    def work() -> None:
        raise OSError("overloaded")

    refused = 0
    for _ in range(500):
        clock.advance(0.001)
        try:
            work()
        except Shed:
            refused += 1
        except OSError:
            pass
    assert 300 < refused < 500
    assert only(protecting).refused == {Why.THROTTLED: refused}


def test_an_adaptive_limit_bounds_the_calls_in_flight() -> None:
    limit = LimitPolicy(calls_min=2, calls_first=3, calls_max=10)
    protecting = Guard("limited", policy=GuardPolicy(limit=limit))

    async def main() -> list[Any]:
        go = asyncio.Event()
        tasks = [asyncio.ensure_future(protecting(go.wait)()) for _ in range(5)]
        await asyncio.sleep(0)
        go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(main())
    assert [each for each in results if each is True] == [True] * 3
    assert {each.why for each in results if isinstance(each, NoRoom)} == {Why.LIMITED}


def test_a_key_function_that_raises_or_gives_no_hash_means_the_call_without_a_key() -> None:
    protecting = Guard("keyed", policy=GuardPolicy())

    def broken(sku: Any) -> str:
        raise ValueError(sku)

    assert protecting.protect(len, key=broken)([1]) == 1
    assert protecting.protect(len, key=lambda value: value)([1]) == 1
    view = protecting.snapshot()
    assert (view.inner_errors, [key.key for key in view.keys], view.keys[0].ok) == (2, [""], 2)


def test_hooks_that_raise_never_change_what_the_caller_gets() -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("hook")

    protecting = Guard(
        "hooks", policy=GuardPolicy(breaker=None, retry=RetryPolicy(pause_first_s=0.0)), failed_if=broken
    )
    protecting.listen(broken)

    @protecting(safe=broken, bad=broken, retry_after=broken, discard=broken, key=broken)
    def work(is_up: bool) -> str:
        if not is_up:
            raise OSError("down")
        return "done"

    assert work(True) == "done"
    with pytest.raises(OSError, match="down"):
        work(False)


def test_equal_calls_share_one_flight_through_a_guard() -> None:
    protecting = Guard("shared", policy=FULL)
    made = 0

    @protecting(single_flight=True)
    async def work(sku: str) -> str:
        nonlocal made
        made += 1
        await asyncio.sleep(0)
        return sku

    async def main() -> list[str]:
        return await asyncio.gather(*(work("a") for _ in range(9)))

    assert inspect.iscoroutinefunction(work)
    assert asyncio.run(main()) == ["a"] * 9
    assert (made, only(protecting).ok) == (1, 1)


def test_streams_keep_their_kind() -> None:
    async def later() -> AsyncIterator[int]:
        yield 1

    def now() -> Iterator[int]:
        yield 1

    assert inspect.isasyncgenfunction(guard(later))
    assert inspect.isgeneratorfunction(guard(now))
    assert inspect.isasyncgenfunction(guard.protect(functools.partial(later)))


def test_a_guarded_function_is_a_dependency_and_a_route_of_fastapi() -> None:
    app = fastapi.FastAPI()

    @guard
    def session(tenant: str = "none") -> Iterator[str]:
        yield tenant

    @app.get("/stock/{sku}")
    @guard(safe=True, key=lambda sku, tenant: sku)
    async def stock(sku: int, tenant: str = fastapi.Depends(session)) -> dict[str, Any]:
        return {"sku": sku, "tenant": tenant}

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
            assert (await client.get("/stock/7?tenant=a")).json() == {"sku": 7, "tenant": "a"}
            assert (await client.get("/stock/seven")).status_code == 422

    asyncio.run(main())


def test_importing_the_package_brings_in_nobody_elses_modules_and_a_bounded_number() -> None:
    program = (
        "import sys; before = set(sys.modules); import budao; new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(new - set(sys.stdlib_module_names) - {'budao'})); print(len(set(sys.modules) - before))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    assert told[0] == "[]"
    assert int(told[1]) < 300


def test_a_sync_guard_works_where_there_is_no_event_loop() -> None:
    protecting = Guard("threads", policy=FULL)
    assert protecting(safe=True)(lambda: 7)() == 7
    with protecting.block():
        pass
    assert protecting._suspended._timers == {}
