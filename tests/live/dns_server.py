"""A real dnsmasq on a loopback port, to be paused, killed and given other records."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import dns.message
import dns.query

from tests.live.redis_server import PATIENCE_S, free_port


class DnsServer:
    """One name server; each life may have other records, given as dnsmasq's own options."""

    def __init__(self, folder: Path) -> None:
        binary = shutil.which("dnsmasq") or shutil.which("dnsmasq", path="/usr/sbin")
        assert binary is not None, "no dnsmasq on this machine: `make servers` installs it, and this test needs it"
        self.binary = binary
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *records: str) -> None:
        self.stop()
        self.process = subprocess.Popen(
            [
                self.binary,
                *("--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"),
                *("--listen-address=127.0.0.1", "--bind-interfaces", f"--port={self.port}"),
                *("--local=/example/", "--pid-file="),
                *records,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
        )
        until = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self.process.poll() is None, f"dnsmasq ended with {self.process.returncode} while starting"
            assert time.monotonic() < until, f"dnsmasq does not answer on port {self.port}"
            time.sleep(0.01)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE_S)
            self.process = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        process = self.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            dns.query.udp(dns.message.make_query("nobody.example", "A"), "127.0.0.1", port=self.port, timeout=0.2)
        except (OSError, dns.exception.DNSException):
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
