"""A gateway as a process of its own over a log server, to be killed and frozen."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from types import TracebackType
from typing import Self

from tests.live.redis_server import PATIENCE_S

PROGRAM = """
import asyncio, sys
from budao.aio.gateway import Access, Gateway
from budao.aio.logs import RemoteLog
from budao.push import Grant, SessionPolicy
async def main():
    anybody = Grant(subscribe=("**",), publish=("**",))
    rates = SessionPolicy(beat_min_s=0.05, publishes_per_s=1e5, publishes_burst=100_000, frames_per_s=1e5, frames_burst=100_000)
    async with RemoteLog("127.0.0.1", int(sys.argv[1])) as log:
        async with Gateway(log, access=Access(anonymous=anybody), session_policy=rates) as gateway:
            print(gateway.port, flush=True)
            await asyncio.Event().wait()
try:
    import uvloop
    uvloop.run(main())
except ImportError:
    asyncio.run(main())
"""


class GatewayProcess:
    """Entered, it listens on `url`; left, it is gone."""

    def __init__(self, log_port: int) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(log_port)], stdout=subprocess.PIPE)
        self.url = ""

    def wait(self) -> None:
        """Until it listens."""
        assert self._process.stdout is not None
        there, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S)
        assert there, "the gateway neither listens nor ends"
        said = self._process.stdout.readline()
        assert said, f"the gateway ended with {self._process.wait(PATIENCE_S)} before it listened"
        self.url = f"http://127.0.0.1:{int(said)}"

    def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE_S)

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
