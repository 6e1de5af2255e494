"""`python -m bench.soak_push [--seconds 1800] [--seed 1]`: gateways, a log and their clients that are never left alone.

One `budao log serve`, three `budao gateway` (two plain with TCP ports, one with TLS), readers over the Python client (WebSocket and
TCP, JSON and msgpack, with and without standby), server-sent events (HTTP/1.1 and HTTP/2) and slow sockets, publishers over HTTP,
WebSocket and TCP; and strangers that come and drop, send garbage, trickle heads, never read, storm. Meanwhile gateways are drained,
killed, frozen and taken over, and the log is killed, frozen and restarted.

After each round every reader must come level again. At the end it judges, and leaves with 1 if anything is not as promised:

- each reader got each message once and in order or a gap that names what is missing; where everything is kept, no gap at all
- every place holds the same message, whoever says so, and everything acknowledged is in the log
- memory (Pss), descriptors, threads and tasks of those that lived long are flat, nothing is left once everybody has gone, and
  nobody complained
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.soak_push.chaos import Chaos
from bench.soak_push.fleet import CHANNELS, Fleet
from bench.soak_push.judging import judge
from bench.soak_push.publishers import publishers
from bench.soak_push.readers import readers
from bench.soak_push.strangers import Strangers
from bench.soak_push.truth import Truth
from budao.aio import RemoteLog
from budao.push import START, LogError, Position

CONVERGE_S = 30.0
LOOK_S = 2.0
AUDIT_S = 2.0
EMPTY_S = 25.0
"""Channels that nobody reads are let go of after a while."""
STRANGERS = 6


class Auditor:
    """Reads everything from the log itself, and finds what was acknowledged."""

    def __init__(self, fleet: Fleet, truth: Truth) -> None:
        self.fleet = fleet
        self.truth = truth
        self.places: dict[str, Position] = dict.fromkeys(CHANNELS, START)
        self.heads: dict[str, int] = {}
        self._ids: dict[str, dict[str, int]] = {channel: {} for channel in CHANNELS}

    async def audit(self, log: RemoteLog) -> None:
        """Everything that is new."""
        for channel in CHANNELS:
            stretch = await log.read(channel, self.places[channel], count_max=10_000, bytes_max=64 << 20)
            if not stretch.messages:
                self.heads[channel] = stretch.head.seq
                continue
            names = {}
            for message in stretch.messages:
                self.truth.told("the log", message)
                names[message.position.seq] = message.id or ""
                before = self._ids[channel].setdefault(message.id or "", message.position.seq)
                if before != message.position.seq:
                    self.truth.blame(f"{channel} has {message.id} at {before} and again at {message.position.seq}")
            if len(self._ids[channel]) > 50_000:
                self._ids[channel].clear()
            first, last = stretch.messages[0].position, stretch.messages[-1].position
            seqs = [message.position.seq for message in stretch.messages]
            if seqs != list(range(first.seq, last.seq + 1)):
                self.truth.blame(f"the log has a hole in {channel}: {seqs}")
            self.truth.audited(channel, first.seq, last.seq, names)
            self.places[channel] = last
            self.heads[channel] = stretch.head.seq

    async def run(self) -> None:
        """Again and again."""
        while True:
            try:
                async with RemoteLog("127.0.0.1", self.fleet.ports["log"]) as log:
                    while True:
                        await self.audit(log)
                        await asyncio.sleep(AUDIT_S)
            except LogError:
                self.truth.counts["audits while the log was away"] += 1
                await asyncio.sleep(0.5)


async def soak(seconds: float, seed: int, folder: Path) -> list[str]:
    """Runs it; what was not as promised."""
    rng = random.Random(seed)
    fleet, truth = Fleet(folder), Truth()
    chaos = Chaos(fleet, truth, random.Random(rng.random()))
    auditor = Auditor(fleet, truth)
    warm_s = min(240.0, seconds / 5)
    slowest: list[float] = []
    tasks: list[asyncio.Task[None]] = []
    try:
        await fleet.start()
        reading = readers(truth, fleet, random.Random(rng.random()))
        publishing = publishers(truth, fleet, random.Random(rng.random()))
        strangers = [Strangers(truth, fleet, random.Random(rng.random())) for _ in range(STRANGERS)]
        began = time.monotonic()
        looking = asyncio.create_task(_look(fleet))
        auditing = asyncio.create_task(auditor.run())
        rude = [asyncio.create_task(each.run()) for each in strangers]
        readers_at_work = [asyncio.create_task(each.run()) for each in reading]
        publishers_at_work = [asyncio.create_task(each.run()) for each in publishing]
        tasks = [looking, auditing, *rude, *readers_at_work, *publishers_at_work]
        print(f"{'s':>6} {'level after':>11} {'acknowledged':>12} {'told':>9} {'wrong':>5}  what was done", flush=True)
        what = "started"
        while True:
            ended = time.monotonic()
            heads = dict(truth.heads)
            while problem := next((said for each in reading if (said := each.behind(heads))), ""):
                if time.monotonic() > ended + CONVERGE_S:
                    truth.blame(f"not level {CONVERGE_S:g} s after {what}: {problem}")
                    break
                await asyncio.sleep(0.05)
            slowest.append(time.monotonic() - ended)
            told = sum(count for name, count in truth.counts.items() if name.startswith("messages to"))
            at = time.monotonic() - began
            said = f"{at:6.0f} {slowest[-1]:9.1f} s {truth.acknowledged:12,} {told:9,} {len(truth.wrong):5}  {what}"
            print(said, flush=True)
            for task in tasks:
                if task.done():
                    truth.blame(f"a task of the soak has ended: {task}")
                    return truth.wrong
            if at >= seconds or len(truth.wrong) > 40:
                break
            for role, child in fleet.children.items():
                if not child.is_alive:
                    truth.blame(f"{role} has died by itself: {child.stderr[-5:]}")
                    return truth.wrong
            # For the middle of the soak the log lives on, so that it can be seen whether it grows.
            chaos.may_kill_log = not 0.25 < at / seconds < 0.85
            what = await chaos.round()
        for each in rude:
            each.cancel()
        for publisher in publishing:
            publisher.is_over = True
        await asyncio.wait(publishers_at_work, timeout=150.0)
        await _settle(fleet, truth, auditor, reading, auditing)
        for each in readers_at_work:
            each.cancel()
        await asyncio.gather(*readers_at_work, *rude, return_exceptions=True)
        await _emptied(fleet, truth)
        looking.cancel()
        for said in await fleet.stop():
            truth.blame(said)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        fleet.kill_all()
    _print(truth, chaos, slowest)
    wrong = list(truth.wrong)
    for child in [*fleet.buried]:
        wrong += [f"{child.role} complained: {line}" for line in child.complaints()[:3]]
    return wrong + judge([*fleet.buried], warm_s, seconds / 3)


async def _look(fleet: Fleet) -> None:
    while True:
        await fleet.look()
        await asyncio.sleep(LOOK_S)


async def _settle(fleet, truth, auditor, reading, auditing) -> None:  # type: ignore[no-untyped-def]
    """Nothing new comes: the log is read once more, and every reader must reach its end."""
    auditing.cancel()
    await asyncio.gather(auditing, return_exceptions=True)
    try:
        async with RemoteLog("127.0.0.1", fleet.ports["log"]) as log:
            await auditor.audit(log)
    except LogError as problem:
        truth.blame(f"the log cannot be read at the end: {problem}")
    if truth.owed():
        truth.blame(f"{truth.owed()} messages were acknowledged, and are not in the log")
    until = time.monotonic() + CONVERGE_S
    while problem := next((said for each in reading if (said := each.behind(auditor.heads))), ""):
        if time.monotonic() > until:
            truth.blame(f"at the end: {problem}")
            return
        await asyncio.sleep(0.1)


async def _emptied(fleet: Fleet, truth: Truth) -> None:
    """Everybody has gone: nothing is left behind in a gateway."""
    until = time.monotonic() + EMPTY_S
    left = ""
    while time.monotonic() < until:
        left = ""
        for role in ("a", "b", "t"):
            status = await fleet.status(role) or {}
            held = {name: status.get(name, -1) for name in ("connections", "requests", "channels")}
            if any(held.values()):
                left = f"{role} still holds {held}"
        if not left:
            break
        await asyncio.sleep(0.5)
    if left:
        truth.blame(f"{EMPTY_S:g} s after everybody had gone: {left}")
    for role in ("b",):
        metrics = await _metrics(fleet, role)
        for name in (
            "budao_push_sessions",
            "budao_push_subscriptions",
            "budao_push_lagging",
            "budao_push_outbox_bytes",
        ):
            if metrics.get(name, -1.0):
                truth.blame(f"{role} still has {name} {metrics.get(name)}")
        print("\nat", role, {name: value for name, value in metrics.items() if value and "bucket" not in name})


async def _metrics(fleet: Fleet, role: str) -> dict[str, float]:
    found: dict[str, float] = {}
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(5.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", fleet.ports[role])
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            for line in (await reader.read(1 << 20) + await reader.read()).decode().splitlines():
                name, _, value = line.rpartition(" ")
                if name.startswith(("budao_push_", "stream_push_")):
                    found[name] = float(value)
            writer.close()
    return found


def _print(truth: Truth, chaos: Chaos, slowest: list[float]) -> None:
    print("\ndone:         " + ", ".join(f"{count} x {name}" for name, count in sorted(chaos.done.items())))
    print(f"taken over:   {chaos.taken_over} connections")
    print(f"acknowledged: {truth.acknowledged:,}, of which {truth.confirmed:,} were found in the log")
    print(f"level:        after {max(slowest):.1f} s at worst, {sum(slowest) / len(slowest):.1f} s on average")
    for name, count in sorted(truth.counts.items()):
        print(f"  {count:9,}  {name}")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=1_800.0)
    parser.add_argument("--seed", type=int, default=1)
    said = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, seed {said.seed}, {said.seconds:g} s", flush=True)
    with TemporaryDirectory() as folder:
        try:
            import uvloop
        except ImportError:
            wrong = asyncio.run(soak(said.seconds, said.seed, Path(folder)))
        else:
            wrong = uvloop.run(soak(said.seconds, said.seed, Path(folder)))
    for each in wrong[:60]:
        print(f"WRONG: {each}")
    print("VERDICT: " + (f"{len(wrong)} promises were broken" if wrong else "every promise was kept, and nothing grew"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
