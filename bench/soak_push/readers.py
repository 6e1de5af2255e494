"""Readers that verify what they are told: the Python client, server-sent events, and sockets that read slowly."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote

from bench.soak_push.fleet import CLOSING, LAST_VALUE, LATEST, STEADY, Fleet
from bench.soak_push.truth import Truth
from budao.aio import PushClient
from budao.push import START, Follower, Followers, Gap, Hello, Hole, Message, Missing, Msg, Ping, Pong, Position
from budao.wire import push_frames, sse, websocket

SILENT_S = 4.0
"""A stream of events that says nothing for so long is opened elsewhere; it was promised a beat a second."""
EVENT_BYTES_MAX = 1 << 20
FULLY = frozenset(STEADY)
"""Channels of which so much is kept that nobody who reads may miss anything."""


class Reader:
    """One reader, and where it is in each channel."""

    def __init__(self, name: str, channels: tuple[str, ...], truth: Truth, fleet: Fleet, rng: random.Random) -> None:
        self.name = name
        self.channels = channels
        self.truth = truth
        self.fleet = fleet
        self.rng = rng
        self.kind = name.partition(" ")[0]
        self.may_miss = False

    def place(self, channel: str) -> Position | None:
        raise NotImplementedError

    async def run(self) -> None:
        raise NotImplementedError

    def took(self, item: Message | Gap) -> None:
        """Something new came."""
        if isinstance(item, Message):
            self.truth.counts[f"messages to {self.kind}"] += 1
            self.truth.told(self.name, item)
            return
        self.truth.counts[f"gaps ({item.why.value}) to {self.kind}"] += 1
        if item.why is Hole.EPOCH:
            self.truth.blame(f"{self.name}: a new life of a channel whose log is durable: {item}")
        elif item.channel in FULLY and not self.may_miss:
            self.truth.blame(f"{self.name}: a gap where everything is kept: {item}")

    def behind(self, heads: dict[str, int]) -> str:
        """What it has not been told yet; empty if nothing."""
        for channel in self.channels:
            place = self.place(channel)
            if place is None or place.seq < heads.get(channel, 0):
                return f"{self.name} is at {place} of {channel}, and the head was {heads.get(channel, 0)}"
        return ""


class ClientReader(Reader):
    """A `PushClient`, which is closed now and then; another one goes on from its places."""

    def __init__(self, *arguments: Any, urls: list[str], **settings: Any) -> None:
        super().__init__(*arguments)
        self.urls = urls
        self.settings = settings
        self.followers = Followers()
        self.client: PushClient | None = None

    def place(self, channel: str) -> Position | None:
        return self.followers[channel].place if channel in self.followers else None

    async def run(self) -> None:
        while True:
            try:
                async with (
                    PushClient(self.urls, token=self.fleet.token, name=self.name, **self.settings) as client,
                    asyncio.TaskGroup() as tasks,
                ):
                    self.client = client
                    reading = [tasks.create_task(self._read(client, channel)) for channel in self.channels]
                    await asyncio.sleep(self.rng.uniform(30.0, 180.0))
                    for each in reading:
                        each.cancel()
                    self._judge(client)
            except* Exception as problems:  # noqa: BLE001 - whatever it is, it is told
                for problem in problems.exceptions:
                    self.truth.blame(f"{self.name} ended: {type(problem).__name__}: {problem}")
                await asyncio.sleep(1.0)
            self.truth.counts["clients that were replaced"] += 1
            await asyncio.sleep(self.rng.uniform(0.0, 3.0))

    def _judge(self, client: PushClient) -> None:
        metrics = client.metrics
        if metrics.broken_promises:
            self.truth.blame(f"{self.name}: {metrics.broken_promises} broken promises of gateways")
        for count in ("connects", "resumes", "promotions", "moves", "failures", "duplicates", "rests"):
            self.truth.counts[f"clients: {count}"] += getattr(metrics, count)

    async def _read(self, client: PushClient, channel: str) -> None:
        place = self.place(channel)
        follower = self.followers.follow(channel)
        subscription = client.subscribe(channel, after=place)
        follower.begin(await subscription.ready() or START)
        async for item in subscription:
            taken = follower.take(item)
            if taken is None:
                self.truth.blame(f"{self.name}: the client handed out twice: {item}")
            else:
                self.took(taken)


class EventReader(Reader):
    """Server-sent events over HTTP/1.1, as a browser reads them: it comes back with `Last-Event-ID`."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.followers = Followers(dict.fromkeys(self.channels))
        self.last_id = ""

    def place(self, channel: str) -> Position | None:
        return self.followers[channel].place

    async def run(self) -> None:
        role = self.rng.choice("ab")
        while True:
            try:
                async with self._opened(role) as pieces:
                    reader = sse.Reader(EVENT_BYTES_MAX, last_id=self.last_id)
                    until = time.monotonic() + self.rng.uniform(5.0, 120.0)
                    async for piece in pieces:
                        for event in reader.feed(piece):
                            if isinstance(event, sse.Event):
                                self._take(event)
                        self.last_id = reader.last_id
                        if time.monotonic() > until:
                            break
            except (OSError, TimeoutError, EOFError):
                self.truth.counts["streams of events that broke"] += 1
            except Exception as problem:  # noqa: BLE001 - whatever it is, it is told
                self.truth.blame(f"{self.name} ended: {type(problem).__name__}: {problem}")
            role = "b" if role == "a" else "a"
            await asyncio.sleep(self.rng.uniform(0.05, 1.0))

    def _take(self, event: sse.Event) -> None:
        if event.event not in {"message", "gap", "welcome"}:
            self.truth.counts[f"events: {event.event}"] += 1
            return
        taken = self.followers.take(push_frames.JSON.decode_from_gateway(event.data))
        if taken is not None:
            self.took(taken)

    @asynccontextmanager
    async def _opened(self, role: str) -> AsyncIterator[AsyncIterator[bytes]]:
        query = "&".join(f"channel={quote(each, safe='')}" for each in self.channels)
        last = f"Last-Event-ID: {self.last_id}\r\n" if self.last_id else ""
        head = (
            f"GET /v1/events?{query}&beat=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n"
            f"Authorization: Bearer {self.fleet.token}\r\n{last}\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", self.fleet.ports[role])
        try:
            writer.write(head.encode())
            async with asyncio.timeout(SILENT_S):
                answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 200"):
                raise OSError(f"no stream: {answer[:60]!r}")
            yield self._pieces(reader, chunked=b"chunked" in answer.lower())
        finally:
            writer.transport.abort()

    async def _pieces(self, reader: asyncio.StreamReader, *, chunked: bool) -> AsyncIterator[bytes]:
        while True:
            async with asyncio.timeout(SILENT_S):
                if not chunked:
                    piece = await reader.read(65_536)
                else:
                    size = int(await reader.readuntil(b"\r\n"), 16)
                    piece = (await reader.readexactly(size + 2))[:-2]
            if not piece:
                raise EOFError
            yield piece


