"""One objective, one guard, two protected functions; a service that falls ill and is kept away from.

python examples/first_call.py
"""

from __future__ import annotations

import asyncio

from budao import BreakerOpen, Guard, Latency

guard = Guard("inventory", objective=Latency(0.99, under_s=0.200))
inventory = {"ill": False}


def answer(sku: str) -> int:
    if inventory["ill"]:
        raise ConnectionError(f"no answer about {sku}")
    return 7


@guard
def stock_now(sku: str) -> int:
    return answer(sku)


@guard
async def stock(sku: str) -> int:
    await asyncio.sleep(0)  # your client library would wait here
    return answer(sku)


async def main() -> None:
    print("well     ", stock_now("a"), await stock("b"))
    inventory["ill"] = True
    failed = refused = 0
    for _ in range(100):
        try:
            await stock("c")
        except BreakerOpen:
            refused += 1
        except ConnectionError:
            failed += 1
    print("ill      ", failed, "failed,", refused, "were not even sent")
    for event in guard.snapshot().events:
        print("event    ", event)
    print()
    print(guard.explain())


if __name__ == "__main__":
    asyncio.run(main())
