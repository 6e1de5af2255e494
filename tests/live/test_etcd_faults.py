"""Three etcd members, one of which is killed, frozen or cut off while clients write and watch."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager, suppress
from random import Random

import pytest

from budao.adapters import _etcd_watches
from budao.adapters.etcd import EtcdStore
from budao.aio import watching
from budao.store import Batch, Put, Span, StoreAway, Txn, unchanged
from tests.live.etcd_server import Cluster, Member

PATIENCE_S = 60.0
Fault = Callable[[Cluster, Member], AbstractContextManager[None]]
_log = logging.getLogger("tests.etcd")
QUICK = ("--heartbeat-interval", "50", "--election-timeout", "500")


class InOrder(Random):
    """Endpoints are tried in the order they are given, so that a test knows who is asked first."""

    def shuffle(self, x: object) -> None:
        pass


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("faults"), 3, more=QUICK, apart=True) as cluster:
        yield cluster


@contextmanager
def killed(cluster: Cluster, member: Member) -> Iterator[None]:
    member.kill()
    try:
        yield
    finally:
        cluster.start(member)


@contextmanager
def frozen(cluster: Cluster, member: Member) -> Iterator[None]:
    with cluster.frozen(member):
        yield


@contextmanager
def cut_off(cluster: Cluster, member: Member) -> Iterator[None]:
    with cluster.cut_off(member):
        yield


def store_on(cluster: Cluster, first: Member) -> EtcdStore:
    """A client that asks this member first."""
    others = [member.endpoint for member in cluster.members if member is not first]
    return EtcdStore([first.endpoint, *others], rng=InOrder())


class Writers:
    """Clients that put keys of their own, and count on one key together."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.counter = prefix + "counter"
        self.acknowledged: dict[str, int] = {}
        """The revision of each key that was put."""
        self.counted = self.maybe_counted = 0
        self.is_over = False

    async def write(self, store: EtcdStore, name: str) -> None:
        number = 0
        while not self.is_over:
            number += 1
            key = f"{self.prefix}{name}/{number}"
            with suppress(StoreAway):
                self.acknowledged[key] = (await store.commit(Txn(then=(Put(key, b""),)))).revision
            await self._count(store)
            await asyncio.sleep(0.005)

    async def _count(self, store: EtcdStore) -> None:
        try:
            entry = (await store.read(Span.one(self.counter))).first
        except StoreAway:
            return
        assert entry is not None
        wanted = b"%d" % (int(entry.value) + 1)
        try:
            if (await store.commit(Txn((unchanged(entry),), then=(Put(self.counter, wanted),)))).held:
                self.counted += 1
        except StoreAway as away:
            self.maybe_counted += away.may_have_taken_effect


async def until(claim: Callable[[], bool], *, what: str) -> None:
    ends_at = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < ends_at, what
        await asyncio.sleep(0.02)


async def through(cluster: Cluster, leader: Member, prefix: str, fault: AbstractContextManager[None]) -> float:
    """Writes and watches before, during and after a fault. Answers how long the watch was silent, in seconds."""
    async with AsyncExitStack() as exits:
        clients = [await exits.enter_async_context(store_on(cluster, leader)) for _ in range(4)]
        writers = Writers(prefix)
        start = (await clients[0].commit(Txn(then=(Put(writers.counter, b"0"),)))).revision
        seen: list[Batch] = []

        async def look() -> None:
            async with watching(clients[-1], Span.prefix(prefix), after=start) as batches:
                async for batch in batches:
                    seen.append(batch)  # noqa: PERF401 - what came so far is looked at meanwhile

        looking = asyncio.create_task(look())
        writing = [asyncio.create_task(writers.write(store, str(n))) for n, store in enumerate(clients[:-1])]
        for task in (looking, *writing):
            exits.callback(task.cancel)
        await until(lambda: len(seen) >= 60, what="the watch sees what is written")
        with fault:
            began_at, before = time.monotonic(), max(writers.acknowledged.values())
            await until(lambda: seen[-1].revision > before + 60, what="the watch goes on during the fault")
            silent_s = time.monotonic() - began_at
            await until(lambda: max(writers.acknowledged.values()) > before + 60, what="writes go on during the fault")
        before = max(writers.acknowledged.values())
        await until(lambda: max(writers.acknowledged.values()) > before + 30, what="writes go on afterwards")
        writers.is_over = True
        await asyncio.gather(*writing)
        # Nothing that was acknowledged is lost, and the counter is what was counted.
        page = await clients[0].read(Span.prefix(prefix))
        entries = {entry.key: entry for entry in page.entries}
        total = int(entries[writers.counter].value)
        assert writers.counted <= total <= writers.counted + writers.maybe_counted
        for key, revision in writers.acknowledged.items():
            assert entries[key].modified == revision
        # The watch saw every revision once and in order: as many as the puts that happened, each with its key.
        last = max(entry.modified for entry in page.entries)
        await until(lambda: seen[-1].revision >= last, what="the watch sees the last revision")
        looking.cancel()
        await asyncio.wait([looking])
        assert [batch.revision for batch in seen] == sorted({batch.revision for batch in seen})
        changed = [change.entry for batch in seen for change in batch.changes]
        counts = [int(each.value) for each in changed if each is not None and each.key == writers.counter]
        assert counts == list(range(1, total + 1))
        others = {each.key: each.modified for each in changed if each is not None and each.key != writers.counter}
        assert others == {key: entry.modified for key, entry in entries.items() if key != writers.counter}
        return silent_s


