"""What requests to etcd cost through `EtcdStore`, aetcd and the JSON gateway, on one real member.

    python -m bench.etcd [--quick]

Every client does the same against the same etcd, in turns, one kind of work at a time; the best round of each counts.
CPU is that of this process, all threads of gRPC included; etcd's own is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from budao.adapters.etcd import EtcdStore
from budao.store import Put, Span, Txn, absent, unchanged
from tests.live.etcd_server import Cluster

VALUE = b"v" * 100
LEASE_S = 600
AT_ONCE = 64
"""Renewals under way at the same time."""


class Client(ABC):
    """What each peer has to do."""

    name: str

    @abstractmethod
    async def open(self) -> None: ...
    @abstractmethod
    async def put(self, key: str) -> None: ...
    @abstractmethod
    async def swap(self, key: str) -> None:
        """Reads a key and writes it back in a transaction, if it is unchanged."""

    @abstractmethod
    async def lease(self) -> int: ...
    @abstractmethod
    async def keep_alive(self, lease: int) -> None: ...
    @abstractmethod
    def watch(self, prefix: str) -> AsyncIterator[None]: ...
    @abstractmethod
    async def close(self) -> None: ...


class Ours(Client):
    name = "budao EtcdStore"

    def __init__(self, host: str, port: int) -> None:
        self.store = EtcdStore([f"{host}:{port}"])

    async def open(self) -> None:
        await self.store.read(Span.one("x"))

    async def put(self, key: str) -> None:
        await self.store.commit(Txn(then=(Put(key, VALUE),)))

    async def swap(self, key: str) -> None:
        entry = (await self.store.read(Span.one(key))).first
        condition = absent(key) if entry is None else unchanged(entry)
        assert (await self.store.commit(Txn((condition,), then=(Put(key, VALUE),)))).held

    async def lease(self) -> int:
        return (await self.store.grant(LEASE_S)).id

    async def keep_alive(self, lease: int) -> None:
        await self.store.keep_alive(lease)

    async def watch(self, prefix: str) -> AsyncIterator[None]:
        after = (await self.store.read(Span.one("x"))).revision
        async for _ in self.store.watch(Span.prefix(prefix), after=after):
            yield

    async def close(self) -> None:
        await self.store.aclose()


class Aetcd(Client):
    name = "aetcd"

    def __init__(self, host: str, port: int) -> None:
        import aetcd

        self.library: Any = aetcd
        self.client = aetcd.Client(host=host, port=port)

    async def open(self) -> None:
        await self.client.connect()

    async def put(self, key: str) -> None:
        await self.client.put(key.encode(), VALUE)

    async def swap(self, key: str) -> None:
        name = key.encode()
        found = await self.client.get(name)
        say = self.client.transactions
        claim = say.version(name) == 0 if found is None else say.mod(name) == found.mod_revision
        held, _ = await self.client.transaction(compare=[claim], success=[say.put(name, VALUE)], failure=[])
        assert held

    async def lease(self) -> int:
        return int((await self.client.lease(LEASE_S)).id)

    async def keep_alive(self, lease: int) -> None:
        await self.client.refresh_lease(lease)

    async def watch(self, prefix: str) -> AsyncIterator[None]:
        async for _ in await self.client.watch_prefix(prefix.encode()):
            yield

    async def close(self) -> None:
        await self.client.close()


class Gateway(Client):
    name = "JSON gateway, aiohttp"

    def __init__(self, host: str, port: int) -> None:
        self.url = f"http://{host}:{port}/v3/"

    async def open(self) -> None:
        import aiohttp

        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE))

    async def ask(self, path: str, body: dict[str, Any]) -> Any:
        async with self.session.post(self.url + path, json=body) as reply:
            return await reply.json(content_type=None)

    async def put(self, key: str) -> None:
        await self.ask("kv/put", {"key": _b64(key.encode()), "value": _b64(VALUE)})

    async def swap(self, key: str) -> None:
        name = _b64(key.encode())
        found = (await self.ask("kv/range", {"key": name})).get("kvs")
        claim = {"key": name, "target": "VERSION", "version": "0"}
        if found:
            claim = {"key": name, "target": "MOD", "mod_revision": found[0]["mod_revision"]}
        put = {"request_put": {"key": name, "value": _b64(VALUE)}}
        assert (await self.ask("kv/txn", {"compare": [claim], "success": [put]}))["succeeded"]

    async def lease(self) -> int:
        return int((await self.ask("lease/grant", {"TTL": LEASE_S}))["ID"])

    async def keep_alive(self, lease: int) -> None:
        await self.ask("lease/keepalive", {"ID": lease})

    async def watch(self, prefix: str) -> AsyncIterator[None]:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        asked = {"create_request": {"key": _b64(prefix.encode()), "range_end": _b64(end.encode())}}
        async with self.session.post(self.url + "watch", json=asked) as reply:
            async for line in reply.content:
                if json.loads(line)["result"].get("events"):
                    yield

    async def close(self) -> None:
        await self.session.close()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


Figures = dict[str, float]


async def _each(times: int, work: Callable[[int], Awaitable[None]]) -> list[float]:
    took = []
    for number in range(times):
        began_at = time.perf_counter()
        await work(number)
        took.append((time.perf_counter() - began_at) * 1000)
    return sorted(took)


def _two(name: str, took: list[float]) -> Figures:
    return {f"{name} p50 ms": took[len(took) // 2], f"{name} p99 ms": took[len(took) * 99 // 100]}


async def _watched(client: Client, times: int, prefix: str) -> list[float]:
    """From just before a put is sent until the watch of the same client hands it out."""
    seen: asyncio.Queue[float] = asyncio.Queue()

    async def look() -> None:
        async with aclosing(client.watch(prefix)) as changes:  # type: ignore[type-var]
            async for _ in changes:
                seen.put_nowait(time.perf_counter())

    looking = asyncio.create_task(look())
    await asyncio.sleep(0.3)
    took = []
    for number in range(times):
        began_at = time.perf_counter()
        await client.put(f"{prefix}{number % 50}")
        took.append((await asyncio.wait_for(seen.get(), 10.0) - began_at) * 1000)
    looking.cancel()
    await asyncio.wait([looking])
    return sorted(took)


async def round_of(client: Client, times: int, prefix: str) -> Figures:
    await client.open()
    await _each(50, lambda _: client.put(f"{prefix}warm"))
    figures = _two("put", await _each(times, lambda number: client.put(f"{prefix}{number % 100}")))
    figures |= _two("read and swap", await _each(times // 2, lambda _: client.swap(f"{prefix}swap")))
    leases = [await client.lease() for _ in range(AT_ONCE)]

    async def renew(lease: int) -> None:
        for _ in range(max(1, times // 16)):
            await client.keep_alive(lease)

    await asyncio.gather(*map(client.keep_alive, leases))
    began_at, cpu_at = time.perf_counter(), time.process_time()
    await asyncio.gather(*map(renew, leases))
    renewals = AT_ONCE * max(1, times // 16)
    figures["renewals/s"] = renewals / (time.perf_counter() - began_at)
    figures["CPU µs each"] = (time.process_time() - cpu_at) / renewals * 1e6
    figures |= _two("watched", await _watched(client, times // 2, f"{prefix}w/"))
    await client.close()
    return figures


def best(rounds: list[Figures]) -> Figures:
    return {name: (max if name.endswith("/s") else min)(each[name] for each in rounds) for name in rounds[0]}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    options.add_argument("--quick", action="store_true", help="a few seconds: shows that it runs, proves nothing")
    given = options.parse_args()
    times, rounds = (100, 1) if given.quick else (1_000, 3)
    kinds: list[type[Any]] = [Ours, Aetcd, Gateway]
    found: dict[str, list[Figures]] = {}
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder)) as cluster:
        status = cluster.members[0].status()
        host, port = cluster.members[0].host, cluster.members[0].client_port
        for turn in range(rounds):
            for kind in kinds[turn % 3 :] + kinds[: turn % 3]:
                if kind.name in left_out:
                    continue
                try:
                    figures = asyncio.run(_made(kind, host, port, times, f"bench/{turn}/{kind.__name__}/"))
                except Exception as error:  # noqa: BLE001 - a peer that cannot be run is left out, and said
                    left_out[kind.name] = f"{type(error).__name__}: {error}"
                else:
                    found.setdefault(kind.name, []).append(figures)
    print(
        f"etcd {'' if status is None else status.version} on one member, grpcio {version('grpcio')}, best of {rounds}"
    )
    names = list(next(iter(found.values()))[0])
    print("".join(f"{name:>20}" for name in ["", *names]))
    for name in (kind.name for kind in kinds if kind.name in found):
        figures = best(found[name])
        print(
            f"{name:>20}"
            + "".join(f"{figures[each]:>20,.{0 if '/s' in each or 'µs' in each else 2}f}" for each in names)
        )
    for name, why in left_out.items():
        print(f"{name} is left out: {why}")


async def _made(kind: type[Any], host: str, port: int, times: int, prefix: str) -> Figures:
    return await round_of(kind(host, port), times, prefix)


if __name__ == "__main__":
    main()
