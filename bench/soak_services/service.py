"""One instance of the service, as a program."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from budao.adapters.asgi_load import LoadMiddleware
from budao.adapters.asgi_registration import Registered, registered
from budao.adapters.stores import open_store
from budao.discovery import DrainPolicy, RegistrarPolicy
from budao.protect import LiveSettings
from budao.settings import typed

SERVICE = "inventory"
REGISTRAR = RegistrarPolicy(ttl_s=3.0, renew_every_s=1.0)
DRAIN = DrainPolicy.of(10.0, lag_s=0.0)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is changed while it runs."""

    mean_s: float = 0.005
    number: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.mean_s <= 0.05:
            raise ValueError("mean_s must be above 0 and at most 0.05")


class App:
    """Answers after a while; notes each POST it carries out."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.store = open_store(order["store"])
        self.live = LiveSettings(partial(typed, Work), environ={}, store=self.store, name="soak", first_s=0.5)
        self.notes = os.open(order["notes"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.rng = Random(order["id"])
        self.ours: Registered | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["path"] == "/stats":
            said = {
                "tasks": len(asyncio.all_tasks()),
                "settings": self.live.value.number,
                "problem": "" if self.ours is None else self.ours.problem,
            }
            await _answer(send, json.dumps(said).encode())
        else:
            await asyncio.sleep(min(0.5, self.rng.expovariate(1.0 / self.live.value.mean_s)))
            if scope["method"] == "POST":
                os.write(self.notes, scope["query_string"] + b"\n")
            await _answer(send, b"ok")

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.store.aclose)
            await stack.enter_async_context(self.live)
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


async def _answer(send: Any, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main(order: dict[str, Any]) -> None:
    """Serves until it is told to leave."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(name)s %(message)s")
    logging.getLogger("budao.discovery").setLevel(logging.WARNING)
    logging.getLogger("budao.settings").setLevel(logging.ERROR)
    inner = App(order)
    app = inner.ours = registered(
        LoadMiddleware(inner),
        SERVICE,
        order["store"],
        id=order["id"],
        drain=DRAIN,
        registrar=REGISTRAR,
        uncounted=("/stats",),
    )
    if order["server"] == "uvicorn":
        from budao.adapters import uvicorn

        uvicorn.run(app, port=order["port"], log_level="warning", access_log=False)
    else:
        from hypercorn import Config

        from budao.adapters import hypercorn

        hypercorn.run(app, Config.from_mapping(bind=[f"127.0.0.1:{order['port']}"], loglevel="WARNING"))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
