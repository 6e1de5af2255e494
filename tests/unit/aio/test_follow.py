"""Following a span of a store in this process: every change is told, also over gaps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from random import Random
from typing import Any

import pytest

from budao.aio import Followed, Lost, MemoryStore, follow, list_span
from budao.model import Mono
from budao.store import Change, Delete, Entry, PatiencePolicy, Put, Span, StoreDenied, StorePolicy, StoreRefused, Txn

SPAN = Span.prefix("a/")
QUICK = PatiencePolicy(pause_first_s=1e-6, pause_max_s=1e-6)
PATIENCE_S = 30.0


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, PATIENCE_S))


def still() -> Mono:
    return Mono(0.0)


def following(store: MemoryStore) -> AsyncGenerator[Followed | Lost, None]:
    return follow(store, SPAN, policy=QUICK, clock=still, rng=Random(1))


async def put(store: MemoryStore, *keys: str) -> int:
    return (await store.commit(Txn(then=tuple(Put(key, b"") for key in keys)))).revision


def entry(key: str, revision: int) -> Entry:
    return Entry(key, b"", revision, revision, 1)


def test_a_span_is_listed_and_then_each_revision_is_told() -> None:
    async def story() -> None:
        store = MemoryStore(clock=still)
        await put(store, "a/1", "b/1")
        async with aclosing(following(store)) as told:
            first = await anext(told)
            assert first == Followed(2, (Change("a/1", entry("a/1", 2)),), {"a/1": entry("a/1", 2)}, is_list=True)
            await put(store, "b/2")
            await put(store, "a/2")
            await store.commit(Txn(then=(Delete(Span.one("a/1")),)))
            second = await anext(told)
            assert second == Followed(
                4,
                (Change("a/2", entry("a/2", 4)),),
                {"a/1": entry("a/1", 2), "a/2": entry("a/2", 4)},
                is_list=False,
            )
            third = await anext(told)
            assert third == Followed(5, (Change("a/1", None),), {"a/2": entry("a/2", 4)}, is_list=False)

    run(story())


def test_a_follower_that_fell_behind_lists_again_and_misses_no_delete() -> None:
    async def story() -> None:
        store = MemoryStore(clock=still)
        await put(store, "a/1", "a/2")
        async with aclosing(following(store)) as told:
            await anext(told)
            await put(store, "a/3")
            await anext(told)
            await store.commit(Txn(then=(Delete(Span.one("a/1")),)))
            revision = await put(store, "a/4")
            await store.compact(revision)
            again = await anext(told)
            assert again == Followed(
                5,
                (Change("a/1", None), Change("a/4", entry("a/4", 5))),
                {"a/2": entry("a/2", 2), "a/3": entry("a/3", 3), "a/4": entry("a/4", 5)},
                is_list=True,
            )

    run(story())


def test_a_store_that_is_away_is_told_as_lost_once_and_as_followed_when_it_is_back() -> None:
    async def story() -> None:
        store = MemoryStore(clock=still)
        await put(store, "a/1")
        async with aclosing(following(store)) as told:
            await anext(told)
            store.go_away("it sleeps")
            lost = await anext(told)
            assert isinstance(lost, Lost)
            assert "it sleeps" in lost.problem
            waiting = asyncio.ensure_future(anext(told))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not waiting.done(), "the same reason is not said twice"
            store.come_back()
            assert await waiting == Followed(2, (), {"a/1": entry("a/1", 2)}, is_list=True)
            store.go_away("it sleeps")
            assert await anext(told) == lost, "the same reason is said again once it was over"

    run(story())


def test_another_reason_is_said_and_a_store_that_says_no_is_lost_too() -> None:
    class Strict(MemoryStore):
        async def read(self, span: Span, *, revision: int = 0, limit: int = 0) -> Any:
            raise StoreDenied(self.name, problems.pop() if len(problems) > 1 else problems[0])

    problems = ["third", "second", "second", "first"]

    async def story() -> None:
        async with aclosing(following(Strict(clock=still))) as told:
            for problem in ("first", "second", "third"):
                lost = await anext(told)
                assert isinstance(lost, Lost)
                assert problem in lost.problem

    run(story())


def test_a_watch_that_simply_ends_is_a_store_that_is_away() -> None:
    class Short(MemoryStore):
        async def watch(self, span: Span, *, after: int) -> Any:
            for batch in ():
                yield batch

    async def story() -> None:
        async with aclosing(following(Short(clock=still))) as told:
            assert isinstance(await anext(told), Followed)
            assert isinstance(await anext(told), Lost)
            assert isinstance(await anext(told), Followed)

    run(story())


def test_a_watch_is_closed_with_its_follower() -> None:
    async def story() -> None:
        store = MemoryStore(clock=still, policy=StorePolicy(watchers_max=1))
        for _ in range(2):
            async with aclosing(following(store)) as told:
                await anext(told)
                await put(store, "a/1")
                assert isinstance(await anext(told), Followed)

    run(story())


def test_a_span_that_cannot_be_is_refused() -> None:
    async def story() -> None:
        with pytest.raises(StoreRefused):
            await anext(follow(MemoryStore(clock=still), Span("b", "a")))

    run(story())


def test_a_long_span_is_listed_in_parts_at_one_revision() -> None:
    class Busy(MemoryStore):
        async def read(self, span: Span, *, revision: int = 0, limit: int = 0) -> Any:
            page = await super().read(span, revision=revision, limit=limit)
            await self.commit(Txn(then=(Delete(Span.prefix("a/2")),)))
            return page

    async def story() -> None:
        store = Busy(clock=still)
        for part in range(25):
            await put(store, *(f"a/{part:02}/{n:03}" for n in range(100)))
        await put(store, "a/" + "z" * 1022, "a0")
        revision, entries = await list_span(store, SPAN)
        assert revision == 27
        assert len(entries) == 2_501
        assert [each.key for each in entries] == sorted(each.key for each in entries)

    run(story())
