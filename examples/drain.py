"""A server is told to leave while callers who have not heard of it still come: each is answered, and the proof says so.

pip install "budao[http,store]" uvicorn
python examples/drain.py
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import aclosing
from typing import Any

import httpx2

from budao.adapters import uvicorn
from budao.adapters.asgi_registration import registered
from budao.adapters.stores import open_store
from budao.aio import Directory, StoreSource
from budao.discovery import DrainPolicy

# A load balancer in front goes on sending for half a second after it could have known.
POLICY = DrainPolicy.of(10.0, lag_s=0.5)


async def stock(scope: Any, _receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await asyncio.sleep(0.05)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
    await send({"type": "http.response.body", "body": b"7"})


async def late_callers(client: httpx2.AsyncClient, url: str, for_s: float) -> Counter[str]:
    """Calls an address that was right when it was looked up."""
    ended: Counter[str] = Counter()

    async def call() -> None:
        try:
            ended[str((await client.get(url)).status_code)] += 1
        except httpx2.HTTPError as error:
            ended[type(error).__name__] += 1

    until = time.monotonic() + for_s
    async with asyncio.TaskGroup() as calls:
        while time.monotonic() < until:
            calls.create_task(call())
            await asyncio.sleep(0.01)
    return ended


async def main() -> None:
    print(POLICY.explain())
    async with (
        aclosing(open_store("memory:")) as store,
        aclosing(StoreSource(store)) as source,
        Directory(source, "stock", watcher="shop") as directory,
        httpx2.AsyncClient() as client,
    ):
        app = registered(stock, "stock", store, id="one", drain=POLICY)
        serving = asyncio.create_task(uvicorn.serve(app, host="127.0.0.1", port=0, log_level="error"))
        while not directory.roster.endpoints():
            await directory.latest.changed(directory.roster)
        (endpoint,) = directory.roster.endpoints()
        url = f"http://{endpoint.authority}/"

        app.drainer.ask()  # what SIGTERM does
        answers = await late_callers(client, url, for_s=0.5)
        await serving
        print()
        print("late callers ", dict(answers))
        print("proof        ", app.proof)
        assert set(answers) == {"200"}


if __name__ == "__main__":
    asyncio.run(main())
