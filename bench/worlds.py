"""Every law of a store, over many random histories, on every backend; then again while members are killed and frozen.

    python -m bench.worlds [--seeds 10] [--first 1]

It takes a few minutes, and stops at the first law that is broken; the failure names the seed that finds it again:
`--first SEED --seeds 1`.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random

from budao.adapters.etcd import EtcdStore
from budao.aio import RemoteStore, Store
from tests.live.etcd_server import Cluster
from tests.live.store_process import StoreProcess, serving
from tests.live.store_suite import LAWS, keep, keep_through


def laws(backend: str, open_client: Callable[[], Store], seeds: range) -> None:
    begun = time.monotonic()
    for law in LAWS:
        for seed in seeds:
            keep(law, open_client, seed=seed)
    spent_s = time.monotonic() - begun
    print(f"  {backend:<28} {len(LAWS)} laws x {len(seeds)} seeds kept in {spent_s:.0f} s", flush=True)


def faults(
    backend: str, open_client: Callable[[], Store], disturb: Callable[[], Awaitable[None]], seeds: range
) -> None:
    begun = time.monotonic()
    for seed in seeds:
        keep_through(open_client, disturb, seed=seed)
    spent_s = time.monotonic() - begun
    print(f"  {backend:<28} {len(seeds)} disturbed histories explained in {spent_s:.0f} s", flush=True)


async def restarted(server: StoreProcess, rng: Random) -> None:
    """The server is killed and started again, or frozen for a while."""
    await asyncio.sleep(0.3)
    if rng.random() < 0.5:
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
    else:
        with server.frozen():
            await asyncio.sleep(1.0)


async def harmed(cluster: Cluster, rng: Random) -> None:
    """The leader is killed and started again, or frozen for a while."""
    await asyncio.sleep(0.3)
    leader = await asyncio.to_thread(cluster.leader)
    if rng.random() < 0.5:
        await asyncio.to_thread(leader.kill)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(cluster.start, leader)
    else:
        with cluster.frozen(leader):
            await asyncio.sleep(3.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=1)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    few = range(options.first, options.first + max(1, options.seeds // 3))
    print(f"seeds {seeds.start} to {seeds.stop - 1}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving(folder / "store") as server:
            client = partial(RemoteStore, "127.0.0.1", server.port)
            laws("embedded server", client, seeds)
            faults("embedded server, harmed", client, partial(restarted, server, Random(options.first)), seeds)
        with Cluster(folder / "one") as one:
            laws("etcd, one member", lambda: EtcdStore(one.endpoints), few)
        with Cluster(folder / "three", 3) as three:
            laws("etcd, three members", lambda: EtcdStore(three.endpoints), few)
            disturb = partial(harmed, three, Random(options.first))
            faults("etcd, leader harmed", lambda: EtcdStore(three.endpoints), disturb, few)


if __name__ == "__main__":
    main()
