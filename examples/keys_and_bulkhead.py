"""Four shards behind one guard: each has its own places and its own breaker, so one ill shard is only one.

python examples/keys_and_bulkhead.py
"""

from __future__ import annotations

import asyncio
from collections import Counter

from budao import BreakerPolicy, BulkheadPolicy, Guard, GuardPolicy

policy = GuardPolicy(
    breaker=BreakerPolicy(calls_min=10),
    bulkhead=BulkheadPolicy(calls_max=5, waiting_max=5, wait_max_s=0.2),
)
guard = Guard("shards", policy=policy)


@guard(key=lambda shard: shard)
async def ask(shard: int) -> str:
    await asyncio.sleep(0.01)
    if shard == 2:
        raise ConnectionError(f"shard {shard} is broken")
    return "ok"


async def main() -> None:
    calls = [ask(number % 4) for number in range(60)]
    ended = await asyncio.gather(*calls, return_exceptions=True)
    told = Counter(type(each).__name__ if isinstance(each, BaseException) else each for each in ended)
    print("first wave ", dict(told))
    for _ in range(3):
        await asyncio.gather(*(ask(2) for _ in range(5)), return_exceptions=True)
    print("shard 1    ", await ask(1))
    for key in guard.snapshot().keys:
        if key.key:
            refused = {why.name: count for why, count in key.refused.items()}
            print(f"shard {key.key}     {key.state.value}, {key.ok} ok, {key.failed} failed, refused {refused}")


if __name__ == "__main__":
    asyncio.run(main())
