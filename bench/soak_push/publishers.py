"""Publishers, each of which publishes one message after the other, and says the same again until it is acknowledged."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import suppress
from typing import Any

from bench.soak_push.fleet import CLOSING, LAST_VALUE, LATEST, STEADY, Fleet
from bench.soak_push.truth import Truth
from budao.aio import PublishTimedOut, PushClient
from budao.push import Position

ANSWER_S = 3.0
TRIES_MAX = 40


class Publisher:
    """One publisher."""

    def __init__(self, name: str, truth: Truth, fleet: Fleet, rng: random.Random, pause_s: float) -> None:
        self.name = name
        self.truth = truth
        self.fleet = fleet
        self.rng = rng
        self.pause_s = pause_s
        self.count = 0
        self.is_over = False

    def _next(self, channel: str) -> dict[str, Any]:
        """One more message."""
        self.count += 1
        size = self.rng.randrange(2_000, 20_000) if channel in {LATEST, CLOSING} else self.rng.randrange(200)
        data = {"by": self.name, "n": self.count, "pad": "x" * size}
        return {"channel": channel, "data": data, "id": f"{self.name}.{self.count}"}

    def _channel(self) -> str:
        return self.rng.choice((*STEADY, *STEADY, LATEST, CLOSING, LAST_VALUE))

    def _acknowledged(self, channel: str, position: Position, n: int) -> None:
        self.truth.acknowledge(self.name, channel, position, n)

    async def _pause(self) -> None:
        await asyncio.sleep(self.rng.expovariate(1.0 / self.pause_s))

    async def run(self) -> None:
        raise NotImplementedError


class ClientPublisher(Publisher):
    """Over a `PushClient`, with or without a standby, over WebSocket or TCP."""

    def __init__(self, *arguments: Any, urls: list[str], **settings: Any) -> None:
        super().__init__(*arguments)
        self.urls = urls
        self.settings = settings

    async def run(self) -> None:
        while not self.is_over:
            async with PushClient(self.urls, token=self.fleet.token, name=self.name, **self.settings) as client:
                for _ in range(self.rng.randrange(20, 400)):
                    if self.is_over:
                        return
                    said = self._next(self._channel())
                    await self._publish(client, said)
                    await self._pause()

    async def _publish(self, client: PushClient, said: dict[str, Any]) -> None:
        for _ in range(6):
            try:
                position = await client.publish(said["channel"], said["data"], id=said["id"], within_s=20.0)
            except PublishTimedOut:
                self.truth.counts["publishes of clients that timed out"] += 1
            except Exception as problem:  # noqa: BLE001 - whatever it is, it is told
                self.truth.blame(f"{self.name} could not publish: {type(problem).__name__}: {problem}")
                return
            else:
                self._acknowledged(said["channel"], position, said["data"]["n"])
                return
        self.truth.blame(f"{self.name} could not publish {said['id']} for two minutes")


class HttpPublisher(Publisher):
    """With requests over a kept connection, one message or a batch at a time, at the plain gateways or with TLS at `t`."""

    def __init__(self, *arguments: Any, roles: str) -> None:
        super().__init__(*arguments)
        self.roles = roles
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self) -> None:
        while not self.is_over:
            if self.rng.random() < 0.2:
                channel = self._channel()
                batch = [self._next(channel) for _ in range(self.rng.randrange(1, 6))]
                await self._until_done(batch, {"messages": batch})
            else:
                said = self._next(self._channel())
                await self._until_done([said], said)
            await self._pause()
            if self.rng.random() < 0.01:
                self._drop()
        self._drop()

    async def _until_done(self, batch: list[dict[str, Any]], body: dict[str, Any]) -> None:
        problem = ""
        for _ in range(TRIES_MAX):
            try:
                async with asyncio.timeout(ANSWER_S):
                    status, answer = await self._ask(body)
            except (
                OSError,
                TimeoutError,
                EOFError,
                ValueError,
                RuntimeError,
            ) as error:  # uvloop has its own word for closed
                problem = type(error).__name__
                self.truth.counts["requests that broke"] += 1
                self._drop()
                await asyncio.sleep(self.rng.uniform(0.05, 0.5))
                continue
            results = answer.get("results", [answer])
            if status == 200 and not any("error" in each for each in results):
                for said, each in zip(batch, results, strict=True):
                    position = Position(each["epoch"], each["seq"])
                    self._acknowledged(said["channel"], position, said["data"]["n"])
                    self.truth.counts["repeats"] += bool(each.get("repeat"))
                return
            problem = f"{status} {json.dumps(answer)[:200]}"
            self.truth.counts[f"requests answered {status}"] += 1
            if status not in {200, 429, 503}:
                self.truth.blame(f"{self.name}: a publish was answered {problem}")
                return
            await asyncio.sleep(self.rng.uniform(0.2, 1.0))
        said = self.fleet.children[self.roles[-1]].stderr[-5:]
        self.truth.blame(f"{self.name} could not publish {batch[0]['id']} in {TRIES_MAX} tries: {problem}; {said}")

    async def _ask(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self._streams is None:
            role = self.rng.choice(self.roles)
            tls = self.fleet.tls if role == "t" else None
            self._streams = await asyncio.open_connection("127.0.0.1", self.fleet.ports[role], ssl=tls)
        reader, writer = self._streams
        raw = json.dumps(body).encode()
        head = (
            f"POST /v1/publish HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.fleet.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
        )
        writer.write(head.encode() + raw)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        status = int(answer.split(" ", 2)[1])
        length = int(answer.split("content-length:", 1)[1].split("\r\n", 1)[0])
        said = json.loads(await reader.readexactly(length))
        if "connection: close" in answer:
            self._drop()
        return status, said

    def _drop(self) -> None:
        if self._streams is not None:
            with suppress(OSError):
                self._streams[1].transport.abort()
            self._streams = None


def publishers(truth: Truth, fleet: Fleet, rng: random.Random) -> list[Publisher]:
    """All of them: some 60 messages a second."""
    found: list[Publisher] = []

    def add(kind: type[Publisher], name: str, **settings: Any) -> None:
        found.append(kind(f"{name}-{len(found)}", truth, fleet, random.Random(rng.random()), 0.12, **settings))

    plain = fleet.urls()
    add(HttpPublisher, "http", roles="ab")
    add(HttpPublisher, "http", roles="ab")
    add(HttpPublisher, "http", roles="b")
    add(HttpPublisher, "https", roles="t")
    add(ClientPublisher, "ws", urls=plain)
    add(ClientPublisher, "ws-standby", urls=plain, standby=True)
    add(ClientPublisher, "tcp", urls=fleet.urls("tcp"))
    add(ClientPublisher, "wss", urls=[f"https://127.0.0.1:{fleet.ports['t']}"], tls=fleet.tls, codec="msgpack")
    return found
