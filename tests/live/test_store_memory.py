"""The store in this process keeps the laws that every store must keep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from random import Random

import pytest

from budao.aio import Leadership, MemoryStore, Store, campaign, watching
from budao.store import (
    Batch,
    CampaignPolicy,
    Change,
    Committed,
    Delete,
    Field,
    Page,
    Put,
    Span,
    StoreAway,
    StorePolicy,
    Txn,
)
from tests.live import store_suite
from tests.live.store_suite import LAWS, PATIENCE_S, Law, keep, keep_through, name_of


class OneOfMany(MemoryStore):
    """Closing it closes one client's view, of which a store in memory has none."""

    async def aclose(self) -> None:
        pass


class Cut(MemoryStore):
    """A second way to the same keeper, which can be cut."""


def one_store(kind: Callable[[], Store] = OneOfMany) -> Callable[[], Store]:
    made: list[Store] = []

    def client() -> Store:
        if not made:
            made.append(kind())
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


class Broken(OneOfMany):
    """Stores that break a promise: each law below must notice."""


class ForgetsACommit(Broken):
    count = 0

    async def commit(self, txn: Txn) -> Committed:
        ForgetsACommit.count += 1
        if ForgetsACommit.count % 20:
            return await super().commit(txn)
        return Committed(self.keeper.revision + 1, held=True, results=(None,) * len(txn.then))


class ReadsTheLastRevision(Broken):
    async def read(self, span: Span, *, revision: int = 0, limit: int = 0) -> Page:
        late = await super().read(span, revision=revision or max(1, self.keeper.revision - 1), limit=limit)
        return await super().read(span, revision=revision, limit=limit) if revision else late


class ChecksAndThenSets(Broken):
    async def commit(self, txn: Txn) -> Committed:
        done = await super().commit(Txn(txn.when))
        await asyncio.sleep(0)
        return await super().commit(Txn((), txn.then if done.held else txn.otherwise))


class SkipsARevision(Broken):
    async def watch(self, span: Span, *, after: int) -> AsyncIterator[Batch]:
        async with watching(super(), span, after=after) as batches:
            async for batch in batches:
                if batch.revision % 7:
                    yield batch


class SaysItTwice(Broken):
    async def watch(self, span: Span, *, after: int) -> AsyncIterator[Batch]:
        async with watching(super(), span, after=after) as batches:
            async for batch in batches:
                yield batch
                if batch.revision % 7 == 0:
                    yield batch


class RevokesKeyByKey(Broken):
    async def revoke(self, lease: int) -> None:
        for key in (await self.look_up(lease)).keys:
            await self.commit(Txn(then=(Delete(Span.one(key)),)))
        await super().revoke(lease)


class IgnoresWhoLeads(Broken):
    async def commit(self, txn: Txn) -> Committed:
        fencing = [each for each in txn.when if each.field is Field.CREATED]
        return await super().commit(replace(txn, when=tuple(each for each in txn.when if each not in fencing)))


BROKEN: dict[type[Broken], Law] = {
    ForgetsACommit: store_suite.calls_take_effect_one_after_the_other_between_their_begin_and_end,
    ReadsTheLastRevision: store_suite.calls_take_effect_one_after_the_other_between_their_begin_and_end,
    ChecksAndThenSets: store_suite.concurrent_counters_lose_no_increment,
    SkipsARevision: store_suite.watchers_of_many_writers_see_every_revision_once_and_in_order,
    SaysItTwice: store_suite.a_random_history_is_that_of_the_keeper,
    RevokesKeyByKey: store_suite.a_random_history_is_that_of_the_keeper,
    IgnoresWhoLeads: store_suite.a_leader_whose_lease_is_gone_learns_of_it_and_can_commit_no_more,
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_store_that_breaks_its_promises_is_noticed(kind: type[Broken]) -> None:
    with pytest.raises(AssertionError):
        keep(BROKEN[kind], one_store(kind))


class Flaky(OneOfMany):
    """Does not answer now and then, before or after it did what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = Random(7)
        self.is_honest = True

    async def commit(self, txn: Txn) -> Committed:
        fate = self.rng.randrange(10)
        if fate == 0:
            raise StoreAway(self.name, "no connection")
        done = await super().commit(txn)
        if fate == 1:
            raise StoreAway(self.name, "no answer", may_have_taken_effect=self.is_honest)
        return done


async def a_moment() -> None:
    await asyncio.sleep(0.3)


def test_calls_without_an_answer_are_explained_either_way() -> None:
    keep_through(one_store(Flaky), a_moment)


def test_a_store_that_calls_undone_what_was_done_is_noticed() -> None:
    class Dishonest(Flaky):
        def __init__(self) -> None:
            super().__init__()
            self.is_honest = False

    with pytest.raises(AssertionError, match="nobody wrote"):
        keep_through(one_store(Dishonest), a_moment)
