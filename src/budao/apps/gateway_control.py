"""`budao gateway status|drain|promote|advise`: asks a gateway on this machine over its control socket."""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

ANSWER_S: Final = 10.0
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
LOOK_EVERY_S: Final = 0.2


class NoAnswer(Exception):
    """A gateway could not be asked, or would not do it; the message says what to do."""


def add_control_commands(commands: Any) -> None:
    """Adds `status`, `drain`, `promote` and `advise` to the subparsers of `budao gateway`."""
    status = commands.add_parser("status", help="how a gateway on this machine stands")
    _add_path(status)
    status.set_defaults(run=_status)
    drain = commands.add_parser("drain", help="move its clients to other gateways, and leave")
    _add_path(drain)
    drain.add_argument("--wait", action="store_true", help="come back when everybody has moved, and print the proof")
    drain.set_defaults(run=_drain)
    promote = commands.add_parser("promote", help="tell the client of a session to go on at its standby")
    _add_path(promote)
    promote.add_argument("session", metavar="SESSION")
    promote.set_defaults(run=_promote)
    advise = commands.add_parser("advise", help="tell the client of a session where to keep its standby")
    _add_path(advise)
    advise.add_argument("session", metavar="SESSION")
    advise.add_argument(
        "target", metavar="TARGET", nargs="?", help="the name of a target; without it, the one with room"
    )
    advise.set_defaults(run=_advise)


def ask(path: Path, question: Mapping[str, Any]) -> Mapping[str, Any]:
    """One question, one answer.

    Raises:  NoAnswer.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(str(path))
            connection.sendall(json.dumps(question).encode() + b"\n")
            line = b""
            while not line.endswith(b"\n"):
                more = connection.recv(64 * 1024)
                if not more or len(line) > ANSWER_BYTES_MAX:
                    raise NoAnswer(f"{path}: no answer came; is it a control socket of a gateway of yours?")
                line += more
    except FileNotFoundError as problem:
        raise NoAnswer(f"{path} is not there; a gateway makes it with --control {path}") from problem
    except ConnectionRefusedError as problem:
        raise NoAnswer(f"{path}: nobody listens there any more") from problem
    except OSError as problem:
        raise NoAnswer(f"{path}: {problem.strerror or problem}") from problem
    try:
        answer = json.loads(line)
    except ValueError as problem:
        raise NoAnswer(f"{path}: the answer is not JSON; is it a control socket of a gateway?") from problem
    if not isinstance(answer, dict) or answer.pop("ok", None) is not True:
        error = answer.get("error") if isinstance(answer, dict) else None
        happened = error.get("happened") if isinstance(error, dict) else "it refused"
        raise NoAnswer(f"{path}: {happened}")
    return answer


def _add_path(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--control", type=Path, required=True, metavar="PATH", help="the path that the gateway was started with"
    )


def _status(options: argparse.Namespace) -> int:
    return _tell(options, {"do": "status"})


def _promote(options: argparse.Namespace) -> int:
    return _tell(options, {"do": "promote", "session": options.session})


def _advise(options: argparse.Namespace) -> int:
    return _tell(options, {"do": "advise", "session": options.session, "target": options.target})


def _drain(options: argparse.Namespace) -> int:
    if not options.wait:
        return _tell(options, {"do": "drain"})
    try:
        last = ask(options.control, {"do": "drain"})
        while last.get("stage") != "gone":
            time.sleep(LOOK_EVERY_S)
            try:
                last = ask(options.control, {"do": "status"})["leaving"]
            except NoAnswer:
                break  # it has ended, as it should; what it said last stands
    except NoAnswer as problem:
        print(problem, file=sys.stderr)
        return 1
    print(json.dumps(last, indent=1))
    return 0


def _tell(options: argparse.Namespace, question: Mapping[str, Any]) -> int:
    try:
        answer = ask(options.control, question)
    except NoAnswer as problem:
        print(problem, file=sys.stderr)
        return 1
    print(json.dumps(answer, indent=1))
    return 0
