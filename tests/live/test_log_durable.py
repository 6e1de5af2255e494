"""A durable log answers nobody, and tells nobody anything, before it is on the disk; and a crash takes nothing of it back."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Sequence
from errno import EIO, ENOSPC
from pathlib import Path

import pytest

from budao.aio import DurableLog, DurableStore, LogPolicy
from budao.aio.logs.folder import LogFolder
from budao.push import START, Appended, ChannelPolicy, ChannelRules, Draft, LogAway, LogRefused, NotPlaced, Placed
from budao.wire.records import Unreadable

PATIENCE_S = 60.0


def run(story: object) -> None:
    asyncio.run(asyncio.wait_for(story, PATIENCE_S))  # type: ignore[arg-type]


def draft(number: int = 0, channel: str = "a", size: int = 1) -> Draft:
    return Draft(channel, str(number).encode().rjust(size, b" "), id=f"id{number}")


async def filled(folder: Path, count: int) -> None:
    async with DurableLog(folder) as log:
        for number in range(count):
            await log.publish([draft(number)])


async def found(folder: Path) -> list[int]:
    async with DurableLog(folder) as log:
        return [int(message.data) for message in (await log.read("a", START)).messages]


def newest(folder: Path, kind: str = "journal") -> Path:
    return max(folder.glob(f"{kind}-*.budao"))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def test_nothing_is_answered_or_told_before_the_sync_and_what_waits_shares_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate, syncs = threading.Event(), threading.Event(), list[int]()

    def sync(self: LogFolder) -> None:
        syncs.append(self.journal_bytes)
        begun.set()
        assert gate.wait(PATIENCE_S)

    async def story() -> None:
        async with DurableLog(tmp_path) as log, log.feed() as feed:
            await feed.follow("a")
            monkeypatch.setattr(LogFolder, "_sync", sync)
            told = asyncio.create_task(feed.next())
            publishing = [asyncio.create_task(log.publish([draft(number)])) for number in range(20)]
            assert await asyncio.to_thread(begun.wait, PATIENCE_S)
            publishing += [asyncio.create_task(log.publish([draft(number)])) for number in range(20, 40)]
            await asyncio.sleep(0.05)
            assert not told.done()
            assert not any(each.done() for each in publishing)
            assert (await log.read("a", START)).messages == ()
            gate.set()
            answers = [answer for each in publishing for answer in await each]
            assert [answer.position.seq for answer in answers if isinstance(answer, Placed)] == list(range(1, 41))
            (news,) = await told
            assert isinstance(news, Appended)
        assert len(syncs) <= 3

    run(story())


def test_after_a_failed_sync_it_can_be_read_takes_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: LogFolder) -> None:
        raise OSError(EIO, os.strerror(EIO))

    async def story() -> None:
        async with DurableLog(tmp_path) as log:
            await log.publish([draft(1)])
            with monkeypatch.context() as sick:
                sick.setattr(LogFolder, "_sync", fail)
                with pytest.raises(LogAway, match="cannot be trusted since fsync failed") as away:
                    await log.publish([draft(2)])
                assert away.value.may_have_taken_effect
            with pytest.raises(LogAway, match="restart it") as away:
                await log.publish([draft(3)])
            assert not away.value.may_have_taken_effect
            assert len((await log.read("a", START)).messages) == 1

    run(story())


def test_a_full_disk_refuses_what_is_new_keeps_what_is_there_and_is_forgotten_once_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: LogFolder) -> None:
        raise OSError(ENOSPC, os.strerror(ENOSPC))

    async def story() -> None:
        async with DurableLog(tmp_path) as log, log.feed() as feed:
            await feed.follow("a")
            await log.publish([draft(1)])
            with monkeypatch.context() as sick:
                sick.setattr(LogFolder, "_sync", fail)
                refused, repeat, again, bad = await log.publish([draft(2), draft(1), draft(2), Draft("a..", b"")])
                for each in (refused, again):
                    assert isinstance(each, NotPlaced)
                    assert each.why == "no-space"
                assert isinstance(repeat, Placed)
                assert repeat.is_repeat
                assert isinstance(bad, NotPlaced)
                assert bad.why == "bad-data"
                assert log.problem is not None
                assert len((await log.read("a", START)).messages) == 1
            (placed,) = await log.publish([draft(2)])
            assert isinstance(placed, Placed)
            assert (placed.position.seq, placed.is_repeat) == (2, False)
            assert log.problem is None
        assert await found(tmp_path) == [1, 2]

    run(story())


def test_a_disk_that_is_really_full_is_survived(tmp_path: Path) -> None:
    import resource

    program_bounds = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def story() -> None:
        async with DurableLog(tmp_path) as log:
            await log.publish([draft(1)])
            # A file that must not grow is what a test can have of a full disk without being root.
            resource.setrlimit(resource.RLIMIT_FSIZE, (newest(tmp_path).stat().st_size + 500, program_bounds[1]))
            try:
                (refused,) = await log.publish([draft(2, size=10_000)])
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, program_bounds)
            assert isinstance(refused, NotPlaced)
            assert refused.why == "no-space"
            await log.publish([draft(3)])
        assert await found(tmp_path) == [1, 3]

    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        run(story())
    finally:
        signal.signal(signal.SIGXFSZ, before)


def test_what_was_published_is_there_after_a_restart_with_its_places_and_ids(tmp_path: Path) -> None:
    async def story() -> None:
        async with DurableLog(tmp_path) as log:
            (first,) = await log.publish([draft(1)])
        async with DurableLog(tmp_path) as again:
            assert isinstance(first, Placed)
            assert await again.publish([draft(1)]) == (Placed(first.position, is_repeat=True),)
            (second,) = await again.publish([draft(2)])
            assert isinstance(second, Placed)
            assert second.position == (first.position.epoch, 2)

    run(story())


def test_a_torn_end_is_cut_off_wherever_it_was_torn(tmp_path: Path) -> None:
    async def story() -> None:
        await filled(tmp_path / "log", 3)
        whole = newest(tmp_path / "log").stat().st_size
        await filled(tmp_path / "log", 4)
        longer = newest(tmp_path / "log").stat().st_size
        for size in range(whole, longer, 7):
            shutil.copytree(tmp_path / "log", tmp_path / str(size))
            with newest(tmp_path / str(size)).open("r+b") as file:
                file.truncate(size)
            assert await found(tmp_path / str(size)) == [0, 1, 2]

    run(story())


def test_damage_in_the_middle_is_refused_with_advice_and_nothing_is_changed(tmp_path: Path) -> None:
    async def story() -> None:
        await filled(tmp_path, 5)
        path = newest(tmp_path)
        raw = bytearray(path.read_bytes())
        raw[raw.index(b"id2")] ^= 1
        path.write_bytes(raw)
        with pytest.raises(Unreadable, match=r"record 3 is damaged.*good records follow.*from a backup"):
            async with DurableLog(tmp_path):
                pass
        assert path.read_bytes() == raw

    run(story())


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        (tmp_path / "letters").mkdir()
        (tmp_path / "letters" / "to-mother.txt").write_text("")
        with pytest.raises(LogRefused, match=r"holds no log, and other things: to-mother\.txt"):
            async with DurableLog(tmp_path / "letters"):
                pass
        async with DurableStore(tmp_path / "store"):
            pass
        with pytest.raises(Unreadable, match="belongs to a store"):
            async with DurableLog(tmp_path / "store"):
                pass
        async with DurableLog(tmp_path / "log"):
            with pytest.raises(LogRefused, match=f"process {os.getpid()} serves this folder already"):
                async with DurableLog(tmp_path / "log"):
                    pass
        with pytest.raises(Unreadable, match="belongs to a log"):
            async with DurableStore(tmp_path / "log"):
                pass

    run(story())


def test_the_disk_holds_no_more_than_a_few_times_what_is_retained(tmp_path: Path) -> None:
    async def story() -> None:
        rules = ChannelRules(otherwise=ChannelPolicy(history_count=10))
        small = LogPolicy(rotate_bytes=64 * 1024)
        async with DurableLog(tmp_path, rules=rules, log_policy=small) as log:
            for number in range(400):
                await log.publish([draft(number, channel=f"c{number % 4}", size=4000)])
            heads = [log.book.head(f"c{number}") for number in range(4)]
        assert heads[0].seq == 100
        assert size_of(tmp_path) < 1024 * 1024
        assert int(newest(tmp_path).name[8:16]) > 5
        async with DurableLog(tmp_path, rules=rules, log_policy=small) as log:
            assert [log.book.head(f"c{number}") for number in range(4)] == heads
            assert len((await log.read("c1", START)).messages) == 10
            (repeat,) = await log.publish([draft(1, channel="c1")])
            assert isinstance(repeat, Placed)
            assert repeat.is_repeat, "its message is gone from the history, its id is not"

    run(story())


def test_a_damaged_snapshot_costs_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        small = LogPolicy(rotate_bytes=4096)
        async with DurableLog(tmp_path, log_policy=small) as log:
            for number in range(30):
                await log.publish([draft(number, size=3000)])
        cut(newest(tmp_path, "snapshot"))
        async with DurableLog(tmp_path, log_policy=small) as log:
            assert len((await log.read("a", START)).messages) == 30

    run(story())


def test_a_mistake_while_writing_leaves_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: LogFolder, runs: Sequence[bytes]) -> None:
        raise RuntimeError("a mistake")

    async def story() -> None:
        async with DurableLog(tmp_path) as log:
            monkeypatch.setattr(LogFolder, "write", fail)
            with pytest.raises(LogAway, match="a mistake") as away:
                await log.publish([draft(1)])
            assert away.value.may_have_taken_effect
            assert log.crashed.is_set()
            with pytest.raises(LogAway, match="a mistake"):
                await log.publish([draft(2)])

    run(story())


def test_more_than_may_wait_for_the_disk_is_told_to_come_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with DurableLog(tmp_path, log_policy=LogPolicy(waiting_bytes_max=1000)) as log:
            waiting = log.submit([draft(1, size=900)])
            with pytest.raises(LogAway, match="that is the bound") as away:
                log.submit([draft(2, size=900)])
            assert not away.value.may_have_taken_effect
            await waiting
            await log.publish([draft(2, size=900)])

    run(story())


def test_what_waits_when_it_is_closed_is_finished_and_feeds_end(tmp_path: Path) -> None:
    async def story() -> None:
        async with DurableLog(tmp_path) as log:
            feed = log.feed()
            publishing = [asyncio.create_task(log.publish([draft(number)])) for number in range(50)]
            await asyncio.sleep(0)
        for each in publishing:
            await each
        await feed.next()
        with pytest.raises(LogAway, match="it is closed"):
            await feed.next()
        assert len(await found(tmp_path)) == 50

    run(story())
