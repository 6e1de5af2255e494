"""The balancers over real sockets: the same `Pool` that services use, against 20 servers, two of them slow.

    python -m bench.balancing_live [--span 8] [--warm 4] [--load 0.8] [--seed 1] [--clients 10] [--policies live-cost,...]
                                   [--failing-only | --healthy-only] [--json]

The model is that of `bench.balancers` without antagonists, slowed down so that two cores shared by servers and clients can
carry it. All 20 servers live in one child process, each on a port of its own: 4 workers, one first-come queue, a call
takes a worker for a lognormal time (mean 80 ms, sigma 0.7) on a timer, two servers take three times as long. Each reply
tells its server's load, measured by our own `LoadMeter`. Calls come as one Poisson stream at `--load` of what the servers
can do; each falls to one of the clients, which have a pool each and share the connections. No retries.

In the second table, server 7 answers 503 at once to every call and does no work.

The words of the table: times in ms from pick to reply over the calls that went well; "errors" is the share of all calls
that were answered 503; "late" the 99th percentile of how much later than planned calls were sent: a large number there
says that the machine was too busy to measure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import exp
from random import Random
from typing import Any

from budao.aio import Pool
from budao.discovery import LoadMeter, balancer
from budao.model import Endpoint
from budao.wire import LOAD, format_load, parse_load

SERVERS, WORKERS, SLOW, SLOW_TIMES, FAILING = 20, 4, (3, 11), 3.0, 7
MEAN_S, SIGMA = 0.080, 0.7
POLICIES = ("live-cost", "round-robin", "least-request", "peak-ewma", "prequal")
_HEADER = f"\r\n{LOAD}: ".encode()


# -- servers


class Server:
    """Workers, a queue, and a meter."""

    def __init__(self, index: int, rng: Random, *, fails: bool) -> None:
        self.mean_s = MEAN_S * (SLOW_TIMES if index in SLOW else 1.0)
        self.rng = rng
        self.fails = fails
        self.meter = LoadMeter()
        self.free = WORKERS
        self.queue: deque[tuple[Any, Any]] = deque()
        self.loop = asyncio.get_running_loop()

    def ask(self, transport: Any) -> None:
        work = self.meter.begin(time.perf_counter())
        if self.fails:
            load = format_load(self.meter.load() or self.nothing()).encode()
            self.meter.end(work)
            transport.write(b"HTTP/1.1 503 No\r\ncontent-length: 0" + _HEADER + load + b"\r\n\r\n")
            return
        work.wait(time.perf_counter())
        self.queue.append((transport, work))
        self.next()

    def nothing(self) -> Any:
        return parse_load("in-flight=0;service-ms=0")

    def next(self) -> None:
        while self.free and self.queue:
            transport, work = self.queue.popleft()
            self.free -= 1
            work.go_on(time.perf_counter())
            spans = self.mean_s * exp(self.rng.gauss(-SIGMA * SIGMA / 2, SIGMA))
            self.loop.call_later(spans, self.done, transport, work)

    def done(self, transport: Any, work: Any) -> None:
        self.meter.learn(work, time.perf_counter())
        load = self.meter.load()
        assert load is not None
        self.meter.end(work)
        transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0" + _HEADER + format_load(load).encode() + b"\r\n\r\n")
        self.free += 1
        self.next()


class Asked(asyncio.Protocol):
    """One connection to a server; a client sends one request at a time."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.rest = b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.rest += data
        while (end := self.rest.find(b"\r\n\r\n")) >= 0:
            self.rest = self.rest[end + 4 :]
            self.server.ask(self.transport)


