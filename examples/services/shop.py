"""Asks "stock" fifty times a second, wherever it is, and says once a second who answered.

python examples/services/shop.py
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import aclosing, suppress

import httpx2

from budao import Guard, Latency
from budao.adapters.httpx2 import AsyncGuardedTransport, AsyncPoolTransport
from budao.adapters.stores import open_store
from budao.aio import Directory, Pool, StoreSource

STORE = os.environ.get("BUDAO_STORE", "budao://127.0.0.1:7420")

guard = Guard("stock", objective=Latency(0.99, under_s=0.2))


async def ask(client: httpx2.AsyncClient, said: Counter[str]) -> None:
    try:
        said[(await client.get("http://stock/apples")).text] += 1
    except httpx2.HTTPError as error:
        said[f"{type(error).__name__}: {error}"] += 1


async def main() -> None:
    async with (
        aclosing(open_store(STORE)) as store,
        aclosing(StoreSource(store)) as source,
        Directory(source, "stock", watcher="shop") as directory,
        httpx2.AsyncClient(transport=AsyncGuardedTransport(guard, AsyncPoolTransport(Pool(directory)))) as client,
    ):
        await directory.ready()
        while True:
            said: Counter[str] = Counter()
            async with asyncio.TaskGroup() as calls:
                for _ in range(50):
                    calls.create_task(ask(client, said))
                    await asyncio.sleep(0.02)
            told = "; ".join(f"{count} x {what}" for what, count in sorted(said.items()))
            print(time.strftime("%H:%M:%S"), told, flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
