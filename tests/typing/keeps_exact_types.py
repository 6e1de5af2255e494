"""A program of a user: whatever is protected keeps its exact type. mypy and pyright read it, strict; nobody runs it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any, TypeVar, assert_type, overload

from budao import Guard, Latency, Remembered, Rung

T = TypeVar("T")
guard = Guard("inventory", objective=Latency(0.99, under_s=0.200))


def itself(sku: str) -> str:
    return sku


def nothing(sku: str) -> int:
    return 0


def is_positive(number: int) -> bool:
    return number > 0


@guard
def count(sku: str, /, place: int = 0, *more: bytes, strict: bool = False) -> float:
    return len(sku) + place + len(more) + strict


@guard
async def stock(sku: str, *, fresh: bool = False) -> int:
    return len(sku) + fresh


@guard(safe=True, key=itself, bad=lambda answer: answer is None, single_flight=True)
async def price(sku: str) -> float | None:
    return float(len(sku))


@guard(retry_after=lambda _: 1.0, discard=lambda _: None)
def reserve(sku: str) -> None: ...


@guard.ladder(cache=Remembered(), template=Rung(0, deadline_s=0.1), empty=nothing)
async def stock_or_best_guess(sku: str) -> int:
    return await stock(sku)


@guard
def rows(sku: str) -> Generator[int, str, bool]:
    heard = yield 1
    return heard == sku


@guard
def some_rows() -> Iterator[int]:
    yield 1


@guard
async def events() -> AsyncIterator[bytes]:
    yield b""


@guard
async def talk() -> AsyncGenerator[int, str]:
    yield 1


@guard
@contextmanager
def over(sku: str) -> Generator[int, None, None]:
    yield len(sku)


@contextmanager
@guard
def under(sku: str) -> Generator[int, None, None]:
    yield len(sku)


@guard
@asynccontextmanager
async def session() -> AsyncGenerator[float, None]:
    yield 1.0


@guard
def same(value: T) -> T:
    return value


@overload
def width(value: int) -> int: ...
@overload
def width(value: str) -> str: ...
@guard
def width(value: int | str) -> int | str:
    return value


class Shop:
    @guard
    async def stock(self, sku: str) -> int:
        return len(sku)

    @guard(safe=True)
    def count(self, sku: str) -> int:
        return len(sku)

    @staticmethod
    @guard
    def parse(text: str) -> int:
        return int(text)

    @guard
    @staticmethod
    def parse_under(text: str) -> int:
        return int(text)

    @classmethod
    @guard
    def default(cls, name: str) -> Shop:
        return cls()

    @property
    @guard
    def size(self) -> int:
        return 1


def wrap(function: Callable[[int], str]) -> Callable[[int], str]:
    return guard.protect(function, safe=is_positive)


async def program(shop: Shop) -> None:
    assert_type(count("a", 1, b"", strict=True), float)
    going: Coroutine[Any, Any, int] = stock("a", fresh=True)
    assert_type(await going, int)
    assert_type(await stock("a"), int)
    assert_type(await price("a"), float | None)
    reserve("a")
    assert_type(await stock_or_best_guess("a"), int)
    assert_type(rows("a"), Generator[int, str, bool])
    assert_type(some_rows(), Iterator[int])
    assert_type(events(), AsyncIterator[bytes])
    assert_type(talk(), AsyncGenerator[int, str])
    async for event in events():
        assert_type(event, bytes)
    with over("a") as length, under("b") as other:
        assert_type((length, other), tuple[int, int])
    async with session() as sent:
        assert_type(sent, float)
    one: AbstractContextManager[int] = over("a")
    two: AbstractAsyncContextManager[float] = session()
    assert_type(same(1), int)
    assert_type(same("a"), str)
    assert_type(width(1), int)
    assert_type(width("a"), str)
    assert_type(await shop.stock("a"), int)
    assert_type(shop.count("a"), int)
    assert_type(Shop.parse("1"), int)
    assert_type(Shop.parse_under("1"), int)
    assert_type(Shop.default("a"), Shop)
    assert_type(shop.size, int)
    assert_type(wrap(str)(1), str)
    assert_type(guard.protect(len)([1]), int)
    print(one, two)
