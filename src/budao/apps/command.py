"""The `budao` command line."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from budao import __version__
from budao.apps.demo_push_command import add_push_demo
from budao.apps.extras import lacks
from budao.apps.log_serve import add_log_commands
from budao.apps.push_commands import add_push
from budao.apps.script import SECONDS_MAX, SECONDS_MIN
from budao.apps.settings_files import check_file, show_file
from budao.apps.store_commands import add_commands, add_settings

if TYPE_CHECKING:
    from budao.apps.recording import Recording
    from budao.apps.screen import View

DEMO_NEEDS = ("httpx", "rich", "starlette", "uvicorn")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the value is the exit status: 0 done, 1 a problem in what was given, 2 wrong usage."""
    options = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="budao", description="Keeps Python services inside their objectives.")
    parser.add_argument("--version", action="version", version=f"budao {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="see it work").add_subparsers(required=True, metavar="WHAT")
    guard = demo.add_parser("guard", help="a shop whose inventory service falls ill, with and without the guard")
    guard.add_argument("--seconds", type=_seconds, default=60, metavar="N", help="how long it runs (default 60)")
    guard.add_argument("--seed", type=int, default=1, metavar="N", help="draws customers and delays (default 1)")
    guard.add_argument(
        "--out", type=Path, default=Path("budao-demo.html"), metavar="FILE.html", help="where the page with plots goes"
    )
    guard.add_argument("--no-live", action="store_true", help="plain lines instead of a live table")
    guard.add_argument("--json", action="store_true", help="print the recording as JSON, and nothing else")
    guard.set_defaults(run=_demo_guard)
    add_push_demo(demo)

    settings = commands.add_parser("settings", help="look at settings, and change those in a store").add_subparsers(
        required=True, metavar="WHAT"
    )
    check = settings.add_parser("check", help="say every problem of a settings file")
    check.add_argument("file", type=Path, metavar="FILE")
    check.set_defaults(run=lambda options: check_file(options.file))
    show = settings.add_parser("show", help="print every number one guard would have, and why")
    show.add_argument("file", type=Path, metavar="FILE")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=lambda options: show_file(options.file, options.name))
    add_settings(settings)
    add_commands(commands)
    add_log_commands(commands)
    add_push(commands)
    return parser


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and SECONDS_MIN <= int(text) <= SECONDS_MAX):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {SECONDS_MIN} to {SECONDS_MAX}")
    return int(text)


def _demo_guard(options: argparse.Namespace) -> int:
    if lacks(DEMO_NEEDS, "demo"):
        return 2
    folder = options.out.absolute().parent
    if not folder.is_dir():  # better said now than after a minute
        print(f"cannot write {options.out}: there is no folder {folder}", file=sys.stderr)
        return 1
    from budao.apps.page import page
    from budao.apps.recording import result

    recording = asyncio.run(_play(options))
    options.out.write_text(page(recording), encoding="utf-8")
    if options.json:
        json.dump(recording.as_plain(), sys.stdout, indent=1)
        print()
    else:
        print(f"\n{result(recording)}\nplots: {options.out.absolute().as_uri()}")
    return 0


async def _play(options: argparse.Namespace) -> Recording:
    from budao.apps.demo import play

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stopping.set)
    is_live = not options.no_live and not options.json and sys.stdout.isatty()
    with _live() if is_live else _lines(quiet=options.json) as (show, every_s):
        return await play(options.seconds, options.seed, show=show, every_s=every_s, stopping=stopping)


@contextlib.contextmanager
def _live() -> Iterator[tuple[Callable[[View], None], float]]:
    from rich.live import Live

    from budao.apps.screen import live

    with Live(auto_refresh=False) as screen:
        yield lambda view: screen.update(live(view), refresh=True), 0.25


@contextlib.contextmanager
def _lines(*, quiet: bool) -> Iterator[tuple[Callable[[View], None], float]]:
    from budao.apps.screen import plain

    told = 0

    def show(view: View) -> None:
        nonlocal told
        if not told:
            print("\n".join(f"set by hand: {each}" for each in view.settings))
        for remark in view.remarks[told:]:
            print(f"{remark.at_s:6.1f} s  {remark.text}")
        told = len(view.remarks)
        print(plain(view), flush=True)

    yield (lambda _: None) if quiet else show, 1.0
