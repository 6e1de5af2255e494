"""A Redis cache that may be away: readers get a best guess at once instead of waiting for it.

Needs a Redis on port 6379 of this machine, or none: without one the example shows the guard at work.

    python examples/redis_cache.py
"""

from __future__ import annotations

import asyncio
import sys

import redis.asyncio

from budao import Guard, Latency
from budao.adapters.redis import guard_redis
from budao.model import CallRefused

guard = Guard("cache", objective=Latency(0.99, under_s=0.050))


async def price(client: redis.asyncio.Redis, sku: str) -> tuple[str, str]:
    """The price of an article, and where it comes from."""
    try:
        cached = await client.get(f"price:{sku}")
    except CallRefused as refused:
        return "about 10", str(refused)  # not sent: this took microseconds
    except (redis.RedisError, TimeoutError) as failed:
        return "about 10", type(failed).__name__
    return (str(cached), "cache") if cached is not None else ("10", "computed")


async def main(port: int) -> None:
    client = guard_redis(redis.asyncio.Redis(port=port, decode_responses=True), guard)
    async with client:
        for number in range(40):
            found, source = await price(client, f"sku-{number}")
            if number in {0, 39}:
                print(f"sku-{number}: {found} ({source})")
    for key in guard.snapshot().keys:
        if key.key:
            print(f"{key.key} {key.state.value}, {key.ok} ok, {key.failed} failed, {sum(key.refused.values())} refused")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 6379))
