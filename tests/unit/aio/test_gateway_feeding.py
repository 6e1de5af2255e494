"""What feeds a hub: a batch of news, however it is cut, leaves the loop its turns."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from budao.aio.gateway import GatewayMetrics, GatewayPolicy
from budao.aio.gateway.feeding import Feeding
from budao.aio.gateway.hub import Hub
from budao.push import START, Appended, ChannelRules, Stretch
from tests.unit.aio.test_gateway_hub import Reader, message


class Feed:
    """Tells everything at once, and then nothing more."""

    def __init__(self, news: list[Appended]) -> None:
        self.news = news
        self.is_followed = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def follow(self, channel: str, *, recent: int = 0) -> Stretch:
        assert recent
        self.is_followed.set()
        return Stretch(channel, START, ())

    def unfollow(self, channel: str) -> None:
        raise AssertionError(channel)

    async def next(self) -> list[Appended]:
        await self.is_followed.wait()
        news, self.news = self.news, []
        if not news:
            await asyncio.Event().wait()
        return news


class Log:
    name = "log"

    def __init__(self, news: list[Appended]) -> None:
        self.news = news

    def feed(self) -> Feed:
        return Feed(self.news)


def test_many_small_news_to_a_reader_leave_the_others_their_turns() -> None:
    async def story() -> tuple[int, list[int]]:
        news = [Appended("c", (message(seq, 1_000),)) for seq in range(1, 1_001)]
        policy = GatewayPolicy(step_bytes_max=64 * 1024)
        hub = Hub(policy, ChannelRules(), GatewayMetrics(), now=lambda: 0.0, wall=lambda: 1.0)
        log: Any = Log(news)
        feeding = Feeding(hub, log)
        reader = Reader(hub)
        feeding.start()
        await asyncio.sleep(0)
        assert hub.join(reader, "c", START, 0, lambda _: None) is None  # type: ignore[arg-type]
        turns = 0
        while len(reader.seqs) < 1_000 and turns < 10_000:
            await asyncio.sleep(0)
            turns += 1
        await feeding.aclose()
        return turns, reader.seqs

    turns, seqs = asyncio.run(story())
    assert seqs == list(range(1, 1_001))
    assert turns > 10
