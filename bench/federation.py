"""`python -m bench.federation`: what sharing instances between two clusters costs, over loopback, in one process.

Prints the time a change takes from one cluster to the other, what a first meeting and a catch-up send, and how fast whole
copies merge. Both clusters share one event loop, so each figure holds the work of both sides.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import time
from collections.abc import Callable

from budao.aio import Federation
from budao.discovery import Address, FederatedSet, Instance

LOCAL = "127.0.0.1"


def instance(number: int, weight: float = 1.0) -> Instance:
    addresses = {"http": Address(f"10.0.{number // 250}.{number % 250}", 8080)}
    metadata = {"commit": "0123456789abcdef", "rack": f"r{number % 40}"}
    return Instance(
        service="shop", id=f"shop-{number:06d}", addresses=addresses, zone="a", weight=weight, metadata=metadata
    )


async def until(claim: Callable[[], object]) -> None:
    async with asyncio.timeout(60.0):
        while not claim():  # noqa: ASYNC110 - short enough not to blur what is measured
            await asyncio.sleep(0)


async def exchange(count: int, changes: int) -> None:
    async with Federation("east") as east:
        for number in range(count):
            east.put(instance(number))
        began = time.perf_counter()
        peers = [(LOCAL, east.port)]
        west = Federation("west", peers=peers)
        async with west:
            await until(lambda: len(west.remote("shop")) == count)
            took_s = time.perf_counter() - began
            print(f"first meeting, {count} instances: {took_s * 1000:.0f} ms, {west.bytes_in:,} bytes, ", end="")
            print(f"{west.frames_in} frames")
            await until(lambda: west.shared.digest().items() <= east.shared.digest().items())

            took: list[float] = []
            for number in range(changes):
                began = time.perf_counter()
                east.put(instance(number % count, 2.0 + number))
                wanted = east.shared.digest()["east"]
                await until(lambda wanted=wanted: west.shared.digest()["east"] == wanted)  # type: ignore[misc]
                took.append(time.perf_counter() - began)
                await asyncio.sleep(0.001)
            took.sort()
            p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
            print(f"a change arrives: p50 {p50 * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms ({changes} changes)")

        # The same copy meets again after ten changes: what a cluster that was away has to be sent.
        away = west.shared
        for number in range(10):
            east.put(instance(number, 0.5))
        again = Federation("west", peers=peers)
        again.shared = away
        async with again:
            wanted = east.shared.digest()["east"]
            began = time.perf_counter()
            await until(lambda: again.shared.digest()["east"] == wanted)
            took_s = time.perf_counter() - began
            print(f"catching up after 10 changes in {count}: {again.bytes_in:,} bytes in, ", end="")
            print(f"{again.bytes_out:,} out, {took_s * 1000:.1f} ms with the connection made")


def merging(count: int) -> None:
    east = FederatedSet("east", 1)
    for number in range(count):
        east.put(instance(number))
    rounds = 20
    began = time.perf_counter()
    for _ in range(rounds):
        FederatedSet("west", 1).merge(east)
    took_s = (time.perf_counter() - began) / rounds
    print(f"merging {count} instances into an empty copy: {took_s * 1000:.1f} ms, {count / took_s:,.0f} instances/s")
    west = FederatedSet("west", 1)
    west.merge(east)
    began = time.perf_counter()
    for _ in range(rounds):
        west.merge(east)
    took_s = (time.perf_counter() - began) / rounds
    print(f"merging {count} instances that are known already: {took_s * 1000:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=5_000)
    parser.add_argument("--changes", type=int, default=2_000)
    asked = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}")
    asyncio.run(exchange(asked.instances, asked.changes))
    merging(asked.instances)


if __name__ == "__main__":
    main()
