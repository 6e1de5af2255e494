"""An operator moves the sessions of the Python client: to their standbys, and their standbys elsewhere. Nobody misses anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from budao.aio.gateway import Access, Gateway
from budao.aio.gateway.mover import Mover
from budao.aio.logs import MemoryLog
from budao.aio.push_client import PushClient
from budao.push import ClientPolicy, Grant, Message, Target
from tests.live.push_raw import answer_to, play, until

OPERATOR = Access(anonymous=Grant(subscribe=("**",), publish=("**",), operate=True))
POLICY = ClientPolicy(standby_spread_s=0.0, is_shuffled=False)


class Place:
    """A gateway with its mover."""

    def __init__(self, log: MemoryLog, name: str) -> None:
        self.gateway = Gateway(log, access=OPERATOR, name=name)
        self.mover = Mover(self.gateway)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}"

    def serves(self, client: PushClient) -> bool:
        return client.gateway is not None and str(self.gateway.port) in client.gateway

    async def control(self, verb: str, **said: Any) -> tuple[int, dict[str, Any]]:
        """What `POST /v1/control/…` answers."""
        body = json.dumps(said).encode()
        head = f"POST /v1/control/{verb} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        answer = await answer_to(self.gateway.port, head.encode() + body)
        head_, _, rest = answer.partition(b"\r\n\r\n")
        return int(head_.split()[1]), json.loads(rest)


@asynccontextmanager
async def three_places() -> AsyncIterator[list[Place]]:
    async with MemoryLog() as log:
        places = [Place(log, name) for name in ("a", "b", "c")]
        async with places[0].gateway, places[1].gateway, places[2].gateway:
            for place in places:
                place.mover.set_targets([Target(each.gateway.name, each.url) for each in places if each is not place])
            yield places
            for place in places:
                place.mover.close()


async def under_traffic(client: PushClient, writer: PushClient, at: int, act: Callable[[], Any]) -> list[int]:
    """The numbers that a reader gets of 200, while something happens in between."""
    numbers = client.subscribe("n")
    await numbers.ready()

    async def publish() -> None:
        for number in range(200):
            await writer.publish("n", number)
            if number == at:
                await act()

    got = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(publish())
        for _ in range(200):
            item = await anext(numbers)
            assert isinstance(item, Message)
            got.append(int(item.data))
    return got


@pytest.mark.parametrize("asked", ["the home", "the standby's gateway"])
def test_an_operator_promotes_a_standby_and_nothing_is_lost_or_doubled(asked: str) -> None:
    async def main() -> None:
        async with three_places() as (a, b, c):
            urls = [a.url, b.url, c.url]
            async with PushClient(urls, standby=True, policy=POLICY) as client, PushClient([c.url]) as writer:
                await until(lambda: client.has_standby)
                assert a.serves(client)

                async def promote() -> None:
                    place = a if asked == "the home" else b
                    status, told = await place.control("promote", session=client.session)
                    assert (status, told) == (202, {"session": client.session, "told": 1})

                assert await under_traffic(client, writer, 50, promote) == list(range(200))
                await until(lambda: b.serves(client) and client.has_standby)
                metrics = client.metrics
                assert (metrics.promotions, metrics.moves, metrics.gaps, metrics.broken_promises) == (1, 0, 0, 0)
                assert await client.publish("n", 200)
                await until(lambda: not a.gateway.connections)  # it has let go of its old home
                assert (b.mover.standbys.counts().homes, c.mover.standbys.counts().standbys) == (1, 1)

    play(main)


def test_who_is_to_be_promoted_without_a_standby_moves() -> None:
    async def main() -> None:
        async with three_places() as (a, b, c):  # noqa: SIM117 - on one line they are harder to read
            async with PushClient([a.url, b.url], policy=POLICY) as client, PushClient([c.url]) as writer:
                await client.connected()
                got = await under_traffic(client, writer, 50, lambda: a.control("promote", session=client.session))
                assert got == list(range(200))
                await until(lambda: b.serves(client) and not a.gateway.connections)

    play(main)


def test_an_operator_says_where_a_standby_is_kept() -> None:
    async def main() -> None:
        async with three_places() as (a, b, c), PushClient([a.url, b.url], standby=True, policy=POLICY) as client:
            await until(lambda: client.has_standby)
            assert b.mover.standbys.counts().standbys == 1
            status, told = await a.control("advise", session=client.session, target="c")
            assert (status, told["target"], told["url"]) == (202, "c", c.url)
            await until(lambda: client.has_standby and c.mover.standbys.counts().standbys == 1)
            await until(lambda: not b.gateway.connections)
            assert a.serves(client)
            for said, why, answers in (
                ({"session": "nobody"}, "no-home", 404),
                ({"session": client.session, "target": "z"}, "no-peers", 404),
                ({"session": 1}, "bad-request", 400),
            ):
                status, told = await a.control("advise", **said)
                assert (status, told["error"]["why"]) == (answers, why)

    play(main)
