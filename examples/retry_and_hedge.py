"""A read that fails now and then and is slow now and then: tried again, or asked twice, within one budget.

python examples/retry_and_hedge.py
"""

from __future__ import annotations

import asyncio
from itertools import count

from budao import BudgetPolicy, Guard, GuardPolicy, HedgePolicy, RetryPolicy, TimeoutPolicy

policy = GuardPolicy(
    timeout=TimeoutPolicy(call_s=0.5, total_s=2.0),
    retry=RetryPolicy(pause_first_s=0.001),
    hedge=HedgePolicy(quantile=0.9, samples_min=20),
    budget=BudgetPolicy(share=0.2),
)
guard = Guard("replicas", policy=policy)
tries = count(1)


@guard(safe=True)
async def read(key: str) -> str:
    number = next(tries)
    if number % 40 == 0:
        raise ConnectionResetError("the replica went away")
    await asyncio.sleep(0.2 if number % 25 == 0 else 0.001)
    return f"value of {key}"


async def slow_ones(reads: int) -> int:
    """How many of so many reads took longer than 150 ms."""
    loop = asyncio.get_running_loop()
    slow = 0
    for number in range(reads):
        began = loop.time()
        await read(f"key {number}")
        slow += loop.time() - began > 0.15
    return slow


async def main() -> None:
    print("slow ones of the first 200 reads: ", await slow_ones(200), " (it learns what is slow)")
    print("slow ones of the next 200 reads:  ", await slow_ones(200))
    view = guard.snapshot()
    print(f"{view.retries} retries; {view.hedges} hedges, of which {view.hedges_won} answered first")


if __name__ == "__main__":
    asyncio.run(main())