async def serve(seed: int, *, fails: bool) -> None:
    loop = asyncio.get_running_loop()
    listening = []
    for index in range(SERVERS):
        server = Server(index, Random(seed * 1000 + index), fails=fails and index == FAILING)
        listening.append(await loop.create_server(lambda server=server: Asked(server), "127.0.0.1", 0))
    print(json.dumps([each.sockets[0].getsockname()[1] for each in listening]), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


# -- clients


class Line(asyncio.Protocol):
    """One connection of the clients."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] | None = None
        self.transport: Any = None
        self.rest = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.rest += data
        if self.rest.endswith(b"\r\n\r\n") and self.answer is not None and not self.answer.done():
            self.answer.set_result(self.rest)
            self.rest = b""

    def connection_lost(self, error: Exception | None) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(error or ConnectionResetError("closed"))


class Lines:
    """Connections by port, kept."""

    def __init__(self) -> None:
        self.idle: dict[int, list[Line]] = {}

    async def ask(self, endpoint: Endpoint) -> bytes:
        loop = asyncio.get_running_loop()
        idle = self.idle.setdefault(endpoint.port, [])
        line = idle.pop() if idle else (await loop.create_connection(Line, endpoint.host, endpoint.port))[1]
        line.answer = loop.create_future()
        line.transport.write(b"GET / HTTP/1.1\r\nhost: inventory\r\n\r\n")
        reply = await line.answer
        idle.append(line)
        return reply

    def close(self) -> None:
        for idle in self.idle.values():
            for line in idle:
                line.transport.abort()


@dataclass
class Result:
    policy: str
    calls: int
    p50: float
    p99: float
    p999: float
    errors: float
    late: float
    left: int


async def drive(policy: str, ports: Sequence[int], options: argparse.Namespace) -> Result:
    rng = Random(options.seed)
    endpoints = [Endpoint(id=f"s{index:02}", host="127.0.0.1", port=port) for index, port in enumerate(ports)]
    pools = [
        Pool(endpoints, balancer=balancer(policy, rng=Random(options.seed * 100 + each)), service="inventory")
        for each in range(options.clients)
    ]
    lines = Lines()
    took: list[float] = []
    late: list[float] = []
    failed = count = 0
    began = time.perf_counter()
    measured_from = began + options.warm

    async def call(pool: Pool, due: float) -> None:
        nonlocal failed, count
        picked = pool.pick()
        reply = await lines.ask(picked.endpoint)
        at = reply.rindex(_HEADER)
        bad = not reply.startswith(b"HTTP/1.1 200")
        load = parse_load(reply[at + len(_HEADER) : -4].decode())
        pool.settle(picked, failed=bad, load=load)
        if due >= measured_from:
            count += 1
            if bad:
                failed += 1
            else:
                took.append(time.perf_counter() - picked.since)

    capacity = sum(WORKERS / (MEAN_S * (SLOW_TIMES if index in SLOW else 1.0)) for index in range(SERVERS))
    rate = capacity * options.load
    due, end = began, began + options.warm + options.span
    async with asyncio.TaskGroup() as tasks:
        while due < end:
            due += rng.expovariate(rate)
            wait = due - time.perf_counter()
            if wait > 0.001:
                await asyncio.sleep(wait)
            if due >= measured_from:
                late.append(max(0.0, time.perf_counter() - due))
            tasks.create_task(call(pools[rng.randrange(len(pools))], due))
            if wait <= -0.01:
                await asyncio.sleep(0)
    lines.close()
    left = sum(pool.in_flight for pool in pools)
    return Result(
        policy, count, 1e3 * at(took, 0.5), 1e3 * at(took, 0.99), 1e3 * at(took, 0.999), failed / max(count, 1),
        1e3 * at(late, 0.99), left,
    )  # fmt: skip


def at(values: list[float], share: float) -> float:
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else 0.0


def run(policy: str, options: argparse.Namespace, *, fails: bool) -> Result:
    command = [sys.executable, "-m", "bench.balancing_live", "--serve", "--seed", str(options.seed)]
    child = subprocess.Popen(
        command + (["--failing-only"] if fails else []), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        return asyncio.run(drive(policy, json.loads(child.stdout.readline()), options))
    finally:
        child.kill()
        child.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--span", type=float, default=8.0)
    parser.add_argument("--warm", type=float, default=4.0)
    parser.add_argument("--load", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--failing-only", action="store_true")
    parser.add_argument("--healthy-only", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.seed, fails=options.failing_only))
        return
    tables: dict[str, list[Result]] = {}
    for name, fails in (("two slow servers", False), ("two slow servers and one that fails at once", True)):
        if (fails and options.healthy_only) or (not fails and options.failing_only):
            continue
        tables[name] = []
        if not options.json:
            print(f"\n{name}, load {options.load:.0%}, {options.clients} clients, seed {options.seed}")
            print(f"{'policy':<16}{'calls':>8}{'p50':>8}{'p99':>8}{'p999':>8}{'errors':>9}{'late':>7}")
        for policy in options.policies.split(","):
            result = run(policy, options, fails=fails)
            tables[name].append(result)
            if not options.json:
                print(
                    f"{policy:<16}{result.calls:>8}{result.p50:>8.0f}{result.p99:>8.0f}{result.p999:>8.0f}"
                    f"{result.errors:>9.2%}{result.late:>7.1f}",
                    flush=True,
                )
    if options.json:
        print(json.dumps({name: [asdict(each) for each in results] for name, results in tables.items()}))
    else:
        print(f"\n{platform.machine()}, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
