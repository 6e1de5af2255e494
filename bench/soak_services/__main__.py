"""`python -m bench.soak_services [--seconds 600] [--seed 1] [--rate 150]`: services that are never left alone.

One `budao store serve`, six services (uvicorn and hypercorn), and three programs that call them (httpx, aiohttp, httpx2),
each a process of its own, while somebody drains, kills and freezes the services, kills, freezes and empties the store, writes
garbage to their ports, floods the store with keys, and changes settings, one or two at a time in random order.

After each round everything must be level again: every caller lists exactly the services that live, and everybody has the
settings of the last change. At the end it judges, and leaves with 1 if anything is not as promised:

- a GET never fails; a POST fails only if it was out while an instance was killed or frozen, and none is carried out twice
- memory and descriptors of those that lived long did not grow, no task and no call is left, nobody complained
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.soak_services.fleet import CALLERS, SERVERS, Fleet, Instance
from budao.adapters.stores import open_store
from budao.aio import StoredSettings
from budao.store import Delete, Put, Span, StoreError, Txn

CONVERGE_S = 40.0
"""An instance that was killed is gone after its 3 s; two in one window are doubted for 8 s more."""
MEMORY_GROWTH_KIB = 12 * 1024
DESCRIPTORS_GROWTH = 15
AFTER_S = 1.5
"""A call that was out when an instance froze may end this much later."""


@dataclass(slots=True)
class Window:
    """While this was so, calls that may not be repeated could fail."""

    kind: str
    began: float
    ended: float


class Chaos:
    """Does it, and remembers when."""

    def __init__(self, fleet: Fleet, rng: random.Random) -> None:
        self.fleet = fleet
        self.rng = rng
        self.windows: list[Window] = []
        self.done: Counter[str] = Counter()
        self.settings = 0
        self.untidy: list[str] = []
        self.is_store_busy = asyncio.Lock()
        self._touched: set[str] = set()
        self._setting = asyncio.Lock()

    def _one(self) -> Instance | None:
        free = [each for each in self.fleet.instances.values() if each.id not in self._touched]
        if not free:
            return None
        chosen = self.rng.choice(sorted(free, key=lambda each: each.id))
        self._touched.add(chosen.id)
        return chosen

    async def _again(self, old: Instance) -> None:
        same = self.rng.random() < 0.5
        await self.fleet.start_instance(old.server, id=old.id if same else "", port=old.port if same else 0)

    async def drain(self) -> None:
        """SIGTERM, and a successor."""
        old = self._one()
        if old is None:
            return
        old.child.process.send_signal(signal.SIGTERM)
        code = await old.child.gone()
        self.fleet.remove(old)
        said = [line for line in old.child.stderr if line.startswith("budao.drain drained")]
        if code or not said:
            self.untidy.append(f"{old.id} ended with {code}: {said or old.child.stderr[-3:]}")
        await self._again(old)

    async def kill(self) -> None:
        """SIGKILL, and a successor a moment later."""
        old = self._one()
        if old is None:
            return
        now = time.monotonic()
        old.child.process.kill()
        self.windows.append(Window("kill", now - 0.05, now + 0.2))
        await old.child.gone()
        self.fleet.remove(old)
        await asyncio.sleep(self.rng.uniform(0.0, 5.0))
        await self._again(old)

    async def freeze(self) -> None:
        """SIGSTOP for some seconds: shorter than its lease, or longer."""
        chosen = self._one()
        if chosen is None:
            return
        window = Window("freeze", time.monotonic() - 0.05, float("inf"))
        self.windows.append(window)
        chosen.child.process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(self.rng.uniform(0.5, 6.0))
        finally:
            chosen.child.process.send_signal(signal.SIGCONT)
            window.ended = time.monotonic() + AFTER_S

    async def kill_store(self) -> None:
        """Kill -9, and the store again on its folder."""
        async with self.is_store_busy:
            await self.fleet.kill_store()
            await asyncio.sleep(self.rng.choice((0.0, self.rng.uniform(0.0, 2.0), self.rng.uniform(2.0, 8.0))))
            await self.fleet.start_store()

    async def restart_store(self) -> None:
        """SIGTERM while everybody is connected, and the store again."""
        async with self.is_store_busy:
            code = await self.fleet.kill_store(signal.SIGTERM)
            if code:
                self.untidy.append(f"the store ended with {code}")
            await asyncio.sleep(self.rng.choice((0.0, 1.0)))
            await self.fleet.start_store()

    async def lose_store(self) -> None:
        """The store comes back empty: every lease, every key and every setting is gone."""
        async with self.is_store_busy:
            await self.fleet.kill_store()
            shutil.rmtree(self.fleet.folder / "store")
            await self.fleet.start_store()
        await self.change_settings()

    async def freeze_store(self) -> None:
        """SIGSTOP for 1 to 4 s."""
        async with self.is_store_busy:
            process = self.fleet.store.process
            process.send_signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(self.rng.uniform(1.0, 4.0))
            finally:
                process.send_signal(signal.SIGCONT)

    async def garbage(self) -> None:
        """Strangers at the ports of everybody."""
        ports = [self.fleet.store_port, *(each.port for each in self.fleet.instances.values())]
        held: list[asyncio.StreamWriter] = []
        for _ in range(30):
            port = self.rng.choice((ports[0], self.rng.choice(ports)))
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                held.append(writer)
                noise = self.rng.randbytes(self.rng.randrange(2_000))
                writer.write(self.rng.choice((noise, b"", b"GET / HTTP/1.1\r\n", b"\x00\x00\x00\x05", noise * 50)))
                await asyncio.sleep(self.rng.uniform(0.0, 0.05))
                if self.rng.random() < 0.5:
                    writer.transport.abort()
        await asyncio.sleep(self.rng.uniform(0.0, 1.0))
        for writer in held:
            writer.close()

    async def churn(self) -> None:
        """Keys come and go, also where instances are looked for."""
        store = open_store(self.fleet.url)
        spans = ("churn/", "budao/instances/inventory/churn-", "budao/instances/other/x-", "budao/watchers/inventory/")
        prefix = self.rng.choice(spans)
        until = time.monotonic() + self.rng.uniform(0.5, 2.0)
        number = 0
        while time.monotonic() < until:
            number += 1
            key = f"{prefix}{number % 200}"
            with suppress(StoreError):
                await store.commit(Txn(then=(Put(key, self.rng.randbytes(100)),)))
        for _ in range(40):
            try:
                await store.commit(Txn(then=(Delete(Span.prefix(prefix if "watchers" not in prefix else key[:-1])),)))
                for each in range(200):
                    await store.commit(Txn(then=(Delete(Span.one(f"{prefix}{each}")),)))
                break
            except StoreError:
                await asyncio.sleep(0.5)
        await store.aclose()

    async def change_settings(self) -> None:
        """A new value for everybody, after one that nobody can take."""
        async with self._setting:
            await self._change_settings()

    async def _change_settings(self) -> None:
        store = open_store(self.fleet.url)
        stored = StoredSettings(store, "soak")
        good = f"mean_s = {self.rng.uniform(0.002, 0.01):.4f}\nnumber = {self.settings + 1}\n"
        for text in ("mean_s = 7\n", good):
            for _ in range(60):
                try:
                    await stored.set(text, by="soak")
                    break
                except StoreError:
                    await asyncio.sleep(0.5)
        self.settings += 1
        await store.aclose()

    async def round(self) -> str:
        """One or two things at once, until they are over."""
        acts = {
            "drain": (self.drain, 4), "kill": (self.kill, 3), "freeze": (self.freeze, 3), "kill store": (self.kill_store, 3),
            "freeze store": (self.freeze_store, 3), "garbage": (self.garbage, 1), "churn": (self.churn, 2),
            "settings": (self.change_settings, 2), "lose store": (self.lose_store, 1),
            "restart store": (self.restart_store, 2),
        }  # fmt: skip
        self._touched.clear()
        weights = [weight for _, weight in acts.values()]
        names = self.rng.choices(list(acts), weights, k=self.rng.choice((1, 2, 2, 3)))
        if "lose store" in names:
            # Each of these is sure that what was said last is what holds.
            names = [name for name in names if name not in {"lose store", "settings"}] + ["lose store"]
        self.done.update(names)

        async def act(name: str) -> None:
            await asyncio.sleep(self.rng.uniform(0.0, 1.5))
            await acts[name][0]()

        await asyncio.gather(*(act(name) for name in names))
        return " + ".join(names)

    def excuses(self, error: dict[str, Any]) -> str:
        """What a failed call can be put down to; "" if it could have been avoided."""
        if error["method"] == "GET":
            return ""
        for window in self.windows:
            if error["began"] <= window.ended and error["ended"] >= window.began:
                return window.kind
        return ""


async def soak(seconds: float, seed: int, rate: float, folder: Path) -> list[str]:
    """Runs it; what was not as promised."""
    errors: list[dict[str, Any]] = []
    wrong: list[str] = []
    fleet = Fleet(folder, rate, seed, errors.append)
    chaos = Chaos(fleet, random.Random(seed))
    slow: list[float] = []
    warm_s = min(60.0, seconds / 4)
    await fleet.start_store()
    try:
        await asyncio.gather(*(fleet.start_instance(server) for server in SERVERS))
        await asyncio.gather(*(fleet.start_caller(index) for index in range(len(CALLERS))))
        await chaos.change_settings()
        began = time.monotonic()
        print(f"{'s':>6} {'level after':>11} {'calls':>8} {'errors':>6} {'excused':>7}  what was done")
        what = "started"
        while True:
            ended = time.monotonic()
            while problem := await fleet.converged(chaos.settings):
                if time.monotonic() > ended + CONVERGE_S:
                    wrong.append(f"not level {CONVERGE_S:g} s after {what}: {problem}")
                    print(f"WRONG: {wrong[-1]}", flush=True)
                    break
                await asyncio.sleep(0.1)
            slow.append(time.monotonic() - ended)
            for child in fleet.children():
                child.look(warm_s)
            calls = sum(state["calls"] for state in fleet.states.values())
            excused = sum(bool(chaos.excuses(error)) for error in errors)
            said = f"{time.monotonic() - began:6.0f} {slow[-1]:9.1f} s {calls:8,} {len(errors):6} {excused:7}  {what}"
            print(said, flush=True)
            if time.monotonic() - began >= seconds or len(wrong) > 5:
                break
            wrong += [f"{child.name} has died: {child.stderr[-3:]}" for child in fleet.children() if not child.is_alive]
            what = await chaos.round()
        wrong += await fleet.stop()
    finally:
        fleet.kill_all()
    return wrong + judged(fleet, chaos, errors, slow)


def judged(fleet: Fleet, chaos: Chaos, errors: list[dict[str, Any]], slow: list[float]) -> list[str]:
    """Prints what happened; what was not as promised."""
    wrong = list(chaos.untidy)
    why: Counter[str] = Counter()
    for error in errors:
        excuse = chaos.excuses(error)
        why[excuse or "none"] += 1
        if not excuse:
            took_s = error["ended"] - error["began"]
            wrong.append(f"{error['method']} of {error['name']} failed after {took_s:.3f} s: {error['problem']}")
    twice = [
        name for name, count in Counter(fleet.notes.read_text(encoding="ascii").split()).items() if name and count > 1
    ]
    if twice:
        wrong.append(f"{len(twice)} POSTs were carried out twice, such as {twice[:3]}")
    print("\ndone:   " + ", ".join(f"{count} x {name}" for name, count in sorted(chaos.done.items())))
    print(f"calls:  {sum(state['calls'] for state in fleet.states.values()):,}, {len(errors)} failed " + str(dict(why)))
    print(f"level:  after {max(slow):.1f} s at worst, {sum(slow) / len(slow):.1f} s on average")
    print(f"\n{'process':<22} {'MiB then':>9} {'MiB now':>8} {'fds then':>9} {'fds now':>8} {'lived s':>8}")
    for child in fleet.children():
        first = child.first or child.last
        kib, files = child.last[0] - first[0], child.last[1] - first[1]
        print(
            f"{child.name:<22} {first[0] / 1024:9.1f} {child.last[0] / 1024:8.1f} {first[1]:9} {child.last[1]:8} "
            f"{time.monotonic() - child.born:8.0f}"
        )
        if kib > MEMORY_GROWTH_KIB or files > DESCRIPTORS_GROWTH:
            wrong.append(f"{child.name} grew by {kib:,} KiB and {files} descriptors")
    for child in [*fleet.children(), *fleet.buried]:
        wrong += [f"{child.name} complained: {line}" for line in child.complaints()[:3]]
    return wrong


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=150.0, help="calls a second, of all callers together")
    said = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, seed {said.seed}, {said.rate:g} calls/s")
    with TemporaryDirectory() as folder:
        wrong = asyncio.run(soak(said.seconds, said.seed, said.rate, Path(folder)))
    for each in wrong[:40]:
        print(f"WRONG: {each}")
    print(f"{len(wrong)} wrong" if wrong else "\nall as promised")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
