"""Gateways as processes that can be moved out of and into, and readers that verify everything and notice every end."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from budao.aio.logs import LogServer
from budao.apps.gateway_control import NoAnswer, ask
from budao.push import (
    Bye,
    Draft,
    Follower,
    Frame,
    FromGateway,
    Hello,
    Kind,
    Message,
    Missing,
    Move,
    Msg,
    Ping,
    Pong,
    Position,
    Welcome,
)
from budao.wire import push_frames, sse, websocket
from tests.live.push_raw import drop, hang_up, leave
from tests.live.redis_server import PATIENCE_S

CHANNELS = ("news", "room:1", "room:2")

PROGRAM = """
import asyncio, json, sys
from contextlib import AsyncExitStack
from pathlib import Path
from budao.aio.gateway import Access, Gateway
from budao.aio.gateway.control import ControlSocket
from budao.aio.gateway.handover import take_over
from budao.aio.gateway.mover import Mover
from budao.aio.gateway.tickets import read_ticket_keys
from budao.aio.logs import RemoteLog
from budao.push import Grant, LeavingPolicy, SessionPolicy, TakeoverPolicy, Target
from budao.wire.tokens import TokenKeys

PATIENT = TakeoverPolicy(settle_s=20.0, send_s=30.0, take_s=30.0, rest_s=0.5, batch_count=24)

async def main():
    said = json.loads(sys.argv[1])
    anybody = Grant(subscribe=("**",), publish=("**",)) if said["anonymous"] else None
    access = Access(anonymous=anybody, keys=TokenKeys.of_secret("k" * 40))
    rates = SessionPolicy(beat_min_s=0.05)
    async with AsyncExitStack() as stack:
        taking, inherited, about = None, (), None
        if said["take_over"]:
            taking = await take_over(Path(said["take_over"]), PATIENT)
            inherited, about = taking.listening, taking.about
        log = await stack.enter_async_context(RemoteLog("127.0.0.1", said["log"]))
        name = said["name"] if about is None else about["name"]
        gateway = Gateway(log, access=access, session_policy=rates, name=name, inherited=inherited, tcp_port=0)
        keys = None if not said["keys"] else read_ticket_keys(Path(said["keys"]))
        mover = Mover(
            gateway,
            keys=keys,
            targets=[Target(*each) for each in said["targets"]],
            leaving_policy=LeavingPolicy(**said["leaving"]),
            takeover_policy=PATIENT,
            about=about,
        )
        await stack.enter_async_context(gateway)
        stack.callback(mover.close)
        control = ControlSocket(Path(said["control"]), mover, replaces=taking is not None)
        await stack.enter_async_context(control)
        if taking is not None:
            found = await told(taking, mover)
            control.appear()
            print(json.dumps(found), flush=True)
        print(json.dumps({"port": gateway.port, "tcp_port": gateway.tcp_port}), flush=True)
        await mover.over.wait()

async def told(taking, mover):
    taken = await taking.receive(mover)
    return {"served": taken.served, "failed": taken.failed, "took_s": taken.took_s}

if json.loads(sys.argv[1])["uvloop"]:
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


