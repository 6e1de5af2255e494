"""A real nats-server with JetStream on a loopback port, to be killed, frozen and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.live.redis_server import PATIENCE_S, free_port


class NatsServer:
    """One server process, on the same port and with the same files through all its lives. `more` is configuration text."""

    def __init__(self, folder: Path, *, more: str = "", name: str = "one", binary: str = "nats-server") -> None:
        found = shutil.which(binary) or shutil.which(binary, path=f"/usr/sbin:{os.defpath}")
        assert found is not None, "no nats-server on this machine: `make nats` installs it, and this test needs it"
        self.binary = found
        self.folder = folder
        self.name = name
        self.port = free_port()
        self.more = more
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self, *, waits: bool = True) -> None:
        assert self.process is None, "stop it before it is started again"
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats.conf"
        config.write_text(
            f'server_name: {self.name}\nhost: 127.0.0.1\nport: {self.port}\njetstream {{ store_dir: "{self.folder / "js"}" }}\n'
            f'log_file: "{self.folder / "log"}"\n{self.more}\n'
        )
        self.process = subprocess.Popen(
            [self.binary, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if waits:
            self.wait()

    def wait(self) -> None:
        """Until it greets."""
        process = self.process
        assert process is not None
        until = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert process.poll() is None, f"nats-server ended with {process.returncode}: {self.said()}"
            assert time.monotonic() < until, f"nats-server does not answer on port {self.port}: {self.said()}"
            time.sleep(0.01)

    def said(self) -> str:
        """The end of its log."""
        with suppress(OSError):
            return (self.folder / "log").read_text()[-2000:]
        return ""

    def kill(self) -> None:
        """Ends it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE_S)
            self.process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside, it takes connections and bytes and answers nothing, as a frozen machine does."""
        process = self.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        state = Path(f"/proc/{process.pid}/stat")
        while state.read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as stream:
                return stream.recv(4).startswith(b"INFO")
        except OSError:
            return False


@contextmanager
def nats_serving(folder: Path, *, more: str = "") -> Iterator[NatsServer]:
    server = NatsServer(folder, more=more)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def nats_cluster(folder: Path, *, binary: str = "nats-server", size: int = 3) -> Iterator[Sequence[NatsServer]]:
    """Several servers that know each other."""
    routes = [free_port() for _ in range(size)]
    shown = ", ".join(f"nats://127.0.0.1:{port}" for port in routes)
    servers = []
    for index, port in enumerate(routes):
        more = f"cluster {{ name: c, host: 127.0.0.1, port: {port}, routes: [{shown}] }}"
        servers.append(NatsServer(folder / str(index), more=more, name=f"n{index}", binary=binary))
    try:
        for server in servers:
            server.start(waits=False)
        for server in servers:
            server.wait()
        yield servers
    finally:
        for server in servers:
            server.kill()
