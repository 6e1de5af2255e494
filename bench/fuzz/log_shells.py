"""A log after damage to its folder, and its port among strangers."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Final

from bench.fuzz import log_samples, samples
from budao.aio import LogServer, LogServerPolicy, RemoteLog
from budao.aio.logs.folder import LogFolder
from budao.model import Wall
from budao.push import START, Book, Draft, LogRefused
from budao.wire import log_codec, records

NOW: Final = Wall(1.8e9)
Damage = Callable[[Path, Path, Random], str]
Words = Callable[[Random], list[bytes]]
Besiege = Callable[[int, int, Random, Words, Callable[[], Awaitable[None]]], Awaitable[tuple[int, str]]]


def _publish(files: LogFolder, book: Book, drafts: list[Draft], epoch: str) -> str | None:
    prepared = book.prepare(drafts, NOW, epoch)
    failure = files.write([log_codec.format_run(run) for run in prepared.appended])
    book.carry_out(prepared)
    return None if failure is None else failure.problem


def _state(book: Book) -> str:
    return repr((book.kept(), book.known_ids()))


def _folder(folder: Path, names: str) -> list[str]:
    """A log of three generations; each state that was acknowledged, as text, the first one first."""
    files, book = LogFolder.open(folder, Book, NOW)
    states = [_state(book)]
    for index in range(12):
        drafts = [Draft(f"{names}{index % 3}", bytes(index * 40), id=f"id{index}"), Draft(names, b"1")]
        assert _publish(files, book, drafts, f"e{index}") is None
        states.append(_state(book))
        if index in {4, 8}:
            assert files.rotate() is None
        if index == 4:  # the newest snapshot is often not there yet when a process dies
            assert files.save(files.groups, book.kept(), book.known_ids(), files.generation) is None
    files.close()
    return states


def _recovered(folder: Path) -> str | None:
    """The state found there, or None if it was refused; and then it can be written to, and opened again."""
    try:
        files, book = LogFolder.open(folder, Book, NOW)
    except (records.Unreadable, LogRefused) as refused:
        str(refused)  # a message that cannot be built is no message
        return None
    state = _state(book)
    failure = _publish(files, book, [Draft("later", b"v")], "later")
    files.close()
    assert failure is None, failure
    files, again = LogFolder.open(folder, Book, NOW)
    files.close()
    assert again.head("later") == book.head("later") != START, "what was written after the recovery is not there"
    return state


def log_folders(seconds: int, rng: Random, damage: Damage) -> tuple[int, str]:
    """A damaged folder is opened as it was at some time, or refused; never as it never was."""
    count = 0
    with tempfile.TemporaryDirectory() as base:
        whole, other, harmed = Path(base, "whole"), Path(base, "other"), Path(base, "harmed")
        states = _folder(whole, "news")
        _folder(other, "else")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            shutil.rmtree(harmed, ignore_errors=True)
            shutil.copytree(whole, harmed)
            how = damage(harmed, other, rng)
            count += 1
            try:
                state = _recovered(harmed)
            except Exception as problem:  # noqa: BLE001 - whatever it is, it is the finding
                return count, f"{how}: {type(problem).__name__}: {problem}"
            if state is not None and state not in states:
                return count, f"{how}: a state that was never acknowledged: {state[:300]}"
    return count, ""


def log_port(seconds: int, rng: Random, besiege: Besiege, framed: Callable[[bytes, Random], bytes]) -> tuple[int, str]:
    """Strangers, and a friend who publishes all the same."""

    def words(rng: Random) -> list[bytes]:
        if rng.random() < 0.1:
            return [rng.randbytes(rng.choice([3, 200, 9_000]))]
        hello, *others = log_samples.log_payloads()
        if rng.random() < 0.2:
            hello = samples.bent_payload(hello, rng)
        wanted = [rng.choice(others) for _ in range(rng.choice([0, 1, 3, 30]))]
        return [framed(each, rng) for each in (hello, *(samples.bent_payload(each, rng) for each in wanted))]

    async def story() -> tuple[int, str]:
        with tempfile.TemporaryDirectory() as folder:
            async with (
                LogServer(Path(folder), server_policy=LogServerPolicy(hello_s=0.5)) as server,
                RemoteLog("127.0.0.1", server.port) as friend,
                friend.feed() as feed,
            ):
                await feed.follow("friend")

                async def serves() -> None:
                    await friend.publish([Draft("friend", b"1")])
                    await feed.next()

                await serves()
                return await besiege(server.port, seconds, rng, words, serves)

    return asyncio.run(story())
