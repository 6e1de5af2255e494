"""`budao store serve`: one store on one folder, until somebody says that it is enough."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import TextIO

from budao.aio import StoreServer, read_token, server_tls
from budao.model import BadSettings
from budao.store import StoreAway


async def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token_file: Path | None = None,
    token_variable: str | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    authority: Path | None = None,
    as_json: bool = False,
) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what is in flight. Prints one line once it listens.

    Raises:  BadSettings, StoreRefused, Unreadable, before anything is served; StoreAway after a mistake of its own, so that
             whoever supervises it starts it again.
    """
    token = read_token(file=token_file, environment=token_variable)
    if (certificate is None) != (key is None):
        raise BadSettings([("tls", "a certificate and its key go together, only one of them is given")])
    if authority is not None and certificate is None:
        raise BadSettings([("tls", "an authority for clients needs a certificate and key for the server as well")])
    tls = None if certificate is None or key is None else server_tls(certificate, key, authority=authority)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stopping.set)
    try:
        async with StoreServer(folder, host=host, port=port, token=token, tls=tls) as server:
            if as_json:
                said = json.dumps({"host": host, "port": server.port, "folder": str(folder), "pid": os.getpid()})
            else:
                safety = f"{'TLS' if tls else 'no TLS'}, {'token' if token else 'no token'}"
                said = f"store {folder} listens on {server.name} ({safety}), process {os.getpid()}"
            _say(said, sys.stdout)
            await _either(stopping, server.store.crashed)
            if server.store.crashed.is_set():
                raise StoreAway(
                    server.name, "it has stopped for a mistake of its own, which its log tells; start it again"
                )
            if not as_json:
                _say("stopping: finishing what is in flight", sys.stderr)
    finally:
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)


async def _either(*events: asyncio.Event) -> None:
    """Waits until one of them is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def _say(text: str, file: TextIO) -> None:
    """Says it to whoever listens. That nobody does, or a log is full, is no reason not to serve."""
    try:
        print(text, file=file, flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, file.fileno())  # what could not be written would be tried once more at the end
        os.close(nowhere)
