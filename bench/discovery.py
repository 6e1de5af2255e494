"""How long it takes until others see an instance, and what a directory costs.

    python -m bench.discovery [--puts N] [--instances N] [--without memory,server,etcd]

One table for each store that is there: in process, our own server as a process of its own (durable, every put is synced
to disk), and etcd as a process of its own, which syncs nothing here. All on loopback of one machine.

seen        From handing a put to the store to the changed roster in another client, which has a connection of its own
            on the two servers. One put at a time.
list        From entering a directory to its first roster, with all instances there already.
arrive      Registering that many instances one put after another, until the directory of another client has them all.
read        One read of `directory.roster`.
memory      What the directory's client keeps for each instance: parsed, and as it stands in the store.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import platform
import subprocess
import sys
import tempfile
import time
import timeit
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from budao.aio import Directory, MemoryStore, RemoteStore, Store, StoreSource
from budao.discovery import Address, Changed, DirectoryMachine, DirectoryPolicy, Instance, Listed, Roster
from budao.model import Mono
from budao.store import Put, Txn
from budao.wire import format_instance, instance_key, parse_instance

Opened = Callable[[], Store]


def instance(number: int, version: str = "1.0") -> Instance:
    return Instance(
        service="orders",
        id=f"orders-{number:010x}",
        addresses={"http": Address("10.0.0.1", 8080), "grpc": Address("10.0.0.1", 8081)},
        zone="eu-west-1a",
        version=version,
        metadata={"commit": "0123456789abcdef", "team": "checkout"},
        incarnation=f"{number:016x}",
    )


def put(each: Instance) -> Txn:
    return Txn(then=(Put(instance_key("budao", each.service, each.id), format_instance(each)),))


@asynccontextmanager
async def two(opened: Opened) -> AsyncIterator[tuple[Store, Store]]:
    writer, reader = opened(), opened()
    try:
        yield writer, reader
    finally:
        for store in {id(writer): writer, id(reader): reader}.values():
            await store.aclose()


async def until(directory: Directory, holds: Callable[[Roster], bool]) -> None:
    roster = directory.roster
    while not holds(roster):
        roster = await directory.latest.changed(roster)


async def measure(opened: Opened, puts: int, count: int) -> dict[str, str]:
    async with two(opened) as (writer, reader):
        async with Directory(StoreSource(reader), "orders") as directory:
            await directory.ready()
            took = []
            for number in range(puts):
                version = str(number)
                start = time.perf_counter()
                asking = asyncio.create_task(writer.commit(put(instance(0, version))))
                await until(directory, lambda roster: any(each.version == version for each in roster.instances))  # noqa: B023
                took.append(time.perf_counter() - start)
                await asking
            took.sort()
            start = time.perf_counter()
            for number in range(count):
                await writer.commit(put(instance(number)))
            await until(directory, lambda roster: len(roster.instances) == count)
            arrive_s = time.perf_counter() - start
        start = time.perf_counter()
        async with Directory(StoreSource(reader), "orders") as directory:
            await directory.ready()
            list_s = time.perf_counter() - start
            assert len(directory.roster.instances) == count
    return {
        "seen p50": f"{took[len(took) // 2] * 1e3:.2f} ms",
        "seen p99": f"{took[int(len(took) * 0.99)] * 1e3:.2f} ms",
        f"list {count}": f"{list_s * 1e3:.0f} ms",
        f"arrive {count}": f"{arrive_s:.2f} s",
        "each": f"{arrive_s / count * 1e6:.0f} us",
    }


async def costs(count: int) -> dict[str, str]:
    store = MemoryStore()
    async with Directory(StoreSource(store), "orders") as directory:
        await directory.ready()
        loops = 1_000_000
        bare = min(timeit.repeat("directory", globals={"directory": directory}, number=loops, repeat=7))
        read = min(timeit.repeat("directory.roster", globals={"directory": directory}, number=loops, repeat=7))
    await store.aclose()
    raws = [format_instance(instance(number)) for number in range(count)]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    parsed = [parse_instance(raw) for raw in raws]
    kept = (tracemalloc.get_traced_memory()[0] - before) / count
    tracemalloc.stop()
    start = time.perf_counter()
    for raw in raws:
        parse_instance(raw)
    parse_s = (time.perf_counter() - start) / count
    machine = DirectoryMachine("orders", DirectoryPolicy())
    machine.handle(Listed(1, tuple(parsed)), Mono(0.0))
    start = time.perf_counter()
    for number in range(1_000):
        machine.handle(Changed(2 + number, put=(instance(number % count, str(number)),)), Mono(1.0))
    change_s = (time.perf_counter() - start) / 1_000
    return {
        "read": f"{(read - bare) / loops * 1e9:.0f} ns",
        "parse one": f"{parse_s * 1e6:.0f} us",
        f"change one of {count}": f"{change_s * 1e6:.0f} us",
        "parsed": f"{kept / 1024:.1f} KiB",
        "in the store": f"{sum(map(len, raws)) / count / 1024:.1f} KiB",
    }


SERVER = """
import asyncio, sys
from pathlib import Path
from budao.apps.store_serve import serve
asyncio.run(serve(Path(sys.argv[1]), port=int(sys.argv[2]), as_json=True))
"""


@contextmanager
def served(kind: str, folder: Path) -> Iterator[Opened]:
    if kind == "memory":
        shared = MemoryStore()
        yield lambda: shared
    elif kind == "server":
        from tests.live.redis_server import free_port

        port = free_port()
        process = subprocess.Popen([sys.executable, "-c", SERVER, str(folder), str(port)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield lambda: RemoteStore("127.0.0.1", port)
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()
    else:
        from budao.adapters.etcd import EtcdStore
        from tests.live.etcd_server import Cluster

        with Cluster(folder) as cluster:
            yield lambda: EtcdStore(cluster.endpoints)


def show(title: str, rows: dict[str, dict[str, str]]) -> None:
    columns = list(next(iter(rows.values())))
    print(f"\n{title}\n")
    print("".join(f"{name:>20}" for name in ["", *columns]))
    for name, row in rows.items():
        print("".join(f"{cell:>20}" for cell in [name, *(row[column] for column in columns)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--puts", type=int, default=500)
    parser.add_argument("--instances", type=int, default=1_000)
    parser.add_argument("--without", default="")
    given = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}")
    rows = {}
    for kind in ("memory", "server", "etcd"):
        if kind in given.without.split(","):
            continue
        with tempfile.TemporaryDirectory() as folder, served(kind, Path(folder)) as opened:
            rows[kind] = asyncio.run(measure(opened, given.puts, given.instances))
    if rows:
        show("from one client to the roster of another", rows)
    show("what a directory costs", {"": asyncio.run(costs(given.instances))})


if __name__ == "__main__":
    main()
