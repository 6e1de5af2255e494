"""What is not a plain function: a stream, a context manager, a block of code.

python examples/streams_and_blocks.py
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager

from budao import Guard

guard = Guard("feed")


@guard
async def ticks() -> AsyncIterator[int]:
    number = 0
    while True:
        yield number
        number += 1


@guard
@contextmanager
def connection() -> Iterator[str]:
    yield "a connection"


async def main() -> None:
    async with aclosing(ticks()) as stream:
        async for tick in stream:
            print("tick", tick, "with", guard.snapshot().keys[0].in_flight, "in flight")
            if tick == 2:
                break
    with connection() as held:
        print("holding", held)
    async with guard.block(until=guard.clock() + 1.0) as call:
        status = 503
        call.answered()
        if status >= 500:
            call.failed("the feed says 503")
    key = guard.snapshot().keys[0]
    print(f"ok {key.ok}, failed {key.failed}, broken {key.broken}, in flight {key.in_flight}")


if __name__ == "__main__":
    asyncio.run(main())
