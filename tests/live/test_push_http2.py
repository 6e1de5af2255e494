"""HTTP/2 at the gateway: a client that people use, and a raw one that misbehaves."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)

from budao.aio import client_tls
from budao.aio.gateway import Access, Gateway, GatewayPolicy
from budao.aio.gateway.certificates import Certificates
from budao.aio.logs import MemoryLog
from budao.push import Draft, Grant
from tests.live.certificates import Authority

PATIENCE_S = 30.0
ANYBODY = Access(anonymous=Grant(subject="anybody", subscribe=("**",), publish=("**",)))
E = TypeVar("E", bound=Event)


async def until(claim: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not claim():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


@asynccontextmanager
async def gateway(folder: Path, **more: Any) -> AsyncIterator[tuple[Gateway, ssl.SSLContext]]:
    authority = Authority(folder)
    async with (
        Certificates(*authority.issue("gateway")) as certificates,
        MemoryLog() as log,
        Gateway(log, tls=certificates, access=ANYBODY, **more) as it,
    ):
        yield it, client_tls(authority.path)


class Raw:
    """A client of HTTP/2 that does what it is told, rules or not."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str) -> None:
        self.reader, self.writer = reader, writer
        self.authority = authority
        self.state = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.events: list[Event] = []
        self.acknowledges = True
        self.is_over = False

    def flush(self) -> None:
        self.writer.write(self.state.data_to_send())

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **more: str) -> int:
        number = self.state.get_next_available_stream_id()
        headers = [(":method", method), (":path", path), (":scheme", "https"), (":authority", self.authority)]
        self.state.send_headers(number, headers + list(more.items()), end_stream=body is None)
        if body is not None:
            self.state.send_data(number, body, end_stream=True)
        self.flush()
        return number

    async def read(self) -> None:
        """What comes next."""
        data = b""
        with suppress(ConnectionError):
            data = await asyncio.wait_for(self.reader.read(65_536), PATIENCE_S)
        if not data:
            self.is_over = True
            return
        events = self.state.receive_data(data)
        for event in events:
            if isinstance(event, DataReceived) and self.acknowledges:
                self.state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.events += events
        self.flush()

    def all(self, kind: type[E], number: int | None = None) -> list[E]:
        return [
            each
            for each in self.events
            if isinstance(each, kind) and (number is None or getattr(each, "stream_id", None) == number)
        ]

    async def wait(self, kind: type[E], number: int | None = None) -> E:
        while not self.all(kind, number):
            assert not self.is_over, f"it ended without {kind.__name__}: {self.events}"
            await self.read()
        return self.all(kind, number)[0]

    async def end(self) -> None:
        """Reads up to the end of the connection."""
        while not self.is_over:
            await self.read()

    def status(self, number: int) -> str:
        (answer,) = self.all(ResponseReceived, number)
        return dict(answer.headers or ())[":status"]  # type: ignore[index, call-overload]

    def body(self, number: int) -> bytes:
        return b"".join(each.data or b"" for each in self.all(DataReceived, number))


@asynccontextmanager
async def raw(it: Gateway, context: ssl.SSLContext) -> AsyncIterator[Raw]:
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", it.port, ssl=context, server_hostname="localhost")
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    client = Raw(reader, writer, f"localhost:{it.port}")
    client.state.initiate_connection()
    client.flush()
    try:
        yield client
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def test_a_client_publishes_and_reads_events_over_one_connection(tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            gateway(tmp_path) as (it, context),
            httpx.AsyncClient(
                http2=True, http1=False, verify=context, base_url=f"https://localhost:{it.port}"
            ) as client,
        ):
            heard = []
            async with asyncio.timeout(PATIENCE_S), client.stream("GET", "/v1/events?channel=news") as events:
                assert events.http_version == "HTTP/2"
                assert events.headers["content-type"].startswith("text/event-stream")
                async for line in events.aiter_lines():
                    if line.startswith("data: "):
                        frame = json.loads(line.removeprefix("data: "))
                        heard.append(frame["type"])
                        if frame["type"] == "msg":
                            assert frame["data"] == {"a": 1}
                            break
                        answer = await client.post("/v1/publish", json={"channel": "news", "data": {"a": 1}})
                        assert answer.http_version == "HTTP/2"
                        assert answer.json()["seq"] == 1
            assert heard == ["welcome", "msg"]
            health = await client.get("/healthz")
            assert (health.status_code, health.json()["gateway"]) == (200, it.name)
            head = await client.head("/healthz")
            assert (head.content, int(head.headers["content-length"])) == (b"", len(health.content))
            assert "budao_push_connections" in (await client.get("/metrics")).text
            assert (await client.get("/nowhere")).status_code == 404
            batch = {"messages": [{"channel": "large", "data": "x" * 30_000} for _ in range(10)]}
            answer = await client.post("/v1/publish", json=batch)  # several windows long
            assert [each["seq"] for each in answer.json()["results"]] == list(range(1, 11))
            assert (await client.get("/v1/stream")).status_code == 426
            assert (await client.post("/v1/publish", content=b"not json")).status_code == 400
            await client.aclose()
            await until(lambda: not it.connections and not it.doors)
            assert it.metrics.transports["h2"].opened == 1
            assert it.metrics.transports["h2"].connections == 0

    asyncio.run(story())


