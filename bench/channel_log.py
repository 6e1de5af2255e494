"""The durable log of channels: publishes a second, how long one takes, how soon a feed hears of it, recovery, and kill -9.

    python -m bench.channel_log [--seconds 3] [--messages 100000] [--kills 5]

The log is served by `budao log serve` in a process of its own; publishers and feed share another, on uvloop when it is there.
`local` is the same log without a server between. The folder is a temporary one, so set TMPDIR to the disk in question.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from budao.aio import ChannelLog, DurableLog, RemoteLog
from budao.push import Appended, Draft, LogAway, Placed, Position

DATA = b'{"text":"' + b"x" * 107 + b'","by":7}'
CHANNELS = 16


class Publisher(Protocol):
    async def publish(self, drafts: Sequence[Draft]) -> Sequence[object]: ...


class Served:
    """A log server in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0

    def start(self) -> float:
        """How long until it listens, in seconds."""
        begun = time.perf_counter()
        command = "import sys; from budao.apps.command import main; sys.exit(main())"
        self.process = subprocess.Popen(
            [sys.executable, "-c", command, "log", "serve", str(self.folder), "--port", str(self.port), "--json"],
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.port = json.loads(self.process.stdout.readline())["port"]
        return time.perf_counter() - begun

    def end(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def quantiles(took_s: list[float]) -> str:
    took_s.sort()
    p50, p99 = (took_s[min(int(len(took_s) * share), len(took_s) - 1)] * 1e3 for share in (0.5, 0.99))
    return f"{p50:>9.2f}{p99:>9.2f}"


async def load(log: Publisher, publishers: int, batch: int, seconds: float) -> tuple[float, list[float]]:
    """Messages a second, and how long each call took."""
    took: list[float] = []
    until = time.perf_counter() + seconds

    async def publish(who: int) -> None:
        drafts = [Draft(f"bench.{who % CHANNELS}", DATA)] * batch
        while (begun := time.perf_counter()) < until:
            await log.publish(drafts)
            took.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*map(publish, range(publishers)))
    return len(took) * batch / (time.perf_counter() - begun), took


async def throughput(log: ChannelLog, name: str, seconds: float, server: Served | None) -> None:
    for publishers, batch in ((1, 1), (8, 1), (64, 1), (256, 1), (8, 64)):
        cpu_s = server.cpu_s() if server is not None else 0.0
        per_s, took = await load(log, publishers, batch, seconds)
        used = "" if server is None else f"{(server.cpu_s() - cpu_s) / (per_s * seconds) * 1e6:>12.1f}"
        print(f"{name:<8}{publishers:>11}{batch:>7}{per_s:>12,.0f}{quantiles(took)}{used}", flush=True)


async def hearing(server: Served, per_s: int, seconds: float) -> None:
    """One publisher at a steady rate, one feed: from the call to the news."""
    async with RemoteLog("127.0.0.1", server.port) as log, log.feed() as feed:
        await feed.follow("heard")
        heard: list[float] = []
        sent: dict[str, float] = {}
        total = int(per_s * seconds)

        async def listen() -> None:
            while len(heard) < total:
                for news in await feed.next():
                    assert isinstance(news, Appended)
                    now = time.perf_counter()
                    heard.extend(now - sent.pop(message.id or "") for message in news.messages)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(listen())
            begun = time.perf_counter()
            number = 0
            while number < total:
                due = min(int((time.perf_counter() - begun) * per_s) + 1, total)
                while number < due:
                    name = f"{begun}-{number}"
                    sent[name] = time.perf_counter()
                    tasks.create_task(log.publish([Draft("heard", DATA, id=name)]))  # type: ignore[arg-type]
                    number += 1
                await asyncio.sleep(0.001)
        print(f"{per_s:>8,}{len(heard) / (time.perf_counter() - begun):>12,.0f}{quantiles(heard)}", flush=True)


async def kills(server: Served, rounds: int) -> tuple[int, int]:
    """How many messages were acknowledged while it was killed again and again, and how many of them are not there."""
    acknowledged: dict[str, Position] = {}
    is_over = False

    async def publish(log: RemoteLog, who: int) -> None:
        number = 0
        while not is_over:
            name = f"{who}-{number}"
            try:
                (placed,) = await log.publish([Draft(f"killed.{who}", DATA, id=name)])
            except LogAway:
                await asyncio.sleep(0.01)
                continue
            assert isinstance(placed, Placed)
            acknowledged[name] = placed.position
            number += 1

    async with RemoteLog("127.0.0.1", server.port) as log:
        publishing = [asyncio.create_task(publish(log, who)) for who in range(16)]
        for _ in range(rounds):
            await asyncio.sleep(0.5)
            server.end(signal.SIGKILL)
            await asyncio.to_thread(server.start)
        is_over = True
        await asyncio.gather(*publishing)
        there: dict[str, Position] = {}
        for who in range(16):
            place = Position("", 0)
            while True:
                stretch = await log.read(f"killed.{who}", place)
                there.update((message.id or "", message.position) for message in stretch.messages)
                if not stretch.more:
                    break
                place = stretch.messages[-1].position
        retained = {name: place for name, place in acknowledged.items() if place.seq > heads(there, name) - 1000}
        return len(acknowledged), sum(there.get(name) != place for name, place in retained.items())


def heads(there: dict[str, Position], name: str) -> int:
    """The head of the channel of a message."""
    who = name.split("-", 1)[0]
    return max(place.seq for each, place in there.items() if each.split("-", 1)[0] == who)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


async def recovery(folder: Path, messages: int) -> None:
    async with DurableLog(folder) as log:
        for at in range(0, messages, 1000):
            await log.publish([Draft(f"bench.{at // 1000 % 128}", DATA)] * 1000)
    began = time.perf_counter()
    async with DurableLog(folder) as log:
        took_s = time.perf_counter() - began
        size = await asyncio.to_thread(size_of, folder)
        print(
            f"recovery of {messages:,} messages ({size / 1e6:.0f} MB on disk): {took_s:.2f} s, {len(log.book)} channels"
        )


async def everything(seconds: float, messages: int, rounds: int) -> None:
    base = Path(tempfile.mkdtemp(prefix="budao-log-"))
    server = Served(base / "served")
    try:
        server.start()
        print(f"{'':<8}{'publishers':>11}{'batch':>7}{'messages/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'server µs':>12}")
        async with DurableLog(base / "local") as local:
            await throughput(local, "local", seconds, None)
        async with RemoteLog("127.0.0.1", server.port, timeout_s=30.0) as log:
            await throughput(log, "remote", seconds, server)
        print(f"\nfrom publish to news, remote\n{'asked/s':>8}{'heard/s':>12}{'p50 ms':>9}{'p99 ms':>9}")
        for per_s in (100, 1_000, 5_000, 10_000):
            await hearing(server, per_s, seconds)
        print()
        await recovery(base / "recovered", messages)
        count, lost = await kills(server, rounds)
        print(f"kill -9, {rounds} times: {count:,} acknowledged, {lost} lost")
        server.end(signal.SIGTERM)
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
        shutil.rmtree(base, ignore_errors=True)


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m bench.channel_log")
    asked.add_argument("--seconds", type=float, default=3.0, help="for each line")
    asked.add_argument("--messages", type=int, default=100_000, help="to be recovered")
    asked.add_argument("--kills", type=int, default=5)
    said = asked.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, data of {len(DATA)} bytes")
    made = everything(said.seconds, said.messages, said.kills)
    try:
        import uvloop
    except ImportError:
        asyncio.run(made)
    else:
        uvloop.run(made)


if __name__ == "__main__":
    main()
