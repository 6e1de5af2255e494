"""A real redis-server on a loopback port, to be killed, paused and started again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE_S = 30.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class RedisServer:
    """One server process, on the same port through all its lives. Nothing is saved, so a new life begins empty."""

    def __init__(self, folder: Path) -> None:
        binary = shutil.which("redis-server")
        assert binary is not None, "no redis-server on this machine: `make redis` installs it, and this test needs it"
        self.binary = binary
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert self.process is None, "stop it before it is started again"
        self.process = subprocess.Popen(
            [
                self.binary,
                *("--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"),
                *("--dir", str(self.folder), "--daemonize", "no"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self.process.poll() is None, f"redis-server ended with {self.process.returncode} while starting"
            assert time.monotonic() < until, f"redis-server does not answer on port {self.port}"
            time.sleep(0.01)

    def kill(self) -> None:
        """End it as a crash would: without a word to its clients."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE_S)
            self.process = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, the server accepts connections and bytes and answers nothing, as a frozen machine does."""
        process = self.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def clients(self) -> int:
        """How many connections it holds, the one that asks left out."""
        return self._ask(b"CLIENT LIST TYPE normal\r\n").count(b"id=") - 1

    def _answers(self) -> bool:
        try:
            return self._ask(b"PING\r\n").startswith(b"+PONG")
        except OSError:
            return False

    def _ask(self, command: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as asking:
            asking.sendall(command + b"QUIT\r\n")
            answer = b""
            while part := asking.recv(65536):
                answer += part
            return answer

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
