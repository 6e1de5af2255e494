"""A program that reads and publishes; the kinds of what it gets are those it expects."""

from __future__ import annotations

import asyncio
from typing import assert_type

from budao.aio import ClientMetrics, Forbidden, PushClient, Subscription
from budao.push import ClientPolicy, Gap, Message, Position


async def fresh_token() -> str:
    return "a token"


async def main() -> None:
    policy = ClientPolicy(queue_count_max=100)
    async with PushClient(["https://one", "wss://two"], token=fresh_token, standby=True, policy=policy) as client:
        news = client.subscribe("news", after=Position("life", 7))
        assert_type(news, Subscription)
        try:
            assert_type(await client.publish("news", {"hello": "world"}, id="once"), Position)
        except Forbidden as problem:
            print(problem.why)
        assert_type(await client.publish_many("news", [1, 2]), list[Position])
        async for item in news:
            assert_type(item, Message | Gap)
            if isinstance(item, Gap):
                print(item.after, item.upto, item.why)
            else:
                print(item.data, item.position)
        assert_type(client.metrics, ClientMetrics)
        assert_type(client.position("news"), Position | None)
        client.subscribe(7)  # type: ignore[arg-type]
        PushClient("https://one", codec="xml")  # type: ignore[arg-type]


if __name__ == "__main__":
    asyncio.run(main())
