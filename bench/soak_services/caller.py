"""One client of the service, as a program: a directory, a pool, a guard, and calls at a steady rate.

It prints a line of JSON for each call that failed, and one on how it does four times a second.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

from bench.soak_services.service import SERVICE, Work
from budao import Guard, Latency
from budao.adapters.stores import open_store
from budao.aio import Directory, Pool, StoreSource
from budao.discovery import DirectoryPolicy
from budao.model import RetryPolicy, TimeoutPolicy
from budao.protect import LiveSettings
from budao.settings import typed

POSTS_SHARE = 0.2
TELL_S = 0.25
URL = f"http://{SERVICE}/work"


class Httpx:
    """Calls through httpx, or a library of its family."""

    def __init__(self, library: str, guard: Guard, pool: Pool) -> None:
        if library == "httpx":
            import httpx as http

            from budao.adapters import httpx as ours
        else:
            import httpx2 as http  # type: ignore[no-redef]

            from budao.adapters import httpx2 as ours  # type: ignore[no-redef]
        transport = ours.AsyncGuardedTransport(guard, ours.AsyncPoolTransport(pool))
        self._client = http.AsyncClient(transport=transport)

    async def call(self, method: str, query: str) -> int:
        return (await self._client.request(method, f"{URL}?{query}")).status_code

    async def aclose(self) -> None:
        await self._client.aclose()


class Aiohttp:
    """Calls through aiohttp."""

    def __init__(self, guard: Guard, pool: Pool) -> None:
        import aiohttp

        from budao.adapters.aiohttp import guard_middleware, pool_middleware

        self._session = aiohttp.ClientSession(middlewares=[guard_middleware(guard), pool_middleware(pool)])

    async def call(self, method: str, query: str) -> int:
        async with self._session.request(method, f"{URL}?{query}") as response:
            await response.read()
            return response.status

    async def aclose(self) -> None:
        await self._session.close()


class Caller:
    """Calls until it is told to stop."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.name = order["name"]
        self.rate = order["rate"]
        self.rng = Random(order["seed"])
        self.counts: Counter[str] = Counter()
        self.calls: set[asyncio.Task[None]] = set()
        self.slowest_s = 0.0
        self.stopping = asyncio.Event()
        self.library = order["library"]
        self.url = order["store"]

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stopping.set)
        async with AsyncExitStack() as stack:
            store = open_store(self.url)
            stack.push_async_callback(store.aclose)
            source = StoreSource(store)
            stack.push_async_callback(source.aclose)
            live = await stack.enter_async_context(
                LiveSettings(partial(typed, Work), environ={}, store=store, name="soak")
            )
            directory = await stack.enter_async_context(
                Directory(source, SERVICE, watcher=self.name, policy=DirectoryPolicy(doubt_hold_s=8.0))
            )
            await directory.ready()
            pool = Pool(directory, rng=Random(self.rng.random()))
            guard = Guard("soak", objective=Latency(0.99, under_s=1.0))
            # A frozen instance is left after a second; what may be repeated then goes elsewhere.
            policy = replace(
                guard.policy,
                timeout=TimeoutPolicy(call_s=1.0, total_s=4.0),
                retry=RetryPolicy(attempts_max=3, pause_first_s=0.02),
                hedge=guard.policy.hedge if self.library == "httpx2" else None,
            )
            guard.obey(policy)
            client = Aiohttp(guard, pool) if self.library == "aiohttp" else Httpx(self.library, guard, pool)
            stack.push_async_callback(client.aclose)
            telling = asyncio.create_task(self._tell(directory, live, pool))
            due = loop.time()
            while not self.stopping.is_set():
                task = asyncio.create_task(self._call(client))
                self.calls.add(task)
                task.add_done_callback(self.calls.discard)
                due = max(due + self.rng.expovariate(self.rate), loop.time() - 0.05)
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self.stopping.wait()
            await asyncio.gather(*self.calls)
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
        gc.collect()
        await asyncio.sleep(0.1)
        left = {"tasks": len(asyncio.all_tasks()) - 1, "in flight": pool.in_flight}
        say("end", left={what: count for what, count in left.items() if count}, problems=pool.explain())

    async def _call(self, client: Httpx | Aiohttp) -> None:
        self.counts["calls"] += 1
        method = "POST" if self.rng.random() < POSTS_SHARE else "GET"
        query = f"{self.name}-{self.counts['calls']}"
        began = time.monotonic()
        try:
            status = await client.call(method, query)
            problem = "" if status == 200 else f"status {status}"
        except Exception as error:  # noqa: BLE001 - every one is told, and judged by who knows what was done when
            problem = f"{type(error).__name__}: {error}"[:300]
        ended = time.monotonic()
        self.slowest_s = max(self.slowest_s, ended - began)
        if problem:
            self.counts["errors"] += 1
            say("error", name=self.name, method=method, query=query, began=began, ended=ended, problem=problem)

    async def _tell(self, directory: Directory, live: LiveSettings[Work], pool: Pool) -> None:
        while True:
            roster = directory.roster
            say(
                "state",
                name=self.name,
                at=time.monotonic(),
                ready=[each.id for each in roster.instances if each.stage.value == "ready"],
                other=[each.id for each in roster.instances if each.stage.value != "ready"],
                doubted=sorted(roster.doubted),
                stale=roster.stale_since is not None,
                settings=live.value.number,
                calls=self.counts["calls"],
                in_flight=pool.in_flight,
                tasks=len(asyncio.all_tasks()) - len(self.calls),
                slowest_s=self.slowest_s,
            )
            self.slowest_s = 0.0
            await asyncio.sleep(TELL_S)


def say(kind: str, **what: Any) -> None:
    """One line for the driver."""
    sys.stdout.write(json.dumps({"kind": kind, **what}) + "\n")
    sys.stdout.flush()


def main(order: dict[str, Any]) -> None:
    """Runs one caller."""
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR, format="%(name)s %(message)s")
    asyncio.run(Caller(order).run())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
