"""Servers of the demo as processes of their own, which never outlive the one that started them.

A child serves on a loopback port the system chose, says which on its standard output, and leaves as soon as its standard
input ends. That input is a pipe of its parent's, so it ends even if the parent is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from os import SEEK_END
from random import Random
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.applications import Starlette

STARTED_WITHIN_S = 30.0
LEFT_WITHIN_S = 3.0
COMPLAINTS_BYTES_MAX = 4_000


@contextlib.asynccontextmanager
async def child(*arguments: str) -> AsyncIterator[int]:
    """Runs a server; the value is its port. Leaving the block means that it is gone.

    Raises: RuntimeError if it does not come up.
    """
    with tempfile.TemporaryFile() as complaints:  # said at the end: on the terminal they would tear the live table
        # A session of its own: an interrupt typed at the terminal is ours alone, and the child stays for the report.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "budao.apps.child", *arguments),
            stdin=PIPE,
            stdout=PIPE,
            stderr=complaints,
            start_new_session=True,
        )
        try:
            yield await _port_of(process, arguments)
        finally:
            await asyncio.shield(_end(process))
            _pass_on(complaints, " ".join(arguments))


def _pass_on(complaints: IO[bytes], who: str) -> None:
    size = complaints.seek(0, SEEK_END)
    complaints.seek(max(0, size - COMPLAINTS_BYTES_MAX))
    if said := complaints.read().decode(errors="replace").strip():
        print(f"the demo's {who} said:\n{said}", file=sys.stderr)


async def _port_of(process: Process, arguments: Sequence[str]) -> int:
    assert process.stdout is not None
    try:
        said = await asyncio.wait_for(process.stdout.readline(), STARTED_WITHIN_S)
        return int(json.loads(said)["port"])
    except (TimeoutError, ValueError) as problem:
        raise RuntimeError(f"the demo's {arguments[0]} process did not start") from problem


async def _end(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    for harder in (process.terminate, process.kill):
        try:
            await asyncio.wait_for(process.wait(), LEFT_WITHIN_S)
            return
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                harder()
    await process.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """The child's side."""
    parser = argparse.ArgumentParser(prog="budao.apps.child")
    parser.add_argument("role", choices=("inventory", "shop"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inventory-port", type=int, default=0)
    parser.add_argument("--guarded", action="store_true")
    options = parser.parse_args(argv)
    asyncio.run(_serve(options))
    return 0


async def _serve(options: argparse.Namespace) -> None:
    import uvicorn

    logging.getLogger("budao").addHandler(logging.NullHandler())  # the demo tells what its guard does in its own words
    # asyncio switches Nagle's algorithm off only on sockets that name their protocol; with it on, each answer of two
    # writes would wait 40 ms for a delayed acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)  # before the port is told: who knows it may connect
    config = uvicorn.Config(
        _app(options), log_level="critical", access_log=False, lifespan="on", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve(sockets=[listener]))
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        await _standard_input_ended()
        server.should_exit = server.force_exit = True
        await serving


def _app(options: argparse.Namespace) -> Starlette:
    if options.role == "inventory":
        from budao.apps.inventory import inventory

        return inventory(Random(options.seed))
    from budao.apps.shop import shop

    return shop(f"http://127.0.0.1:{options.inventory_port}", is_guarded=options.guarded)


async def _standard_input_ended() -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(1024):
        pass


if __name__ == "__main__":
    raise SystemExit(main())
