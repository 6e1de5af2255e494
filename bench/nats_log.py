"""The log in NATS JetStream: publishes a second, how long one takes, how soon a feed hears of it; and a cluster that loses its leader.

    python -m bench.nats_log [--seconds 3] [--binary nats-server]
    python -m bench.nats_log --cluster 3 --binary nats-server      2.9.21 or newer; the leader of the stream is killed each time

Servers run on loopback in a temporary folder, so set TMPDIR to the disk in question. NATS acknowledges a message once it is
written, and calls fsync every two minutes unless its `sync_interval` says otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.channel_log import DATA, quantiles
from budao.adapters.nats import NatsLog, StreamPolicy, Where
from budao.push import START, Appended, ChannelPolicy, ChannelRules, Draft, LogAway, Placed, Position, follows
from tests.live.nats_server import NatsServer, nats_cluster

KEPT = ChannelRules(otherwise=ChannelPolicy(history_count=1_000_000, history_bytes=1024**3))


def log_at(servers: Sequence[NatsServer], **settings: int) -> NatsLog:
    where = Where(servers=tuple(("127.0.0.1", server.port) for server in servers))
    return NatsLog(where, rules=KEPT, policy=StreamPolicy(**settings), timeout_s=30.0)  # type: ignore[arg-type]


async def throughput(log: NatsLog, channels: int, publishers: int, batch: int, seconds: float, *, has_id: bool) -> None:
    took: list[float] = []
    until = time.perf_counter() + seconds

    async def publish(who: int) -> None:
        channel, number = f"bench.{channels}.{who % channels}", 0
        while (begun := time.perf_counter()) < until:
            number += 1
            name = f"{begun}-{who}-" if has_id else None
            drafts = [Draft(channel, DATA, id=name and f"{name}{index}") for index in range(batch)]
            await log.publish(drafts)
            took.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*map(publish, range(publishers)))
    per_s = len(took) * batch / (time.perf_counter() - begun)
    print(f"{channels:>9}{publishers:>11}{batch:>7}{has_id!s:>7}{per_s:>12,.0f}{quantiles(took)}", flush=True)


async def hearing(log: NatsLog, channels: int, per_s: int, seconds: float) -> None:
    """A steady rate, one feed: from the call to the news."""
    async with log.feed() as feed:
        names = [f"heard.{channels}.{per_s}.{index}" for index in range(channels)]
        for name in names:
            await feed.follow(name)
        heard: list[float] = []
        sent: dict[str, float] = {}
        total = int(per_s * seconds)

        async def listen() -> None:
            while len(heard) < total:
                for news in await feed.next():
                    assert isinstance(news, Appended), news
                    now = time.perf_counter()
                    heard.extend(now - sent.pop(message.trace or "") for message in news.messages)

        async def publish(draft: Draft) -> None:
            await log.publish([draft])

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(listen())
            begun = time.perf_counter()
            number = 0
            while number < total:
                due = min(int((time.perf_counter() - begun) * per_s) + 1, total)
                while number < due:
                    mark = str(number)
                    sent[mark] = time.perf_counter()
                    tasks.create_task(publish(Draft(names[number % channels], DATA, trace=mark)))
                    number += 1
                await asyncio.sleep(0.001)
        print(
            f"{channels:>9}{per_s:>9,}{len(heard) / (time.perf_counter() - begun):>12,.0f}{quantiles(heard)}",
            flush=True,
        )


async def one_server(binary: str, seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="budao-nats-") as folder:
        server = NatsServer(Path(folder), binary=binary)
        server.start()
        try:
            async with log_at([server]) as log:
                await log.publish([Draft("warm", DATA)])
                print(f"nats-server {'.'.join(map(str, log.link.version))}")
                print(
                    f"{'channels':>9}{'publishers':>11}{'batch':>7}{'ids':>7}{'messages/s':>12}{'p50 ms':>9}{'p99 ms':>9}"
                )
                for channels, publishers, batch, has_id in (
                    (1, 1, 1, False),
                    (1, 64, 1, False),
                    (1, 64, 1, True),
                    (64, 64, 1, False),
                    (64, 64, 1, True),
                    (64, 64, 16, False),
                ):
                    await throughput(log, channels, publishers, batch, seconds, has_id=has_id)
                print(f"\nfrom publish to news\n{'channels':>9}{'asked/s':>9}{'heard/s':>12}{'p50 ms':>9}{'p99 ms':>9}")
                for channels, per_s in ((1, 100), (1, 1_000), (64, 1_000), (64, 4_000)):
                    await hearing(log, channels, per_s, seconds)
        finally:
            server.kill()


async def cluster(binary: str, rounds: int) -> None:
    """Publishes to three channels while the leader of their stream is killed again and again; everything is checked."""
    with (
        tempfile.TemporaryDirectory(prefix="budao-nats-") as folder,
        nats_cluster(Path(folder), binary=binary) as servers,
    ):
        done: dict[str, Position] = {}
        places = dict.fromkeys("abc", START)
        is_over = False

        async def publish(log: NatsLog, channel: str) -> None:
            number = 0
            while not is_over:
                name = f"{channel}{number}"
                try:
                    (placed,) = await log.publish([Draft(channel, name.encode(), id=name)])
                except LogAway:
                    continue
                assert isinstance(placed, Placed)
                done[name] = placed.position
                number += 1
                await asyncio.sleep(0.002)

        async with log_at(servers, replicas=3) as log, log_at(servers[::-1], replicas=3) as other, other.feed() as feed:
            for channel in "abc":
                await feed.follow(channel)

            async def listen() -> None:
                while True:
                    for news in await feed.next():
                        for message in news.messages if isinstance(news, Appended) else ():
                            assert follows(places[message.channel], message.position)
                            places[message.channel] = message.position

            async def until(count: int) -> None:
                while len(done) < count:  # noqa: ASYNC110 - a bench may look
                    await asyncio.sleep(0.005)

            listening = asyncio.create_task(listen())
            publishing = [asyncio.create_task(publish(log, channel)) for channel in "abc"]
            for _ in range(rounds):
                await until(len(done) + 100)
                leader = (await log.keeper.api(f"STREAM.INFO.{log.policy.stream}"))["cluster"]["leader"]
                victim = next(server for server in servers if server.name == leader)
                before, begun = len(done), time.perf_counter()
                victim.kill()
                await until(before + 20)
                print(
                    f"leader {leader} killed; publishing went on after {time.perf_counter() - begun:.2f} s", flush=True
                )
                victim.start()
                await asyncio.sleep(3.0)
            is_over = True
            await asyncio.gather(*publishing)
            wrong = 0
            for channel in "abc":
                stretch = await log.read(channel, START, count_max=1_000_000, bytes_max=1024**3)
                wrong += sum(
                    message.data != b"%s%d" % (channel.encode(), index)
                    for index, message in enumerate(stretch.messages)
                )
                wrong += sum(
                    done.get(message.id or "", message.position) != message.position for message in stretch.messages
                )
                async with asyncio.timeout(30.0):
                    while places[channel] != stretch.head:  # noqa: ASYNC110 - a bench may look
                        await asyncio.sleep(0.01)
            listening.cancel()
            print(
                f"{len(done):,} acknowledged, {wrong} lost, doubled or out of order; the feed told all of them in order"
            )


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m bench.nats_log")
    asked.add_argument("--seconds", type=float, default=3.0, help="for each line")
    asked.add_argument("--binary", default="nats-server")
    asked.add_argument(
        "--cluster",
        type=int,
        default=0,
        metavar="KILLS",
        help="instead: three servers, of which one is killed so often",
    )
    said = asked.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, data of {len(DATA)} bytes")
    made = cluster(said.binary, said.cluster) if said.cluster else one_server(said.binary, said.seconds)
    try:
        import uvloop
    except ImportError:
        asyncio.run(made)
    else:
        uvloop.run(made)


if __name__ == "__main__":
    main()
