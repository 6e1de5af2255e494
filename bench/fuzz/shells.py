"""What waits: folders of a store after damage, and open ports among strangers.

Each runs for some seconds and returns how many inputs it tried, and what was found wrong; "" for nothing.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Final

from bench.fuzz import log_shells, samples
from budao.aio import Federation, RemoteStore, ServerPolicy, StoreServer
from budao.aio.journal import JournalFolder
from budao.discovery import Address, Instance
from budao.model import Mono
from budao.push import LogError
from budao.store import Command, Commit, Grant, Keeper, Put, Span, StoreError, StorePolicy, StoreRefused, Txn
from budao.wire import journal

Shell = Callable[[int, Random], tuple[int, str]]
T0: Final = Mono(0.0)
POLICY: Final = StorePolicy()
GROWN_BYTES_MAX: Final = 128 * 1024 * 1024
"""What strangers may leave behind in a process, at most."""
STRANGERS: Final = 24
"""At once."""
ANSWER_MAX_S: Final = 20.0
LOCAL: Final = "127.0.0.1"


# ------------------------------------------------------------------------------------------------------- folders


def _folder(folder: Path, names: str) -> list[str]:
    """A store of three generations; each state that was acknowledged, as text, the first one first."""
    files, keeper = JournalFolder.open(folder, POLICY, T0)
    states = [repr(keeper.snapshot())]
    for index in range(12):
        commands: list[Command] = [
            Grant(0, 5.0 + index),
            Commit(Txn(then=(Put(f"{names}{index}", bytes(index * 40)),))),
        ]
        payload = journal.format_group(keeper.revision, list(map(journal.format_command, commands)))
        assert files.append(payload) is None
        for command in commands:
            keeper.apply(command, T0)
        states.append(repr(keeper.snapshot()))
        if index in {4, 8}:
            assert files.rotate(keeper.revision, POLICY) is None
        if index == 4:  # the newest snapshot is often not there yet when a process dies
            assert files.save(keeper.snapshot(), files.generation) is None
    files.close()
    return states


def _damage(folder: Path, other: Path, rng: Random) -> str:
    """Harms one or two files; says how."""
    done = []
    for _ in range(rng.choice([1, 1, 2])):
        path = rng.choice(sorted(folder.glob("*.budao")))
        raw, way = path.read_bytes(), rng.randrange(6)
        if way == 0:
            path.write_bytes(samples.edited(raw, rng))
        elif way == 1:  # records of another store
            from_other = rng.choice(sorted(other.glob("*.budao"))).read_bytes()
            at, begin = rng.randrange(len(raw) + 1), rng.randrange(len(from_other))
            path.write_bytes(raw[:at] + from_other[begin : begin + rng.choice([50, 5_000])] + raw[at:])
        elif way == 2:  # records of the same store, from elsewhere
            from_same = rng.choice(sorted(folder.glob("*.budao"))).read_bytes()
            path.write_bytes(raw[: rng.randrange(len(raw) + 1)] + from_same[rng.randrange(len(from_same)) :])
        elif way == 3:
            path.write_bytes(raw[: rng.randrange(len(raw) + 1)])
        elif way == 4:  # a file lost, or under the name of another
            path.rename(rng.choice([folder / "elsewhere", *sorted(folder.glob("*.budao"))]))
        else:  # a record doubled, dropped or moved as a whole
            path.write_bytes(_shuffled(raw, rng))
        done.append(f"{path.name}, way {way}")
    return "; ".join(done)


def _shuffled(raw: bytes, rng: Random) -> bytes:
    head, *records = raw.split(journal.MARK)
    at = rng.randrange(len(records)) if records else 0
    way = rng.randrange(3)
    if records and way == 0:
        records.insert(rng.randrange(len(records) + 1), records[at])
    elif records and way == 1:
        del records[at]
    else:
        rng.shuffle(records)
    return journal.MARK.join([head, *records])


def _recovered(folder: Path) -> str | None:
    """The state found there, or None if it was refused; and then it can be written to, and opened again."""
    try:
        files, keeper = JournalFolder.open(folder, POLICY, T0)
    except (journal.Unreadable, StoreRefused) as refused:
        str(refused)  # a message that cannot be built is no message
        return None
    state = repr(keeper.snapshot())
    command = Commit(Txn(then=(Put("later", b"v"),)))
    group = journal.format_group(keeper.revision, [journal.format_command(command)])
    failure = files.append(group)
    files.close()
    assert failure is None, failure
    keeper.apply(command, T0)
    files, again = JournalFolder.open(folder, POLICY, T0)
    files.close()
    assert _keys(again) == _keys(keeper), "what was written after the recovery is not there"
    return state


def _keys(keeper: Keeper) -> list[str]:
    return [entry.key for entry in keeper.read(Span.prefix("")).entries]


def folders(seconds: int, rng: Random) -> tuple[int, str]:
    """A damaged folder is opened as it was at some time, or refused; never as it never was."""
    count = 0
    with tempfile.TemporaryDirectory() as base:
        whole, other, harmed = Path(base, "whole"), Path(base, "other"), Path(base, "harmed")
        states = _folder(whole, "key")
        _folder(other, "else")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            shutil.rmtree(harmed, ignore_errors=True)
            shutil.copytree(whole, harmed)
            how = _damage(harmed, other, rng)
            count += 1
            try:
                state = _recovered(harmed)
            except Exception as problem:  # noqa: BLE001 - whatever it is, it is the finding
                return count, f"{how}: {type(problem).__name__}: {problem}"
            if state is not None and state not in states:
                return count, f"{how}: a state that was never acknowledged: {state[:300]}"
    return count, ""


# --------------------------------------------------------------------------------------------------------- ports


class Watchman:
    """Notes what no stranger may cause: an exception that reaches the loop, and memory that is not given back."""

    def __init__(self) -> None:
        self.found: str = ""
        self.begun_bytes = 0
        asyncio.get_running_loop().set_exception_handler(
            lambda _, said: self.note(f"{said.get('message')}: {said.get('exception')!r}")
        )

    def note(self, problem: str) -> None:
        """The first counts."""
        self.found = self.found or problem

    def weigh(self) -> None:
        gc.collect()
        used = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
        self.begun_bytes = self.begun_bytes or used
        if used - self.begun_bytes > GROWN_BYTES_MAX:
            self.note(f"{(used - self.begun_bytes) >> 20} MiB more than at the beginning")


async def _say(port: int, pieces: list[bytes], rng: Random) -> None:
    """One stranger, who speaks in odd pieces, and leaves in one way or another."""
    reader, writer = await asyncio.open_connection(LOCAL, port)
    try:
        raw = b"".join(pieces)
        cut = rng.randrange(len(raw) + 1)
        writer.write(raw[:cut])
        await asyncio.sleep(0)
        writer.write(raw[cut:])
        if rng.random() < 0.2:
            writer.transport.abort()
            return
        if rng.random() < 0.5:
            writer.write_eof()
        async with asyncio.timeout(0.05):
            while await reader.read(65_536):
                pass
    except (OSError, TimeoutError):
        pass
    finally:
        writer.close()


async def _besieged(
    port: int, seconds: int, rng: Random, words: Callable[[Random], list[bytes]], serves: Callable[[], Awaitable[None]]
) -> tuple[int, str]:
    """Strangers come while `serves` is asked again and again whether a friend is still served."""
    watchman, count = Watchman(), 0
    logging.getLogger("budao").setLevel(logging.CRITICAL)
    until = time.monotonic() + seconds
    while time.monotonic() < until and not watchman.found:
        await asyncio.gather(*(_say(port, words(rng), rng) for _ in range(STRANGERS)))
        count += STRANGERS
        if count % (STRANGERS * 8) == 0:
            try:
                async with asyncio.timeout(ANSWER_MAX_S):
                    await serves()
            except (TimeoutError, StoreError, LogError) as problem:
                watchman.note(f"a friend is not served any more: {problem!r}")
        if count % (STRANGERS * 24) == 0:
            watchman.weigh()
    return count, watchman.found


def _framed(payload: bytes, rng: Random) -> bytes:
    size = len(payload) if rng.random() < 0.97 else rng.choice([0, len(payload) + 9, 2**31, 2**32 - 1])
    return size.to_bytes(4, "big") + payload


def _store_words(rng: Random) -> list[bytes]:
    if rng.random() < 0.1:
        return [rng.randbytes(rng.choice([3, 200, 9_000]))]
    hello, *others = samples.store_payloads()
    if rng.random() < 0.2:
        hello = samples.bent_payload(hello, rng)
    wanted = [rng.choice(others) for _ in range(rng.choice([0, 1, 3, 30]))]
    return [_framed(each, rng) for each in (hello, *(samples.bent_payload(each, rng) for each in wanted))]


def store_port(seconds: int, rng: Random) -> tuple[int, str]:
    async def story() -> tuple[int, str]:
        with tempfile.TemporaryDirectory() as folder:
            async with StoreServer(Path(folder), server_policy=ServerPolicy(hello_s=0.5)) as server:
                friend = RemoteStore(LOCAL, server.port)

                async def serves() -> None:
                    committed = await friend.commit(Txn(then=(Put("friend", b"v"),)))
                    page = await friend.read(Span("friend", "friend\0"))
                    assert page.revision >= committed.revision

                await serves()
                found = await _besieged(server.port, seconds, rng, _store_words, serves)
                await friend.aclose()
                return found

    return asyncio.run(story())


def _federation_words(rng: Random) -> list[bytes]:
    if rng.random() < 0.1:
        return [rng.randbytes(rng.choice([3, 200, 9_000]))]
    cluster = f"stranger-{rng.randrange(50)}"
    hello, *others = samples.federation_payloads(cluster)
    if rng.random() < 0.2:
        hello = samples.bent_payload(hello, rng)
    wanted = [rng.choice(others) for _ in range(rng.choice([0, 1, 3, 30]))]
    return [_framed(each, rng) for each in (hello, *(samples.bent_payload(each, rng) for each in wanted))]


def federation_port(seconds: int, rng: Random) -> tuple[int, str]:
    async def story() -> tuple[int, str]:
        async with Federation("here") as here, Federation("friend", peers=[(LOCAL, here.port)]) as friend:
            turn = 0

            async def serves() -> None:
                nonlocal turn
                turn += 1
                friend.put(_instance(f"turn-{turn}"))
                friend.withdraw("served", f"turn-{turn - 1}")
                while f"turn-{turn}" not in here.remote("served"):  # noqa: ASYNC110 - whatever wakes it may be what is broken
                    await asyncio.sleep(0.01)

            await serves()
            return await _besieged(here.port, seconds, rng, _federation_words, serves)

    return asyncio.run(story())


def _instance(name: str) -> Instance:
    return Instance(service="served", id=name, addresses={"http": Address(LOCAL, 80)})


SHELLS: Final[dict[str, Shell]] = {
    "folders": folders,
    "store-port": store_port,
    "federation-port": federation_port,
    "log-folders": lambda seconds, rng: log_shells.log_folders(seconds, rng, _damage),
    "log-port": lambda seconds, rng: log_shells.log_port(seconds, rng, _besieged, _framed),
}