class EventReader2(EventReader):
    """The same over HTTP/2 and TLS, with `httpx`."""

    async def run(self) -> None:
        import httpx

        while True:
            try:
                timeout = httpx.Timeout(SILENT_S)
                async with httpx.AsyncClient(
                    http2=True, http1=False, verify=self.fleet.tls_h2, timeout=timeout
                ) as client:
                    await self._follow(client)
            except (httpx.HTTPError, OSError, TimeoutError):
                self.truth.counts["streams of events that broke"] += 1
            except Exception as problem:  # noqa: BLE001 - whatever it is, it is told
                self.truth.blame(f"{self.name} ended: {type(problem).__name__}: {problem}")
            await asyncio.sleep(self.rng.uniform(0.05, 1.0))

    async def _follow(self, client: Any) -> None:
        url = f"https://127.0.0.1:{self.fleet.ports['t']}/v1/events"
        query = [*(("channel", each) for each in self.channels), ("beat", "1")]
        headers = {
            "Authorization": f"Bearer {self.fleet.token}",
            **({"Last-Event-ID": self.last_id} if self.last_id else {}),
        }
        async with client.stream("GET", url, params=query, headers=headers) as answer:
            if answer.status_code != 200:
                raise OSError(f"no stream: {answer.status_code}")
            reader = sse.Reader(EVENT_BYTES_MAX, last_id=self.last_id)
            until = time.monotonic() + self.rng.uniform(5.0, 120.0)
            async for piece in answer.aiter_raw():
                for event in reader.feed(piece):
                    if isinstance(event, sse.Event):
                        self._take(event)
                self.last_id = reader.last_id
                if time.monotonic() > until:
                    return