class GatewayProcess:
    """Entered, it listens on `port`; left, it is gone. It ends by itself once it has left."""

    def __init__(
        self,
        folder: Path,
        log_port: int,
        name: str = "a",
        *,
        take_over: Path | None = None,
        keys: Path | None = None,
        targets: Sequence[tuple[str, str]] = (),
        leaving: Mapping[str, float] | None = None,
        anonymous: bool = True,
        uvloop: bool = True,
    ) -> None:
        self.control = folder / f"{name}.sock"
        said = {
            "log": log_port,
            "name": name,
            "control": str(self.control),
            "take_over": None if take_over is None else str(take_over),
            "keys": None if keys is None else str(keys),
            "targets": list(targets),
            "leaving": dict(leaving or {"lag_s": 0.0}),
            "anonymous": anonymous,
            "uvloop": uvloop,
        }
        command = [sys.executable, "-c", PROGRAM, json.dumps(said)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0)
        self._is_successor = take_over is not None
        self.taken: dict[str, Any] = {}
        self.port = 0
        self.tcp_port = 0

    async def ready(self) -> Self:
        """Until it listens, and has taken over if it should."""
        if self._is_successor:
            self.taken = await self._said()
        said = await self._said()
        self.port, self.tcp_port = said["port"], said["tcp_port"]
        return self

    async def _said(self) -> dict[str, Any]:
        said = self.process.stdout
        assert said is not None
        there, _, _ = await asyncio.to_thread(select.select, [said], [], [], PATIENCE_S)
        assert there, "the gateway neither gets ready nor ends"
        line = said.readline()
        assert line, f"the gateway ended with {self.process.wait(PATIENCE_S)} before it was ready"
        found: dict[str, Any] = json.loads(line)
        return found

    async def ask(self, verb: str, **more: object) -> Mapping[str, Any]:
        return await asyncio.to_thread(ask, self.control, {"do": verb, **more})

    async def status(self) -> Mapping[str, Any] | None:
        """None once it is gone."""
        try:
            return await self.ask("status")
        except NoAnswer:
            return None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    async def ended(self) -> int:
        return await asyncio.to_thread(self.process.wait, PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()


PONG_OPCODE = 10


class Traffic:
    """Publishes to all channels, some hundred messages a second, until it is stopped."""

    def __init__(self, server: LogServer) -> None:
        self.server = server
        self.counts = dict.fromkeys(CHANNELS, 0)
        self._published = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        leave(self.stop)

    async def _run(self) -> None:
        while not self._stopping.is_set():
            drafts = [Draft(name, b'{"n":%d}' % self.counts[name], Kind.JSON) for name in CHANNELS]
            for draft, placed in zip(drafts, await self.server.log.publish(drafts), strict=True):
                assert hasattr(placed, "position")
                self.counts[draft.channel] += 1
            self._published.set()
            await asyncio.sleep(0.008)

    async def more(self, count: int) -> None:
        """Until so many more were published in each channel."""
        until = self.counts["news"] + count
        async with asyncio.timeout(PATIENCE_S):
            while self.counts["news"] < until:
                assert not self._task.done(), self._task.exception()
                await self._published.wait()
                self._published.clear()

    async def stop(self) -> dict[str, int]:
        self._stopping.set()
        await self._task
        return self.counts


class Reader:
    """One connection that reads channels, trusts nobody, and never comes back by itself. `ended` says why it is over."""

    def __init__(self, channels: Mapping[str, Position | None], *, codec: push_frames.Codec = push_frames.JSON) -> None:
        self.codec = codec
        self.followers = {name: Follower(name, place) for name, place in channels.items()}
        self.got: dict[str, list[int]] = {name: [] for name in channels}
        self.frames: list[FromGateway] = []
        self.moves: asyncio.Queue[Move] = asyncio.Queue()
        self.welcome: Welcome | None = None
        self.ended = ""
        self.bye: Bye | None = None
        self.events = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._bytes = websocket.Reader(1 << 20, is_server=False)

    async def open(self, port: int, *, query: str = "", **hello: Any) -> Self:
        reader = await self._connect(port)
        said = Hello(channels={name: each.place for name, each in self.followers.items()}, **hello)
        target = f"/v1/stream?hello={push_frames.format_hello_query(said)}{query}"
        subprotocols = (self.codec.subprotocol,)
        self.raw(websocket.ask("127.0.0.1", target, os.urandom(16), subprotocols=subprotocols)[0])
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head, head
        self._task = asyncio.create_task(self._read(reader))
        await self.until(lambda: self.welcome is not None or bool(self.ended))
        return self

    async def _connect(self, port: int) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        self._writer = writer
        leave(self.drop)
        return reader

    def send(self, frame: Frame) -> None:
        self.raw(websocket.frame(1 if self.codec.is_text else 2, self.codec.encode(frame), mask=os.urandom(4)))

    def raw(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    async def until(self, claim: Any) -> None:
        """Waits until something is so."""
        async with asyncio.timeout(PATIENCE_S):
            while not claim():
                await self.events.wait()
                self.events.clear()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._writer is not None:
            await hang_up(self._writer)

    async def drop(self) -> None:
        if self._writer is not None:
            await drop(self._writer)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(1 << 16):
                for event in self._bytes.feed(data):
                    self._take(event)
                self.events.set()
            self.ended = self.ended or "end of stream"
        except OSError as problem:
            self.ended = self.ended or str(problem)
        except Exception as problem:
            self.ended = f"broken: {problem!r}"
            raise
        finally:
            self.events.set()

    def _take(self, event: websocket.Event) -> None:
        if isinstance(event, websocket.WsClose):
            self.ended = f"closed with {event.code}"
        if isinstance(event, websocket.WsPing):  # whoever never answers is taken for dead after a while
            self.raw(websocket.frame(PONG_OPCODE, event.data, mask=os.urandom(4)))
        if not isinstance(event, websocket.Text | websocket.Binary):
            return
        self.frame(self.codec.decode_from_gateway(event.data))

    def frame(self, frame: FromGateway) -> None:
        """Any frame, whatever brought it."""
        match frame:
            case Welcome():
                self.welcome = frame
                for name, place in frame.channels.items():
                    self.followers[name].begin(place)
            case Msg():
                found = self.followers[frame.message.channel].take(frame.message)
                assert isinstance(found, Message), f"doubled: {frame}"
                self.got[found.channel].append(found.position.seq)
            case Missing():
                raise AssertionError(f"a gap where nothing is missing: {frame}")
            case Move():
                self.moves.put_nowait(frame)
            case Bye():
                self.bye = frame
            case Ping(number=number) if number:
                self.send(Pong(number=number))
            case _:
                self.frames.append(frame)


class SseReader(Reader):
    """The same over server-sent events."""

    async def open(self, port: int, *, query: str = "", **hello: Any) -> Self:
        assert not hello, "there is no hello"
        reader = await self._connect(port)
        channels = "&".join(f"channel={name}" for name in self.followers)
        self.raw(f"GET /v1/events?{channels}{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        self._events = sse.Reader(1 << 20)
        self._task = asyncio.create_task(self._stream(reader))
        await self.until(lambda: self.welcome is not None or bool(self.ended))
        return self

    async def _stream(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(1 << 16):
                for event in self._events.feed(data):
                    if isinstance(event, sse.Event):
                        self.frame(push_frames.JSON.decode_from_gateway(event.data))
                self.events.set()
            self.ended = "end of stream"
        except OSError as problem:
            self.ended = str(problem)
        finally:
            self.events.set()
