"""`budao log serve`: one log of channels on one folder, until somebody says that it is enough."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

from budao.apps.extras import lacks
from budao.model import BadSettings, BudaoError
from budao.push import ChannelRules, LogAway, parse_rules

NEEDS: Final = ("msgpack",)
PORT: Final = 7430
"""Where a log listens unless it is told otherwise."""
TOKEN_VARIABLE: Final = "BUDAO_LOG_TOKEN"

Commands = Any  # what `add_subparsers` gives has no public type


def add_log_commands(commands: Commands) -> None:
    """`budao log serve`."""
    log = commands.add_parser("log", help="run a log of channels").add_subparsers(required=True, metavar="WHAT")
    made = log.add_parser("serve", help="keep the messages of channels for gateways, durable in a folder")
    made.add_argument("folder", type=Path, metavar="FOLDER")
    made.add_argument(
        "--host", default="127.0.0.1", help="where to listen; anything but loopback needs TLS and a token"
    )
    made.add_argument("--port", type=_port, default=PORT, metavar="N", help=f"default {PORT}; 0 for any that is free")
    made.add_argument("--token-file", type=Path, metavar="FILE", help=f"what clients must show (or ${TOKEN_VARIABLE})")
    made.add_argument("--tls-certificate", type=Path, metavar="FILE", help="who we are (PEM); switches TLS on")
    made.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key")
    made.add_argument("--tls-authority", type=Path, metavar="FILE", help="clients must show a certificate of it")
    made.add_argument("--settings", type=Path, metavar="FILE", help="TOML with a table `channels`: how each is kept")
    made.add_argument(
        "--restored",
        action="store_true",
        help="the folder was put back from a backup: all channels begin a new life, and readers hear of a gap; say it once",
    )
    made.add_argument("--json", action="store_true", help="say as JSON where it listens")
    made.set_defaults(run=lambda options: 2 if lacks(NEEDS, "store") else _run(options))


async def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    rules: ChannelRules | None = None,
    token_file: Path | None = None,
    token_variable: str | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    authority: Path | None = None,
    as_json: bool = False,
    is_restored: bool = False,
) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what is in flight. Prints one line once it listens.

    Raises:  BadSettings, LogRefused, Unreadable, before anything is served; LogAway after a mistake of its own, so that
             whoever supervises it starts it again.
    """
    from budao.aio import LogServer, read_token, server_tls

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
        async with LogServer(
            folder, host=host, port=port, rules=rules, token=token, tls=tls, is_restored=is_restored
        ) as server:
            if as_json:
                said = json.dumps({"host": host, "port": server.port, "folder": str(folder), "pid": os.getpid()})
            else:
                safety = f"{'TLS' if tls else 'no TLS'}, {'token' if token else 'no token'}"
                said = f"log {folder} listens on {server.name} ({safety}), process {os.getpid()}"
            print(said, flush=True)
            waiting = [asyncio.create_task(event.wait()) for event in (stopping, server.log.crashed)]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
            if server.log.crashed.is_set():
                raise LogAway(
                    server.name, "it has stopped for a mistake of its own, which its log tells; start it again"
                )
    finally:
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)


def read_rules(settings: Path | None) -> ChannelRules:
    """The rules in a file of settings.

    Raises:  BadSettings.
    """
    if settings is None:
        return ChannelRules()
    try:
        text = settings.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise BadSettings([("settings", f"{settings} cannot be read: {problem}")]) from problem
    return parse_rules(text)


def _run(options: argparse.Namespace) -> int:
    try:
        served = serve(
            options.folder,
            host=options.host,
            port=options.port,
            rules=read_rules(options.settings),
            token_file=options.token_file,
            token_variable=TOKEN_VARIABLE if options.token_file is None and TOKEN_VARIABLE in os.environ else None,
            certificate=options.tls_certificate,
            key=options.tls_key,
            authority=options.tls_authority,
            as_json=options.json,
            is_restored=options.restored,
        )
        try:
            import uvloop
        except ImportError:
            asyncio.run(served)
        else:
            uvloop.run(served)
    except BadSettings as bad:
        for path, problem in bad.problems:
            print(f"{path}: {problem}", file=sys.stderr)
        return 1
    except BudaoError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 65_536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 65535")
    return int(text)
