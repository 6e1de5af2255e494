"""Rolling restarts under load, with endpoint news that travel for two seconds: bare servers beside the drain.

    python -m bench.rolling [uvicorn hypercorn granian grpc.aio] [--rate 300] [--lag 2]

Three instances of each server, each restarted once by SIGTERM: the new one comes first, as in a rolling update. Nobody
retries. Half of the calls come from a directory that acknowledges (two seconds late, too), half from one that cannot. A
bare server is registered and taken off by the bench, at the moment of the signal, as a cluster does with a pod. The two
ways run side by side, on real processes and sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import signal
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from bench.rolling.load import CALLERS, HttpCaller, Late
from bench.rolling.shared_store import shared
from budao.adapters.registration import answers
from budao.aio import Directory, MemoryStore, Registrar, StoreSource
from budao.discovery import Address, Instance
from tests.live.servers_http import free_port

INSTANCES = 3
GRACE_S = 12.0


@dataclass(slots=True)
class Running:
    id: str
    port: int
    process: asyncio.subprocess.Process
    registrar: Registrar | None = None


@dataclass(slots=True)
class Report:
    kind: str
    drain: bool
    counts: Counter[str] = field(default_factory=Counter)
    exits_s: list[float] = field(default_factory=list)
    proofs: list[str] = field(default_factory=list)


class Fleet:
    """The instances of one server, run one way."""

    def __init__(self, kind: str, drain: bool, lag_s: float) -> None:
        self.kind, self.drain, self.lag_s = kind, drain, lag_s
        self.store = MemoryStore()
        self.source = StoreSource(self.store)
        self.report = Report(kind, drain)
        self.shared_port = 0

    async def start(self) -> Running:
        port = free_port()
        order = {
            "kind": self.kind, "port": port, "store": self.shared_port,
            "drain": self.drain, "grace_s": GRACE_S, "lag_s": self.lag_s,
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.rolling.service", json.dumps(order), stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(30):
            await answers("127.0.0.1", port)
        running = Running(f"{self.kind}-{port}", port, process)
        if not self.drain:
            instance = Instance(service="inventory", id=running.id, addresses={"http": Address("127.0.0.1", port)})
            running.registrar = await Registrar(self.store, instance).__aenter__()
        return running

    async def restart(self, old: Running, callers: list[Any]) -> Running:
        new = await self.start()
        async with asyncio.timeout(30):
            while not all(any(each.id == new.id for each in caller.endpoints()) for caller in callers):
                await asyncio.sleep(0.05)
        began = time.perf_counter()
        old.process.send_signal(signal.SIGTERM)
        if old.registrar is not None:
            await old.registrar.__aexit__(None, None, None)
        assert old.process.stderr is not None
        said = (await old.process.stderr.read()).decode()
        await old.process.wait()
        self.report.exits_s.append(time.perf_counter() - began)
        self.report.proofs += [line for line in said.splitlines() if line.startswith("drained")]
        if not self.drain or not self.report.proofs:
            await asyncio.sleep(self.lag_s)  # what is lost now belongs to this restart
        return new

    async def roll(self, rate: float) -> Report:
        async with AsyncExitStack() as stack:
            self.shared_port = await stack.enter_async_context(shared(self.store))
            stack.push_async_callback(self.source.aclose)
            fleet = [await self.start() for _ in range(INSTANCES)]
            callers = []
            for index, silent in enumerate((False, True)):
                late = Late(self.source, self.lag_s, silent=silent)
                directory = await stack.enter_async_context(Directory(late, "inventory", watcher=f"caller-{index}"))
                callers.append(CALLERS.get(self.kind, HttpCaller)(directory, rate / 2, self.report.counts))
                stack.push_async_callback(callers[-1].aclose)
            while not all(len(caller.endpoints()) == INSTANCES for caller in callers):
                await asyncio.sleep(0.05)
            tasks = [asyncio.create_task(caller.run()) for caller in callers]
            for index, old in enumerate(list(fleet)):
                fleet[index] = await self.restart(old, callers)
            await asyncio.sleep(0.5)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for running in fleet:
                # A bare Granian is two processes: killed, the first would leave the second behind.
                running.process.kill() if self.drain else running.process.terminate()
                await running.process.wait()
                if running.registrar is not None:
                    await running.registrar.__aexit__(None, None, None)
        return self.report


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.rolling")
    parser.add_argument("kinds", nargs="*", default=["uvicorn", "hypercorn", "granian", "grpc.aio"])
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--lag", type=float, default=2.0)
    asked = parser.parse_args()
    print(
        f"Python {platform.python_version()}, {asked.rate:g} calls/s over {INSTANCES} instances, each restarted once; no retries"
    )
    print(f"endpoint lag {asked.lag:g} s, grace {GRACE_S:g} s\n")
    print(f"{'server':<10} {'end':<6} {'refused':>8} {'lost':>6} {'nobody':>7} {'ok':>7}   exit after SIGTERM, s")
    for kind in asked.kinds:
        for report in await asyncio.gather(
            *(Fleet(kind, drain, asked.lag).roll(asked.rate) for drain in (False, True))
        ):
            counts = report.counts
            exits = " ".join(f"{each:.2f}" for each in report.exits_s)
            print(
                f"{kind:<10} {'drain' if report.drain else 'bare':<6} {counts['refused']:>8} {counts['lost']:>6}"
                f" {counts['nobody']:>7} {counts['ok']:>7}   {exits}",
                flush=True,
            )
            if report.proofs:
                print(f"    {report.proofs[-1]}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
