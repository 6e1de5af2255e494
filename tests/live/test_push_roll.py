"""An operator asks who is connected, and how each connection is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from budao.aio.gateway import Access, Gateway
from budao.aio.gateway.roll import TOLD_MAX
from budao.aio.gateway.sampler import WatchPolicy
from budao.aio.logs import MemoryLog
from budao.aio.push_client import PushClient
from budao.model import Wall
from budao.push import HeartbeatPolicy
from budao.wire import tokens

PATIENCE_S = 30.0
SECRET = "a secret of thirty-two bytes, or more"
QUICK = WatchPolicy(heartbeat=HeartbeatPolicy(quiet_s=0.2, late_s=0.1, silent_s=20.0, tick_s=0.05), look_s=0.05)


async def until(claim: Callable[[], object], what: str) -> None:
    ends_at = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < ends_at, what
        await asyncio.sleep(0.01)


def token(subject: str, *, operate: bool = False) -> str:
    return tokens.sign_development_token(SECRET, subject=subject, operate=operate, now=Wall(time.time()))


async def post(port: int, path: str, body: bytes, bearer: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {bearer}\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def test_the_roll_names_each_connection_with_its_health() -> None:
    async def story() -> None:
        access = Access(keys=tokens.TokenKeys.of_secret(SECRET))
        async with (
            MemoryLog() as log,
            Gateway(log, access=access, name="g1", watch_policy=QUICK) as one,
            Gateway(log, access=access, name="g2", watch_policy=QUICK) as two,
            PushClient([one.url, two.url], token=token("anna"), standby=True) as client,
        ):
            subscription = client.subscribe("news")
            await client.publish("news", 1)
            await anext(subscription)
            await until(
                lambda: client.has_standby and len(one.connections) == len(two.connections) == 1, "both are open"
            )
            roll = {each.name: each.controls["sessions"]({})[1] for each in (one, two)}
            assert {name: told["connections"] for name, told in roll.items()} == {"g1": 1, "g2": 1}
            entries = [told["sessions"][0] for told in roll.values()]
            assert sorted(each["standby"] for each in entries) == [False, True]
            assert {each["session"] for each in entries} == {client.session}
            assert {(each["subject"], each["transport"], each["peer"]) for each in entries} == {
                ("anna", "ws", "127.0.0.1")
            }

            def home() -> dict[str, object]:
                (found,) = [
                    entry
                    for each in (one, two)
                    for entry in each.controls["sessions"]({"session": client.session})[1]["sessions"]
                    if not entry["standby"]
                ]
                return found

            await until(lambda: home()["rtt_s"] is not None, "the kernel was asked")
            seen = home()
            assert isinstance(seen["rtt_s"], float)
            assert 0.0 < seen["rtt_s"] <= 2.0
            assert isinstance(seen["score"], float)
            assert 0.0 <= seen["score"] <= 100.0
            assert seen["outbox_bytes"] == 0
            assert (seen["channels"], seen["behind"], seen["blocked"], seen["lost"]) == (1, False, False, False)
            assert one.controls["sessions"]({"session": "nobody's"})[1]["sessions"] == []

    asyncio.run(story())


def test_the_worst_come_first_and_no_more_than_were_asked_for() -> None:
    async def story() -> None:
        async with MemoryLog() as log, Gateway(log, access=Access(keys=tokens.TokenKeys.of_secret(SECRET))) as gateway:
            clients = [PushClient([gateway.url], token=token(f"reader-{number}")) for number in range(3)]
            for each in clients:
                await each.__aenter__()
            try:
                await until(lambda: len(gateway.connections) == 3, "all are there")
                ill = list(gateway.connections)[1]
                ill.health.health = type("Ill", (), {"score": 12.34})()
                status, told = gateway.controls["sessions"]({"count": 2})
                assert (status, told["connections"], len(told["sessions"])) == (200, 3, 2)
                assert [each["score"] for each in told["sessions"]] == [12.3, 100.0]
                assert len(gateway.controls["sessions"]({"count": TOLD_MAX + 9})[1]["sessions"]) == 3
                assert gateway.controls["sessions"]({"count": -1})[1]["sessions"] == []
                for wrong in ({"count": "7"}, {"count": True}, {"session": 7}):
                    assert gateway.controls["sessions"](wrong)[0] == 400
            finally:
                for each in clients:
                    await each.aclose()

    asyncio.run(story())


def test_only_who_may_operate_sees_the_roll() -> None:
    async def story() -> None:
        async with MemoryLog() as log, Gateway(log, access=Access(keys=tokens.TokenKeys.of_secret(SECRET))) as gateway:
            refused = await post(gateway.port, "/v1/control/sessions", b"", token("reader"))
            assert refused.startswith(b"HTTP/1.1 403 ")
            told = await post(gateway.port, "/v1/control/sessions", b'{"count": 5}', token("operator", operate=True))
            assert told.startswith(b"HTTP/1.1 200 ")
            assert told.endswith(b'"connections":0,"sessions":[]}')

    asyncio.run(story())
