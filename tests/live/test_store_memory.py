"""The store in this process keeps the laws that every store must keep."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from budao.aio import Leadership, MemoryStore, Store, campaign, watching
from budao.store import Batch, CampaignPolicy, Change, Put, Span, StorePolicy, Txn
from tests.live.store_suite import LAWS, PATIENCE_S, Law, keep, name_of


class OneOfMany(MemoryStore):
    """Closing it closes one client's view, of which a store in memory has none."""

    async def aclose(self) -> None:
        pass


class Cut(MemoryStore):
    """A second way to the same keeper, which can be cut."""


def one_store() -> Callable[[], Store]:
    made: list[Store] = []

    def client() -> Store:
        if not made:
            made.append(OneOfMany())
        return made[0]

    return client


@pytest.mark.parametrize("law", LAWS, ids=name_of)
def test_a_store_in_memory_keeps(law: Law) -> None:
    keep(law, one_store())


def test_a_short_lease_granted_after_a_long_one_ends_first_by_itself() -> None:
    async def story() -> None:
        store = MemoryStore(policy=StorePolicy(ttl_min_s=0.001))
        await store.grant(60.0)
        short = await store.grant(0.05)
        revision = (await store.commit(Txn(then=(Put("a", b"", short.id),)))).revision
        async with watching(store, Span.prefix(""), after=revision) as batches:
            # Nobody asks the store anything: its own timer ends the lease.
            assert await anext(batches) == Batch(revision + 1, (Change("a", None),))
        await store.aclose()

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_leader_that_is_cut_off_gives_up_before_the_store_lets_another_lead() -> None:
    async def story() -> None:
        store, cut = MemoryStore(policy=StorePolicy(ttl_min_s=0.1)), Cut()
        cut.keeper = store.keeper
        policy = CampaignPolicy(ttl_s=0.5)

        async def next_leader(first: Leadership) -> tuple[int, bool]:
            async with campaign(store, "boss", policy=policy) as second:
                return second.fencing, first.is_certain

        async with campaign(cut, "boss", policy=policy) as first:
            waiting = asyncio.ensure_future(next_leader(first))
            cut.go_away("the cable is out")
            fencing, was_certain = await waiting
            await first.lost.wait()
            assert first.why is not None
            assert "in time" in first.why
            assert not was_certain
            assert fencing > first.fencing
        await store.aclose()

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))
