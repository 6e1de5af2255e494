"""A page that always has an answer: the real one, the last good one, a guess, or nothing, in this order.

python examples/ladder.py
"""

from __future__ import annotations

import asyncio

from budao import Guard, Latency, Remembered, Rung
from budao.guard import Descended

guard = Guard("reviews", objective=Latency(0.99, under_s=0.100))
service = {"ill": False}


async def guess(sku: str) -> list[str]:
    if sku == "unknown":
        raise LookupError("no guess for that")
    return [f"people like {sku}"]


def nothing(*_: object) -> list[str]:
    return []  # a new list each time, since callers may change what they get


@guard.ladder(cache=Remembered(stale_s=600.0), template=Rung(guess, deadline_s=0.020), empty=nothing)
async def reviews(sku: str) -> list[str]:
    if service["ill"]:
        raise ConnectionError("the reviews do not answer")
    return [f"{sku} is fine"]


async def main() -> None:
    guard.listen(
        lambda event: isinstance(event, Descended) and print("  went down to", event.rung, "after", event.error)
    )
    print("well    ", await reviews("tea"))
    service["ill"] = True
    for sku in ("tea", "coffee", "unknown"):
        print(f"ill      {sku}:", await reviews(sku))
    print("rungs   ", dict(guard.snapshot().rungs))


if __name__ == "__main__":
    asyncio.run(main())
