"""Peers that stop reading, freeze, are cut off without a packet, or slam the door: each is noticed, named and let go."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from random import Random
from typing import Any

import pytest

from budao.aio.gateway import Access, Gateway
from budao.aio.gateway.sampler import Watch, WatchPolicy
from budao.aio.gateway.sockets import SocketPolicy, apply_socket_policy
from budao.aio.gateway.vital import Vital, why_of
from budao.aio.logs import MemoryLog
from budao.push import BadEnd, Draft, Grant, HeartbeatPolicy, PacePolicy, Treatment

PATIENCE_S = 30.0
QUICK = WatchPolicy(
    heartbeat=HeartbeatPolicy(quiet_s=0.5, late_s=0.2, again_max_s=0.4, silent_s=3.0, tick_s=0.05), look_s=0.1
)
ANYBODY = Grant(subscribe=("**",), publish=("**",))
CLIENT = """
import sys
from websockets.sync.client import connect
with connect(sys.argv[1], subprotocols=["budao.v1.json"], ping_interval=None, proxy=None) as link:
    print("here", flush=True)
    for _ in link:
        pass
"""
ECHO = """
import socket, sys
link = socket.create_connection((sys.argv[1], int(sys.argv[2])))
print("here", flush=True)
while data := link.recv(65536):
    link.sendall(b"!")
