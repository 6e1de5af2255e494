"""What looking after 20,000 connections costs: heartbeats, TCP_INFO, scores. The bar is 5 % of a core.

    python -m bench.health [--connections 20000] [--active 2000] [--seconds 20] [--uvloop]

Real connections on loopback, their other ends in a process of their own, which answers pings (a WebSocket's would be answered by a
browser; here it is a line of bytes) and reads what it is sent. `--active` of them are sent 128 bytes four times a second each by a loop that is measured without a watch first; what
the watch adds is the difference, with the answers to its pings. `in the ticks` is what it spent itself: pings, looks, scores. On a
machine that is busy with other things, trust that one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import selectors
import signal
import socket
import time
from random import Random
from typing import Any

from budao.aio.gateway.sampler import Watch, WatchPolicy
from budao.aio.gateway.vital import Vital
from budao.measure import Histogram

SOURCES = 200
"""Loopback addresses the clients come from, since one has too few ports."""
LINE = b"x" * 128


class Served(asyncio.Protocol):
    """A connection that does no more than it must."""

    __slots__ = ("everybody", "health", "transport", "why")

    def __init__(self, everybody: dict[Served, None]) -> None:
        self.everybody = everybody
        self.health: Vital | None = None
        self.why = ""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.everybody[self] = None

    def data_received(self, _: bytes) -> None:
        if self.health is not None:
            self.health.is_heard = True

    def connection_lost(self, _: Exception | None) -> None:
        self.everybody.pop(self, None)

    @property
    def socket(self) -> Any:
        return self.transport.get_extra_info("socket")

    @property
    def peer(self) -> str:
        return str(self.transport.get_extra_info("peername")[0])

    def queued_bytes(self) -> int:
        return int(self.transport.get_write_buffer_size())

    def ping(self, number: int) -> None:
        self.transport.write(b"?%d" % number)

    def park(self) -> None: ...
    def unpark(self) -> None: ...
    def close(self, why: str) -> None: ...
    def cut(self, why: str) -> None: ...


def clients(port: int, count: int) -> None:
    """The other ends, in a process of their own: read everything, answer what begins with a question mark."""
    selector = selectors.DefaultSelector()
    for number in range(count):
        link = socket.socket()
        link.bind((f"127.0.{1 + number % SOURCES // 100}.{1 + number % 100}", 0))
        link.connect(("127.0.0.1", port))
        link.setblocking(False)
        selector.register(link, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            link = key.fileobj  # type: ignore[assignment]
            try:
                data = link.recv(65536)
                if data.startswith(b"?"):
                    link.send(b"!")
                elif not data:
                    selector.unregister(link)
            except OSError:
                selector.unregister(link)


async def measure(arguments: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    everybody: dict[Served, None] = {}
    server = await loop.create_server(lambda: Served(everybody), "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    child = os.fork()
    if child == 0:
        try:
            clients(port, arguments.connections)
        finally:
            os._exit(0)
    try:
        while len(everybody) < arguments.connections:  # noqa: ASYNC110 - nobody else would set an event
            await asyncio.sleep(0.1)
        active = list(everybody)[: arguments.active]

        async def send() -> None:
            """Each of the active ones four times a second, spread over twenty slices."""
            turn = 0
            due = loop.time()
            while True:
                for each in active[turn % 5 :: 5]:
                    each.transport.write(LINE)
                turn += 1
                due += 0.05
                await asyncio.sleep(max(0.0, due - loop.time()))

        async def share(seconds: float) -> float:
            cpu, at = time.process_time(), time.perf_counter()
            await asyncio.sleep(seconds)
            return (time.process_time() - cpu) / (time.perf_counter() - at)

        sending = asyncio.create_task(send())
        await asyncio.sleep(1.0)
        without = await share(arguments.seconds)
        scores = Histogram(units_per_s=1)
        watch = Watch(WatchPolicy(), rng=Random(1), scores=scores)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        watch.start()
        for each in everybody:
            watch.join(each)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await asyncio.sleep(watch.policy.heartbeat.quiet_s)  # until the first pings are spread
        looks, pings, busy, at = watch.looks, watch.heartbeats.pings, watch.busy_s, time.perf_counter()
        with_watch = await share(arguments.seconds)
        took = time.perf_counter() - at
        ticks = (watch.busy_s - busy) / took
        watch.stop()
        sending.cancel()
        print(
            f"connections {len(everybody)}, active {arguments.active}, {type(loop).__module__}, {arguments.seconds} s each"
        )
        print(f"  looks/s {(watch.looks - looks) / took:8.0f}   pings/s {(watch.heartbeats.pings - pings) / took:6.0f}")
        print(
            f"  CPU of a core: without {without:6.2%}, with {with_watch:6.2%}, difference {with_watch - without:6.2%};"
            f" in the ticks {ticks:6.2%}"
        )
        print(
            f"  KiB per connection {(after - before) / len(everybody):.2f}, late pings {watch.heartbeats.late},"
            f" median score {scores.quantile(0.5)}, doubtful {watch.counts()['doubtful']}"
        )
        server.close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)  # noqa: ASYNC222 - it was killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=19_900)
    parser.add_argument("--active", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--uvloop", action="store_true")
    arguments = parser.parse_args()
    if arguments.uvloop:
        import uvloop

        uvloop.run(measure(arguments))
    else:
        asyncio.run(measure(arguments))


if __name__ == "__main__":
    main()
