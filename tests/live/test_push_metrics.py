"""Every metric of a gateway moves, and counts a thing once."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx

from budao.aio import client_tls
from budao.aio.gateway import Access, Certificates, Gateway, GatewayPolicy
from budao.aio.gateway.mover import Mover
from budao.aio.gateway.sampler import WatchPolicy
from budao.aio.logs import MemoryLog
from budao.push import START, Grant, Hello, LeavingPolicy, Move, PacePolicy, Position, Pub, Standby, Target, Welcome
from budao.wire import TicketKeys
from budao.wire.tokens import TokenKeys, sign_development_token
from tests.live.certificates import Authority
from tests.live.push_raw import (
    SlowReader,
    answer_to,
    gateway_over,
    hang_up,
    masked,
    play,
    publish,
    raw,
    tcp_frame,
    until,
    upgrade,
    ws,
)
from tests.live.redis_server import PATIENCE_S

KEYS = TicketKeys({"k": b"k" * 32}, "k")


class Seen:
    """Which metrics were seen to be something."""

    def __init__(self, *gateways: Gateway) -> None:
        self.gateways = gateways
        self.moved: set[str] = set()
        self.all: set[str] = set()

    def look(self) -> set[str]:
        for gateway in self.gateways:
            for family in gateway.metrics.families():
                self.all.add(family.name)
                self.moved |= {family.name} if any(family.values.values()) else set()
                if family.label == "transport":
                    self.all |= {f"{family.name} {each}" for each in family.values}
                    self.moved |= {f"{family.name} {each}" for each, count in family.values.items() if count}
        return self.all - self.moved

    def has(self, *names: str) -> Callable[[], bool]:
        return lambda: not set(names) & self.look()


def test_every_metric_moves(tmp_path: Path) -> None:
    async def story() -> None:
        authority = Authority(tmp_path)
        policy = GatewayPolicy(write_high_bytes=16 * 1024, write_low_bytes=4 * 1024)
        watch = WatchPolicy(look_s=0.05, look_idle_s=0.05)
        async with (
            MemoryLog() as log,
            Certificates(*authority.issue("first")) as certificates,
            gateway_over(log, name="a", tcp_port=0, policy=policy, watch_policy=watch) as a,
            gateway_over(log, tls=certificates, pace_policy=PacePolicy(rate_per_s=0.01, burst=2)) as b,
        ):
            seen = Seen(a, b)
            mover = Mover(
                a,
                keys=KEYS,
                targets=[Target("b", b.url)],
                leaving_policy=LeavingPolicy(lag_s=0.0),
                log_is_shared=True,
            )
            Mover(b, keys=KEYS)
            b.name = "b"

            await publish_ways(a)
            slow = SlowReader("slow")
            await slow.open(a.port)
            await publish(log, "slow", 700, 10_000)
            await until(seen.has("budao_push_lagging", "budao_push_outbox_bytes", "budao_push_ring_bytes"))
            slow.close()
            async with (
                ws(a.port) as client,
                ws(a.port) as standby,
                httpx.AsyncClient(timeout=PATIENCE_S) as http,
                http.stream("GET", f"{a.url}/v1/events?channel=c&last=1") as events,
            ):
                await client.say(Hello(channels={"c": Position("gone", 7)}, session="s-1"))
                assert isinstance(await client.hear(), Welcome)
                assert events.status_code == 200
                tcp_reader, tcp_writer = await raw(a.tcp_port or 0)
                tcp_writer.write(tcp_frame(Hello(channels={"c": START})))
                await tcp_reader.read(4)
                await standby.say(Hello(channels={"d": None}, session="s-2", is_standby=True))
                await standby.hear()
                await standby.say(Standby(ref=1, channels={"d": START}))
                await standby.hear()
                await publish(log, "c", 1)
                await until(seen.has("budao_push_promotions", "connection_health_score", "budao_push_sessions"))
                await tls_ways(b, certificates, authority, seen)
                mover.drain()
                while not isinstance(frame := await client.hear(), Move):
                    pass
                assert frame.ticket is not None
                await until(seen.has("budao_push_draining"))
                await hang_up(tcp_writer)
            await until(lambda: not seen.look())
            mover.close()

    play(story)


async def publish_ways(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as http:
        for _ in range(2):
            said = {"channel": "c", "data": 1, "id": "one"}
            answer = await http.post("/v1/publish", json=said, headers={"traceparent": "no trace"})
            assert answer.status_code == 200
        assert (await http.post("/v1/publish", content=b"{")).status_code == 400


async def tls_ways(gateway: Gateway, certificates: Certificates, authority: Authority, seen: Seen) -> None:
    async with httpx.AsyncClient(
        base_url=gateway.url, http2=True, verify=client_tls(authority.path), timeout=PATIENCE_S
    ) as http:
        async with http.stream("GET", "/v1/events?channel=c&last=1"):
            await until(seen.has("budao_push_connections h2", "budao_push_sent_bytes h2"))
        async with http.stream("GET", "/v1/events?channel=c"), http.stream("GET", "/v1/events?channel=c") as late:
            assert late.status_code == 503  # the pace takes two
    await wrong_handshake(gateway)
    assert certificates.reload() == ""


async def wrong_handshake(gateway: Gateway) -> None:
    with suppress(OSError):
        await asyncio.open_connection("localhost", gateway.port, ssl=ssl.create_default_context())


def test_one_thing_that_goes_wrong_is_counted_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with gateway_over(tcp_port=0) as gateway:
            errors = gateway.metrics.errors

            async def wrong(port: int, data: bytes, kind: str) -> None:
                before = dict(errors)
                assert await answer_to(port, data)
                await until(lambda: not gateway.connections and not gateway.doors)
                assert {name: errors[name] - before[name] for name in errors if errors[name] != before[name]} == {
                    kind: 1
                }

            await wrong(gateway.port, upgrade("?token=abc"), "unauthorized")
            await wrong(gateway.port, upgrade("?hello=abc"), "frame")
            await wrong(gateway.port, upgrade() + masked(1, b"no frame"), "frame")
            await wrong(gateway.port, upgrade() + b"\xff\xff", "frame")
            await wrong(gateway.port, upgrade() + b"\x81\xff" + b"\x00\x00\xff" * 4, "too-large")
            await wrong(gateway.tcp_port or 0, tcp_frame(Pub(ref=1, channel="c", data=b"1")), "frame")
            await wrong(gateway.tcp_port or 0, b"\xff\xff\xff\xff", "too-large")
            await wrong(gateway.port, b"nonsense\r\n\r\n", "head")

    play(story)


def test_silence_after_an_answer_is_no_error_and_silence_before_any_request_is() -> None:
    async def story() -> None:
        async with gateway_over(policy=GatewayPolicy(idle_s=0.05, head_s=0.05)) as gateway:
            errors = gateway.metrics.errors
            said = await answer_to(gateway.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert said.startswith(b"HTTP/1.1 200")
            assert not any(errors.values())
            assert await answer_to(gateway.port, b"") == b""
            assert {kind for kind, count in errors.items() if count} == {"head"}

    play(story)


def test_whoever_publishes_too_fast_over_http_is_told_when_to_come_back_and_others_are_not() -> None:
    async def story() -> None:
        policy = GatewayPolicy(publishes_per_s=0.01, publishes_burst=3)
        keys = TokenKeys.of_secret("k" * 32)
        access = Access(keys=keys, anonymous=Grant(subject="anonymous", publish=("**",)))
        async with (
            gateway_over(policy=policy, access=access) as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as http,
        ):
            one = {"channel": "c", "data": 1}
            batch = await http.post("/v1/publish", json={"messages": [one] * 4})
            assert ["error" in each for each in batch.json()["results"]] == [False, False, False, True]
            late = await http.post("/v1/publish", json=one)
            assert late.status_code == 429
            assert int(late.headers["retry-after"]) > 1
            assert late.json()["error"]["why"] == "rate"
            for subject in ("ann", "bob"):
                token = sign_development_token("k" * 32, subject=subject, now=gateway.wall())
                headers = {"authorization": f"Bearer {token}"}
                answers = [(await http.post("/v1/publish", json=one, headers=headers)).status_code for _ in range(4)]
                assert answers == [200, 200, 200, 429]
            assert gateway.metrics.publish_refusals["rate"] == 4

    play(story)


def test_a_refused_publish_is_counted_by_its_reason_whatever_it_came_over() -> None:
    async def story() -> None:
        async with gateway_over() as gateway, ws(gateway.port) as client:
            await client.say(Hello())
            await client.hear()
            await client.say(Pub(ref=1, channel="no channel", data=b"1"))
            await client.hear()
            assert gateway.metrics.publish_refusals["bad-channel"] == 1
            async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as http:
                answer = await http.post("/v1/publish", content=b"{}", headers={"authorization": "Bearer no"})
            assert answer.status_code == 401
            assert gateway.metrics.publish_refusals["unauthorized"] == 1

    play(story)
