"""Clients that behave badly, or only rudely: they come, do what no good client would, and are gone."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from contextlib import suppress
from typing import Any

from bench.soak_push.fleet import CHANNELS, STEADY, Fleet
from bench.soak_push.truth import Truth
from budao.push import Hello, Sub, Unsub
from budao.wire import framing, push_frames, websocket

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Strangers:
    """A few of them at a time, each with another trick."""

    def __init__(self, truth: Truth, fleet: Fleet, rng: random.Random) -> None:
        self.truth = truth
        self.fleet = fleet
        self.rng = rng
        self._opened: list[asyncio.StreamWriter] = []

    async def run(self) -> None:
        """One after the other, for ever."""
        tricks = {
            self.connect_and_leave: 8, self.idle_readers: 4, self.garbage: 4, self.slowloris: 2, self.bad_token: 3,
            self.oversized: 3, self.storm: 3, self.never_reads: 3, self.half_open: 2, self.requests: 3, self.bad_publish: 3,
            self.half_a_frame: 2, self.crowd: 1, self.tls_garbage: 2, self.presence: 1,
        }  # fmt: skip
        while True:
            trick = self.rng.choices(list(tricks), list(tricks.values()))[0]
            self.truth.counts[f"stranger: {trick.__name__}"] += 1
            try:
                async with asyncio.timeout(20.0):
                    await trick()
            except (OSError, TimeoutError, EOFError, ValueError, RuntimeError):
                pass  # it was thrown out, or its gateway has gone
            finally:
                for writer in self._opened:
                    writer.transport.abort()
                self._opened.clear()
            await asyncio.sleep(self.rng.uniform(0.0, 0.3))

    # ------------------------------------------------------------------------------------------- means

    async def _open(self, role: str = "", *, tcp: bool = False, tls: bool = False) -> Streams:
        role = role or self.rng.choice("abb")
        port = (self.fleet.tcp_ports if tcp else self.fleet.ports)[role]
        async with asyncio.timeout(5.0):
            streams = await asyncio.open_connection("127.0.0.1", port, ssl=self.fleet.tls if tls else None)
        self._opened.append(streams[1])
        return streams

    def _head(self, hello: Hello | None = None, token: str | None = None) -> bytes:
        target = "/v1/stream" + ("" if hello is None else f"?hello={push_frames.format_hello_query(hello)}")
        headers = {"Authorization": f"Bearer {self.fleet.token if token is None else token}"}
        nonce = self.rng.randbytes(16)
        return websocket.ask("127.0.0.1", target, nonce, subprotocols=("budao.v1.json",), headers=headers)[0]

    def _masked(self, frame: Any, opcode: int = 1) -> bytes:
        raw = frame if isinstance(frame, bytes) else push_frames.JSON.encode(frame)
        return websocket.frame(opcode, raw, mask=self.rng.randbytes(4))

    def _some(self) -> dict[str, None]:
        return dict.fromkeys(self.rng.sample(CHANNELS, self.rng.randrange(1, 5)))

    async def _session(self, role: str = "") -> Streams:
        """A WebSocket that was welcomed."""
        tls = self.rng.random() < 0.2 and not role
        streams = await self._open("t" if tls else role, tls=tls)
        streams[1].write(self._head(Hello(channels=self._some())))
        await self._answered(streams, 4)
        return streams

    async def _answered(self, streams: Streams, count: int) -> None:
        try:
            async with asyncio.timeout(5.0):
                await streams[0].readexactly(count)
        except BaseException:
            streams[1].transport.abort()
            raise

    async def _tcp_session(self) -> Streams:
        streams = await self._open(tcp=True)
        hello = push_frames.format_hello(push_frames.MSGPACK, Hello(channels=self._some()), self.fleet.token)
        streams[1].write(framing.frame(hello))
        await self._answered(streams, 4)
        return streams

    def _end(self, streams: Streams) -> None:
        """Cleanly, with an RST, or by a FIN in the middle."""
        writer = streams[1]
        way = self.rng.randrange(4)
        if way == 0 and not writer.transport.is_closing():
            with suppress(RuntimeError):  # it has said its end already
                writer.write(websocket.close_frame(1000, mask=b"abcd"))
        elif way == 1:
            with suppress(OSError, AttributeError):
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        writer.close()

    async def _until_closed(self, streams: Streams, what: str, within_s: float = 12.0) -> bytes:
        """What is said until the gateway closes, which it must, unless it is being frozen or killed."""
        try:
            async with asyncio.timeout(within_s):
                return await streams[0].read(1 << 20)
        except TimeoutError:
            self.truth.counts[f"late: {what}"] += 1
            raise
        finally:
            self._end(streams)

    # ------------------------------------------------------------------------------------------ tricks

    async def connect_and_leave(self) -> None:
        """At any moment of the way in."""
        streams = await self._open(self.rng.choice("abt"), tcp=self.rng.random() < 0.3)
        head = self._head(Hello(channels=self._some()))
        await asyncio.sleep(self.rng.choice((0.0, 0.0, 0.01)))
        streams[1].write(head[: self.rng.randrange(len(head) + 1)])
        await asyncio.sleep(self.rng.choice((0.0, 0.0, 0.05, 0.5)))
        self._end(streams)

    async def idle_readers(self) -> None:
        """Sessions that are here for a while, and end any way."""
        found: list[Streams] = []
        try:
            for _ in range(self.rng.randrange(1, 30)):  # those that are open already are closed whatever comes
                found.append(await (self._session() if self.rng.random() < 0.7 else self._tcp_session()))  # noqa: PERF401
            until = asyncio.get_running_loop().time() + self.rng.uniform(0.0, 5.0)
            while asyncio.get_running_loop().time() < until:
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await self.rng.choice(found)[0].read(65_536)
        finally:
            for each in found:
                self._end(each)

    async def never_reads(self) -> None:
        """Subscribes to everything and never reads."""
        with socket.socket() as opened:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            opened.setblocking(False)
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(5.0):
                await loop.sock_connect(opened, ("127.0.0.1", self.fleet.ports[self.rng.choice("ab")]))
            await loop.sock_sendall(opened, self._head(Hello(channels=dict.fromkeys(CHANNELS))))
            await asyncio.sleep(self.rng.uniform(1.0, 15.0))

    async def half_open(self) -> None:
        """Says that it has said everything, and goes on reading."""
        streams = await self._session(self.rng.choice("ab"))
        with suppress(OSError):
            streams[1].write_eof()
        await self._until_closed(streams, "closing after a FIN")

    async def garbage(self) -> None:
        """Any bytes, on both ports, before and after the way in."""
        tcp = self.rng.random() < 0.5
        streams = (
            await (self._tcp_session() if tcp else self._session())
            if self.rng.random() < 0.5
            else await self._open(tcp=tcp)
        )
        noise = self.rng.randbytes(self.rng.randrange(1, 3_000))
        if self.rng.random() < 0.3:
            noise = self._masked(
                self.rng.choice((b'{"type":"sub"', b"[" * 5_000, b"\xff\xfe", b'{"type":"pub","ref":1e400}'))
            )
        streams[1].write(noise)
        if self.rng.random() < 0.5 and not streams[1].transport.is_closing():
            streams[1].write(self.rng.randbytes(100_000))
        await asyncio.sleep(self.rng.uniform(0.0, 0.5))
        self._end(streams)

    async def tls_garbage(self) -> None:
        """Handshakes that are none, or are broken off."""
        streams = await self._open("t")
        streams[1].write(
            self.rng.choice((b"GET / HTTP/1.1\r\n\r\n", self.rng.randbytes(300), b"\x16\x03\x01\x02\x00\x01\x00", b""))
        )
        await asyncio.sleep(self.rng.uniform(0.0, 1.0))
        self._end(streams)

    async def slowloris(self) -> None:
        """A head that never ends, a few bytes at a time: it must be given up."""
        streams = await self._open(self.rng.choice("ab"), tcp=self.rng.random() < 0.3)
        head = self._head(Hello(channels=self._some()))
        for byte in head[:80]:
            if streams[1].transport.is_closing() or streams[0].at_eof():
                break
            streams[1].write(bytes((byte,)))
            await asyncio.sleep(0.15)
        await self._until_closed(streams, "giving up a slow head")

    async def bad_token(self) -> None:
        """Not signed, signed by another, expired, none at all."""
        token = self.rng.choice(("", "x.y.z", self.fleet.token[:-3] + "AAA", "eyJhbGciOiJub25lIn0.e30."))
        streams = await self._open()
        streams[1].write(self._head(Hello(channels=self._some()), token))
        said = await self._until_closed(streams, "a bad token")
        if b'"type":"welcome"' in said:
            self.truth.blame(f"a stranger with a bad token was welcomed: {said[-200:]!r}")

    async def oversized(self) -> None:
        """A frame, a head or a body beyond the bounds."""
        which = self.rng.randrange(4)
        if which == 0:
            streams = await self._session(self.rng.choice("ab"))
            streams[1].write(self._masked(b"x" * 1_000_000))
        elif which == 1:
            streams = await self._tcp_session()
            streams[1].write(struct.pack(">I", 1 << 30) + b"x" * 1_000)
        elif which == 2:
            streams = await self._open(self.rng.choice("ab"))
            streams[1].write(b"GET / HTTP/1.1\r\nX: " + b"y" * 50_000)
        else:
            streams = await self._open(self.rng.choice("ab"))
            streams[1].write(
                b"POST /v1/publish HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999\r\n\r\n" + b"y" * 9_000
            )
        await self._until_closed(streams, "something oversized")

    async def storm(self) -> None:
        """Subscribes and unsubscribes as fast as it can."""
        streams = await self._session(self.rng.choice("ab"))
        ref = 0
        for _ in range(self.rng.randrange(20, 400)):
            if streams[1].transport.is_closing():
                break
            channel = self.rng.choice((*CHANNELS, f"other.{self.rng.randrange(100)}"))
            out = b""
            for kind in (Sub, Unsub):
                ref += 1
                out += self._masked(kind(ref=ref, channel=channel))
            streams[1].write(out)
            if self.rng.random() < 0.05:
                await asyncio.sleep(0.01)
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await streams[0].read(1 << 20)
        self._end(streams)

    async def half_a_frame(self) -> None:
        """A frame that is never whole."""
        streams = await (self._session(self.rng.choice("ab")) if self.rng.random() < 0.5 else self._tcp_session())
        raw = self._masked(b"z" * 50_000)
        streams[1].write(raw[: self.rng.randrange(1, len(raw))])
        await asyncio.sleep(self.rng.uniform(0.0, 3.0))
        self._end(streams)

    async def requests(self) -> None:
        """Requests of all kinds over one connection, some before the last is answered."""
        streams = await self._open(self.rng.choice("ab"))
        paths = (
            "/healthz",
            "/readyz",
            "/metrics",
            "/nowhere",
            "/v1/presence?channel=x",
            "/v1/events?channel=%00",
            "/v1/stream",
        )
        for _ in range(self.rng.randrange(1, 20)):
            path = self.rng.choice(paths)
            head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.fleet.token}\r\n\r\n"
            streams[1].write(head.encode() * self.rng.choice((1, 1, 3)))
            await asyncio.sleep(self.rng.choice((0.0, 0.01)))
        await asyncio.sleep(self.rng.uniform(0.0, 0.3))
        self._end(streams)

    async def bad_publish(self) -> None:
        """Bodies that are not what they claim to be, or never come whole."""
        streams = await self._open(self.rng.choice("ab"))
        body = self.rng.choice(
            (
                b"{",
                b"[]",
                b'{"channel":"\\u0000","data":1}',
                b'{"channel":"steady.0"}',
                b'{"channel":"steady.0","data":NaN}',
                json.dumps({"channel": "steady.0", "data": "x" * 100_000}).encode(),
                b'{"messages":' + b"[" * 10_000,
                self.rng.randbytes(500),
            )
        )
        length = len(body) + self.rng.choice((0, 0, 50))
        head = (
            f"POST /v1/publish HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.fleet.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
        streams[1].write(head.encode() + body)
        if length == len(body):
            async with asyncio.timeout(5.0):
                said = await streams[0].readuntil(b"\r\n\r\n")
            if said.startswith(b"HTTP/1.1 200"):
                self.truth.blame(f"a publish that made no sense was taken: {body[:60]!r}")
        self._end(streams)

    async def presence(self) -> None:
        """Events and streams for names that nobody uses, which must be forgotten again."""
        for _ in range(20):
            streams = await self._open(self.rng.choice("ab"))
            path = f"/v1/events?channel=nobody.{self.rng.randrange(10**9)}&channel={self.rng.choice(STEADY)}"
            head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.fleet.token}\r\n\r\n"
            streams[1].write(head.encode())
            await asyncio.sleep(0.02)
            self._end(streams)

    async def crowd(self) -> None:
        """Several hundred at once, which are cut off at once."""
        role = self.rng.choice("ab")
        head = self._head(Hello(channels=self._some()))
        found = []
        for _ in range(300):
            opened = socket.socket()
            opened.setblocking(False)
            found.append(opened)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(5.0):
                address = ("127.0.0.1", self.fleet.ports[role])
                await asyncio.gather(*(loop.sock_connect(each, address) for each in found))
                await asyncio.gather(*(loop.sock_sendall(each, head) for each in found))
            await asyncio.sleep(self.rng.uniform(0.0, 2.0))
        finally:
            for each in found:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.close()
