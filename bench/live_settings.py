"""How long until every program has new settings: from the moment they are set to the moment each client has them.

    python -m bench.live_settings [--clients 50] [--changes 100]

One embedded store in a process of its own, durable on disk; the clients are in this process, each with a connection of
its own. Bar: 99 of 100 within 100 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from budao.adapters.stores import open_store
from budao.aio import StoredSettings
from budao.measure import nearest_rank
from budao.protect import LiveSettings
from budao.settings import typed

BAR_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Shop:
    sent_at: float = 0.0


async def measure(url: str, clients: int, changes: int) -> list[float]:
    took: list[float] = []

    def seen(shop: Shop) -> None:
        if shop.sent_at:
            took.append(time.perf_counter() - shop.sent_at)

    async with AsyncExitStack() as closing:
        for _ in range(clients):
            store = open_store(url)
            closing.push_async_callback(store.aclose)
            live = LiveSettings(partial(typed, Shop), environ={}, store=store, name="bench", on_value=seen)
            await closing.enter_async_context(live)
        writer = open_store(url)
        closing.push_async_callback(writer.aclose)
        stored = StoredSettings(writer, "bench")
        for _ in range(changes):
            before = len(took)
            await stored.set(f"sent_at = {time.perf_counter()!r}")
            async with asyncio.timeout(10):
                while len(took) < before + clients:  # noqa: ASYNC110 -- a short look costs less than an event for each
                    await asyncio.sleep(0.001)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--changes", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "budao", "store", "serve", folder, "--port", "0", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            took = sorted(
                asyncio.run(measure(f"budao://{said['host']}:{said['port']}", options.clients, options.changes))
            )
        finally:
            process.terminate()
            process.wait(30)
    p50, p99 = (took[nearest_rank(share, len(took)) - 1] for share in (0.5, 0.99))
    print(f"{options.changes} changes, each seen by {options.clients} clients; from before the set to each client, ms")
    print(f"  p50 {p50 * 1e3:.1f}   p99 {p99 * 1e3:.1f}   slowest {took[-1] * 1e3:.1f}")
    print(f"  bar: p99 at most {BAR_S * 1e3:.0f} ms: {'met' if p99 <= BAR_S else 'missed'}")


if __name__ == "__main__":
    main()
