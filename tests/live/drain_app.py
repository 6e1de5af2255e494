"""A small service under a real server, as a program that can be sent signals.

    python -m tests.live.drain_app '{"server": "uvicorn", "port": 8000, "drain": true, "lag_s": 0.3, "grace_s": 10}'

/            answers "ok"
/slow/S      answers after S seconds
/stream/N    N chunks, one each 50 ms
a WebSocket  echoes
It prints "ready" once its port answers, and the proof of its drain when it ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from budao.adapters.asgi_registration import Registered, registered
from budao.adapters.registration import answers
from budao.discovery import DrainPolicy


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
    else:
        await answer(scope["path"].split("/")[1:], send)


async def answer(path: list[str], send: Any) -> None:
    headers = [(b"content-type", b"text/plain")]
    if path[0] == "slow":
        await asyncio.sleep(float(path[1]))
    if path[0] == "stream":
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(int(path[1])):
            await send({"type": "http.response.body", "body": b"x" * 10, "more_body": True})
            await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [*headers, (b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def say_ready(port: int) -> None:
    await answers("127.0.0.1", port)
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def told_when_ready(inner: Any, port: int) -> Any:
    """The same application, which says on standard output when its port answers."""
    waiting: list[asyncio.Task[None]] = []

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" and not waiting:
            waiting.append(asyncio.create_task(say_ready(port)))
        await inner(scope, receive, send)

    return outer


def main(said: dict[str, Any]) -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    inner = told_when_ready(app, said["port"])
    if not said["drain"]:
        bare(inner, said["server"], said["port"])
        return
    ours = registered(
        inner,
        said.get("service", ""),
        said.get("store"),
        id=said.get("id", ""),
        drain=DrainPolicy.of(said["grace_s"], lag_s=said["lag_s"]),
        port=said["port"] if said["server"] == "uvicorn-bare" else 0,
    )
    drained(ours, said["server"], said["port"])
    sys.stdout.write(f"proof {ours.proof}\n")


def drained(ours: Registered, server: str, port: int) -> None:
    if server == "uvicorn":
        from budao.adapters import uvicorn

        uvicorn.run(ours, port=port, log_level="warning")
    elif server == "uvicorn-bare":
        bare(ours, "uvicorn", port)
    elif server == "hypercorn":
        import hypercorn

        from budao.adapters import hypercorn as adapter

        adapter.run(ours, hypercorn.Config.from_mapping(bind=[f"127.0.0.1:{port}"], loglevel="WARNING"))
    else:
        from budao.adapters import granian

        granian.run(ours, port=port, log_enabled=False)


def bare(inner: Any, server: str, port: int) -> None:
    if server == "uvicorn":
        import uvicorn

        try:
            uvicorn.run(inner, port=port, log_level="warning")
        except KeyboardInterrupt:
            return
    elif server == "hypercorn":
        import hypercorn
        from hypercorn.asyncio import serve

        asyncio.run(serve(inner, hypercorn.Config.from_mapping(bind=[f"127.0.0.1:{port}"], loglevel="WARNING")))
    else:
        from granian.constants import Interfaces
        from granian.server import Server

        Server("tests.live.drain_app:bare_app", port=port, interface=Interfaces.ASGI, log_enabled=False).serve()


bare_app = app

if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
