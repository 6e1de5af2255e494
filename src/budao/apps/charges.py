"""Processes that are looked after: started, told of when they end, and started again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from budao.model import BudaoError

STARTED_WITHIN_S: Final = 30.0
LEFT_WITHIN_S: Final = 3.0
PORTS_TRIED: Final = 100
SAID_CHARACTERS_MAX: Final = 300


class NotStarted(BudaoError):
    """A process of ours did not come up; the message says what it said last."""


class Charge:
    """One process: a `budao` command with `--json`, which says on its first line where it listens.

    Its standard input is ours, and it ends with it (see `leashed`). What it complains of is in the file `said`.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, said: Path, again_s: float, tell: Callable[[str], None]
    ) -> None:
        """`tell` is told what happens, in words."""
        self.name = name
        self.said = said
        self.again_s = again_s
        self.state = "starting"
        """`starting`, `up` or `down`."""
        self.again_at = 0.0
        """On the loop's clock: when it is started again, while it is down."""
        self.about: dict[str, Any] = {}
        """What it said on its first line."""
        self._command = tuple(command)
        self._tell = tell
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """Its process number; 0 while it is down."""
        return self._process.pid if self._process is not None and self.state == "up" else 0

    async def start(self) -> None:
        """Starts it.

        Raises:  NotStarted.
        """
        self.state = "starting"
        with self.said.open("ab") as complaints:
            # A session of its own: an interrupt typed at the terminal is ours alone.
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "budao.apps.leashed", *self._command, "--json"),
                stdin=PIPE,
                stdout=PIPE,
                stderr=complaints,
                start_new_session=True,
            )
        assert process.stdout is not None
        try:
            self.about = json.loads(await asyncio.wait_for(process.stdout.readline(), STARTED_WITHIN_S))
        except (TimeoutError, ValueError) as problem:
            await self.end()
            raise NotStarted(f"{self.name} did not start: {self._complaint() or 'it said nothing'}") from problem
        self.state = "up"

    async def keep(self) -> None:
        """Starts it again whenever it ends, after a while. It was started; goes on until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            assert self._process is not None, "it was started"
            status = await self._process.wait()
            self.state = "down"
            self.again_at = loop.time() + self.again_s
            self._tell(f"{self.name} {self._how(status)}; it is started again in {self.again_s:g} s")
            await asyncio.sleep(self.again_s)
            while True:
                try:
                    await self.start()
                    break
                except NotStarted as problem:
                    self.state = "down"
                    self.again_at = loop.time() + self.again_s
                    self._tell(f"{problem}; the next try is in {self.again_s:g} s")
                    await asyncio.sleep(self.again_s)
            self._tell(f"{self.name} is back: kill -9 {self.pid}")

    async def end(self) -> None:
        """Ends it, whatever it takes."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), LEFT_WITHIN_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _how(self, status: int) -> str:
        if status < 0:
            with contextlib.suppress(ValueError):
                return f"was killed ({signal.Signals(-status).name})"
        if status == 0:
            return "has left in order"
        return f"ended with {status}: {self._complaint() or 'it said nothing'}"

    def _complaint(self) -> str:
        """The last line it said."""
        lines = self.said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:SAID_CHARACTERS_MAX] if lines else ""


def free_ports(*firsts: int) -> list[int]:
    """For each the first port from there on that nobody on this machine's loopback listens on, each another one.

    Raises:  OSError.
    """
    found: list[int] = []
    for first in firsts:
        ports = (
            port for port in range(first, min(first + PORTS_TRIED, 65_536)) if port not in found and _is_free(port)
        )
        port = next(ports, 0)
        if not port:
            said = f"no port from {first} to {first + PORTS_TRIED - 1} is free on 127.0.0.1"
            raise OSError(errno.EADDRINUSE, said)
        found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as problem:
            if problem.errno not in {errno.EADDRINUSE, errno.EACCES}:
                raise
            return False
    return True
