"""A small ASGI service that tells its load, served by uvicorn in a thread, or in a process that can be killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from budao.adapters.asgi_load import LoadMiddleware
from budao.model import Endpoint

PATIENCE_S = 30.0


FIRST: Counter[str] = Counter()


@dataclass
class Service:
    """/ok answers its name, /host the Host header, /status/N that, /echo the body; /slow takes 50 ms, and /hang too long.

    /first/N takes a second for whoever is first to ask any of the servers for that N; /broken ends too early.
    """

    name: str
    asked: Counter[str] = field(default_factory=Counter)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        self.asked[path] += 1
        status, body = 200, self.name.encode()
        if path == "/host":
            body = dict(scope["headers"])[b"host"]
        elif path.startswith("/status/"):
            status = int(path.removeprefix("/status/"))
        elif path == "/slow":
            await asyncio.sleep(0.05)
        elif path == "/echo":
            body = b""
            while (message := await receive())["type"] == "http.request":
                body += message["body"]
                if not message.get("more_body"):
                    break
        elif path.startswith("/first/"):
            FIRST[path] += 1
            await asyncio.sleep(1.0 if FIRST[path] == 1 else 0.0)
        elif path == "/hang":
            await asyncio.sleep(PATIENCE_S)
        size = 100 if path == "/broken" else len(body)
        headers = [(b"content-length", b"%d" % size), (b"x-server", self.name.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})  # uvicorn closes where it is too short


@dataclass
class Running:
    """A server that takes calls."""

    service: Service
    port: int
    server: uvicorn.Server
    meter: Any
    host: str

    def endpoint(self, **more: Any) -> Endpoint:
        return Endpoint(id=self.service.name, host=self.host, port=self.port, **more)

    def connections(self) -> int:
        return len(self.server.server_state.connections)


@contextmanager
def serving(name: str, *, tells: bool = True, host: str = "127.0.0.1", **more: Any) -> Iterator[Running]:
    service = Service(name)
    app = LoadMiddleware(service, tells=tells)
    server = uvicorn.Server(uvicorn.Config(app, host=host, port=0, log_level="critical", lifespan="off", **more))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Running(service, port, server, app.meter, host)
    finally:
        server.should_exit = server.force_exit = True
        thread.join(PATIENCE_S)


@contextmanager
def process(name: str) -> Iterator[tuple[Endpoint, subprocess.Popen[str]]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.live.balanced_app", name],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert child.stdout is not None
        yield Endpoint(id=name, host="127.0.0.1", port=int(child.stdout.readline())), child
    finally:
        child.kill()
        child.wait(PATIENCE_S)
        assert child.stdout is not None
        child.stdout.close()


def until(is_so: Any, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.005)


async def soon(is_so: Any, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < deadline, "it never came to be"
        await asyncio.sleep(0.005)


if __name__ == "__main__":
    with serving(sys.argv[1]) as running:
        sys.stdout.write(f"{running.port}\n")
        sys.stdout.flush()
        sys.stdin.read()
        threading.Event().wait()