@pytest.mark.parametrize("fault", [killed, frozen, cut_off], ids=lambda fault: fault.__name__.replace("_", "-"))
def test_nothing_acknowledged_is_lost_and_a_watch_sees_all_when_the_leader_is(fault: Fault, three: Cluster) -> None:
    leader = three.leader()
    silent_s = asyncio.run(through(three, leader, f"{fault.__name__}/", fault(three, leader)))
    _log.info("leader %s: the watch was silent for %.2f s", fault.__name__, silent_s)
    three.leader()


def test_a_watch_says_so_when_the_quorum_is_lost(three: Cluster) -> None:
    async def story() -> None:
        last, *others = three.members
        async with EtcdStore([last.endpoint], away_max_s=2.0, timeout_s=2.0) as store:
            start = (await store.read(Span.prefix("quorum/"))).revision
            async with watching(store, Span.prefix("quorum/"), after=start) as batches:
                waiting = asyncio.ensure_future(anext(batches))
                await asyncio.sleep(0.2)
                with three.frozen(*others):
                    began_at = time.monotonic()
                    with pytest.raises(StoreAway):
                        await asyncio.wait_for(waiting, PATIENCE_S)
                    _log.info("quorum lost: said after %.2f s", time.monotonic() - began_at)
                    with pytest.raises(StoreAway) as caught:
                        await store.commit(Txn(then=(Put("quorum/a", b""),)))
                    assert not caught.value.may_have_taken_effect, "it was turned away for want of a leader"
            three.leader()
            await store.commit(Txn(then=(Put("quorum/a", b""),)))

    asyncio.run(story())


def test_a_member_that_is_frozen_is_left_by_every_kind_of_request(three: Cluster) -> None:
    async def story() -> None:
        leader = three.leader()
        first = next(member for member in three.members if member is not leader)
        async with AsyncExitStack() as exits:
            stores = [await exits.enter_async_context(store_on(three, first)) for _ in range(3)]
            leases = [await store.grant(30.0) for store in stores]
            for store, lease in zip(stores, leases, strict=True):
                await store.keep_alive(lease.id)
            with three.frozen(first):
                began_at = time.monotonic()

                async def timed(work: Awaitable[object]) -> float:
                    await work
                    return time.monotonic() - began_at

                with_answer = timed(stores[0].read(Span.prefix("a"))), timed(stores[1].keep_alive(leases[1].id))
                write = timed(stores[2].commit(Txn(then=(Put("left", b""),))))
                read_s, renewed_s, written = await asyncio.gather(*with_answer, write, return_exceptions=True)
                assert isinstance(written, StoreAway)
                assert written.may_have_taken_effect, "nobody knows what a frozen member had done"
                assert isinstance(read_s, float)
                assert isinstance(renewed_s, float)
                _log.info("member frozen: read elsewhere after %.2f s, renewed after %.2f s", read_s, renewed_s)
                await stores[2].commit(Txn(then=(Put("left", b""),)))
            for store, lease in zip(stores, leases, strict=True):
                await store.revoke(lease.id)
        three.leader()

    asyncio.run(story())


def test_a_reader_that_is_far_behind_gets_everything_in_the_end(
    three: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_etcd_watches, "BACKLOG_BYTES_MAX", 20_000)

    async def story() -> None:
        async with EtcdStore(three.endpoints) as store:
            start = (await store.read(Span.prefix("behind/"))).revision
            async with watching(store, Span.prefix("behind/"), after=start) as batches:
                for number in range(200):
                    await store.commit(Txn(then=(Put(f"behind/{number % 7}", bytes(1000)),)))
                    if number == 0:
                        assert (await anext(batches)).revision == start + 1
                kept = [watch for watch in store._watches._watches if watch.is_paused]
                assert [len(watch.queue) < 60 for watch in kept] == [True], "it was taken off the stream"
                assert [(await anext(batches)).revision for _ in range(199)] == list(range(start + 2, start + 201))

    asyncio.run(story())


def test_a_large_revision_comes_in_one_piece(three: Cluster) -> None:
    async def story() -> None:
        async with EtcdStore(three.endpoints) as store:
            start = (await store.read(Span.prefix("large/"))).revision
            for turn in range(6):
                puts = tuple(Put(f"large/{number}", bytes([turn]) * 10_000) for number in range(120))
                await store.commit(Txn(then=puts))
            async with watching(store, Span.prefix("large/"), after=start) as batches:
                found = [await anext(batches) for _ in range(6)]
            assert [batch.revision for batch in found] == list(range(start + 1, start + 7))
            assert [len({change.key for change in batch.changes}) for batch in found] == [120] * 6

    asyncio.run(story())
