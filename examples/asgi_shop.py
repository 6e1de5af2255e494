"""A FastAPI shop with one guard in front of every route: one route breaks, is closed, and comes back.

pip install "budao[asgi]" fastapi uvicorn httpx
python examples/asgi_shop.py
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter

import httpx
import uvicorn
from fastapi import FastAPI, Response

from budao import Guard
from budao.adapters.asgi import GuardMiddleware, remaining_s
from budao.model import BreakerPolicy, GuardPolicy

# Numbers small enough for a demonstration; `Guard("shop", objective=Latency(0.99, under_s=0.2))` gives real ones.
guard = Guard("shop", policy=GuardPolicy(breaker=BreakerPolicy(calls_min=10, rest_s=2.0, probes_good=2, ramp_s=0.0)))

app = FastAPI()
app.add_middleware(GuardMiddleware, guard=guard)

warehouse = {"ill": False}


@app.get("/stock/{sku}")
async def stock(sku: str, response: Response) -> dict[str, object]:
    if warehouse["ill"]:
        response.status_code = 500
        return {"error": "the warehouse does not answer"}
    return {"sku": sku, "in_stock": 7}


@app.get("/patience")
async def patience() -> dict[str, bool]:
    return {"a_second_is_left": remaining_s() > 1.0}


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


async def visit(client: httpx.AsyncClient, path: str, times: int) -> str:
    """What so many visitors of `path` get, as "20 x 200"."""
    statuses = Counter([(await client.get(path.format(number))).status_code for number in range(times)])
    return ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))


async def tour(client: httpx.AsyncClient) -> None:
    print("all is well       stock   ", await visit(client, "/stock/{}", 20))

    warehouse["ill"] = True
    print("warehouse is ill  stock   ", await visit(client, "/stock/{}", 40))
    refused = await client.get("/stock/4711")
    wait_s = int(refused.headers["retry-after"])
    print(f"                  refused  {refused.status_code}: {refused.json()['detail']}, come back in {wait_s} s")
    print("                  patience", await visit(client, "/patience", 10))
    print("                  health  ", await visit(client, "/healthz", 10))

    warehouse["ill"] = False
    await asyncio.sleep(wait_s)
    print("it rested         stock   ", await visit(client, "/stock/{}", 20))

    late = await client.get("/patience", headers={"budao-timeout-ms": "0"})
    print("nobody waits      patience", late.status_code, late.json()["detail"])

    for route in guard.snapshot().keys:
        if route.key:  # "" is for calls without a key, and there were none
            print(f"{route.key:18}ok {route.ok}, failed {route.failed}, refused {sum(route.refused.values())}")


async def main() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # who comes before the server is up waits
        server = uvicorn.Server(uvicorn.Config(app, log_config=None))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            base = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
                await tour(client)
        finally:
            server.should_exit = True
            await serving


if __name__ == "__main__":
    asyncio.run(main())
