"""Gateways over NATS: what is published at one is read at the other, whatever happens to either and to NATS."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from budao.aio import PushClient
from budao.push import START, Gap, Message
from tests.live.nats_server import nats_serving
from tests.live.push_raw import Told, until
from tests.live.redis_server import PATIENCE_S, free_port

COMMAND = "import sys; from budao.apps.command import main; sys.exit(main())"


class Program:
    """`budao gateway` over NATS, on the same port through all its lives."""

    def __init__(self, log: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [
            *(sys.executable, "-c", COMMAND, "gateway", "--json", "--port", str(self.port), "--log", log),
            *("--anonymous-subscribe", "**", "--anonymous-publish", "**"),
        ]

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said, f"it ended with {self.process.wait(PATIENCE_S)} before it listened"
        assert json.loads(said)["log"].startswith("nats://")

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def two_gateways(log: str) -> Iterator[tuple[Program, Program]]:
    programs = Program(log), Program(log)
    for each in programs:
        each.start()
    try:
        yield programs
    finally:
        for each in programs:
            each.kill()


async def publish(http: httpx.AsyncClient, url: str, number: int) -> None:
    """Until it is acknowledged, with its id, as a client does."""
    body = {"channel": "news", "data": [number], "id": f"n{number}"}
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(httpx.HTTPError):
                answer = await http.post(f"{url}/v1/publish", json=body)
                if answer.status_code == 200:
                    return
                assert answer.status_code == 503, answer.text
            await asyncio.sleep(0.02)


def test_readers_miss_nothing_while_gateways_and_nats_are_killed_and_frozen(tmp_path: Path) -> None:
    async def story(server: Any, one: Program, other: Program) -> None:
        told = Told("news", place=START)
        gaps: list[Gap] = []

        async def read(client: PushClient) -> None:
            async for item in client.subscribe("news", after=START):
                if isinstance(item, Gap):
                    gaps.append(item)
                assert isinstance(item, Message)
                told.take(item)

        async with (
            httpx.AsyncClient(timeout=10.0) as http,
            PushClient([one.url, other.url]) as client,
        ):
            reading = asyncio.create_task(read(client))
            number = 0

            async def publish_some() -> None:
                nonlocal number
                for _ in range(20):
                    await publish(http, other.url, number)
                    number += 1

            await publish_some()
            one.kill()
            await publish_some()
            one.start()
            server.kill()
            publishing = asyncio.create_task(publish_some())
            await asyncio.sleep(0.2)
            server.start()
            await publishing
            with server.frozen():
                publishing = asyncio.create_task(publish_some())
                await until(lambda: is_unready(http, other.url))
            await publishing
            await until(lambda: reading.done() or len(told.numbers) == number)
            assert not reading.done(), reading.exception()
            assert told.numbers == list(range(number))
            assert not gaps
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def is_unready(http: httpx.AsyncClient, url: str) -> bool:
        return (await http.get(f"{url}/readyz")).status_code == 503

    with nats_serving(tmp_path) as server, two_gateways(server.url) as (one, other):
        asyncio.run(story(server, one, other))
