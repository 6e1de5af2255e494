"""What a delivery costs: every server fans the same messages out to as many readers, in turns, and each reader checks what it gets."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench.push import servers
from bench.push.servers import Running


@dataclass(frozen=True)
class Seen:
    """What the readers saw of one turn, and what it cost the server."""

    deliveries: int
    cpu_s: float
    report: dict[str, Any]

    @property
    def cpu_s_per_million(self) -> float:
        return self.cpu_s / self.deliveries * 1e6


def turn(running: Running, sink: Path, folder: Path, *, readers: int, messages: int, per_s: float) -> Seen:
    """One turn: readers come, messages go out, readers check.

    Raises:  SystemExit if a reader missed a message, or got one twice.
    """
    head = folder / "head.txt"
    head.write_bytes(running.head.replace("%", "%%").encode())
    seconds = messages / per_s + 60.0
    command = [str(sink), *(["-t"] if running.tls else []), "127.0.0.1", str(running.port)]
    process = subprocess.Popen(
        [*command, str(readers), str(messages), str(seconds), str(head)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    ready = process.stdout.readline().split()
    assert ready[:2] == [b"ready", str(readers).encode()], f"{running.name}: {ready}, {readers} wanted"
    time.sleep(1.0)
    before = running.cpu_s()
    running.fan_out(messages, per_s)
    report: dict[str, Any] = json.loads(process.stdout.readline())
    cpu_s = running.cpu_s() - before
    process.communicate()
    if report["holes"] or report["doubles"] or report["least"] != messages or report["most"] != messages:
        raise SystemExit(f"{running.name}: the readers did not get each message once and in order: {report}")
    return Seen(report["seen"], cpu_s, report)


def table(*, readers: int, messages: int, per_s: float, rounds: int, only: str = "") -> dict[str, float]:
    """Prints CPU seconds per million deliveries of every server, over the floor's; answers with the medians by name."""
    with tempfile.TemporaryDirectory(prefix="budao-bench-") as at:
        folder = Path(at)
        sink = servers.built(folder, "sink")
        rows: list[Callable[[], AbstractContextManager[Running]]] = [
            partial(servers.floor, folder, readers),
            partial(servers.ours, folder),
            partial(servers.nchan, folder, sse=False),
            partial(servers.peer_websockets, folder),
            partial(servers.ours, folder, sse=True),
            partial(servers.nchan, folder, sse=True),
            partial(servers.ours, folder, tls=True),
            partial(servers.nchan, folder, sse=False, tls=True),
            partial(servers.peer_websockets, folder, tls=True),
            partial(servers.ours, folder, sse=True, tls=True),
            partial(servers.nchan, folder, sse=True, tls=True),
        ]
        found: dict[str, list[Seen]] = {}
        for _ in range(rounds):
            for row in rows:
                with row() as running:
                    if only and only not in running.name and "floor" not in running.name:
                        continue
                    seen = turn(running, sink, folder, readers=readers, messages=messages, per_s=per_s)
                    found.setdefault(running.name, []).append(seen)
    print(f"{readers} readers, {messages} messages of {servers.MESSAGE_BYTES} bytes, {per_s:g}/s, median of {rounds}")
    print(f"{'':24} {'CPU-s/million':>14} {'x floor':>8} {'p50 ms':>8} {'p99 ms':>8} {'slowest':>8}")
    floor_cost = median(each.cpu_s_per_million for each in found["floor: send() in C"])
    costs = {}
    for name, turns in found.items():
        costs[name] = cost = median(each.cpu_s_per_million for each in turns)
        times = [median(each.report[key] for each in turns) for key in ("p50_ms", "p99_ms", "slowest_ms")]
        print(f"{name:24} {cost:14.2f} {cost / floor_cost:8.2f} {times[0]:8.2f} {times[1]:8.2f} {times[2]:8.2f}")
    return costs