def test_a_window_that_is_used_up_holds_the_stream_back_and_an_update_lets_it_go_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with gateway(tmp_path) as (it, context), raw(it, context) as client:
            client.acknowledges = False
            number = client.ask("/v1/events?channel=a")
            await client.wait(DataReceived, number)
            (connection,) = it.connections
            data = json.dumps("x" * 10_000).encode()
            for _ in range(40):
                await it.log.publish([Draft("a", data)])
            await until(lambda: connection.holds)
            # 64 KiB of window, and as much again in our buffer, and not all of the 400 KB
            assert connection.queued_bytes() < 200_000
            while len(client.body(number)) < 65_535:
                await client.read()
            assert len(client.body(number)) == 65_535
            other = client.ask("/healthz")  # the connection's window is used up as well, the heads of answers are not
            await client.wait(ResponseReceived, other)

            client.acknowledges = True
            client.state.acknowledge_received_data(65_535, number)
            client.flush()
            while client.body(number).count(b'"type":"msg"') < 40:
                await client.read()
            text = client.body(number).decode()
            heard = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
            assert [frame["seq"] for frame in heard if frame["type"] == "msg"] == list(range(1, 41))
            await until(lambda: not connection.holds)
            assert connection.queued_bytes() == 0

    asyncio.run(story())


def test_streams_that_are_opened_and_reset_at_once_end_the_connection(tmp_path: Path) -> None:
    async def story() -> None:
        async with gateway(tmp_path) as (it, context), raw(it, context) as client:
            await client.wait(RemoteSettingsChanged)
            for _ in range(400):
                number = client.ask("/v1/events?channel=a")
                client.state.reset_stream(number, ErrorCodes.CANCEL)
            client.flush()
            await client.end()
            assert client.all(ConnectionTerminated)[0].error_code == ErrorCodes.ENHANCE_YOUR_CALM
            assert it.metrics.errors["flood"] == 1
            await until(lambda: not it.connections and not it.doors)

    asyncio.run(story())


