"""A file of records beside SQLite as the journal of the embedded store, side by side in one run.

    python -m bench.journal [--commits N] [--records N]

Both take the same payloads through the same group commit: what arrives while one sync runs is written and synced
together. The file is `aio.journal`; SQLite runs in WAL mode with synchronous=FULL, one row a group, one transaction a
group. The folder is a temporary one, so set TMPDIR to the disk in question.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import sqlite3
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

from budao.aio.journal import JournalFolder
from budao.model import Mono
from budao.store import Commit, Keeper, Put, StorePolicy, Txn
from budao.wire import journal as wire

POLICY = StorePolicy()
T0 = Mono(0.0)
Append = Callable[[bytes], object]


class Sqlite:
    """The same as `JournalFolder`, for what is measured here."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.base = sqlite3.connect(folder / "journal.sqlite", check_same_thread=False, isolation_level=None)
        self.base.execute("PRAGMA journal_mode=WAL")
        self.base.execute("PRAGMA synchronous=FULL")
        self.base.execute("CREATE TABLE IF NOT EXISTS journal (number INTEGER PRIMARY KEY, payload BLOB NOT NULL)")

    def append(self, payload: bytes) -> None:
        self.base.execute("INSERT INTO journal (payload) VALUES (?)", (payload,))


def command(number: int) -> Commit:
    return Commit(Txn(then=(Put(f"budao/instances/shop/{number % 1000:04}", b"v" * 200),)))


async def commits(append: Append, count: int, writers: int) -> tuple[float, list[float]]:
    """Seconds for all, and for each."""
    loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1)
    keeper, queue, arrived, took = (
        Keeper(POLICY),
        list[tuple[Commit, bytes, asyncio.Future[None]]](),
        asyncio.Event(),
        [],
    )

    async def write() -> None:
        while True:
            await arrived.wait()
            arrived.clear()
            group, queue[:] = queue[:], []
            payload = wire.format_group(keeper.revision, [packed for _, packed, _ in group])
            assert await loop.run_in_executor(thread, append, payload) is None
            for each, _, done in group:
                keeper.apply(each, T0)
                done.set_result(None)

    async def ask(first: int) -> None:
        for number in range(first, count, writers):
            began, done, each = perf_counter(), loop.create_future(), command(number)
            queue.append((each, wire.format_command(each), done))
            arrived.set()
            await done
            took.append(perf_counter() - began)

    writing = asyncio.create_task(write())
    began = perf_counter()
    await asyncio.gather(*map(ask, range(writers)))
    all_s = perf_counter() - began
    writing.cancel()
    thread.shutdown()
    return all_s, sorted(took)


def fill(append: Append, records: int) -> None:
    """As if each commit had come alone in its group of ten."""
    keeper = Keeper(POLICY)
    for first in range(0, records, 10):
        group = [command(number) for number in range(first, first + 10)]
        append(wire.format_group(keeper.revision, [wire.format_command(each) for each in group]))
        for each in group:
            keeper.apply(each, T0)


def replay(payloads: list[bytes]) -> Keeper:
    keeper = Keeper(POLICY)
    for payload in payloads:
        for each in wire.parse_group(payload)[1]:
            keeper.apply(each, T0)
    return keeper


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commits", type=int, default=10_000)
    parser.add_argument("--records", type=int, default=100_000)
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.machine()}")
    print(f"{'journal':<10} {'writers':>7} {'commits/s':>10} {'p50 ms':>8} {'p99 ms':>8}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for writers in (1, 64):
            for kind in ("file", "sqlite") * 2:
                where = folder / f"{kind}-{writers}-{len(list(folder.iterdir()))}"
                append = JournalFolder.open(where, POLICY, T0)[0].append if kind == "file" else Sqlite(where).append
                count = options.commits if writers > 1 else options.commits // 4
                all_s, took = asyncio.run(commits(append, count, writers))
                p50, p99 = took[len(took) // 2] * 1e3, took[len(took) * 99 // 100] * 1e3
                print(f"{kind:<10} {writers:>7} {len(took) / all_s:>10,.0f} {p50:>8.3f} {p99:>8.3f}")
        files, _ = JournalFolder.open(folder / "file", POLICY, T0)
        fill(files.append, options.records)
        files.close()
        base = Sqlite(folder / "sqlite")
        base.base.execute("PRAGMA synchronous=OFF")
        fill(base.append, options.records)
        base.base.close()
        for kind in ("file", "sqlite"):
            began = perf_counter()
            if kind == "file":
                files, keeper = JournalFolder.open(folder / "file", POLICY, T0)
                files.close()
            else:
                keeper = replay(payloads(folder / "sqlite"))
            print(f"{kind:<10} recovers {keeper.revision - 1:,} records in {perf_counter() - began:.2f} s")


def payloads(folder: Path) -> list[bytes]:
    with sqlite3.connect(folder / "journal.sqlite") as base:
        return [row[0] for row in base.execute("SELECT payload FROM journal ORDER BY number")]


if __name__ == "__main__":
    main()
