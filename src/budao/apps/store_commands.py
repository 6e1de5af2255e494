"""The commands that speak to a store, or are one."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from budao.apps.extras import lacks
from budao.apps.stores import TOKEN_VARIABLE, add_options, on_store
from budao.model import BadSettings, BudaoError

NEEDS = ("msgpack", "rich")
PORT = 7420
"""Where an embedded store listens unless it is told otherwise."""

Commands = Any  # what `add_subparsers` gives has no public type


def add_commands(commands: Commands) -> None:
    """`budao store serve`, `budao services`, `budao drain`."""
    _add_serve(commands.add_parser("store", help="run a store").add_subparsers(required=True, metavar="WHAT"))

    services = commands.add_parser("services", help="who is there: a table that keeps itself up to date")
    services.add_argument("what", nargs="?", choices=["watch"], help="print a line for each change instead")
    services.add_argument("--service", default="", metavar="NAME", help="only this one")
    services.add_argument("--once", action="store_true", help="print the table once and leave")
    add_options(services)
    _runs(services, _services)

    drain = commands.add_parser("drain", help="take one instance out, and wait until everybody has heard of it")
    drain.add_argument("id", metavar="ID")
    drain.add_argument("--service", default="", metavar="NAME", help="whose instance, if several have one of that id")
    drain.add_argument(
        "--within", type=_span, default=30.0, metavar="SECONDS", help="how long to wait for them (default 30)"
    )
    add_options(drain)
    _runs(drain, _drain)


def add_settings(settings: Commands) -> None:
    """`budao settings get|set|history|rollback`."""
    get = settings.add_parser("get", help="print settings that a store holds")
    get.add_argument("name", metavar="NAME")
    get.add_argument("--version", type=_number, default=0, metavar="N", help="an earlier version")
    add_options(get)
    _runs(get, _get)

    put = settings.add_parser(
        "set", help="change settings in a store; every program that follows them takes them at once"
    )
    put.add_argument("name", metavar="NAME")
    put.add_argument("file", type=Path, metavar="FILE", help="TOML; - for standard input")
    put.add_argument("--note", default="", metavar="TEXT", help="why, for the history")
    put.add_argument(
        "--expect",
        type=int,
        metavar="N",
        help="the version it was made from (0 for none); refused if another is current",
    )
    add_options(put)
    _runs(put, _set)

    history = settings.add_parser("history", help="list the versions that a store keeps")
    history.add_argument("name", metavar="NAME")
    add_options(history)
    _runs(history, _history)

    back = settings.add_parser("rollback", help="make an earlier version current again")
    back.add_argument("name", metavar="NAME")
    back.add_argument("version", type=_number, metavar="N")
    add_options(back)
    _runs(back, _roll_back)


def _add_serve(store: Commands) -> None:
    serve = store.add_parser("serve", help="keep keys, leases and watches for others, durable in a folder")
    serve.add_argument("folder", type=Path, metavar="FOLDER")
    serve.add_argument(
        "--host", default="127.0.0.1", help="where to listen; anything but loopback needs TLS and a token"
    )
    serve.add_argument("--port", type=_port, default=PORT, metavar="N", help=f"default {PORT}; 0 for any that is free")
    serve.add_argument("--token-file", type=Path, metavar="FILE", help=f"what clients must show (or ${TOKEN_VARIABLE})")
    serve.add_argument("--cert", type=Path, metavar="FILE", help="who we are (PEM); switches TLS on")
    serve.add_argument("--key", type=Path, metavar="FILE", help="its private key")
    serve.add_argument(
        "--client-ca", type=Path, metavar="FILE", help="clients must show a certificate of this authority"
    )
    serve.add_argument("--json", action="store_true", help="say as JSON where it listens")
    _runs(serve, _serve)


def _runs(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    parser.set_defaults(run=lambda options: 2 if lacks(NEEDS, "cli") else run(options))


def _serve(options: argparse.Namespace) -> int:
    from budao.apps.store_serve import serve

    try:
        asyncio.run(
            serve(
                options.folder,
                host=options.host,
                port=options.port,
                token_file=options.token_file,
                token_variable=TOKEN_VARIABLE if options.token_file is None and TOKEN_VARIABLE in os.environ else None,
                certificate=options.cert,
                key=options.key,
                authority=options.client_ca,
                as_json=options.json,
            )
        )
    except BadSettings as bad:
        for path, problem in bad.problems:
            print(f"{path}: {problem}", file=sys.stderr)
        return 1
    except BudaoError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


def _services(options: argparse.Namespace) -> int:
    from budao.apps import services

    if options.what == "watch":
        return on_store(
            options,
            lambda store: services.watch(
                store, as_json=options.json, namespace=options.namespace, service=options.service
            ),
            is_endless=True,
        )
    is_live = sys.stdout.isatty() and not (options.once or options.json)
    return on_store(
        options,
        lambda store: services.show(
            store, as_json=options.json, is_live=is_live, namespace=options.namespace, service=options.service
        ),
        is_endless=is_live,
    )


def _drain(options: argparse.Namespace) -> int:
    from budao.apps import services

    return on_store(
        options,
        lambda store: services.drain(
            store,
            options.id,
            service=options.service,
            within_s=options.within,
            as_json=options.json,
            namespace=options.namespace,
            say=lambda line: print(line, file=sys.stderr if options.json else sys.stdout, flush=True),
        ),
        bound_s=None,
    )


def _get(options: argparse.Namespace) -> int:
    from budao.apps import stored

    return on_store(
        options,
        lambda store: stored.get(
            store, options.name, number=options.version, as_json=options.json, namespace=options.namespace
        ),
    )


def _set(options: argparse.Namespace) -> int:
    from budao.apps import stored

    return on_store(
        options,
        lambda store: stored.put(
            store,
            options.name,
            options.file,
            note=options.note,
            expected=options.expect,
            as_json=options.json,
            namespace=options.namespace,
        ),
    )


def _history(options: argparse.Namespace) -> int:
    from budao.apps import stored

    return on_store(
        options,
        lambda store: stored.history(store, options.name, as_json=options.json, namespace=options.namespace),
    )


def _roll_back(options: argparse.Namespace) -> int:
    from budao.apps import stored

    return on_store(
        options,
        lambda store: stored.roll_back(
            store, options.name, options.version, as_json=options.json, namespace=options.namespace
        ),
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 65_536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 65535")
    return int(text)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 10**12):
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a version")
    return int(text)


def _span(text: str) -> float:
    try:
        span_s = float(text)
    except ValueError:
        span_s = -1.0
    if not 0.0 < span_s <= 86_400.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0 and up to 86400")
    return span_s
