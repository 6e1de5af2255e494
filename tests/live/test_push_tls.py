"""TLS of the gateway: real handshakes that work and that fail, certificates that change, readers that do not read."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop

from budao.aio import client_tls
from budao.aio.gateway import Access, Gateway, GatewayPolicy
from budao.aio.gateway.certificates import Certificates, Fixed
from budao.aio.gateway.tls import TlsListener, TlsTransport
from budao.aio.logs import MemoryLog
from budao.push import BadEnd, Grant
from tests.live.certificates import Authority

PATIENCE_S = 30.0
ANYBODY = Access(anonymous=Grant(subject="anybody", subscribe=("**",), publish=("**",)))
LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]
both_loops = pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])


def run(coroutine: Any, loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop) -> Any:
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(coroutine)


async def until(claim: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not claim():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


def server_context(certificate: Path, key: Path, authority: Path | None = None) -> ssl.SSLContext:
    """Takes what `server_tls` refuses to take."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if authority is not None:
        context.load_verify_locations(authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(authority: Authority) -> ssl.SSLContext:
    return client_tls(authority.path)


@asynccontextmanager
async def gateway(tls: ssl.SSLContext | Certificates, **more: Any) -> AsyncIterator[Gateway]:
    async with MemoryLog() as log, Gateway(log, tls=tls, access=ANYBODY, **more) as it:
        yield it


async def knock(port: int, context: ssl.SSLContext, name: str = "localhost") -> None:
    """A client's handshake, and one request; whatever it meets is the server's to name.

    A blocking client, since one of asyncio hangs up without the alert that says why.
    """

    def attempt() -> None:
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname=name) as wire,
        ):
            wire.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            wire.recv(10)

    await asyncio.to_thread(attempt)


async def openssl(port: int, *more: str) -> None:
    """A handshake of the program `openssl`."""
    client = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-connect", f"127.0.0.1:{port}"),
        *more,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    await client.wait()


