"""`budao demo push`: its part of the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from budao.apps.extras import lacks
from budao.apps.push_commands import run_program

NEEDS: Final = ("msgpack",)
PORT: Final = 7450


def add_push_demo(demo: Any) -> None:
    """Adds `push` to the subparsers of `budao demo`."""
    push: argparse.ArgumentParser = demo.add_parser(
        "push", help="two gateways and a page: kill one, and nothing is lost"
    )
    add = push.add_argument
    add("--port", type=_port, default=PORT, metavar="N", help=f"of the page (default {PORT}, or the next that is free)")
    add("--data", type=Path, metavar="FOLDER", help="keep the log and keys here; a temporary folder otherwise")
    add("--seconds", type=_span, metavar="N", help="how long it runs (until Ctrl-C otherwise)")
    add("--again", type=_span, default=10.0, metavar="SECONDS", help="a gateway that ended starts again (default 10)")
    add("--json", action="store_true", help="say everything as lines of JSON")
    push.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if lacks(NEEDS, "push"):
        return 2
    from budao.apps.demo_push import Wishes, play

    wishes = Wishes(
        port=options.port,
        data=options.data,
        seconds=options.seconds,
        again_s=options.again,
        as_json=options.json,
    )
    return run_program(lambda: play(wishes))


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65_536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def _span(text: str) -> float:
    try:
        span_s = float(text)
    except ValueError:
        span_s = -1.0
    if not 0.1 <= span_s <= 86_400.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.1 to 86400")
    return span_s
