"""SIGKILL instead of SIGTERM: nobody says goodbye, so callers find out and the lease ends."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2

from bench.rolling.fleet import Fleet
from bench.rolling.load import HttpCaller
from budao.adapters.httpx2 import AsyncGuardedTransport, AsyncPoolTransport
from budao.adapters.stores import open_store
from budao.aio import Directory, Pool, StoreServer, StoreSource
from budao.model import BudaoError, GuardPolicy
from budao.protect import Guard

SECONDS_BEFORE = 2.0
SECONDS_AFTER = 6.0


class Noting(httpx2.AsyncHTTPTransport):
    """Notes which port each try goes to, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.tries: list[tuple[float, int | None]] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.tries.append((time.perf_counter(), request.url.port))
        return await super().handle_async_request(request)


@dataclass(slots=True)
class Killed:
    """What came of it. Spans in seconds since the kill."""

    calls: int = 0
    errors: int = 0
    naive: Counter[str] = field(default_factory=Counter)
    tries: list[float] = field(default_factory=list)
    """At the dead instance."""
    lease_end_s: float = 0.0


async def killed(kind: str, rate: float) -> Killed:
    """Kills one of three under load: half from our client with guard and pool, half from one that does without."""
    report = Killed()
    fleet = Fleet(kind, drain=True, lag_s=0.0, grace_s=12.0)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        fleet.url = (await stack.enter_async_context(StoreServer(Path(folder)))).name
        store = open_store(fleet.url)
        stack.push_async_callback(store.aclose)
        source = StoreSource(store)
        stack.push_async_callback(source.aclose)
        running = list(await asyncio.gather(*(fleet.start() for _ in range(3))))
        directory = await stack.enter_async_context(Directory(source, "inventory"))
        while len(directory.roster.endpoints()) < 3:  # noqa: ASYNC110 - all three, and nothing less
            await asyncio.sleep(0.05)
        noting = Noting()
        guarded = AsyncGuardedTransport(
            Guard("inventory", policy=GuardPolicy()), AsyncPoolTransport(Pool(directory), noting)
        )
        client = await stack.enter_async_context(httpx2.AsyncClient(transport=guarded))
        naive = HttpCaller(directory, rate / 2, report.naive)
        stack.push_async_callback(naive.aclose)

        async def call() -> None:
            report.calls += 1
            try:
                report.errors += (await client.get("http://inventory/")).status_code != 200
            except (httpx2.HTTPError, BudaoError):
                report.errors += 1

        async def load() -> None:
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with asyncio.TaskGroup() as tasks:
                for number in itertools.count():
                    due = began + number * 2 / rate
                    if due > began + SECONDS_BEFORE + SECONDS_AFTER:
                        return
                    await asyncio.sleep(max(0.0, due - loop.time()))
                    tasks.create_task(call())

        loading = [asyncio.create_task(load()), asyncio.create_task(naive.run())]
        await asyncio.sleep(SECONDS_BEFORE)
        dead = running[0]
        dead.process.send_signal(signal.SIGKILL)
        at = time.perf_counter()
        while any(each.id == dead.id for each in directory.roster.instances):  # noqa: ASYNC110 - looks often
            await asyncio.sleep(0.005)
        report.lease_end_s = time.perf_counter() - at
        await loading[0]
        loading[1].cancel()
        await asyncio.gather(*loading, return_exceptions=True)
        report.tries = [when - at for when, port in noting.tries if port == dead.port and when > at]
        for each in running:
            with suppress(ProcessLookupError):
                each.process.kill()
            await each.process.wait()
    return report


def lines(kind: str, report: Killed) -> list[Any]:
    after = [when for when in report.tries if when > report.lease_end_s]
    last_s = max(report.tries, default=0.0)
    return [
        f"{kind}, one of three instances killed by SIGKILL; lease of 3 s, renewed every second",
        f"  guard and pool   {report.calls} calls, {report.errors} errors seen by callers",
        f"  without          {sum(report.naive.values())} calls, {report.naive['refused']} refused, {report.naive['lost']} lost",
        f"  tries at the dead instance {len(report.tries)}, the last {last_s:.3f} s after the kill",
        f"  lease ended {report.lease_end_s:.2f} s after the kill; tries after that: {len(after)}",
    ]
