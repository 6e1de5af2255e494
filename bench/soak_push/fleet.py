"""The processes of the soak: one log, three gateways; started, killed, frozen, taken over, and measured."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.push.servers import certificate
from bench.soak import descriptors
from budao.aio.security import client_tls

PATIENCE_S = 30.0
COMPLAINTS = ("Traceback", "never retrieved", "was destroyed", "ResourceWarning", "never awaited", "Unclosed")
STEADY = tuple(f"steady.{index}" for index in range(8))
LATEST, CLOSING, LAST_VALUE = "big.latest", "big.close", "last.value"
CHANNELS = (*STEADY, LATEST, CLOSING, LAST_VALUE)
SETTINGS = """
[gateway]
head_s = 3.0
idle_s = 15.0
linger_s = 5.0
[session]
publishes_per_s = 1000.0
frames_per_s = 300.0
frames_burst = 600
beat_min_s = 0.05
[leaving]
grace_s = 8.0
lag_s = 0.5
[channels."steady.*"]
history_count = 1200
[channels."big.latest"]
history_count = 300
behind_bytes_max = 131072
[channels."big.close"]
history_count = 300
behind_bytes_max = 131072
slow = "close"
[channels."last.value"]
history_count = 1
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process held at an instant."""

    at: float
    kib: int
    files: int
    threads: int
    tasks: int
    disk_kib: int


@dataclass(slots=True)
class Child:
    """One process, what it wrote to its standard error, and what it held over time."""

    role: str
    process: Process
    stderr: list[str] = field(default_factory=list)
    said: dict[str, Any] = field(default_factory=dict)
    reading: list[asyncio.Task[None]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    born: float = field(default_factory=time.monotonic)
    is_frozen: bool = False

    @property
    def is_alive(self) -> bool:
        return self.process.returncode is None

    async def gone(self) -> int:
        """Waits until it has ended; its exit code."""
        async with asyncio.timeout(PATIENCE_S):
            code = await self.process.wait()
            await asyncio.gather(*self.reading)
        return code

    def signal(self, number: int) -> None:
        if self.is_alive:
            self.process.send_signal(number)

    def complaints(self) -> list[str]:
        """What it should not have said, with what follows."""
        at = [index for index, line in enumerate(self.stderr) if any(each in line for each in COMPLAINTS)]
        return [" | ".join(self.stderr[index : index + 12]) for index in at]


def pss_kib(process: int) -> int:
    """Memory that a process holds, shared pages by their share, in KiB."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def threads(process: int) -> int:
    """Threads of a process."""
    return len(list(Path(f"/proc/{process}/task").iterdir()))


def free_ports(count: int) -> list[int]:
    """Ports that are free, below those that the system gives to clients: a gateway comes back to its own."""
    found: list[int] = []
    port = 20_000 + os.getpid() % 8_000
    while len(found) < count:
        port += 1
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found


