"""`python -m bench.soak`: a guard under everything at once, for long; memory, descriptors and tasks must stay flat.

Async callers that are cancelled, time out, fail, hedge and wait for places; threads; a flood of keys; streams; and new
settings every second. Prints one line every tenth of the run, and at the end whether anything was left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import random
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path

from budao import BudaoError, BulkheadPolicy, Guard, Latency

CALLERS = 60
THREADS = 2


class Load:
    """Callers of one guard, and what they have done."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.guard = Guard("soak", objective=Latency(0.99, under_s=0.02), rng=random.Random(seed + 1))
        self.calls = 0
        self.is_over = threading.Event()
        guard = self.guard
        self.fetch = guard.protect(self._fetch, safe=True, key=lambda key, _: key)
        self.shared = guard.protect(self._shared, single_flight=True)
        self.plain = guard.ladder(template=0)(self._plain)
        self.items = guard.protect(self._items)
        self.numbers = guard.protect(self._numbers)

    async def _fetch(self, key: str, way: float) -> str:
        await asyncio.sleep(0.0 if way < 0.6 else 0.01 if way < 0.95 else 0.5)
        if 0.5 < way < 0.6:
            raise ConnectionError(key)
        return key

    async def _shared(self, key: int) -> int:
        await asyncio.sleep(0.002)
        return key

    def _plain(self, way: float) -> int:
        if way < 0.1:
            raise ConnectionError("plain")
        return 1

    async def _items(self, way: float) -> AsyncGenerator[int, None]:
        for each in range(5):
            await asyncio.sleep(0)
            if way < 0.05 and each == 2:
                raise ConnectionError("items")
            yield each

    def _numbers(self, way: float) -> Iterator[int]:
        yield 1
        if way < 0.05:
            raise ConnectionError("numbers")
        yield 2

    async def caller(self) -> None:
        """Calls, and is now and then cancelled in the middle."""
        rng = self.rng
        while not self.is_over.is_set():
            self.calls += 1
            key = f"key-{rng.randrange(3000)}" if rng.random() < 0.5 else "hot"
            task = asyncio.ensure_future(self._one(key, rng.random()))
            if rng.random() < 0.1:
                await asyncio.sleep(0.001)
                task.cancel()
            await asyncio.wait((task,))
            if not task.cancelled() and (error := task.exception()) and not isinstance(error, BudaoError | OSError):
                raise error
            await asyncio.sleep(0)

    async def _one(self, key: str, way: float) -> None:
        if way < 0.1:
            await self.shared(int(way * 100))
        elif way < 0.2:
            async with contextlib.aclosing(self.items(way * 5)) as items:
                async for each in items:
                    if each == 3:
                        break
        elif way < 0.25:
            async with self.guard.block("block"):
                await asyncio.sleep(0.001)
        else:
            await self.fetch(key, way)

    def thread(self) -> None:
        """Calls from a thread."""
        rng = random.Random(threading.get_ident())
        while not self.is_over.is_set():
            self.plain(rng.random())
            with contextlib.suppress(BudaoError, OSError):
                list(self.numbers(rng.random()))
            time.sleep(0.0005)

    async def steer(self) -> None:
        """New settings every second, so that compiled calls change their shape under way."""
        plain = self.guard.policy
        crowded = replace(plain, bulkhead=BulkheadPolicy(calls_max=20, waiting_max=20, wait_max_s=0.05))
        while not self.is_over.is_set():
            for policy in (crowded, plain):
                await asyncio.sleep(1.0)
                self.guard.obey(policy)


def memory_kib(process: int | str = "self") -> int:
    """Memory a process holds, in KiB."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def descriptors(process: int | str = "self") -> int:
    """Open files and sockets of a process."""
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def left_behind(load: Load) -> dict[str, int]:
    """What nobody should hold any more once all calls are over."""
    keys = load.guard.snapshot().keys
    return {
        "in flight": sum(key.in_flight for key in keys),
        "waiting": sum(key.waiting for key in keys),
        "keys over the bound": max(0, len(keys) - 1 - load.guard.policy.keys_max),
    }


async def soak(seconds: float, seed: int) -> dict[str, int]:
    """Runs the load and prints how the process does."""
    load = Load(seed)
    threads = [threading.Thread(target=load.thread, daemon=True) for _ in range(THREADS)]
    for each in threads:
        each.start()
    tasks = [asyncio.create_task(load.caller()) for _ in range(CALLERS)] + [asyncio.create_task(load.steer())]
    print(f"{'s':>6} {'calls':>9} {'MiB':>7} {'fds':>5} {'tasks':>6} {'objects':>8}")
    began = time.monotonic()
    for _ in range(10):
        await asyncio.sleep(seconds / 10)
        gc.collect()
        objects = len(gc.get_objects())
        print(
            f"{time.monotonic() - began:6.0f} {load.calls:9,} {memory_kib() / 1024:7.1f} {descriptors():5} "
            f"{len(asyncio.all_tasks()):6} {objects:8,}",
            flush=True,
        )
    load.is_over.set()
    await asyncio.gather(*tasks)
    for each in threads:
        each.join()
    await asyncio.sleep(0.1)
    return left_behind(load) | {"tasks": len(asyncio.all_tasks()) - 1}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    said = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, pid {os.getpid()}, seed {said.seed}")
    left = asyncio.run(soak(said.seconds, said.seed))
    print("left behind: " + (", ".join(f"{count} {what}" for what, count in left.items() if count) or "nothing"))
    return 1 if any(left.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
