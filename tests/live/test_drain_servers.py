"""What each server does of a drain: programs that are sent signals."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h2.connection
import h2.events
import pytest

from tests.live.servers_http import free_port

PATIENCE_S = 30.0
SERVERS = ["uvicorn", "hypercorn", "granian"]


@dataclass(slots=True)
class Service:
    port: int
    process: asyncio.subprocess.Process
    said: dict[str, Any] = field(default_factory=dict)

    async def get(self, path: str) -> tuple[int, bytes, bytes]:
        """Status, head and body; of a reply that breaks off, what there was, and status 0."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            status = int(head.split()[1])
            if b"content-length" in head:
                size = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
                return status, head, await reader.readexactly(size)
            body = b""
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            return status, head, body
        except (OSError, EOFError, ValueError):
            return 0, b"", b""
        finally:
            writer.close()

    def signal(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def draining(self) -> None:
        """Until it says so."""
        while (await self.get("/readyz"))[0] != 503:  # noqa: ASYNC110 - another process has no event
            await asyncio.sleep(0.02)

    async def proof(self, *, exits: tuple[int, ...] = (0,)) -> str:
        """What it said at its end."""
        assert self.process.stdout is not None
        said = (await self.process.stdout.read()).decode()
        assert await self.process.wait() in exits
        return said


@asynccontextmanager
async def service(server: str, **more: Any) -> AsyncIterator[Service]:
    port = free_port()
    said = {"server": server, "port": port, "drain": True, "lag_s": 0.3, "grace_s": 60.0, **more}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.live.drain_app", json.dumps(said), stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
            yield Service(port, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("server", SERVERS)
def test_while_it_drains_it_answers_says_not_ready_and_asks_to_go(server: str) -> None:
    async def run() -> None:
        async with service(server, lag_s=100.0, grace_s=600.0) as one:
            assert b"connection: close" not in (await one.get("/"))[1]
            slow = asyncio.create_task(one.get("/slow/2"))
            stream = asyncio.create_task(one.get("/stream/20"))
            await asyncio.sleep(0.1)  # on their way
            one.signal()
            await one.draining()
            status, head, body = await one.get("/")
            assert (status, body) == (200, b"ok")
            assert b"connection: close" in head
            # Nobody waits for the lag any longer; what was in flight before, and what came meanwhile, is answered whole.
            one.signal()
            assert (await slow)[0] == 200
            assert (await stream)[2] == b"x" * 200
            proof = await one.proof()
            assert "calls_finished=3 calls_cut=0" in proof
            assert "hurried=1" in proof

    asyncio.run(run())


@pytest.mark.parametrize("server", SERVERS)
def test_what_outlives_the_grace_is_cut_and_counted(server: str) -> None:
    async def run() -> None:
        async with service(server, grace_s=2.0) as one:
            slow = asyncio.create_task(one.get("/slow/600"))
            stream = asyncio.create_task(one.get("/stream/100000"))
            await asyncio.sleep(0.1)  # on their way
            assert (await one.get("/"))[0] == 200
            one.signal()
            # A reply that has not begun becomes a refusal; one that has is broken off, so that nobody takes it for whole.
            assert (await slow)[0] == 503
            assert (await stream)[0] == 0
            assert "calls_cut=2" in await one.proof()

    asyncio.run(run())


@pytest.mark.parametrize("server", SERVERS)
def test_a_second_signal_hurries(server: str) -> None:
    async def run() -> None:
        async with service(server, lag_s=100.0, grace_s=600.0) as one:
            one.signal()
            await one.draining()
            one.signal()
            proof = await one.proof()
            assert 'why="hurried"' in proof
            assert "hurried=1" in proof

    asyncio.run(run())


@pytest.mark.parametrize("server", SERVERS)
def test_a_websocket_is_told_to_connect_again_elsewhere(server: str) -> None:
    async def run() -> None:
        async with service(server) as one, AsyncExitStack() as closing:
            reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
            closing.callback(writer.close)
            writer.write(
                b"GET /chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            one.signal()
            assert await reader.readexactly(1) == b"\x88"
            size = (await reader.readexactly(1))[0]
            frame = await reader.readexactly(size)
            assert int.from_bytes(frame[:2], "big") == 1012
            writer.write(b"\x88\x82\0\0\0\0\x03\xf4")
            # A thread of granian's runtime sometimes panics while the interpreter ends, after the drain is over.
            assert "calls_cut=0" in await one.proof(exits=(0, -signal.SIGABRT) if server == "granian" else (0,))

    asyncio.run(run())


def test_under_its_own_command_uvicorn_drains_as_well() -> None:
    async def run() -> None:
        async with service("uvicorn-bare", lag_s=100.0, grace_s=600.0) as one:
            slow = asyncio.create_task(one.get("/slow/1"))
            await asyncio.sleep(0.1)  # on its way
            one.signal()
            await one.draining()
            assert (await one.get("/"))[0] == 200
            one.signal()
            assert (await slow)[0] == 200
            # uvicorn ends by the signal it was sent.
            assert await one.process.wait() == -signal.SIGTERM

    asyncio.run(run())


def test_an_http2_connection_gets_its_goaway_after_a_reply_while_hypercorn_drains() -> None:
    async def run() -> None:
        async with service("hypercorn", lag_s=100.0, grace_s=600.0) as one:
            reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
            peer = h2.connection.H2Connection()
            peer.initiate_connection()

            async def get(until: type[h2.events.Event]) -> list[type[h2.events.Event]]:
                stream = peer.get_next_available_stream_id()
                named = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "x")]
                peer.send_headers(stream, named, end_stream=True)
                seen: list[type[h2.events.Event]] = []
                while until not in seen:
                    writer.write(peer.data_to_send())
                    said = await reader.read(65_536)
                    assert said, "the connection ended without a GOAWAY"
                    seen += [type(event) for event in peer.receive_data(said)]
                return seen

            assert h2.events.ConnectionTerminated not in await get(h2.events.StreamEnded)
            one.signal()
            await one.draining()
            seen = await get(h2.events.ConnectionTerminated)
            # The reply is whole before the connection is given up.
            assert seen.index(h2.events.StreamEnded) < seen.index(h2.events.ConnectionTerminated)
            writer.close()
            one.signal()
            assert "hurried=1" in await one.proof()

    asyncio.run(run())