class Fleet:
    """Starts, stops and watches all of them. `a` is plain and meets everything, `b` is never ended, `t` speaks TLS."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = free_ports(7)
        self.ports = dict(zip(("log", "a", "b", "t"), ports[:4], strict=True))
        self.tcp_ports = dict(zip(("a", "b", "t"), ports[4:], strict=True))
        self.children: dict[str, Child] = {}
        self.buried: list[Child] = []
        self.settings = folder / "settings.toml"
        self.settings.write_text(SETTINGS, encoding="utf-8")
        self.key = folder / "token.key"
        self.key.write_text(secrets.token_hex(32), encoding="ascii")
        self.key.chmod(0o600)
        self.ticket_keys = folder / "tickets.keys"
        self.ticket_keys.write_text(f"k1 {secrets.token_hex(32)}\n", encoding="ascii")
        self.ticket_keys.chmod(0o600)
        self.certificate, self.certificate_key = certificate(folder)
        self.tls = client_tls(authority=self.certificate)
        self.tls_h2 = client_tls(authority=self.certificate)  # `httpx` writes into it what it wants to agree on
        self.token = ""

    def urls(self, scheme: str = "http") -> list[str]:
        """Of the two plain gateways."""
        ports = self.tcp_ports if scheme == "tcp" else self.ports
        return [f"{scheme}://127.0.0.1:{ports[role]}" for role in ("a", "b")]

    def control(self, role: str) -> Path:
        return self.folder / f"{role}.sock"

    # ----------------------------------------------------------------------------------------- starting

    async def _spawn(self, role: str, *arguments: str) -> Child:
        environ = {**os.environ, "PYTHONWARNINGS": "default::ResourceWarning", "PYTHONUNBUFFERED": "1"}
        command = (sys.executable, "-m", "budao", *arguments)
        process = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=environ, limit=1 << 20
        )
        child = Child(role, process)
        listening = asyncio.Event()

        async def read_stderr() -> None:
            assert process.stderr is not None
            async for line in process.stderr:
                if len(child.stderr) < 5_000:
                    child.stderr.append(line.decode(errors="replace").rstrip())

        async def read_stdout() -> None:
            assert process.stdout is not None
            async for line in process.stdout:
                child.said = json.loads(line)
                listening.set()
            listening.set()

        child.reading = [asyncio.create_task(read_stderr()), asyncio.create_task(read_stdout())]
        async with asyncio.timeout(PATIENCE_S):
            await listening.wait()
        if not child.said:
            raise RuntimeError(f"{role} did not start: {child.stderr[-5:]}")
        return child

    async def start_log(self) -> None:
        arguments = ("--port", str(self.ports["log"]), "--settings", str(self.settings), "--json")
        self.children["log"] = await self._spawn("log", "log", "serve", str(self.folder / "log"), *arguments)

    async def start_gateway(self, role: str, *, takes_over: bool = False) -> Child:
        """Starts a gateway, or a successor of the one that is there; the caller buries that one."""
        arguments = [
            *("--port", str(self.ports[role]), "--tcp-port", str(self.tcp_ports[role]), "--name", role),
            *("--log", f"budao://127.0.0.1:{self.ports['log']}", "--settings", str(self.settings)),
            *("--token-key", str(self.key), "--ticket-keys", str(self.ticket_keys)),
            *("--control", str(self.control(role)), "--json"),
        ]
        if role == "t":
            arguments += ["--tls-certificate", str(self.certificate), "--tls-key", str(self.certificate_key)]
        else:
            other = "b" if role == "a" else "a"
            arguments += ["--peer", f"{other}=http://127.0.0.1:{self.ports[other]}"]
        if takes_over:
            arguments += ["--take-over", str(self.control(role))]
        child = await self._spawn(role, "gateway", *arguments)
        self.children[role] = child
        return child

    async def start(self) -> None:
        await self.start_log()
        await asyncio.gather(*(self.start_gateway(role) for role in ("a", "b", "t")))
        self.token = await self._sign()

    async def _sign(self) -> str:
        command = [sys.executable, "-m", "budao", "token", "--key", str(self.key), "--for", "36000", "--operate"]
        command += ["--subscribe", "**", "--publish", "**", "--presence", "**"]
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
        out, _ = await process.communicate()
        return out.decode().strip()

    # ----------------------------------------------------------------------------------------- looking

    async def status(self, role: str) -> Mapping[str, Any] | None:
        """What a gateway says of itself over its control socket; None if it does not answer at once."""
        with suppress(OSError, ValueError, TimeoutError):
            async with asyncio.timeout(1.0):
                reader, writer = await asyncio.open_unix_connection(str(self.control(role)), limit=1 << 22)
                try:
                    writer.write(b'{"do": "status"}\n')
                    found = json.loads(await reader.readline())
                finally:
                    writer.close()
                return found if isinstance(found, dict) else None
        return None

    def _disk_kib(self) -> int:
        return sum(each.stat().st_size for each in (self.folder / "log").rglob("*")) // 1024

    async def look(self) -> None:
        """Notes what everybody holds."""
        for role, child in [*self.children.items()]:
            if not child.is_alive or child.is_frozen:
                continue
            status = None if role == "log" else await self.status(role)
            if role != "log" and status is None:
                continue
            tasks = -1 if status is None else int(status.get("tasks", -1))
            with suppress(OSError):
                pid, disk = child.process.pid, self._disk_kib() if role == "log" else 0
                child.samples.append(
                    Sample(time.monotonic(), pss_kib(pid), descriptors(pid), threads(pid), tasks, disk)
                )

    async def freeze(self, role: str, seconds: float) -> None:
        """Stops a process for a while."""
        child = self.children[role]
        child.is_frozen = True
        child.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            child.signal(signal.SIGCONT)
            child.is_frozen = False

    async def end(self, role: str, number: int) -> int:
        """Ends a process by a signal, and waits for it."""
        child = self.children[role]
        child.signal(number)
        code = await child.gone()
        self.buried.append(child)
        return code

    async def stop(self) -> list[str]:
        """SIGTERM to all; what was not in order about it."""
        wrong = []
        for role in ("a", "b", "t", "log"):
            code = await self.end(role, signal.SIGTERM)
            if code:
                wrong.append(f"{role} ended with {code} after SIGTERM: {self.children[role].stderr[-3:]}")
        return wrong

    def kill_all(self) -> None:
        """Whatever is left."""
        for child in self.children.values():
            if child.is_alive:
                with suppress(ProcessLookupError):
                    child.process.kill()