async def say(port: int, data: bytes) -> bytes:
    """Bytes in the clear, and what comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    said = b""
    with suppress(OSError):
        said = await reader.read()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return said


async def cause_of(it: Gateway, attack: Awaitable[object]) -> str:
    """What the gateway calls the failure that this causes."""
    told: list[tuple[str, BadEnd]] = []
    it.bad_end = lambda peer, kind: told.append((peer, kind))
    before = dict(it.metrics.handshake_failures)
    errors = it.metrics.errors["handshake"]
    await attack
    await until(lambda: it.metrics.handshake_failures != before)
    (cause,) = (each for each, count in it.metrics.handshake_failures.items() if count != before[each])
    assert it.metrics.errors["handshake"] == errors + 1
    assert [peer for peer, _ in told] == ["127.0.0.1"]
    return cause


@both_loops
def test_what_is_wrong_with_our_certificate_in_the_eyes_of_a_client_has_a_name(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    (tmp_path / "other").mkdir()
    trusted, same_name = Authority(tmp_path), Authority(tmp_path / "other")
    stranger = Authority(tmp_path, "stranger")
    last_week = datetime.now(UTC) - timedelta(days=7)
    good, old, forged = trusted.issue("good"), trusted.issue("old", since=last_week), same_name.issue("forged")

    async def meet(pair: tuple[Path, Path], context: ssl.SSLContext, name: str = "localhost") -> str:
        async with gateway(server_context(*pair)) as it:
            return await cause_of(it, knock(it.port, context, name))

    async def story() -> None:
        assert await meet(old, client_context(trusted)) == "expired"
        assert await meet(good, client_context(stranger)) == "unknown-authority"
        assert await meet(forged, client_context(trusted)) == "wrong-key"
        assert await meet(good, client_context(trusted), "elsewhere.example") == "bad-certificate"

    run(story(), loop)


@both_loops
def test_what_is_wrong_with_a_client_has_a_name(tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    ours, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    pair = ours.issue("good")
    last_week = datetime.now(UTC) - timedelta(days=7)

    def showing(authority: Authority, name: str, since: datetime | None = None) -> ssl.SSLContext:
        context = client_context(ours)
        context.load_cert_chain(*authority.issue(name, since=since))
        return context

    rsa_only = client_context(ours)
    rsa_only.maximum_version = ssl.TLSVersion.TLSv1_2
    rsa_only.set_ciphers("AES128-SHA:@SECLEVEL=0")

    async def story() -> None:
        async with Certificates(*pair) as certificates, gateway(certificates) as it:
            old = openssl(it.port, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
            assert await cause_of(it, old) == "no-shared-version"
            assert await cause_of(it, knock(it.port, rsa_only)) == "no-shared-cipher"
            assert await cause_of(it, say(it.port, b"\x00\x00\x00\x05hello, this is no TLS")) == "not-tls"
            assert await cause_of(it, say(it.port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")) == "plain-http"
            assert b"wss:" in await say(it.port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        async with gateway(server_context(*pair, ours.path)) as it:
            assert await cause_of(it, knock(it.port, client_context(ours))) == "no-certificate"
            assert await cause_of(it, knock(it.port, showing(stranger, "unknown"))) == "unknown-authority"
            assert await cause_of(it, knock(it.port, showing(ours, "old", last_week))) == "expired"

    run(story(), loop)


def test_a_client_of_openssl_that_trusts_nobody_is_named_as_well(tmp_path: Path) -> None:
    ours, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")

    async def story() -> None:
        async with Certificates(*ours.issue("good")) as certificates, gateway(certificates) as it:
            attack = openssl(it.port, "-verify_return_error", "-CAfile", str(stranger.path))
            assert await cause_of(it, attack) == "unknown-authority"

    run(story())


@both_loops
def test_a_handshake_that_is_not_finished_in_time_is_given_up(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    pair = Authority(tmp_path).issue("good")

    async def story() -> None:
        async with gateway(server_context(*pair), policy=GatewayPolicy(head_s=0.2)) as it:
            assert await cause_of(it, say(it.port, b"")) == "timeout"
            assert await cause_of(it, say(it.port, b"\x16\x03\x01\x02\x00\x01\x00")) == "timeout"

            async def hang_up() -> None:
                _, writer = await asyncio.open_connection("127.0.0.1", it.port)
                writer.close()
                await writer.wait_closed()

            assert await cause_of(it, hang_up()) == "closed"

    run(story(), loop)


class Echo(asyncio.Protocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.transport: TlsTransport | None = None
        self.received = b""
        self.told: list[str] = []
        self.problem: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, TlsTransport)
        self.transport = transport
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.received += data

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, problem: Exception | None) -> None:
        self.problem = problem
        self.told.append("lost")


@asynccontextmanager
async def listener(context: ssl.SSLContext, **more: Any) -> AsyncIterator[tuple[TlsListener, list[Echo]]]:
    made: list[Echo] = []

    def echo() -> Echo:
        made.append(Echo())
        return made[-1]

    with socket.create_server(("127.0.0.1", 0)) as sock:
        it = TlsListener(sock, Fixed(context), {"": echo}, **more)
        it.open()
        try:
            yield it, made
        finally:
            it.abort()
            await until(lambda: all("lost" in each.told for each in made))


async def connect(it: TlsListener, authority: Authority) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(
        *it.sock.getsockname(), ssl=client_context(authority), server_hostname="localhost"
    )


@both_loops
def test_a_reader_that_does_not_read_is_pushed_back_and_gets_everything_later(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    authority = Authority(tmp_path)
    context = server_context(*authority.issue("good"))

    async def story() -> None:
        async with listener(context) as (it, made):
            reader, writer = await connect(it, authority)
            await until(lambda: made and made[0].transport)
            server = made[0]
            assert server.transport is not None
            sent = bytearray()
            block = bytes(range(256)) * 256
            while "pause" not in server.told:
                server.transport.write(block)
                sent += block
                await asyncio.sleep(0)
                assert len(sent) < 64 * 1024 * 1024
            assert server.transport.get_write_buffer_size() > 65_536
            sent += b"end"
            server.transport.write(b"end")
            assert await asyncio.wait_for(reader.readexactly(len(sent)), PATIENCE_S) == sent
            await until(lambda: "resume" in server.told)
            assert server.told == ["made", "pause", "resume"]
            assert server.transport.get_write_buffer_size() == 0
            writer.close()
            await writer.wait_closed()

    run(story(), loop)


@both_loops
def test_small_writes_of_one_turn_are_one_record_and_a_close_sends_them_first(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    authority = Authority(tmp_path)
    context = server_context(*authority.issue("good"))

    async def story() -> None:
        async with listener(context) as (it, made):
            with socket.create_connection(it.sock.getsockname()) as plain:
                wire = await asyncio.to_thread(_handshake, plain, authority)
                await until(lambda: made and made[0].transport)
                transport = made[0].transport
                assert transport is not None
                for number in range(50):
                    transport.write(b"%02d" % number)
                transport.close()
                assert await asyncio.to_thread(wire.read, 16_384) == b"".join(b"%02d" % n for n in range(50))
                assert await asyncio.to_thread(wire.read, 16_384) == b""  # it said goodbye
                wire.close()
            await until(lambda: "lost" in made[0].told)
            assert made[0].problem is None

    run(story(), loop)


def _handshake(plain: socket.socket, authority: Authority) -> ssl.SSLSocket:
    return client_context(authority).wrap_socket(plain, server_hostname="localhost")


@both_loops
def test_a_transport_that_is_paused_reads_nothing_until_it_is_resumed(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    authority = Authority(tmp_path)
    context = server_context(*authority.issue("good"))

    async def story() -> None:
        async with listener(context) as (it, made):
            _, writer = await connect(it, authority)
            await until(lambda: made and made[0].transport)
            server = made[0]
            assert server.transport is not None
            server.transport.pause_reading()
            data = bytes(300_000)
            writer.write(data)
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert server.received == b""
            server.transport.resume_reading()
            await until(lambda: server.received == data)
            writer.close()
            await writer.wait_closed()
            await until(lambda: "lost" in server.told)

    run(story(), loop)


def test_who_opens_many_handshakes_and_says_nothing_does_not_keep_others_out(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = server_context(*authority.issue("good"))
    failed: list[str] = []

    async def story() -> None:
        bounds = {"handshakes_max": 3, "failed": lambda cause, _: failed.append(cause)}
        async with listener(context, **bounds) as (it, made):
            silent = [socket.create_connection(it.sock.getsockname()) for _ in range(5)]
            await until(lambda: failed == ["timeout"] * 2)
            assert it.handshakes == 3
            _, writer = await connect(it, authority)
            await until(lambda: made and made[0].transport)
            assert failed == ["timeout"] * 3
            writer.close()
            await writer.wait_closed()
            for each in silent:
                each.close()

    run(story())


def test_silent_newcomers_do_not_take_the_last_descriptors(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = server_context(*authority.issue("good"))
    failed: list[str] = []

    async def story() -> None:
        async with listener(context, failed=lambda cause, _: failed.append(cause)) as (it, made):
            silent = [socket.create_connection(it.sock.getsockname()) for _ in range(8)]
            it.descriptors_max = 1 + max(each.fileno() for each in silent) + 3  # three more are given out
            await until(lambda: len(failed) >= 5)
            assert set(failed) == {"timeout"}
            assert 1 <= it.handshakes <= 3
            _, writer = await connect(it, authority)
            await until(lambda: made and made[0].transport)
            writer.close()
            await writer.wait_closed()
            for each in silent:
                each.close()
            await until(lambda: not it.handshakes)
            it.descriptors_max = 0  # others have taken them all: there is nobody to give up
            with socket.create_connection(it.sock.getsockname()) as late:
                late.setblocking(False)
                assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(late, 1), PATIENCE_S) == b""

    run(story())


async def serial(port: int, authority: Authority) -> bytes:
    """The certificate that new connections are shown."""
    _, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=client_context(authority), server_hostname="localhost"
    )
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    assert isinstance(shown, bytes)
    return shown


def test_a_certificate_changes_under_traffic_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("live")

    async def story() -> None:
        async with Certificates(certificate, key, every_s=0.02) as certificates, gateway(certificates) as it:
            metrics = it.metrics
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", it.port, ssl=client_context(authority), server_hostname="localhost"
            )
            writer.write(b"GET /v1/events?channel=a HTTP/1.1\r\nhost: localhost\r\n\r\n")
            await asyncio.wait_for(reader.readuntil(b"welcome"), PATIENCE_S)
            first = await serial(it.port, authority)

            newer, newer_key = authority.issue("newer")
            certificate.write_bytes(newer.read_bytes())  # the key comes later
            for _ in range(10):
                await asyncio.sleep(0.01)
                assert await serial(it.port, authority) == first
            key.write_bytes(newer_key.read_bytes())
            await until(lambda: metrics.reloads["loaded"])
            second = await serial(it.port, authority)
            assert second != first
            assert metrics.reloads == {"loaded": 1, "refused": 0}

            certificate.write_bytes(certificate.read_bytes()[:200])
            assert certificates.reload()
            assert await serial(it.port, authority) == second
            assert metrics.reloads == {"loaded": 1, "refused": 1}

            last_week = datetime.now(UTC) - timedelta(days=7)
            old, old_key = authority.issue("old", since=last_week)
            certificate.write_bytes(old.read_bytes())
            key.write_bytes(old_key.read_bytes())
            assert "expired" in certificates.reload()
            assert await serial(it.port, authority) == second

            writer.write(b"")
            body = b'{"channel":"a","data":1}'
            _, other = await asyncio.open_connection(
                "127.0.0.1", it.port, ssl=client_context(authority), server_hostname="localhost"
            )
            other.write(
                b"POST /v1/publish HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body) + body
            )
            await asyncio.wait_for(reader.readuntil(b'"data":1}'), PATIENCE_S)  # the first connection lives
            for each in (other, writer):
                each.close()
                with suppress(OSError):
                    await each.wait_closed()

    run(story())


@both_loops
def test_a_hangup_reloads_the_certificate(tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("live")

    async def story() -> None:
        async with Certificates(certificate, key, every_s=3_600.0, on_hangup=True) as it:
            before = it.context
            newer, newer_key = authority.issue("newer")
            certificate.write_bytes(newer.read_bytes())
            key.write_bytes(newer_key.read_bytes())
            signal.raise_signal(signal.SIGHUP)
            await until(lambda: it.context is not before)
            assert it.metrics.reloads == {"loaded": 1, "refused": 0}

    run(story(), loop)
