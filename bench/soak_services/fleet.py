"""The processes of the soak: one store, six services, three callers; and what each of them says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.soak import descriptors, memory_kib
from budao.adapters.registration import answers
from tests.live.servers_http import free_port

PATIENCE_S = 30.0
CALLERS = ("httpx", "aiohttp", "httpx2")
SERVERS = ("uvicorn", "uvicorn", "uvicorn", "uvicorn", "hypercorn", "hypercorn")
COMPLAINTS = ("Traceback", "never retrieved", "was destroyed", "ResourceWarning", "never awaited")


@dataclass(slots=True)
class Child:
    """One process and what it wrote to its standard error."""

    name: str
    process: Process
    stderr: list[str] = field(default_factory=list)
    reading: list[asyncio.Task[None]] = field(default_factory=list)
    first: tuple[int, int] | None = None
    """Memory in KiB and descriptors, once it was warm."""
    last: tuple[int, int] = (0, 0)
    born: float = field(default_factory=time.monotonic)

    @property
    def is_alive(self) -> bool:
        return self.process.returncode is None

    def look(self, warm_s: float) -> None:
        """Notes what it holds."""
        if self.is_alive:
            try:
                self.last = memory_kib(self.process.pid), descriptors(self.process.pid)
            except OSError:
                return
            if self.first is None and time.monotonic() - self.born >= warm_s:
                self.first = self.last

    async def gone(self) -> int:
        """Waits until it has ended; its exit code."""
        async with asyncio.timeout(PATIENCE_S):
            code = await self.process.wait()
            await asyncio.gather(*self.reading)
        return code

    def complaints(self) -> list[str]:
        """What it should not have said."""
        return [line for line in self.stderr if any(each in line for each in COMPLAINTS)]


async def spawn(name: str, *arguments: str, on_line: Callable[[dict[str, Any]], None] | None = None) -> Child:
    """Starts a program of ours."""
    environ = {**os.environ, "PYTHONWARNINGS": "default::ResourceWarning", "PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, stdout=PIPE, stderr=PIPE, env=environ, limit=1 << 20
    )
    child = Child(name, process)

    async def read_stderr() -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            if len(child.stderr) < 2_000:
                child.stderr.append(line.decode(errors="replace").rstrip())

    async def read_stdout() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            if on_line is not None:
                on_line(json.loads(line))

    child.reading = [asyncio.create_task(read_stderr()), asyncio.create_task(read_stdout())]
    return child


@dataclass(slots=True)
class Instance:
    id: str
    port: int
    server: str
    child: Child


class Fleet:
    """Starts, stops and watches all of them."""

    def __init__(self, folder: Path, rate: float, seed: int, on_error: Callable[[dict[str, Any]], None]) -> None:
        self.folder = folder
        self.rate = rate
        self.seed = seed
        self.on_error = on_error
        self.store: Child
        self.store_port = free_port()
        self.instances: dict[str, Instance] = {}
        self.callers: dict[str, Child] = {}
        self.states: dict[str, dict[str, Any]] = {}
        self.ends: dict[str, dict[str, Any]] = {}
        self.buried: list[Child] = []
        self._count = 0

    @property
    def url(self) -> str:
        return f"budao://127.0.0.1:{self.store_port}"

    @property
    def notes(self) -> Path:
        return self.folder / "executed.log"

    def children(self) -> list[Child]:
        """All that live."""
        return [self.store, *(each.child for each in self.instances.values()), *self.callers.values()]

    async def start_store(self) -> None:
        until = time.monotonic() + PATIENCE_S
        while True:
            listening = asyncio.Event()
            arguments = (
                "budao",
                "store",
                "serve",
                str(self.folder / "store"),
                "--port",
                str(self.store_port),
                "--json",
            )
            self.store = await spawn("store", *arguments, on_line=lambda _, heard=listening: heard.set())
            ended = asyncio.create_task(self.store.process.wait())
            heard = asyncio.create_task(listening.wait())
            await asyncio.wait((ended, heard), timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
            is_up = listening.is_set()
            ended.cancel()
            heard.cancel()
            if is_up:
                return
            assert time.monotonic() < until, f"the store does not start: {self.store.stderr[-3:]}"
            await asyncio.sleep(0.2)

    async def kill_store(self, how: signal.Signals = signal.SIGKILL) -> int:
        self.store.process.send_signal(how)
        code = await self.store.gone()
        self.buried.append(self.store)
        return code

    async def start_instance(self, server: str, *, id: str = "", port: int = 0) -> Instance:  # noqa: A002
        self._count += 1
        name = id or f"{server}-{self._count}"
        port = port or free_port()
        order = {"store": self.url, "notes": str(self.notes), "id": name, "port": port, "server": server}
        child = await spawn(name, "bench.soak_services.service", json.dumps(order))
        instance = self.instances[name] = Instance(name, port, server, child)
        async with asyncio.timeout(PATIENCE_S):
            await answers("127.0.0.1", port)
        return instance

    async def start_caller(self, index: int) -> None:
        library = CALLERS[index]
        name = f"caller-{index}-{library}"
        order = {
            "name": name, "library": library, "store": self.url, "seed": self.seed + index,
            "rate": self.rate / len(CALLERS),
        }  # fmt: skip

        def heard(line: dict[str, Any]) -> None:
            if line["kind"] == "error":
                self.on_error(line)
            elif line["kind"] == "state":
                self.states[name] = line
            else:
                self.ends[name] = line

        self.callers[name] = await spawn(name, "bench.soak_services.caller", json.dumps(order), on_line=heard)

    def remove(self, instance: Instance) -> None:
        del self.instances[instance.id]
        self.buried.append(instance.child)

    async def converged(self, settings: int) -> str:
        """What keeps the callers from seeing all that is, and nothing else; "" if nothing does."""
        wanted = sorted(self.instances)
        for name in self.callers:
            state = self.states.get(name)
            if state is None:
                return f"{name} has not said anything"
            if state["at"] < time.monotonic() - 5.0:
                return f"{name} has been silent for {time.monotonic() - state['at']:.1f} s"
            if sorted(state["ready"]) != wanted or state["other"] or state["doubted"] or state["stale"]:
                ready = state["ready"]
                missing, more = sorted(set(wanted) - set(ready)), sorted(set(ready) - set(wanted))
                others = f"not ready {state['other']}, doubted {state['doubted']}, stale {state['stale']}"
                return f"{name}: missing {missing}, too many {more}, {others}"
            if state["settings"] != settings:
                return f"{name} has settings {state['settings']}, not {settings}"
        for instance in list(self.instances.values()):
            try:
                async with asyncio.timeout(5.0):
                    said = await ask_json(instance.port)
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                return f"{instance.id} does not answer: {type(error).__name__} {error}"
            if said["settings"] != settings:
                return f"{instance.id} has settings {said['settings']}, not {settings}"
            if said["problem"]:
                return f"{instance.id} is {said['problem']}: {instance.child.stderr[-2:]}"
        return ""

    async def stop(self) -> list[str]:
        """Ends everything in order; what was untidy about it."""
        untidy = []
        for child in self.callers.values():
            child.process.send_signal(signal.SIGTERM)
        for name, child in self.callers.items():
            code = await child.gone()
            end = self.ends.get(name)
            if code or end is None or end["left"]:
                untidy.append(f"{name} ended with {code}, left behind: {end['left'] if end else 'said nothing'}")
        for instance in self.instances.values():
            instance.child.process.send_signal(signal.SIGTERM)
        for instance in self.instances.values():
            code = await instance.child.gone()
            if code:
                untidy.append(f"{instance.id} ended with {code}")
        self.store.process.send_signal(signal.SIGTERM)
        if code := await self.store.gone():
            untidy.append(f"the store ended with {code}")
        return untidy

    def kill_all(self) -> None:
        """For the way out, whatever happened."""
        for child in [*self.children(), *self.buried]:
            if child.is_alive:
                child.process.kill()


async def ask_json(port: int) -> Any:
    """The statistics of an instance."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /stats HTTP/1.1\r\nhost: soak\r\nconnection: close\r\n\r\n")
        whole = await reader.read(100_000)
        while b"}" not in whole:
            more = await reader.read(100_000)
            if not more:
                raise EOFError
            whole += more
        return json.loads(whole[whole.index(b"{") : whole.index(b"}") + 1])
    finally:
        writer.close()
