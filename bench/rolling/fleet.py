"""The instances of one server, restarted one after the other while they are called."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.rolling.load import CALLERS, Caller, HttpCaller, Late
from budao.adapters.registration import answers
from budao.adapters.stores import open_store
from budao.aio import Directory, Registrar, Store, StoreServer, StoreSource
from budao.discovery import Address, Instance
from tests.live.servers_http import free_port

PATIENCE_S = 30.0
LOOK_S = 0.05


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

    def __init__(self, kind: str, drain: bool, *, lag_s: float, grace_s: float, size: int = 3) -> None:
        self.kind, self.drain, self.lag_s, self.grace_s, self.size = kind, drain, lag_s, grace_s, size
        self.report = Report(kind, drain)
        self.url = ""
        self.store: Store

    async def start(self) -> Running:
        port = free_port()
        order = {
            "kind": self.kind, "port": port, "store": self.url,
            "drain": self.drain, "grace_s": self.grace_s, "lag_s": self.lag_s,
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.rolling.service", json.dumps(order), stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(PATIENCE_S):
            await answers("127.0.0.1", port)
        running = Running(f"{self.kind}-{port}", port, process)
        if not self.drain:
            instance = Instance(service="inventory", id=running.id, addresses={"http": Address("127.0.0.1", port)})
            running.registrar = await Registrar(self.store, instance).__aenter__()
        return running

    async def restart(self, old: Running, callers: list[Caller]) -> Running:
        new = await self.start()
        async with asyncio.timeout(PATIENCE_S):
            while not all(any(each.id == new.id for each in caller.endpoints()) for caller in callers):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)
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

    async def roll(self, rate: float, silent: Sequence[bool] = (False, True)) -> Report:
        """Restarts each once; there is a caller for each of `silent`, which says whether it cannot acknowledge."""
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(TemporaryDirectory())
            server = await stack.enter_async_context(StoreServer(Path(folder)))
            self.url = server.name
            self.store = open_store(self.url)
            stack.push_async_callback(self.store.aclose)
            source = StoreSource(self.store)
            stack.push_async_callback(source.aclose)
            fleet = list(await asyncio.gather(*(self.start() for _ in range(self.size))))
            callers: list[Caller] = []
            for index, is_silent in enumerate(silent):
                late = Late(source, self.lag_s, silent=is_silent)
                directory = await stack.enter_async_context(Directory(late, "inventory", watcher=f"caller-{index}"))
                callers.append(CALLERS.get(self.kind, HttpCaller)(directory, rate / len(silent), self.report.counts))
                stack.push_async_callback(callers[-1].aclose)
            while not all(len(caller.endpoints()) == self.size for caller in callers):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)
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
