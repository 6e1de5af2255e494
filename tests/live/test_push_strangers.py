"""What strangers send a gateway is answered with a status or a close code, and disturbs nobody else."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from random import Random

import httpx
import pytest

from budao.aio.gateway import Access, GatewayPolicy
from budao.aio.logs import MemoryLog
from budao.model import Wall
from budao.push import START, Ack, Bye, Grant, Hello, Pub, SessionPolicy, Sub, Welcome
from budao.wire import push_frames, tokens, websocket
from tests.live.push_raw import (
    Told,
    answer_to,
    gateway_over,
    hang_up,
    masked,
    play,
    publish,
    raw,
    reset,
    until,
    upgrade,
    ws,
)
from tests.live.redis_server import PATIENCE_S

LOOPS = pytest.mark.parametrize("uvloop", [False, True], ids=["asyncio", "uvloop"])
QUICK = GatewayPolicy(head_s=0.3, body_s=0.3, idle_s=0.3, close_s=0.3, head_bytes_max=4096)
SECRET = "s" * 40


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/3.9\r\nHost: a\r\n\r\n", 505),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 5000 + b"\r\n\r\n", 431),
        (b"POST /v1/publish HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /v1/publish HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /v1/publish HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404),
        (b"DELETE /v1/publish HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 405),
        (b"GET /v1/stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 426),
        (upgrade().replace(b"Version: 13", b"Version: 12"), 426),
        (upgrade().replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"), 400),
    ],
)
def test_what_is_no_request_is_answered_with_a_status(data: bytes, status: int) -> None:
    async def story() -> None:
        async with gateway_over(policy=QUICK) as gateway:
            answer = await answer_to(gateway.port, data)
            assert answer.split(b" ", 2)[1] == str(status).encode()
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["happened"]
            await until(lambda: not gateway.doors)

    play(story)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (websocket.frame(websocket.TEXT, b"{}"), 1002),
        (masked(websocket.TEXT, b"\xff\xfe"), 1007),
        (masked(websocket.TEXT, b"x" * 300_000), 1009),
        (masked(websocket.BINARY, b"{}"), 1003),
        (masked(websocket.PING, b"x" * 126), 1002),
        (
            masked(
                websocket.TEXT,
                b"{}",
            ),
            4303,
        ),
        (masked(websocket.TEXT, b"[" * 100_000), 4303),
        (masked(websocket.TEXT, b'{"type":"hello","version":99}'), 4305),
        (masked(websocket.TEXT, b'{"type":"sub","ref":1,"channel":"c"}'), 4303),
        (masked(websocket.TEXT, b'{"type":"hello","ticket":"forged"}'), 4304),
        (masked(websocket.CLOSE, struct.pack(">H", 1000)), 1000),
    ],
)
def test_what_is_no_frame_is_answered_with_a_close_code_and_others_go_on(data: bytes, code: int) -> None:
    async def story() -> None:
        async with MemoryLog() as log, gateway_over(log, policy=QUICK) as gateway, ws(gateway.port) as other:
            await other.say(Hello(channels={"c": START}))
            assert isinstance(await other.hear(), Welcome)
            answer = await answer_to(gateway.port, upgrade() + data)
            frames = websocket.Reader(1 << 20, is_server=False).feed(answer.partition(b"\r\n\r\n")[2])
            last = frames[-1]
            assert isinstance(last, websocket.WsClose)
            assert last.code == code
            if code >= 1002:
                said = frames[-2]
                assert isinstance(said, websocket.Text)
                bye = push_frames.JSON.decode_from_gateway(said.data)
                assert isinstance(bye, Bye)
                assert bye.code == code
            await publish(log, "c", 1)
            await other.follow(Told("c", place=START), 1)
            await until(lambda: len(gateway.connections) == 1)

    play(story)


@LOOPS
def test_who_takes_too_long_is_let_go(uvloop: bool) -> None:
    async def story() -> None:
        async with gateway_over(policy=QUICK, tcp_port=0) as gateway:
            assert gateway.tcp_port is not None
            assert await answer_to(gateway.port, b"") == b""
            assert b" 408 " in await answer_to(gateway.port, b"GET / HTTP/1.1\r\nHost:")
            assert b" 408 " in await answer_to(
                gateway.port, b"POST /v1/publish HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123"
            )
            assert (await answer_to(gateway.port, upgrade())).endswith(websocket.close_frame(4102, "silent"))
            assert b"silent" in await answer_to(gateway.tcp_port, b"\0\0")
            idle = await answer_to(gateway.port, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b" 200 " in idle
            assert not gateway.connections
            assert not gateway.doors

    play(story, uvloop=uvloop)


def test_beyond_its_bound_newcomers_are_told_to_come_later() -> None:
    async def story() -> None:
        async with gateway_over(policy=GatewayPolicy(connections_max=2)) as gateway, ws(gateway.port), ws(gateway.port):
            answer = await answer_to(gateway.port, upgrade())
            assert b" 503 " in answer
            assert b"retry-after" in answer.lower()
            assert gateway.metrics.errors["full"] == 1

    play(story)


@LOOPS
def test_requests_that_are_sent_at_once_are_answered_in_order(uvloop: bool) -> None:
    async def story() -> None:
        async with gateway_over() as gateway:
            body = b'{"channel":"c","data":%d}'
            one = b"POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
            data = b"".join(one % len(body % n) + body % n for n in range(1, 8))
            data += b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            answer = await answer_to(gateway.port, data)
            assert [int(part.split(b"}")[0]) for part in answer.split(b'"seq":')[1:]] == list(range(1, 8))
            assert answer.count(b"HTTP/1.1 200") == 8

    play(story, uvloop=uvloop)


def test_tokens_say_who_may_do_what_and_never_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        keys = tokens.TokenKeys.of_secret(SECRET)

        def token(lives_s: float = 1e9, **may: tuple[str, ...]) -> str:
            return tokens.sign_development_token(
                SECRET,
                subject="me",
                now=Wall(1_000_000_000.0),
                lives_s=lives_s,
                presence=(),
                **{"publish": (), "subscribe": (), **may},
            )

        reader, writer, old = token(subscribe=("c",)), token(publish=("c",)), token(1.0, subscribe=("c",))
        caplog.set_level("DEBUG")
        async with gateway_over(access=Access(keys=keys)) as gateway, httpx.AsyncClient(base_url=gateway.url) as http:
            message = {"channel": "c", "data": 1}
            assert (await http.post("/v1/publish", json=message)).status_code == 401
            assert (await http.post(f"/v1/publish?token={old}", json=message)).status_code == 401
            assert (await http.post(f"/v1/publish?token={reader}", json=message)).status_code == 403
            bearer = {"Authorization": f"Bearer {writer}"}
            assert (await http.post("/v1/publish", json=message, headers=bearer)).status_code == 200
            assert (await http.get("/v1/events?channel=c", headers=bearer)).status_code == 403
            assert (await http.post("/v1/control/drain", headers=bearer)).status_code == 403
            assert (await http.get("/healthz")).status_code == 200
            async with ws(gateway.port, query=f"?token={reader}") as client:
                await client.say(Hello(channels={"c": None, "d": None}))
                welcome = await client.hear()
                assert isinstance(welcome, Welcome)
                assert (list(welcome.channels), list(welcome.refused)) == (["c"], ["d"])
                await client.say(Pub(ref=1, channel="c", data=b"1"))
                ack = await client.hear()
                assert isinstance(ack, Ack)
                assert ack.problem is not None
                assert ack.problem.why == "forbidden"
            async with ws(gateway.port, query=f"?token={old}") as client:
                bye = await client.hear()
                assert isinstance(bye, Bye)
                assert bye.code == 4301
            async with ws(gateway.port) as client:
                await client.say(Hello())
                bye = await client.hear()
                assert isinstance(bye, Bye)
                assert bye.code == 4300
        ours = [record.getMessage() for record in caplog.records if record.name.startswith("budao")]
        for secret in (reader, writer, old):
            assert not any(secret in line for line in ours)

    play(story)


def test_pages_of_other_hosts_are_let_in_only_if_they_are_named() -> None:
    async def story() -> None:
        anybody = Grant(subscribe=("**",), publish=("**",))
        access = Access(anonymous=anybody, origins=("https://app.example",))
        async with gateway_over(access=access) as gateway, httpx.AsyncClient(base_url=gateway.url) as http:
            message = {"channel": "c", "data": 1}
            stranger, friend = {"Origin": "https://evil.example"}, {"Origin": "https://app.example"}
            assert (await http.post("/v1/publish", json=message, headers=stranger)).status_code == 403
            answer = await http.post("/v1/publish", json=message, headers=friend)
            assert answer.headers["access-control-allow-origin"] == "https://app.example"
            before = await http.options("/v1/publish", headers={**friend, "Access-Control-Request-Method": "POST"})
            assert (before.status_code, before.headers["access-control-allow-methods"]) == (204, "POST")
            rebound = {"Host": "evil.example", "Origin": "http://evil.example"}
            assert (await http.post("/v1/publish", json=message, headers=rebound)).status_code == 403
            assert (await http.post("/v1/publish", json=message, headers={"Host": "evil.example"})).status_code == 403
            answer_ = await answer_to(
                gateway.port, upgrade(more="Origin: https://evil.example\r\nConnection: close\r\n")
            )
            assert b" 403 " in answer_

    play(story)


def test_who_says_too_much_is_ended_and_who_publishes_too_much_is_refused() -> None:
    async def story() -> None:
        rates = SessionPolicy(publishes_per_s=0.001, publishes_burst=2, frames_per_s=0.1, frames_burst=10)
        async with gateway_over(session_policy=rates) as gateway, ws(gateway.port) as client:
            await client.say(Hello())
            assert isinstance(await client.hear(), Welcome)
            found = []
            for ref in range(1, 5):
                await client.say(Pub(ref=ref, channel="c", data=b"1"))
                ack = await client.hear()
                assert isinstance(ack, Ack)
                found.append(None if ack.problem is None else ack.problem.why)
            assert found == [None, None, "rate", "rate"]
            for ref in range(5, 20):
                await client.say(Sub(ref=ref, channel="c"))
            frame = await client.hear()
            while not isinstance(frame, Bye):
                frame = await client.hear()
            assert frame.code == 4202
            await until(lambda: not gateway.connections)

    play(story)


@LOOPS
def test_garbage_of_many_kinds_leaves_nothing_behind_and_disturbs_nobody(uvloop: bool) -> None:
    async def story() -> None:
        rng = Random(4)
        good = upgrade("?hello=" + push_frames.format_hello_query(Hello(channels={"c": None})))
        async with MemoryLog() as log, gateway_over(log, policy=QUICK) as gateway, ws(gateway.port) as other:
            await other.say(Hello(channels={"c": START}))
            assert isinstance(await other.hear(), Welcome)
            told = Told("c", place=START)

            async def stranger(number: int) -> None:
                _, writer = await raw(gateway.port)
                data = bytearray(good + masked(websocket.TEXT, b'{"type":"sub","ref":1,"channel":"d"}'))
                for _ in range(rng.randint(0, 3)):
                    data[rng.randrange(len(data))] = rng.randrange(256)
                writer.write(bytes(data[: rng.randint(0, len(data))]))
                await asyncio.sleep(0)
                if number % 2:
                    reset(writer)
                await hang_up(writer)

            for begin in range(0, 200, 20):
                await asyncio.gather(*(stranger(begin + number) for number in range(20)))
                await publish(log, "c", 1, first=begin // 20)
            await other.follow(told, 10)
            assert told.numbers == list(range(10))
            await until(lambda: len(gateway.connections) == 1 and not gateway.doors)
            assert gateway.metrics.errors["mistake"] == 0

    play(story, uvloop=uvloop)


@LOOPS
def test_who_asks_and_never_reads_is_read_no_further_and_goes_on_once_it_reads(uvloop: bool) -> None:
    async def story() -> None:
        async with gateway_over() as gateway:
            small = socket.socket()
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            small.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            small.setblocking(False)
            await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", gateway.port))
            reader, writer = await asyncio.open_connection(sock=small)
            writer.write(upgrade())
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            ping = masked(websocket.PING, b"p" * 125)
            asked = 0
            (connection,) = gateway.connections
            assert connection.transport is not None
            while connection.transport.is_reading():
                if writer.transport.get_write_buffer_size() < 64 * 1024:
                    writer.write(ping * 100)
                    asked += 100
                await asyncio.sleep(0)
            assert connection.queued_bytes() < 512 * 1024
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            pong = len(websocket.frame(websocket.PONG, b"p" * 125))
            async with asyncio.timeout(PATIENCE_S):
                await reader.readexactly(asked * pong)
            await hang_up(writer)

    play(story, uvloop=uvloop)
