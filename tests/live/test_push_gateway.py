"""A gateway delivers each message once and in order over every transport, whatever single clients do."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from budao.aio.gateway import Gateway, GatewayPolicy
from budao.aio.logs import DurableLog, LogServer, MemoryLog, RemoteLog
from budao.push import (
    STANDBY_BEAT_S,
    START,
    Ack,
    Bye,
    ChannelPolicy,
    ChannelRules,
    Hello,
    Hole,
    Msg,
    Ping,
    Position,
    Pub,
    Slow,
    Standby,
    Sub,
    Unsub,
    Welcome,
)
from budao.wire import framing, push_frames, sse
from tests.live.push_raw import (
    ANYBODY,
    SlowReader,
    Told,
    gateway_over,
    hang_up,
    play,
    publish,
    raw,
    tcp_frame,
    until,
    upgrade,
    ws,
)
from tests.live.redis_server import PATIENCE_S

LOOPS = pytest.mark.parametrize("uvloop", [False, True], ids=["asyncio", "uvloop"])
MANY = 300


async def read_tcp(port: int, told: Told, count: int) -> None:
    reader, writer = await raw(port)
    writer.write(tcp_frame(Hello(channels={"c": START})))
    frames = framing.Reader(1 << 20)
    while len(told.numbers) < count:
        for each in frames.feed(await reader.read(65536)):
            frame = push_frames.MSGPACK.decode_from_gateway(bytes(each))
            if isinstance(frame, Msg):
                told.take(frame.message)
    await hang_up(writer)


async def read_sse(url: str, told: Told, count: int, **how: str) -> str:
    events = sse.Reader(1 << 20)
    async with (
        httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as client,
        client.stream("GET", "/v1/events?channel=c&last=100", headers=how) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        async for data in response.aiter_raw():
            for event in events.feed(data):
                if isinstance(event, sse.Event) and event.event == "message":
                    frame = push_frames.JSON.decode_from_gateway(event.data)
                    assert isinstance(frame, Msg)
                    told.take(frame.message)
                    if len(told.numbers) == count:
                        return event.id
    raise AssertionError("the stream ended")


@LOOPS
def test_all_transports_tell_everything_once_and_in_order(uvloop: bool) -> None:
    async def story() -> None:
        async with MemoryLog() as log, gateway_over(log, tcp_port=0) as gateway:
            assert gateway.tcp_port is not None
            told = [Told("c", place=START) for _ in range(4)]
            async with ws(gateway.port) as one, ws(gateway.port, codec=push_frames.MSGPACK) as two:
                for client in (one, two):
                    await client.say(Hello(channels={"c": START}))
                    assert isinstance(await client.hear(), Welcome)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(one.follow(told[0], MANY))
                    tasks.create_task(two.follow(told[1], MANY))
                    tasks.create_task(read_tcp(gateway.tcp_port, told[2], MANY))
                    tasks.create_task(read_sse(gateway.url, told[3], MANY, **{"last-event-id": ":0"}))
                    tasks.create_task(publish(log, "c", MANY))
            for each in told:
                assert each.numbers == list(range(MANY))
                assert each.gaps == []

    play(story, uvloop=uvloop)


def test_what_is_published_over_http_or_a_websocket_has_a_place_and_the_same_id_is_the_same_message() -> None:
    async def story() -> None:
        async with (
            gateway_over() as gateway,
            httpx.AsyncClient(base_url=gateway.url) as http,
            ws(gateway.port) as client,
        ):
            first = await http.post("/v1/publish", json={"channel": "c", "data": {"a": [1]}, "id": "x"})
            assert (first.status_code, first.json()["seq"]) == (200, 1)
            again = await http.post("/v1/publish", json={"channel": "c", "data": 2, "id": "x"})
            assert again.json() == {**first.json(), "repeat": True}
            batch = {
                "messages": [{"channel": "c", "data": 3}, {"channel": "a b", "data": 4}, {"channel": "c", "data": 5}]
            }
            results = (await http.post("/v1/publish", json=batch)).json()["results"]
            assert [result.get("seq") for result in results] == [2, None, 3]
            assert "a b" in results[1]["error"]["happened"]
            await client.say(Hello())
            assert isinstance(await client.hear(), Welcome)
            await client.say(Pub(ref=7, channel="c", data=b'"six"', id="y"))
            ack = await client.hear()
            assert isinstance(ack, Ack)
            assert (ack.ref, ack.position and ack.position.seq, ack.is_repeat) == (7, 4, False)

    play(story)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"channel":"c"}', 400),
        (b'{"channel":"c","data":NaN}', 400),
        (b'{"channel":"","data":1}', 400),
        (b'{"channel":"c","data":"' + b"x" * 70_000 + b'"}', 413),
        (b'{"channel":"c","data":"' + b"x" * 5_000_000 + b'"}', 413),
    ],
)
def test_a_body_that_is_not_what_it_claims_is_refused_with_a_reason(body: bytes, status: int) -> None:
    async def story() -> None:
        async with gateway_over() as gateway, httpx.AsyncClient(base_url=gateway.url) as http:
            answer = await http.post("/v1/publish", content=body)
            assert answer.status_code == status
            assert answer.json()["error"]["happened"]

    play(story)


@LOOPS
def test_the_answer_to_a_hello_in_the_url_comes_with_that_to_the_upgrade(uvloop: bool) -> None:
    async def story() -> None:
        async with MemoryLog() as log, gateway_over(log) as gateway:
            await publish(log, "c", 10)
            query = "?hello=" + push_frames.format_hello_query(Hello(channels={"c": START}))
            async with ws(gateway.port, query=query) as warm:  # the channel is followed from now on
                told = Told("c", place=START)
                await warm.follow(told, 10)
                reader, writer = await raw(gateway.port)
                writer.write(upgrade(query))
                data = await reader.read(65536)
                assert data.startswith(b"HTTP/1.1 101 ")
                assert data.count(b'"type":"welcome"') == 1
                assert data.count(b'"type":"msg"') == 10
                await hang_up(writer)

    play(story, uvloop=uvloop)


@LOOPS
def test_a_reader_that_pauses_and_resumes_misses_nothing_and_costs_little_meanwhile(uvloop: bool) -> None:
    async def story() -> None:
        rules = ChannelRules(otherwise=ChannelPolicy(behind_bytes_max=64 * 1024 * 1024))
        log = MemoryLog(rules=rules)
        policy = GatewayPolicy(write_high_bytes=16 * 1024, write_low_bytes=4 * 1024)
        async with log, gateway_over(log, rules=rules, policy=policy) as gateway:
            slow, quick = SlowReader("c"), Told("c")
            await slow.open(gateway.port)
            query = "?hello=" + push_frames.format_hello_query(Hello(channels={"c": None}))
            async with ws(gateway.port, query=query) as client:
                assert isinstance(await client.hear(), Welcome)
                size, count = 10_000, 700  # more than the kernel takes for one that does not read
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(client.follow(quick, count))
                    tasks.create_task(publish(log, "c", count, size))
                assert max(each.queued_bytes() for each in gateway.connections) < 512 * 1024
                assert sum(1 for each in gateway.connections if each.holds) == 1
                slow.read_fast()
                while len(slow.told.numbers) < count:
                    await slow.read()
                await publish(log, "c", 1, first=count)
                while len(slow.told.numbers) <= count:
                    await slow.read()
            assert quick.numbers == list(range(count))
            assert slow.told.numbers == list(range(count + 1))
            assert slow.told.gaps == []
            slow.close()

    play(story, uvloop=uvloop)


@pytest.mark.parametrize("slow_means", [Slow.LATEST, Slow.CLOSE])
def test_a_reader_that_is_too_slow_skips_with_a_gap_or_ends_with_advice(slow_means: Slow) -> None:
    async def story() -> None:
        rules = ChannelRules(otherwise=ChannelPolicy(behind_bytes_max=100_000, slow=slow_means))
        log = MemoryLog(rules=rules)
        async with log, gateway_over(log, rules=rules) as gateway:
            slow = SlowReader("c")
            await slow.open(gateway.port)
            await publish(log, "c", 1_000, 10_000)
            if slow_means is Slow.LATEST:
                while not slow.told.gaps or slow.told.numbers[-1] != 999:
                    await slow.read()
                assert all(gap.why is Hole.SLOW for gap in slow.told.gaps)
            else:
                await until(lambda: gateway.metrics.ends["slow"] == 1)
                assert not gateway.connections
            slow.close()

    play(story)


@LOOPS
def test_after_a_restart_of_the_gateway_readers_resume_where_they_were(uvloop: bool, tmp_path: Path) -> None:
    async def story() -> None:
        told = Told("c", place=START)
        last_id = ""
        for round_number in range(3):
            async with DurableLog(tmp_path / "log") as log, gateway_over(log) as gateway, ws(gateway.port) as client:
                await client.say(Hello(channels={"c": told.follower.place}))
                welcome = await client.hear()
                assert isinstance(welcome, Welcome)
                await publish(log, "c", 50, first=50 * round_number)
                await client.follow(told, 50 * round_number + 50)
                events = Told("c")
                last_id = await read_sse(gateway.url, events, 10, **({"last-event-id": last_id} if last_id else {}))
                assert len(events.numbers) == 10
        assert told.numbers == list(range(150))
        assert told.gaps == []

    play(story, uvloop=uvloop)


def test_while_the_log_is_away_connections_stay_and_publishes_are_refused_and_then_all_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        server = LogServer(tmp_path / "log")
        async with server:
            port = server.port
            await publish(server.log, "c", 5)
            log = RemoteLog("127.0.0.1", port, timeout_s=1.0)
            await log.__aenter__()
            told = Told("c", place=START)
            async with gateway_over(log) as gateway, ws(gateway.port) as client:  # noqa: SIM117 - one needs the other
                async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as http:
                    await client.say(Hello(channels={"c": START}))
                    assert isinstance(await client.hear(), Welcome)
                    await client.follow(told, 5)
                    assert (await http.get("/readyz")).status_code == 200
                    await server.aclose()
                    await until(lambda: bool(gateway.unready()))
                    assert (await http.get("/readyz")).status_code == 503
                    assert (await http.get("/healthz")).status_code == 200
                    refused = await http.post("/v1/publish", json={"channel": "c", "data": [5], "id": "five"})
                    assert refused.status_code == 503
                    assert refused.json()["error"]["why"] == "log-away"
                    assert int(refused.headers["retry-after"]) >= 1
                    async with LogServer(tmp_path / "log", port=port):
                        await until(lambda: not gateway.unready())
                        taken = await http.post("/v1/publish", json={"channel": "c", "data": [5], "id": "five"})
                        assert taken.status_code == 200
                        await client.follow(told, 6)
                        assert told.numbers == [0, 1, 2, 3, 4, 5]
                        assert told.gaps == []
                        await log.aclose()

    play(story)


def test_a_standby_is_quiet_until_it_is_promoted_with_places() -> None:
    async def story() -> None:
        async with MemoryLog() as log, gateway_over(log) as gateway, ws(gateway.port) as client:
            await client.say(Hello(channels={"c": None}, is_standby=True, beat_s=0.05))
            welcome = await client.hear()
            assert isinstance(welcome, Welcome)
            (connection,) = gateway.connections
            assert (welcome.beat_s, gateway.beats.of(connection)) == (0.05, STANDBY_BEAT_S)
            assert gateway.granted_beat_s(connection) == 0.05  # which a successor process would go on with
            await publish(log, "c", 5)
            head = (await log.latest("c", 1)).head
            await client.say(Standby(ref=1, channels={"c": Position(head.epoch, 2)}))
            frame = await client.hear()
            while frame == Ping():
                frame = await client.hear()
            assert isinstance(frame, Ack)  # nothing of the channel came before
            assert frame.channels == {"c": Position(head.epoch, 2)}
            assert gateway.beats.of(connection) == gateway.granted_beat_s(connection) == 0.05
            told = Told("c", place=Position(head.epoch, 2))
            await client.follow(told, 3)
            await publish(log, "c", 1, first=5)
            await client.follow(told, 4)
            assert told.numbers == [2, 3, 4, 5]
            assert await client.hear() == Ping()

    play(story)


def test_subscriptions_come_and_go_within_a_session() -> None:
    async def story() -> None:
        async with MemoryLog() as log, gateway_over(log) as gateway, ws(gateway.port) as client:
            await client.say(Hello())
            assert isinstance(await client.hear(), Welcome)
            await publish(log, "c", 3)
            await client.say(Sub(ref=1, channel="c", last=2))
            ack = await client.hear()
            assert isinstance(ack, Ack)
            assert ack.position is not None
            assert ack.position.seq == 1
            told = Told("c", place=ack.position)
            await client.follow(told, 2)
            await client.say(Unsub(ref=2, channel="c"))
            assert await client.hear() == Ack(ref=2)
            await publish(log, "c", 1, first=3)
            await client.say(Sub(ref=3, channel="c", after=told.follower.place))
            assert isinstance(await client.hear(), Ack)
            await client.follow(told, 3)
            assert told.numbers == [1, 2, 3]

    play(story)


def test_several_channels_of_one_event_stream_resume_by_one_id() -> None:
    async def story() -> None:
        async with MemoryLog() as log, gateway_over(log) as gateway:  # noqa: SIM117 - one needs the other
            async with httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE_S) as http:
                await publish(log, "a/b", 2)
                await publish(log, "c", 2)
                last = ""
                seen: list[tuple[str, int]] = []
                for bound in (3, 6):
                    events = sse.Reader(1 << 20)
                    headers = {"last-event-id": last} if last else {}
                    query = "channel=a/b&channel=c" + ("" if last else "&last=5")
                    async with http.stream("GET", f"/v1/events?{query}", headers=headers) as response:
                        async for data in response.aiter_raw():
                            for event in events.feed(data):
                                if isinstance(event, sse.Event) and event.event == "message" and len(seen) < bound:
                                    frame = json.loads(event.data)
                                    seen.append((frame["channel"], frame["seq"]))
                                    last = event.id
                            if len(seen) >= bound:
                                break
                    if bound == 3:
                        await publish(log, "a/b", 2, first=2)
                assert sorted(seen) == [("a/b", 1), ("a/b", 2), ("a/b", 3), ("a/b", 4), ("c", 1), ("c", 2)]

    play(story)


@LOOPS
def test_who_is_there_when_it_stops_is_told_to_come_back(uvloop: bool) -> None:
    async def story() -> None:
        async with gateway_over() as gateway:
            async with ws(gateway.port) as client:
                await client.say(Hello(channels={"c": None}))
                assert isinstance(await client.hear(), Welcome)
                await gateway.aclose()
                bye = await client.hear()
                assert isinstance(bye, Bye)
                assert (bye.code, bye.why) == (1001, "going-away")
                await client.connection.wait_closed()
                assert client.connection.close_code == 1001
            assert not gateway.connections

    play(story, uvloop=uvloop)


def test_a_port_that_is_taken_is_named() -> None:
    async def story() -> None:
        async with gateway_over() as first, MemoryLog() as log:
            with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {first.port}: Address already in use"):
                async with Gateway(log, port=first.port, access=ANYBODY):
                    pass

    play(story)
