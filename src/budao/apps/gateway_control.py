"""`budao gateway status|drain|promote|advise`: asks a gateway on this machine over its control socket."""

from __future__ import annotations

import argparse
import json
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ANSWER_S: Final = 10.0
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024


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
    with _asked(path, question) as lines:
        return _said(path, lines)


def drain_and_wait(path: Path) -> Mapping[str, Any]:
    """Tells a gateway to leave, and comes back with the proof once it has: a leave ends, if only by its own bound.

    Raises:  NoAnswer, also if the gateway ended before it could tell.
    """
    with _asked(path, {"do": "drain", "wait": True}) as lines:
        _said(path, lines)
        lines.connection.settimeout(None)
        try:
            return _said(path, lines)
        except _Silent as problem:
            raise NoAnswer(
                f"{path}: the gateway ended before its leave did, so nothing is proven; see its log"
            ) from problem


class _Silent(NoAnswer):
    """The connection ended without a line."""


class _Lines:
    """Lines that come over a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._read = b""

    def next(self) -> bytes:
        """Empty if the connection ended, or a line is too long."""
        while b"\n" not in self._read:
            more = self.connection.recv(64 * 1024)
            if not more or len(self._read) > ANSWER_BYTES_MAX:
                return b""
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line


@contextmanager
def _asked(path: Path, question: Mapping[str, Any]) -> Iterator[_Lines]:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(str(path))
            connection.sendall(json.dumps(question).encode() + b"\n")
            yield _Lines(connection)
    except FileNotFoundError as problem:
        raise NoAnswer(f"{path} is not there; a gateway makes it with --control {path}") from problem
    except ConnectionRefusedError as problem:
        raise NoAnswer(f"{path}: nobody listens there any more") from problem
    except OSError as problem:
        raise NoAnswer(f"{path}: {problem.strerror or problem}") from problem


def _said(path: Path, lines: _Lines) -> Mapping[str, Any]:
    line = lines.next()
    if not line:
        raise _Silent(f"{path}: no answer came; is it a control socket of a gateway of yours?")
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
        proof = drain_and_wait(options.control)
    except NoAnswer as problem:
        print(problem, file=sys.stderr)
        return 1
    print(json.dumps(proof, indent=1))
    return 0


def _tell(options: argparse.Namespace, question: Mapping[str, Any]) -> int:
    try:
        answer = ask(options.control, question)
    except NoAnswer as problem:
        print(problem, file=sys.stderr)
        return 1
    print(json.dumps(answer, indent=1))
    return 0