class SlowReader(Reader):
    """A WebSocket with a small buffer that is read now and then, a little; it goes on from its place when it is closed."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.may_miss = True
        self.follower = Follower(self.channels[0])

    def place(self, _: str) -> Position | None:
        return self.follower.place

    def behind(self, _: dict[str, int]) -> str:
        return ""  # it is slow on purpose

    async def run(self) -> None:
        while True:
            try:
                await self._once(self.rng.choice("ab"))
            except (OSError, TimeoutError, EOFError):
                self.truth.counts["slow readers that were cut off"] += 1
            except Exception as problem:  # noqa: BLE001 - whatever it is, it is told
                self.truth.blame(f"{self.name} ended: {type(problem).__name__}: {problem}")
            await asyncio.sleep(self.rng.uniform(0.1, 2.0))

    async def _once(self, role: str) -> None:
        loop = asyncio.get_running_loop()
        channel = self.channels[0]
        with socket.socket() as opened:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            opened.setblocking(False)
            await loop.sock_connect(opened, ("127.0.0.1", self.fleet.ports[role]))
            hello = push_frames.format_hello_query(Hello(channels={channel: self.follower.place}))
            target = f"/v1/stream?hello={hello}"
            headers = {"Authorization": f"Bearer {self.fleet.token}"}
            asked, _ = websocket.ask(
                "127.0.0.1", target, self.rng.randbytes(16), subprotocols=("budao.v1.json",), headers=headers
            )
            await loop.sock_sendall(opened, asked)
            head, reader = b"", websocket.Reader(1 << 22, is_server=False)
            until = time.monotonic() + self.rng.uniform(5.0, 60.0)
            while time.monotonic() < until:
                async with asyncio.timeout(10.0):
                    data = await loop.sock_recv(opened, self.rng.choice((1_000, 10_000, 100_000)))
                if not data:
                    raise EOFError
                if not head.endswith(b"\r\n\r\n"):
                    before, end, data = (head + data).partition(b"\r\n\r\n")
                    head = before + end
                    if end and not head.startswith(b"HTTP/1.1 101"):
                        raise EOFError
                    if not end:
                        continue
                for event in reader.feed(data):
                    await self._event(opened, event)
                if self.rng.random() < 0.3:
                    await asyncio.sleep(self.rng.uniform(0.0, 1.5))

    async def _event(self, opened: socket.socket, event: object) -> None:
        if isinstance(event, websocket.WsClose):
            self.truth.counts[f"slow readers closed with {event.code}"] += 1
            raise EOFError  # noqa: TRY004 - the stream is at its end
        if isinstance(event, websocket.WsPing):
            await self._say(opened, 10, event.data)
        if not isinstance(event, websocket.Text):
            return
        frame = push_frames.JSON.decode_from_gateway(event.data)
        if isinstance(frame, Msg | Missing):
            taken = self.follower.take(frame.message if isinstance(frame, Msg) else frame.gap)
            if taken is not None:
                self.took(taken)
        elif isinstance(frame, Ping) and frame.number:
            await self._say(opened, 1, push_frames.JSON.encode(Pong(number=frame.number)))

    async def _say(self, opened: socket.socket, opcode: int, data: bytes) -> None:
        raw = websocket.frame(opcode, data, mask=self.rng.randbytes(4))
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(2.0):
                await asyncio.get_running_loop().sock_sendall(opened, raw)


def readers(truth: Truth, fleet: Fleet, rng: random.Random) -> list[Reader]:
    """All of them."""
    plain, tls = fleet.urls(), [f"https://127.0.0.1:{fleet.ports['t']}"]
    found: list[Reader] = []

    def few() -> tuple[str, ...]:
        return tuple(rng.sample(STEADY, 3))

    def add(kind: type[Reader], name: str, channels: tuple[str, ...], **settings: Any) -> None:
        own = random.Random(rng.random())
        found.append(kind(f"{name} {len(found)}", channels, truth, fleet, own, **settings))

    for _ in range(4):
        add(ClientReader, "client", few(), urls=plain)
        add(ClientReader, "client-with-standby", few(), urls=plain, standby=True)
    add(ClientReader, "client-msgpack", few(), urls=plain, codec="msgpack")
    add(ClientReader, "client-big", (LATEST, CLOSING), urls=plain)
    add(ClientReader, "client-last", (LAST_VALUE,), urls=plain)
    add(ClientReader, "client-tcp", few(), urls=fleet.urls("tcp"))
    add(ClientReader, "client-tcp-standby", few(), urls=fleet.urls("tcp"), standby=True)
    add(ClientReader, "client-tls", few(), urls=tls, tls=fleet.tls)
    add(ClientReader, "client-tls-msgpack", few(), urls=tls, tls=fleet.tls, codec="msgpack")
    for _ in range(3):
        add(EventReader, "events-one", (rng.choice(STEADY),))
        add(EventReader, "events-several", few())
    add(EventReader2, "events-h2", (rng.choice(STEADY),))
    add(EventReader2, "events-h2-several", few())
    for _ in range(3):
        add(SlowReader, "slow-latest", (LATEST,))
        add(SlowReader, "slow-closing", (CLOSING,))
    add(SlowReader, "slow-steady", (rng.choice(STEADY),))
    return found
