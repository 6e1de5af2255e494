"""What a connection costs that does nothing, and what it costs to let one in."""

from __future__ import annotations

import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

from bench.push import servers
from bench.push.servers import Running


def hold(running: Running, sink: Path, folder: Path, connections: int) -> tuple[float, float]:
    """KiB of the server for each connection that was opened, and CPU seconds to let each in."""
    head = folder / "head.txt"
    head.write_bytes(running.head.replace("%", "%%").encode())
    command = [
        str(sink),
        *(["-t"] if running.tls else []),
        "127.0.0.1",
        str(running.port),
        str(connections),
        "0",
        "300",
    ]
    memory, cpu = running.memory_kib(), running.cpu_s()
    process = subprocess.Popen([*command, str(head)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    ready = process.stdout.readline().split()
    assert ready[:2] == [b"ready", str(connections).encode()], f"{running.name}: {ready}, {connections} wanted"
    spent_s = running.cpu_s() - cpu
    time.sleep(2.0)
    grown = running.memory_kib() - memory
    process.communicate()
    return grown / connections, spent_s / connections


def table(*, connections: int, tls_connections: int) -> None:
    """Prints KiB per idle connection and upgrades per CPU second of each server."""
    with tempfile.TemporaryDirectory(prefix="budao-bench-") as at:
        folder = Path(at)
        sink = servers.built(folder, "sink")
        print(
            f"{connections} idle connections, {tls_connections} with TLS; KiB is proportional set size of the process"
        )
        print(f"{'':24} {'KiB each':>10} {'upgrades per CPU-s':>20}")
        for row in (
            partial(servers.ours, folder),
            partial(servers.ours, folder, sse=True),
            partial(servers.nchan, folder, sse=False),
            partial(servers.peer_websockets, folder),
            partial(servers.ours, folder, tls=True),
            partial(servers.nchan, folder, sse=False, tls=True),
            partial(servers.peer_websockets, folder, tls=True),
        ):
            with row() as running:
                kib, cost_s = hold(running, sink, folder, tls_connections if running.tls else connections)
                print(f"{running.name:24} {kib:10.2f} {1 / cost_s:20,.0f}")
