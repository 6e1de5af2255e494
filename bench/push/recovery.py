"""How soon clients go on when their gateway is killed or frozen: a histogram, and the slowest one."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.push import servers

REPLAYED = 10
STEPS_MS = (10, 20, 50, 100, 150, 200, 300, 500, 1_000, 2_000, 5_000)


def once(clients: int, *, with_standby: bool, end: signal.Signals) -> dict[str, Any]:
    """One loss of a gateway: what its clients saw.

    Raises:  SystemExit if one of them missed a message, got one twice, or did not come back.
    """
    with tempfile.TemporaryDirectory(prefix="budao-bench-") as at, ExitStack() as running:
        folder = Path(at)
        program = servers.built(folder, "recover")
        port = servers.free_port()
        log = [sys.executable, "-m", "budao", "log", "serve", str(folder / "log"), "--port", str(port), "--json"]
        running.enter_context(servers.process(log))
        servers.wait_for(port)
        first = running.enter_context(servers.ours(folder, log=f"budao://127.0.0.1:{port}"))
        second = running.enter_context(servers.ours(folder, log=f"budao://127.0.0.1:{port}"))
        kind = "standby" if with_standby else "cold"
        process = running.enter_context(
            servers.process([str(program), kind, str(first.port), str(second.port), str(clients)])
        )
        assert process.stdin is not None
        assert process.stdout is not None

        def tell(line: str) -> None:
            assert process.stdin is not None
            process.stdin.write(line.encode() + b"\n")
            process.stdin.flush()

        ready = process.stdout.readline().split()
        assert ready == [b"ready", str(clients * (2 if with_standby else 1)).encode()], f"not all came in: {ready}"
        second.fan_out(REPLAYED, 100.0)
        tell(f"expect {REPLAYED}")
        assert process.stdout.readline() == b"seen 1\n", "the readers did not get what was published before"
        time.sleep(1.0)
        if end is signal.SIGKILL:
            # What a dying gateway no longer hands on: it is held for a moment while ten messages are published elsewhere.
            os.kill(first.pids[0], signal.SIGSTOP)
            second.fan_out(REPLAYED, 10_000.0)
        tell(f"kill {first.pids[0]} {int(end)} {2 * REPLAYED}")
        if end is signal.SIGSTOP:
            second.fan_out(REPLAYED, 10_000.0)
        report: dict[str, Any] = json.loads(process.stdout.readline())
        if end is signal.SIGSTOP:
            os.kill(first.pids[0], signal.SIGCONT)
    lost = {key: report[key] for key in ("holes", "doubles", "gaps") if report[key]}
    if lost or report["back"] != clients:
        raise SystemExit(f"{clients} clients, {kind}: {lost or 'not all came back'}: {report['back']} are back")
    return report


def table(counts: tuple[int, ...]) -> None:
    """Prints p50, p99, the slowest and a histogram of the time from the loss to the last of ten messages that followed it."""
    print(
        "time from the loss of a gateway until a client has the ten messages it missed from the other, nothing lost or doubled"
    )
    for clients in counts:
        for name, with_standby, end in (
            ("killed, cold", False, signal.SIGKILL),
            ("killed, standby", True, signal.SIGKILL),
            ("frozen, standby", True, signal.SIGSTOP),
        ):
            report = once(clients, with_standby=with_standby, end=end)
            times = sorted(report["times_ms"])
            p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
            print(
                f"{clients:6} {name:16} p50 {p50:8.1f} ms  p99 {p99:8.1f} ms  slowest {times[-1]:8.1f} ms  tries {report['tries']}"
            )
            below = 0
            parts = []
            for step in STEPS_MS:
                here = sum(1 for each in times if each <= step)
                if here > below:
                    parts.append(f"<={step}: {here - below}")
                below = here
            print("       " + ", ".join(parts))