"""


async def until(claim: Callable[[], object], what: str) -> None:
    ends_at = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < ends_at, what
        await asyncio.sleep(0.01)


@asynccontextmanager
async def open_gateway(policy: WatchPolicy = QUICK, pace: PacePolicy | None = None) -> AsyncIterator[Gateway]:
    async with (
        MemoryLog() as log,
        Gateway(log, access=Access(anonymous=ANYBODY), watch_policy=policy, pace_policy=pace) as gateway,
    ):
        yield gateway


def upgraded(port: int, hello: str, *, receive_bytes: int = 0) -> socket.socket:
    """A WebSocket whose client has said hello, and does nothing any more."""
    link = socket.socket()
    if receive_bytes:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    link.connect(("127.0.0.1", port))
    said = base64.urlsafe_b64encode(hello.encode()).rstrip(b"=").decode()
    link.sendall(
        f"GET /v1/stream?hello={said} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: budao.v1.json\r\n\r\n".encode()
    )
    return link


@contextmanager
def process(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGCONT)
        child.kill()
        child.wait(PATIENCE_S)
        assert child.stdout is not None
        child.stdout.close()


async def here(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout is not None
    assert await asyncio.to_thread(child.stdout.readline) == b"here\n"


def test_a_reader_that_stops_is_cut_once_it_is_full_and_silent_and_others_go_on() -> None:
    async def story() -> None:
        async with open_gateway() as gateway:
            watch = gateway.looking_after.watch
            hello = '{"type":"hello","channels":{"c":null}}'
            with upgraded(gateway.port, hello, receive_bytes=4_096):
                await until(lambda: len(gateway.connections) == 1, "it is welcomed")
                (connection,) = gateway.connections
                data = b'"' + b"x" * 16_000 + b'"'
                number = 0
                while connection in gateway.connections and number < 3_000:
                    await gateway.log.publish([Draft("c", data)])
                    number += 1
                    await asyncio.sleep(0.005)
                await until(lambda: not gateway.connections, "it is cut")
            assert connection.why == "blocked"
            assert gateway.metrics.errors["blocked"] == 1
            assert watch.prefixes.totals[BadEnd.BLOCKED] == 1
            assert watch.joint.ordered[Treatment.CUT] == 1
            assert len(watch) == len(watch.joint) == 0

    asyncio.run(story())


def test_a_reader_that_is_slow_but_reads_is_not_taken_for_lost() -> None:
    async def story() -> None:
        async with open_gateway() as gateway:
            watch = gateway.looking_after.watch
            hello = '{"type":"hello","channels":{"c":null}}'
            with upgraded(gateway.port, hello, receive_bytes=4_096) as link:
                link.setblocking(False)
                await until(lambda: len(gateway.connections) == 1, "it is welcomed")
                (connection,) = gateway.connections
                data = b'"' + b"x" * 16_000 + b'"'
                full_at = read_bytes = 0
                for _ in range(2_000):  # it is told much more than it reads, and answers no ping
                    if read_bytes - full_at > 1_000_000 and full_at:
                        break
                    await gateway.log.publish([Draft("c", data)] * 3)
                    with suppress(BlockingIOError):
                        read_bytes += len(link.recv(8_192))
                    if not full_at and watch.joint.ordered[Treatment.PARK] + watch.joint.ordered[Treatment.BACK_OFF]:
                        full_at = read_bytes
                    await asyncio.sleep(0.01)
                assert full_at
                assert connection in gateway.connections
                assert watch.joint.ordered[Treatment.CUT] == watch.heartbeats.degraded == 0

    asyncio.run(story())


def test_a_client_that_answers_pings_stays_and_one_that_freezes_ends_as_silent() -> None:
    async def story() -> None:
        async with open_gateway() as gateway:
            watch = gateway.looking_after.watch
            url = f"ws://127.0.0.1:{gateway.port}/v1/stream"
            with process(sys.executable, "-c", CLIENT, url) as child:
                await here(child)
                await until(lambda: watch.heartbeats.pings >= 3, "it is pinged")
                assert watch.heartbeats.degraded == 0
                (connection,) = gateway.connections
                os.kill(child.pid, signal.SIGSTOP)
                await until(lambda: connection.health is not None and connection.health.is_lost, "it is lost")
                os.kill(child.pid, signal.SIGCONT)
                await until(lambda: not connection.health.is_lost, "it lives after all")
                os.kill(child.pid, signal.SIGSTOP)
                await until(lambda: not gateway.connections, "it is ended")
            assert connection.why == "silent"
            assert watch.heartbeats.restored >= 1
            assert watch.prefixes.totals[BadEnd.SILENT] == 1
            assert gateway.metrics.errors["silent"] == 1

    asyncio.run(story())


def test_a_door_that_is_slammed_is_counted_for_its_prefix() -> None:
    async def story() -> None:
        async with open_gateway() as gateway:
            link = upgraded(gateway.port, '{"type":"hello"}')
            await until(lambda: len(gateway.connections) == 1, "it is welcomed")
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.close()
            await until(lambda: not gateway.connections, "it is gone")
            watch = gateway.looking_after.watch
            (worst,) = watch.prefixes.worst(5, gateway.now())
            assert (worst.prefix, worst.kinds) == ("127.0.0.0/24", ((BadEnd.RESET, 1),))
            status, told = gateway.controls["health"]({})
            assert (status, told["bad_ends"], told["connections"]) == (200, {"reset": 1}, 0)
            assert [each["prefix"] for each in told["prefixes"]] == ["127.0.0.0/24"]

    asyncio.run(story())


def test_events_are_judged_by_what_the_kernel_says() -> None:
    async def story() -> None:
        async with open_gateway() as gateway:
            with socket.create_connection(("127.0.0.1", gateway.port)) as link:
                link.sendall(b"GET /v1/events?channel=c HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                watch = gateway.looking_after.watch
                await until(lambda: watch.heartbeats.pings >= 4, "it is sent something to read")
                assert watch.heartbeats.late == 0
                assert len(gateway.connections) == 1

    asyncio.run(story())


def test_a_storm_is_told_when_to_come_back() -> None:
    async def story() -> None:
        async with open_gateway(pace=PacePolicy(rate_per_s=1.0, burst=2)) as gateway:
            links = [upgraded(gateway.port, '{"type":"hello"}') for _ in range(4)]
            try:
                await until(lambda: gateway.metrics.slots_given == 2, "two are told to wait")
                said = b""
                for link in links:
                    link.settimeout(PATIENCE_S)
                    said += await asyncio.to_thread(link.recv, 65_536)
                assert said.count(b'"why":"paced"') == 2
            finally:
                for link in links:
                    link.close()

    asyncio.run(story())


class Plain(asyncio.Protocol):
    """A connection of no gateway, for an address that a gateway would not serve in the clear."""

    def __init__(self, watch: Watch, ended: list[str]) -> None:
        self.watch, self.told = watch, ended
        self.health: Vital | None = None
        self.why = ""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.watch.join(self)

    def data_received(self, data: bytes) -> None:
        assert data
        if self.health is not None:
            self.health.is_heard = True

    def connection_lost(self, problem: Exception | None) -> None:
        self.why = self.why or why_of(problem)
        self.told.append(self.why)
        self.watch.leave(self)

    @property
    def socket(self) -> Any:
        return self.transport.get_extra_info("socket")

    @property
    def peer(self) -> str:
        return str(self.transport.get_extra_info("peername")[0])

    def queued_bytes(self) -> int:
        return int(self.transport.get_write_buffer_size())

    def ping(self, number: int) -> None:
        self.transport.write(b"%d" % number)

    def park(self) -> None:
        self.told.append("parked")

    def unpark(self) -> None:
        self.told.append("released")

    def close(self, why: str) -> None:
        self.cut(why)

    def cut(self, why: str) -> None:
        self.why = why
        self.transport.abort()


@contextmanager
def street() -> Iterator[tuple[str, str]]:
    """A network namespace with a wire to here. Only root may build it. Answers its name, and our address on the wire."""
    assert os.geteuid() == 0, "to cut a peer off takes a network namespace, and that takes root: run this as root"
    name, net = f"bh{os.getpid()}", f"198.19.{os.getpid() % 254 + 1}"
    outer, inner = f"{name}o", f"{name}i"

    def run(*words: str) -> None:
        program = shutil.which(words[0])
        assert program is not None, f"no {words[0]} on this machine"
        done = subprocess.run([program, *words[1:]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    try:
        run("ip", "netns", "add", name)
        run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner)
        run("ip", "link", "set", inner, "netns", name)
        run("ip", "addr", "add", f"{net}.1/24", "dev", outer)
        run("ip", "link", "set", outer, "up")
        run("ip", "-n", name, "addr", "add", f"{net}.2/24", "dev", inner)
        run("ip", "-n", name, "link", "set", inner, "up")
        yield name, f"{net}.1"
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", outer], capture_output=True, check=False)


CUT_OFF = "table inet cut {\nchain input {\ntype filter hook input priority 0; policy drop;\n}\n}\n"


@pytest.mark.parametrize("is_written_to", [False, True])
def test_a_peer_that_is_cut_off_without_a_packet_is_parked_and_ends(is_written_to: bool) -> None:
    async def story(space: str, address: str) -> None:
        watch, told = Watch(QUICK, rng=Random(1)), list[str]()
        watch.start()
        links: list[Plain] = []

        def made() -> Plain:
            links.append(Plain(watch, told))
            return links[-1]

        server = await asyncio.get_running_loop().create_server(made, address, 0)
        apply_socket_policy(server.sockets[0]._sock, SocketPolicy())  # type: ignore[attr-defined]
        port = server.sockets[0].getsockname()[1]
        try:
            with process("ip", "netns", "exec", space, sys.executable, "-c", ECHO, address, str(port)) as child:
                await here(child)
                await until(lambda: watch.heartbeats.pings >= 2, "it is pinged")
                assert told == []
                cutting = ["ip", "netns", "exec", space, "nft", "-f", "-"]
                done = await asyncio.to_thread(subprocess.run, cutting, input=CUT_OFF.encode(), check=False)
                assert done.returncode == 0
                if is_written_to:
                    while not told:
                        links[0].transport.write(b"x" * 65_536)
                        await asyncio.sleep(0.02)
                await until(lambda: told and told[-1] not in {"parked", "released"}, "it is ended")
        finally:
            server.close()
            watch.stop()
        assert told[-1] in ({"blocked"} if is_written_to else {"silent"})
        if not is_written_to:
            assert told == ["parked", "silent"]
        (worst,) = watch.prefixes.worst(1, watch._now())
        assert worst.prefix == f"{address.rsplit('.', 1)[0]}.0/24"

    with street() as (space, address):
        asyncio.run(story(space, address))


def test_what_is_set_on_the_listener_holds_for_who_is_accepted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert apply_socket_policy(listener, SocketPolicy()) == ()
        with socket.create_connection(listener.getsockname()) as _:
            accepted, _address = listener.accept()
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 256 * 1024
