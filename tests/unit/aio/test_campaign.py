"""A campaign on a store in this process: who leads, who waits, and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from random import Random
from typing import Any

import pytest

from budao.aio import Followed, MemoryStore, campaign, follow
from budao.model import Mono
from budao.store import CampaignPolicy, Deposed, Entry, Put, Read, Span, StoreDenied, StoreRefused, Txn, present

ALL = Span.prefix("boss/")
LONG = CampaignPolicy(ttl_s=3_600.0)
WORK = Txn(then=(Put("work", b""),))


class Quick(Random):
    """No pause is longer than none."""

    def uniform(self, a: float, b: float) -> float:
        return 0.0


class Hands:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> Mono:
        return Mono(self.now)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30.0))


async def line_of_two(store: MemoryStore) -> tuple[Entry, ...]:
    async with aclosing(follow(store, ALL)) as told:
        async for each in told:
            if isinstance(each, Followed) and len(each.entries) == 2:
                return tuple(each.entries.values())
    raise AssertionError("a store is followed for ever")


def test_a_lone_candidate_leads_and_resigns() -> None:
    async def story() -> None:
        store = MemoryStore()
        async with campaign(store, "boss", b"me", policy=LONG) as leadership:
            (entry,) = (await store.read(ALL)).entries
            assert (entry.key, entry.value, entry.created) == (leadership.key, b"me", leadership.fencing)
            assert leadership.is_certain
            assert not leadership.lost.is_set()
            done = await leadership.commit(WORK)
            assert (done.held, done.results) == (True, (None,))
        assert (await store.read(ALL)).entries == ()
        assert store.keeper.leases == 0
        assert leadership.lost.is_set()
        assert not leadership.is_certain
        with pytest.raises(Deposed):
            await leadership.commit(WORK)

    run(story())


def test_an_error_in_the_block_comes_out_as_it_is_and_ends_leadership() -> None:
    async def story() -> None:
        store = MemoryStore()
        with pytest.raises(KeyError):
            async with campaign(store, "boss", policy=LONG):
                raise KeyError
        assert store.keeper.leases == 0

    run(story())


def test_one_who_waits_and_is_cancelled_leaves_no_key_behind() -> None:
    async def story() -> None:
        store = MemoryStore()

        async def wait_in_line() -> None:
            async with campaign(store, "boss", policy=LONG):
                raise AssertionError("the first one leads")

        async with campaign(store, "boss", policy=LONG):
            waiting = asyncio.ensure_future(wait_in_line())
            await line_of_two(store)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert len((await store.read(ALL)).entries) == 1

    run(story())


def test_a_candidate_that_loses_its_lease_while_it_waits_stands_anew() -> None:
    async def story() -> None:
        store = MemoryStore()
        led: list[int] = []

        async def stand() -> None:
            async with campaign(store, "boss", policy=LONG, rng=Quick()) as leadership:
                led.append(leadership.fencing)

        async with campaign(store, "boss", policy=LONG) as first:
            waiting = asyncio.ensure_future(stand())
            (lost,) = (entry for entry in await line_of_two(store) if entry.key != first.key)
            await store.revoke(lost.lease)
            await line_of_two(store)
        await waiting
        assert led[0] > lost.created

    run(story())


def test_a_leader_is_told_when_its_lease_has_run_out_at_the_store() -> None:
    async def story() -> None:
        hands = Hands()
        store = MemoryStore(clock=hands)
        async with campaign(store, "boss", policy=LONG, clock=lambda: Mono(0.0)) as leadership:
            hands.now += 3_600.0
            store.wake()
            await leadership.lost.wait()
            assert leadership.why == "its key is gone"
            with pytest.raises(Deposed, match="stop the leader's work"):
                await leadership.commit(WORK)

    run(story())


def test_a_leader_whose_loop_stood_still_knows_before_it_is_told() -> None:
    async def story() -> None:
        hands = Hands()
        async with campaign(MemoryStore(), "boss", policy=LONG, clock=hands) as leadership:
            hands.now += 3_599.0
            assert not leadership.lost.is_set()
            assert not leadership.is_certain

    run(story())


def test_a_guarded_commit_whose_own_condition_fails_says_so() -> None:
    async def story() -> None:
        store = MemoryStore()
        async with campaign(store, "boss", policy=LONG) as leadership:
            done = await leadership.commit(Txn((present("no"),), (Put("work", b""),), (Read(Span.one("no")),)))
            assert not done.held
            assert len(done.results) == 1
            with pytest.raises(StoreRefused):
                await leadership.commit(Txn((), (), (Put("work", b""),)))

    run(story())


def test_a_store_that_is_away_at_first_is_borne() -> None:
    async def story() -> None:
        store = MemoryStore()
        store.go_away("later")
        tried = 0

        class Counting(Quick):
            def uniform(self, a: float, b: float) -> float:
                nonlocal tried
                tried += 1
                if tried == 3:
                    store.come_back()
                return 0.0

        async with campaign(store, "boss", policy=LONG, rng=Counting()) as leadership:
            assert leadership.fencing == 2
        assert tried >= 3

    run(story())


def test_a_store_that_says_no_is_heard() -> None:
    class Strict(MemoryStore):
        async def grant(self, ttl_s: float, *, lease: int = 0) -> Any:
            raise StoreDenied(self.name, "not you")

    async def story() -> None:
        with pytest.raises(StoreDenied, match="not you"):
            async with campaign(Strict(), "boss", policy=LONG):
                raise AssertionError("it cannot lead")

    run(story())
