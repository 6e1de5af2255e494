"""A gateway in this process, and clients of few words: the `websockets` library, and raw sockets for what no client would do."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection, connect

from budao.aio.channel_log import ChannelLog
from budao.aio.gateway import Access, Gateway
from budao.aio.logs import MemoryLog
from budao.push import Draft, Follower, FromGateway, Gap, Grant, Hello, Message, Missing, Msg, Placed, SessionPolicy
from budao.wire import framing, push_frames, websocket
from tests.live.redis_server import PATIENCE_S

ANYBODY = Access(anonymous=Grant(subscribe=("**",), publish=("**",), presence=("**",), operate=True))
RATES = SessionPolicy(
    beat_min_s=0.05, publishes_per_s=1e5, publishes_burst=100_000, frames_per_s=1e5, frames_burst=100_000
)
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


_left: list[Callable[[], Awaitable[object]]] = []


def leave(close: Callable[[], Awaitable[object]]) -> None:
    """Closes something when the story ends, if the story did not come to it: who fails, fails alone."""
    _left.append(close)


def play(story: Callable[[], Coroutine[Any, Any, None]], *, uvloop: bool = False) -> None:
    async def bounded() -> None:
        try:
            async with asyncio.timeout(2 * PATIENCE_S):
                await story()
        finally:
            while _left:
                with suppress(Exception):
                    await _left.pop()()

    if uvloop:
        import uvloop as loops

        loops.run(bounded())
    else:
        asyncio.run(bounded())


@asynccontextmanager
async def gateway_over(log: ChannelLog | None = None, **settings: Any) -> AsyncIterator[Gateway]:
    settings.setdefault("access", ANYBODY)
    settings.setdefault("session_policy", RATES)
    if log is not None:
        async with Gateway(log, **settings) as gateway:
            yield gateway
        return
    async with MemoryLog() as memory, Gateway(memory, **settings) as gateway:
        yield gateway


async def until(claim: Callable[[], bool | Awaitable[bool]]) -> None:
    """Waits until something is so."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = claim()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


async def publish(log: ChannelLog, channel: str, count: int, size: int = 10, *, first: int = 0) -> None:
    drafts = [Draft(channel, json.dumps([first + index, "x" * size]).encode()) for index in range(count)]
    for begin in range(0, count, 50):
        for placed in await log.publish(drafts[begin : begin + 50]):
            assert isinstance(placed, Placed), placed


class Told:
    """What one reader was told of a channel; raises if anything was left out, or came twice."""

    def __init__(self, channel: str, **begin: Any) -> None:
        self.follower = Follower(channel, **begin)
        self.numbers: list[int] = []
        self.gaps: list[Gap] = []

    def take(self, item: Message | Gap) -> None:
        assert self.follower.take(item) is not None, "nothing is told twice"
        if isinstance(item, Gap):
            self.gaps.append(item)
        else:
            self.numbers.append(json.loads(item.data)[0])


class Client:
    """A WebSocket of the `websockets` library, which speaks frames."""

    def __init__(self, connection: ClientConnection, codec: push_frames.Codec) -> None:
        self.connection = connection
        self.codec = codec

    async def say(self, frame: Any) -> None:
        raw = self.codec.encode(frame)
        await self.connection.send(raw.decode() if self.codec.is_text else raw)

    async def hear(self) -> FromGateway:
        raw = await self.connection.recv()
        return self.codec.decode_from_gateway(raw.encode() if isinstance(raw, str) else raw)

    async def follow(self, told: Told, count: int) -> None:
        """Until so many messages were told."""
        async with asyncio.timeout(PATIENCE_S):
            while len(told.numbers) < count:
                frame = await self.hear()
                if isinstance(frame, Msg):
                    told.take(frame.message)
                elif isinstance(frame, Missing):
                    told.take(frame.gap)


@asynccontextmanager
async def ws(
    port: int, *, codec: push_frames.Codec = push_frames.JSON, query: str = "", **settings: Any
) -> AsyncIterator[Client]:
    uri = f"ws://127.0.0.1:{port}/v1/stream{query}"
    settings.setdefault("compression", None)
    subprotocols = [websockets.Subprotocol(codec.subprotocol)]
    async with connect(uri, subprotocols=subprotocols, max_size=None, **settings) as connection:
        yield Client(connection, codec)


async def raw(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    leave(lambda: drop(writer))
    return reader, writer


def upgrade(query: str = "", more: str = "") -> bytes:
    return (
        f"GET /v1/stream{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{more}\r\n"
    ).encode()


async def answer_to(port: int, data: bytes) -> bytes:
    """Everything that comes back until the gateway closes."""
    reader, writer = await raw(port)
    writer.write(data)
    async with asyncio.timeout(PATIENCE_S):
        found = await reader.read()
    await hang_up(writer)
    return found


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Until its socket is closed."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def drop(writer: asyncio.StreamWriter) -> None:
    """The same at once, whatever was still to be sent."""
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


def masked(opcode: int, payload: bytes) -> bytes:
    return websocket.frame(opcode, payload, mask=b"\1\2\3\4")


class SlowReader:
    """A WebSocket on a socket with a small buffer, read only when it is told to."""

    def __init__(self, channel: str) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setblocking(False)
        self.channel = channel
        self.told = Told(channel)
        self.frames: list[FromGateway] = []
        self.is_closed = False
        self._reader = websocket.Reader(1 << 24, is_server=False)
        self._head = b""

    async def open(self, port: int) -> None:
        leave(self.aclose)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, ("127.0.0.1", port))
        query = "?hello=" + push_frames.format_hello_query(Hello(channels={self.channel: None}))
        await loop.sock_sendall(self.socket, upgrade(query))
        while not self.frames:
            await self.read()

    async def read(self) -> None:
        """What has come, or comes next: it may be a part of a frame, or a ping."""
        assert not self.is_closed, f"it ended after {len(self.told.numbers)} messages"
        data = await asyncio.get_running_loop().sock_recv(self.socket, 65536)
        if not data:
            self.is_closed = True
            return
        if self._head is not None and not self._head.endswith(b"\r\n\r\n"):
            head, end, data = (self._head + data).partition(b"\r\n\r\n")
            self._head = head + end
        for event in self._reader.feed(data):
            if isinstance(event, websocket.WsClose):
                self.is_closed = True
            elif isinstance(event, websocket.WsPing):  # it reads again: the gateway asked meanwhile whether it is there
                await asyncio.get_running_loop().sock_sendall(self.socket, masked(websocket.PONG, event.data))
            else:
                assert isinstance(event, websocket.Text)
                self.take(push_frames.JSON.decode_from_gateway(event.data))

    def take(self, frame: FromGateway) -> None:
        self.frames.append(frame)
        if isinstance(frame, Msg):
            self.told.take(frame.message)
        elif isinstance(frame, Missing):
            self.told.take(frame.gap)

    def read_fast(self) -> None:
        """A socket that was slow takes what waits in big pieces from now on, not in those of its window at a time."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def close(self) -> None:
        self.socket.close()

    async def aclose(self) -> None:
        self.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends it without a word, as a crash would."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def tcp_frame(frame: Any) -> bytes:
    return framing.frame(push_frames.MSGPACK.encode(frame))
