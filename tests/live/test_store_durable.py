"""A durable store answers nobody, and shows nobody anything, before it is on the disk."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import aclosing
from errno import EIO, EMFILE
from pathlib import Path

import pytest

from budao.aio import DurableStore, JournalPolicy
from budao.aio.journal import JournalFolder
from budao.model import Mono
from budao.store import LeaseGone, Put, Span, StoreAway, Txn, absent

PATIENCE_S = 60.0
EVERYTHING = Span.prefix("")


def put(key: str) -> Txn:
    return Txn(then=(Put(key, b"v"),))


def test_nothing_is_answered_or_seen_before_the_sync_and_what_waits_shares_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate, syncs = threading.Event(), threading.Event(), list[int]()

    def sync(self: JournalFolder) -> None:
        syncs.append(self.journal_bytes)
        begun.set()
        assert gate.wait(PATIENCE_S)

    async def story() -> None:
        async with DurableStore(tmp_path) as store:
            monkeypatch.setattr(JournalFolder, "_sync", sync)
            async with aclosing(store.watch(EVERYTHING, after=1)) as batches:
                first = asyncio.create_task(anext(batches))  # type: ignore[arg-type]
                committing = [asyncio.create_task(store.commit(put(f"k{number:02}"))) for number in range(20)]
                assert await asyncio.to_thread(begun.wait, PATIENCE_S)
                committing += [asyncio.create_task(store.commit(put(f"later{number}"))) for number in range(20)]
                await asyncio.sleep(0.05)
                assert not first.done()
                assert not any(each.done() for each in committing)
                assert (await store.read(EVERYTHING)).entries == ()
                gate.set()
                assert [(await each).revision for each in committing] == list(range(2, 42))
                assert (await first).revision == 2
            assert len(syncs) <= 3

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_of_two_that_want_the_same_key_at_once_one_has_it_and_so_it_is_after_a_restart(tmp_path: Path) -> None:
    async def story() -> None:
        claims = [Txn(when=(absent("lock"),), then=(Put("lock", str(each).encode()),)) for each in range(8)]
        async with DurableStore(tmp_path) as store:
            held = [done.held for done in await asyncio.gather(*map(store.commit, claims))]
            assert held == [True] + [False] * 7
            before = await store.read(EVERYTHING)
        async with DurableStore(tmp_path) as store:
            assert await store.read(EVERYTHING) == before

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_after_a_failed_sync_it_can_be_read_takes_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: JournalFolder) -> None:
        raise OSError(EIO, os.strerror(EIO))

    async def story() -> None:
        async with DurableStore(tmp_path) as store:
            await store.commit(put("a"))
            with monkeypatch.context() as sick:
                sick.setattr(JournalFolder, "_sync", fail)
                with pytest.raises(StoreAway, match="cannot be trusted since fsync failed") as away:
                    await store.commit(put("b"))
                assert away.value.may_have_taken_effect
            with pytest.raises(StoreAway, match="restart it") as away:
                await store.commit(put("c"))
            assert not away.value.may_have_taken_effect
            assert [entry.key for entry in (await store.read(EVERYTHING)).entries] == ["a"]

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_what_waits_when_it_is_closed_is_finished_and_what_comes_later_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with DurableStore(tmp_path) as store:
            committing = [asyncio.create_task(store.commit(put(f"k{number}"))) for number in range(50)]
            await asyncio.sleep(0)
        assert len([await each for each in committing]) == 50
        with pytest.raises(StoreAway, match="it is closed"):
            await store.read(EVERYTHING)
        async with DurableStore(tmp_path):
            pass
        async with DurableStore(tmp_path) as again:
            assert len((await again.read(EVERYTHING)).entries) == 50

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_lease_that_is_not_renewed_ends_and_its_end_is_durable(tmp_path: Path) -> None:
    async def story() -> None:
        async with DurableStore(tmp_path) as store:
            lease = await store.grant(1.0)
            revision = (await store.commit(Txn(then=(Put("k", b"", lease.id),)))).revision
            async with aclosing(store.watch(EVERYTHING, after=revision)) as batches:
                assert (await anext(batches)).changes[0].entry is None
        async with DurableStore(tmp_path) as again:
            assert (await again.read(EVERYTHING)).entries == ()
            assert again.keeper.leases == 0

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_snapshot_that_fails_in_any_way_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: JournalFolder, newest: int) -> None:
        raise OSError(EMFILE, os.strerror(EMFILE))

    def snapshots() -> int:
        return sum(path.name.startswith("snapshot-") for path in tmp_path.iterdir())

    async def story() -> None:
        async with DurableStore(tmp_path, journal=JournalPolicy(rotate_bytes=4096)) as store:
            with monkeypatch.context() as sick:
                sick.setattr(JournalFolder, "_prune", fail)
                while snapshots() < 3:
                    await store.commit(Txn(then=(Put("k", bytes(1000)),)))
            while snapshots() != 2:
                await store.commit(Txn(then=(Put("k", bytes(1000)),)))

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_mistake_while_writing_leaves_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: JournalFolder, payload: bytes) -> None:
        raise RuntimeError("a mistake")

    async def story() -> None:
        async with DurableStore(tmp_path) as store:
            monkeypatch.setattr(JournalFolder, "append", fail)
            with pytest.raises(StoreAway, match="a mistake") as away:
                await store.commit(put("a"))
            assert away.value.may_have_taken_effect
            with pytest.raises(StoreAway, match="a mistake"):
                await store.commit(put("b"))

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_lease_whose_end_is_on_its_way_to_the_disk_is_not_renewed_whatever_the_clock_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate, now = threading.Event(), threading.Event(), [0.0]
    whole = JournalFolder.append

    def append(self: JournalFolder, payload: bytes) -> object:
        begun.set()
        assert gate.wait(PATIENCE_S)
        return whole(self, payload)

    async def story() -> None:
        async with DurableStore(tmp_path, clock=lambda: Mono(now[0])) as store:
            lease = await store.grant(1.0)
            monkeypatch.setattr(JournalFolder, "append", append)
            now[0] += 1.2  # it has run out, and its end waits for the disk
            assert await asyncio.to_thread(begun.wait, PATIENCE_S)
            store.keeper.renew_all(Mono(now[0]))  # as after a loop that stood still
            with pytest.raises(LeaseGone):
                await store.keep_alive(lease.id)
            gate.set()

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_who_stops_waiting_for_the_end_does_not_keep_the_folder(tmp_path: Path) -> None:
    async def story() -> None:
        store = DurableStore(tmp_path)
        await store.__aenter__()
        closing = asyncio.create_task(store.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await store.aclose()
        async with DurableStore(tmp_path) as again:
            await again.commit(put("a"))

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_store_that_stops_for_a_mistake_of_its_own_says_so_to_whoever_runs_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def mistake() -> None:
        raise RuntimeError("a mistake")

    async def story() -> None:
        async with DurableStore(tmp_path) as store:
            await store.commit(Txn(then=(Put("a", b"1"),)))
            failing = asyncio.create_task(mistake())
            failing.add_done_callback(store._crashed)
            async with asyncio.timeout(30.0):
                await store.crashed.wait()
            for asked in (store.read(Span.one("a")), store.commit(Txn(then=(Put("a", b"2"),)))):
                with pytest.raises(StoreAway, match="mistake of its own"):
                    await asked

    asyncio.run(story())
    assert "stops for a mistake of its own" in caplog.text
