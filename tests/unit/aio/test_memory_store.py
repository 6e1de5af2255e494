"""The store in this process: what its watchers see, when its leases end, and how it goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from budao.aio import MemoryStore, Store, watching
from budao.model import Mono
from budao.store import (
    Batch,
    Change,
    Compacted,
    Delete,
    Entry,
    LeaseGone,
    Put,
    Span,
    StoreAway,
    StorePolicy,
    StoreRefused,
    Txn,
)

ALL = Span.prefix("")


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> Mono:
        return Mono(self.now)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30.0))


def put(key: str, lease: int = 0) -> Txn:
    return Txn(then=(Put(key, b"", lease),))


def test_it_is_a_store() -> None:
    async def story() -> None:
        store: Store = MemoryStore(name="here")
        assert store.name == "here"
        assert (await store.commit(put("a"))).revision == 2
        assert (await store.read(ALL)).entries == (Entry("a", b"", 2, 2, 1),)
        assert (await store.read(ALL, revision=1)).entries == ()
        await store.commit(put("b"))
        assert (await store.read(ALL, limit=1)).more
        await store.compact(3)
        with pytest.raises(Compacted):
            await store.read(ALL, revision=2)
        await store.aclose()

    run(story())


def test_watchers_see_what_was_and_what_comes() -> None:
    async def story() -> None:
        store = MemoryStore()
        await store.commit(put("a"))
        async with watching(store, Span.prefix("a"), after=1) as batches:
            assert await anext(batches) == Batch(2, (Change("a", Entry("a", b"", 2, 2, 1)),))
            following = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0)
            await store.commit(put("b"))
            await store.commit(Txn(then=(Delete(ALL),)))
            assert await following == Batch(4, (Change("a", None),))

    run(story())


def test_a_watcher_gets_more_than_it_takes_at_a_time() -> None:
    async def story() -> None:
        store = MemoryStore()
        for _ in range(300):
            await store.commit(put("a"))
        async with watching(store, ALL, after=1) as batches:
            assert [(await anext(batches)).revision for _ in range(300)] == list(range(2, 302))

    run(story())


def test_a_watcher_that_starts_ahead_waits_for_its_revision() -> None:
    async def story() -> None:
        store = MemoryStore()
        async with watching(store, ALL, after=3) as batches:
            following = asyncio.ensure_future(anext(batches))
            for _ in range(3):
                await store.commit(put("a"))
                await asyncio.sleep(0)
            assert (await following).revision == 4

    run(story())


def test_a_watcher_that_fell_behind_is_told() -> None:
    async def story() -> None:
        store = MemoryStore(policy=StorePolicy(history_revisions_max=8))
        async with watching(store, ALL, after=1) as batches:
            await store.commit(put("a"))
            assert (await anext(batches)).revision == 2
            for _ in range(20):
                await store.commit(put("a"))
            with pytest.raises(Compacted):
                await anext(batches)

    run(story())


def test_watches_are_bounded_and_closing_one_makes_room() -> None:
    async def story() -> None:
        store = MemoryStore(policy=StorePolicy(watchers_max=1))
        await store.commit(put("a"))
        async with watching(store, ALL, after=1) as batches:
            await anext(batches)
            with pytest.raises(StoreRefused, match="1 watches"):
                await anext(store.watch(ALL, after=1))
        async with watching(store, ALL, after=1) as batches:
            await anext(batches)

    run(story())


def test_leases_run_out_by_the_stores_clock_before_news_is_read() -> None:
    async def story() -> None:
        hands = Hands()
        store = MemoryStore(clock=hands)
        lease, kept = await store.grant(10.0), await store.grant(10.0, lease=77)
        await store.commit(put("a", lease.id))
        await store.commit(put("b", kept.id))
        hands.now = 105.0
        assert await store.keep_alive(77) == kept
        assert (await store.look_up(lease.id)).left_s == 5.0
        hands.now = 110.0
        assert [entry.key for entry in (await store.read(ALL)).entries] == ["b"]
        with pytest.raises(LeaseGone):
            await store.keep_alive(lease.id)
        hands.now = 115.0
        store.wake()
        assert store.keeper.leases == 0
        assert store.keeper.revision == 5
        with pytest.raises(LeaseGone):
            await store.revoke(77)

    run(story())


def test_a_store_that_went_away_answers_nothing_and_ends_its_watches() -> None:
    async def story() -> None:
        store = MemoryStore()
        lease = await store.grant(10.0)
        async with watching(store, ALL, after=1) as batches:
            following = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0)
            store.go_away("the cable is out")
            with pytest.raises(StoreAway, match="the cable is out"):
                await following
        for asking in (
            store.read(ALL),
            store.commit(put("a")),
            store.grant(10.0),
            store.keep_alive(lease.id),
            store.look_up(lease.id),
            store.revoke(lease.id),
            store.compact(1),
        ):
            with pytest.raises(StoreAway) as caught:
                await asking
            assert not caught.value.may_have_taken_effect
        store.come_back()
        assert (await store.read(ALL)).revision == 1
        await store.aclose()
        with pytest.raises(StoreAway, match="closed"):
            await store.read(ALL)

    run(story())


def test_what_is_refused_changes_nothing() -> None:
    async def story() -> None:
        store = MemoryStore()
        for asking in (
            store.commit(Txn(then=(Put("a", b""), Put("a", b"")))),
            store.grant(-1.0),
            store.compact(9),
            store.read(ALL, revision=9),
            anext(store.watch(Span("b", "a"), after=1)),
            anext(store.watch(ALL, after=-1)),
        ):
            with pytest.raises(StoreRefused):
                await asking
        assert store.keeper.snapshot() == MemoryStore().keeper.snapshot()

    run(story())
