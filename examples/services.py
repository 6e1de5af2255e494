"""A store, two copies of a service, and a shop that calls them, each a process: one copy stops, the other is killed.

pip install "budao[cli,http]" uvicorn
python examples/services.py

The parts are in examples/services/; the tutorial starts them one by one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

PARTS = Path(__file__).parent / "services"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Parts:
    """Child processes, none of which outlives the block."""

    def __init__(self, block: ExitStack) -> None:
        self.block = block

    def start(self, *command: str, **environ: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-u", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | environ,
        )
        self.block.callback(self.end, child)
        return child

    def end(self, child: subprocess.Popen[str]) -> None:
        child.kill()
        child.wait()
        said(child).close()


def said(child: subprocess.Popen[str]) -> TextIO:
    assert child.stdout is not None
    return child.stdout  # type: ignore[return-value]


def line_with(child: subprocess.Popen[str], words: str) -> str:
    """The first line it prints from now on that has these words."""
    for line in said(child):
        if words in line:
            return line.rstrip()
    raise SystemExit(f"{child.args!r} ended, and never said {words!r}")


def play(start: Callable[..., subprocess.Popen[str]]) -> None:
    one, two, three = (str(free_port()) for _ in range(3))
    first, second = start("stock.py", one), start("stock.py", two)
    for each in (first, second):
        print("stock ", line_with(each, "is ready"))
    shop = start("shop.py")
    show(shop, one, two)

    first.send_signal(signal.SIGINT)  # as Ctrl-C does
    print("stock ", line_with(first, "drained"))
    show(shop, two)

    third = start("stock.py", three)
    print("stock ", line_with(third, "is ready"))
    show(shop, two, three)

    second.kill()
    print("stock  killed")
    show(shop, three)


def show(shop: subprocess.Popen[str], *ports: str) -> None:
    """Prints what the shop says, until answers came from these ports and no other."""
    answered: list[str] = []
    while answered != sorted(ports):
        line = line_with(shop, " x ")
        answers = line.split(" ", 1)[1].split("; ")
        answered = sorted(answer.rpartition(" says ")[2] for answer in answers)
        print("shop  ", line)
        assert all(" says " in answer for answer in answers), "a call was lost"


def main() -> None:
    with ExitStack() as block:
        folder = block.enter_context(tempfile.TemporaryDirectory())
        parts = Parts(block)
        store = parts.start("-m", "budao", "store", "serve", folder, "--port", "0", "--json")
        url = f"budao://127.0.0.1:{json.loads(said(store).readline())['port']}"
        play(lambda part, *more: parts.start(str(PARTS / part), *more, BUDAO_STORE=url))


if __name__ == "__main__":
    main()
