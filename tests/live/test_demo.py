"""The demo as a user runs it: real processes, real ports, and nothing of either left behind."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.live

PROGRAM = "import sys; from budao.apps import main; sys.exit(main())"
PATIENCE_S = 60.0


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "demo", "guard", "--no-live", "--out", str(folder / "page.html"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


def state_and_parent(pid: int) -> tuple[str, int] | None:
    """As the kernel tells; None if there is no such process."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return after_name[0], int(after_name[1])


def children_of(parent: int) -> set[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    told = {pid: state_and_parent(pid) for pid in pids}
    return {pid for pid, each in told.items() if each is not None and each[1] == parent}


def is_there(pid: int) -> bool:
    """A zombie has ended; that nobody has asked how is its new parent's affair."""
    told = state_and_parent(pid)
    return told is not None and told[0] != "Z"


def listening_inodes(pid: int) -> set[str]:
    links = (link.readlink().as_posix() for link in Path(f"/proc/{pid}/fd").iterdir())
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def ports_of(pids: set[int]) -> set[int]:
    """Loopback ports these processes listen on."""
    inodes = set().union(*(listening_inodes(pid) for pid in pids))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:]]
    return {int(row[1].partition(":")[2], 16) for row in rows if row[3] == "0A" and row[9] in inodes}


def running(demo: subprocess.Popen[str]) -> tuple[set[int], set[int]]:
    """The three servers and their ports, once the first line of the demo proper is out."""
    assert demo.stdout is not None
    for line in demo.stdout:
        if "without guard" in line:
            break
    pids = children_of(demo.pid)
    return pids, ports_of(pids)


def gone(pids: set[int], ports: set[int]) -> bool:
    """Waits for the end of processes that are not our children, then asks the ports."""
    until = time.monotonic() + PATIENCE_S
    while any(is_there(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(is_open(port) for port in ports) and not any(is_there(pid) for pid in pids)


def is_open(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def test_a_short_demo_runs_to_its_end_and_leaves_neither_process_nor_port(tmp_path: Path) -> None:
    demo = start(tmp_path, "--seconds", "5")
    pids, ports = running(demo)
    assert (len(pids), len(ports)) == (3, 3)
    said, troubles = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, troubles
    assert troubles == ""
    assert "With the guard" in said
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert gone(pids, ports)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_cleanly_with_the_report(tmp_path: Path, how: signal.Signals) -> None:
    demo = start(tmp_path, "--seconds", "600")
    pids, ports = running(demo)
    demo.send_signal(how)
    said, troubles = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, troubles
    assert troubles == ""
    assert "nothing to compare" in said
    assert "(interrupted)" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert gone(pids, ports)


def test_servers_leave_even_if_the_demo_is_killed(tmp_path: Path) -> None:
    demo = start(tmp_path, "--seconds", "600")
    pids, ports = running(demo)
    demo.kill()
    demo.communicate(timeout=PATIENCE_S)
    assert len(pids) == 3
    assert gone(pids, ports)


def test_the_recording_tells_of_every_customer_and_of_a_guard_that_was_worth_it(tmp_path: Path) -> None:
    demo = start(tmp_path, "--seconds", "10", "--json", "--seed", "7")
    said, troubles = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, troubles
    recording = json.loads(said)
    came = [[second["requests"] for second in recording[shop]] for shop in ("bare", "guarded")]
    assert came[0] == came[1]
    assert sum(came[0]) > 200
    rungs = [sum(second["rungs"].get(rung, 0) for second in recording["guarded"]) for rung in ("direct", "cache")]
    assert all(rungs)
    ill = recording["shares"]["ill"]
    assert ill["guarded"] > ill["bare"]
    assert "open" in {span["state"] for span in recording["states"]}
    assert recording["explain"]
