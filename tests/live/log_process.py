"""A log server as a process of its own, to be killed, frozen and started again on the same port."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.live import store_process
from tests.live.redis_server import free_port

PROGRAM = """
import asyncio, sys
from pathlib import Path
from budao.apps.log_serve import serve
asyncio.run(serve(Path(sys.argv[1]), port=int(sys.argv[2]), as_json=True))
"""


class LogProcess(store_process.StoreProcess):
    program = PROGRAM


@contextmanager
def log_serving(folder: Path) -> Iterator[LogProcess]:
    server = LogProcess(folder, free_port())
    server.start()
    try:
        yield server
    finally:
        server.kill()