def frame(kind: int, payload: bytes = b"", number: int = 0, flags: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big") + payload


def test_frames_that_bring_nothing_end_the_connection(tmp_path: Path) -> None:
    floods = {
        "pings": frame(6, bytes(8)) * 2_000,
        "settings": frame(4) * 2_000,
        "priorities": frame(2, b"\0\0\0\0\x10", 1) * 5_000,
        "updates": frame(8, b"\0\0\0\1") * 5_000,
        "continuations": frame(1, b"\x82", 1) + frame(9, b"", 1) * 5_000,
        "large heads": frame(1, b"\x40\x01a\x7f\xff\xff\x01" + bytes(9_000), 1) + frame(9, bytes(16_000), 1) * 3,
        "unknown": frame(0xEE, b"x") * 5_000,
    }

    async def story() -> None:
        async with gateway(tmp_path) as (it, context):
            for name, flood in floods.items():
                before = it.metrics.errors["flood"]
                async with raw(it, context) as client:
                    await client.wait(RemoteSettingsChanged)
                    client.writer.write(flood)
                    await client.end()
                    ended = client.all(ConnectionTerminated)
                    assert not ended or ended[0].error_code == ErrorCodes.ENHANCE_YOUR_CALM, name
                assert it.metrics.errors["flood"] == before + 1, name
            await until(lambda: not it.doors)
            async with raw(it, context) as client:
                number = client.ask("/healthz")
                await client.wait(StreamEnded, number)
                assert client.status(number) == "200"

    asyncio.run(story())


def test_what_breaks_a_rule_ends_the_connection_or_the_stream_and_nobody_else(tmp_path: Path) -> None:
    async def story() -> None:
        async with gateway(tmp_path) as (it, context), raw(it, context) as bystander:
            reads = bystander.ask("/v1/events?channel=a")
            await bystander.wait(DataReceived, reads)
            for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 500, frame(0, b"x", 99), frame(5, b"\0" * 20, 1)):
                async with raw(it, context) as client:
                    await client.wait(RemoteSettingsChanged)
                    client.writer.write(garbage)
                    await client.end()
            async with raw(it, context) as client:
                client.state.config.validate_outbound_headers = False
                client.state.config.normalize_outbound_headers = False
                for name, value in (("x", "a\nb"), ("x", "a\0b"), ("bad name", "x"), ("host", "elsewhere")):
                    number = client.ask("/healthz", **{name: value})
                    with suppress(AssertionError):
                        reset = await client.wait(StreamReset, number)
                        assert reset.error_code == ErrorCodes.PROTOCOL_ERROR
                    if client.is_over:
                        break
                assert not client.all(ResponseReceived)
            await it.log.publish([Draft("a", b"1")])
            while b'"type":"msg"' not in bystander.body(reads):
                await bystander.read()

    asyncio.run(story())


def test_a_body_has_a_bound_and_a_time(tmp_path: Path) -> None:
    async def story() -> None:
        policy = GatewayPolicy(body_bytes_max=20_000, body_s=0.3)
        async with gateway(tmp_path, policy=policy) as (it, context), raw(it, context) as client:
            await client.wait(RemoteSettingsChanged)
            large = client.ask("/v1/publish", "POST", None)
            await client.wait(StreamEnded, large)
            assert client.status(large) == "400"  # no body is no publish

            number = client.state.get_next_available_stream_id()
            head = [(":method", "POST"), (":path", "/v1/publish"), (":scheme", "https"), (":authority", "localhost")]
            client.state.send_headers(number, head)
            client.state.send_data(number, b"x" * 15_000)
            client.state.send_data(number, b"x" * 15_000)
            client.flush()
            await client.wait(StreamEnded, number)
            assert client.status(number) == "413"

            slow = client.state.get_next_available_stream_id()
            client.state.send_headers(slow, head)
            client.state.send_data(slow, b"{")
            client.flush()
            await client.wait(StreamEnded, slow)
            assert client.status(slow) == "408"

    asyncio.run(story())


def test_more_streams_than_were_agreed_on_are_not_served(tmp_path: Path) -> None:
    async def story() -> None:
        async with gateway(tmp_path) as (it, context), raw(it, context) as client:
            changed = await client.wait(RemoteSettingsChanged)
            agreed = {int(code): each.new_value for code, each in (changed.changed_settings or {}).items()}
            assert agreed[3] == 100
            head = [
                (":method", "GET"),
                (":path", "/v1/events?channel=a"),
                (":scheme", "https"),
                (":authority", "localhost"),
            ]
            for _ in range(100):
                client.ask("/v1/events?channel=a")
            client.writer.write(frame(1, client.state.encoder.encode(head), 201, flags=5))  # it does not keep to it
            await client.end()
            assert client.all(ConnectionTerminated)
            await until(lambda: not it.connections and not it.doors)

    asyncio.run(story())


def test_a_gateway_that_leaves_says_goaway_finishes_its_streams_and_closes(tmp_path: Path) -> None:
    async def story() -> None:
        async with gateway(tmp_path) as (it, context), raw(it, context) as client, raw(it, context) as idle:
            number = client.ask("/v1/events?channel=a")
            await client.wait(DataReceived, number)
            await idle.wait(RemoteSettingsChanged)
            it.send_away(10.0)
            await client.wait(ConnectionTerminated)
            await client.end()
            assert b"event: bye" in client.body(number)
            assert client.all(StreamEnded, number)
            for each in (client, idle):
                await each.end()
                assert each.all(ConnectionTerminated)[0].error_code == ErrorCodes.NO_ERROR
            await until(lambda: not it.doors and not it.connections)

    asyncio.run(story())
