"""Three servers behind one name: one is slow, one fails at once, one is gone, and no caller sees an error.

pip install "budao[http]" uvicorn
python examples/balanced_http.py
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import uvicorn

from budao import Guard, Latency
from budao.adapters.asgi_load import LoadMiddleware
from budao.adapters.httpx2 import AsyncGuardedTransport, AsyncPoolTransport
from budao.aio import Pool
from budao.model import Endpoint


class Stock:
    """Answers after a while, with its name."""

    def __init__(self, name: str, takes_s: float, status: int = 200) -> None:
        self.name, self.takes_s, self.status = name, takes_s, status

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        await asyncio.sleep(self.takes_s)
        body = self.name.encode()
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": self.status, "headers": [length]})
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(app: Stock) -> AsyncIterator[Endpoint]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # who comes before the server is up waits
        # The middleware tells callers in each reply how busy this server is.
        server = uvicorn.Server(uvicorn.Config(LoadMiddleware(app), log_config=None, lifespan="off"))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield Endpoint(id=app.name, host="127.0.0.1", port=listener.getsockname()[1])
        finally:
            server.should_exit = True
            await task


async def main() -> None:
    async with AsyncExitStack() as stack:
        apps = [Stock("fast", 0.01), Stock("also fast", 0.01), Stock("slow", 0.06), Stock("ill", 0.0, status=503)]
        endpoints = [await stack.enter_async_context(serving(app)) for app in apps]
        endpoints.append(Endpoint(id="gone", host="127.0.0.1", port=1))

        # A guard outside, a pool inside: a second try goes to another endpoint. `Pool(directory)` finds them by itself.
        guard = Guard("stock", objective=Latency(0.99, under_s=0.5))
        pool = Pool(endpoints, service="stock")
        transport = AsyncGuardedTransport(guard, AsyncPoolTransport(pool))
        client = await stack.enter_async_context(httpx2.AsyncClient(transport=transport))

        answers: Counter[str] = Counter()

        async def ask() -> None:
            reply = await client.get("http://stock/apples")
            answers[f"{reply.status_code} {reply.text}"] += 1

        async with asyncio.TaskGroup() as calls:
            for _ in range(300):
                calls.create_task(ask())
                await asyncio.sleep(0.005)

        print("callers saw", dict(answers.most_common()), "- retries:", guard.snapshot().retries)
        print(pool.explain())
        assert all(answer.startswith("200") for answer in answers)


if __name__ == "__main__":
    asyncio.run(main())
