"""A store server as a process of its own, to be killed, frozen and started again on the same port."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.live.redis_server import PATIENCE_S, free_port

PROGRAM = """
import asyncio, sys
from pathlib import Path
from budao.apps.store_serve import serve
asyncio.run(serve(Path(sys.argv[1]), port=int(sys.argv[2]), as_json=True))
"""


class StoreProcess:
    program = PROGRAM

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert self.process is None, "stop it before it is started again"
        until = time.monotonic() + PATIENCE_S
        while True:
            self.process = subprocess.Popen(
                [sys.executable, "-c", self.program, str(self.folder), str(self.port)], stdout=subprocess.PIPE
            )
            assert self.process.stdout is not None
            if self.process.stdout.readline():
                return
            # Connections of the life before may hold the port for a moment.
            self.process.stdout.close()
            self.process.wait(PATIENCE_S)
            assert time.monotonic() < until, f"the server ends with {self.process.returncode} while starting"

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """As a supervisor would; the value is its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(how)
        code = process.wait(PATIENCE_S)
        assert process.stdout is not None
        process.stdout.close()
        return code

    @contextmanager
    def frozen(self) -> Iterator[None]:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def serving(folder: Path) -> Iterator[StoreProcess]:
    server = StoreProcess(folder, free_port())
    server.start()
    try:
        yield server
    finally:
        server.kill()
