"""Which store a command speaks to, and what it says when it cannot."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from budao.adapters.stores import TlsFiles, open_store
from budao.aio import Store, read_token
from budao.model import BadSettings, BudaoError
from budao.store import StoreError

URL_VARIABLE = "BUDAO_STORE"
TOKEN_VARIABLE = "BUDAO_STORE_TOKEN"
PASSWORD_VARIABLE = "BUDAO_STORE_PASSWORD"
ASK_S = 10.0
"""A command that only asks gives up after this, in seconds."""

Work = Callable[[Store], Awaitable[int]]


def add_options(parser: argparse.ArgumentParser, *, has_json: bool = True) -> None:
    """The options of every command that speaks to a store."""
    group = parser.add_argument_group("which store")
    group.add_argument(
        "--store",
        default=os.environ.get(URL_VARIABLE, ""),
        metavar="URL",
        help=f"budao://HOST:PORT or etcd://HOST:PORT,... (default: ${URL_VARIABLE})",
    )
    group.add_argument(
        "--token-file", type=Path, metavar="FILE", help=f"holds the token of a budao:// store (or ${TOKEN_VARIABLE})"
    )
    group.add_argument("--user", metavar="NAME", help=f"of an etcd:// store; its password is in ${PASSWORD_VARIABLE}")
    group.add_argument("--ca", type=Path, metavar="FILE", help="whom to trust (PEM); switches TLS on")
    group.add_argument("--cert", type=Path, metavar="FILE", help="who we are (PEM), if the store asks")
    group.add_argument("--key", type=Path, metavar="FILE", help="its private key")
    group.add_argument("--namespace", default="budao", metavar="NAME", help="first part of all keys (default budao)")
    if has_json:
        parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def on_store(
    options: argparse.Namespace, work: Work, *, is_endless: bool = False, bound_s: float | None = ASK_S
) -> int:
    """Opens the store, does the work, closes it. The value is the exit status.

    What is endless is ended by a person, and that is no failure. `bound_s` is None for work that has a bound of its own.
    """
    if not options.store:
        print(f"say which store: --store budao://127.0.0.1:7420, or set ${URL_VARIABLE}", file=sys.stderr)
        return 2
    if options.store.partition(":")[0] == "memory":
        print("a memory: store lives inside one program, and a command cannot see it", file=sys.stderr)
        return 2
    try:
        return asyncio.run(_work(options, work, is_endless=is_endless, bound_s=None if is_endless else bound_s))
    except (StoreError, BadSettings) as problem:
        print(advised(str(problem)), file=sys.stderr)
        return 1
    except BudaoError as problem:
        print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read the output has gone, as `head` does
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as problem:
        if problem.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}:
            raise
        with contextlib.suppress(OSError):  # what could not be written would be tried once more at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"the output cannot be written: {problem.strerror or problem}", file=sys.stderr)
        return 1


def shown(text: str) -> str:
    """Text that others wrote into a store, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def advised(problem: str) -> str:
    """The problem, with what to do about it where a command has an option for that."""
    if "it wants a token" in problem or "the token is wrong" in problem:
        return f"{problem}\ngive the token with --token-file, or in ${TOKEN_VARIABLE}"
    if "its certificate is not accepted" in problem:
        return f"{problem}\nsay with --ca whom to trust"
    if "nothing listens there" in problem:
        return f"{problem}\nis it running? `budao store serve FOLDER` runs one"
    return problem


async def _work(options: argparse.Namespace, work: Work, *, is_endless: bool, bound_s: float | None) -> int:
    try:
        store = open_store(
            options.store,
            token=read_token(file=options.token_file),
            tls=_tls(options),
            username=options.user,
        )
    except BadSettings as bad:
        for path, problem in bad.problems:
            print(f"{path}: {problem}", file=sys.stderr)
        return 1
    task = asyncio.ensure_future(work(store))
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, task.cancel)
    try:
        done, _ = await asyncio.wait((task,), timeout=bound_s)
        if not done:
            task.cancel()
            print(
                f"store {store.name}: no answer within {bound_s:g} s; is it running, and is the address right?",
                file=sys.stderr,
            )
            return 1
        if task.cancelled():
            return 0 if is_endless else 130
        return task.result()
    finally:
        await asyncio.gather(task, return_exceptions=True)
        await store.aclose()


def _tls(options: argparse.Namespace) -> TlsFiles | None:
    if options.ca is None and options.cert is None and options.key is None:
        return None
    return TlsFiles(authority=options.ca, certificate=options.cert, key=options.key)
