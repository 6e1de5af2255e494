"""What the demo of push says on a terminal, or as lines of JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from budao.apps.charges import Charge
    from budao.apps.demo_push import Stage

Tell = Callable[[str], None]

BOLD: Final = "1"
DIM: Final = "2"
WIDTH: Final = 27
"""Of the column of addresses."""


class Teller:
    """Says what happens, on standard output."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.has_colour = not as_json and sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def opening(self, stage: Stage) -> None:
        """Everything is up."""
        if self.as_json:
            self._line({"is": "up", **stage.plain()})
            return
        assert stage.log is not None, "it is up"
        one, two = stage.gateways
        log = f"budao://127.0.0.1:{stage.log.about['port']}"
        print("Two gateways over one durable log. Kill one: the tabs carry on at the other, and nothing is lost.\n")
        self._row("page", stage.page, "open it in two tabs", style=BOLD)
        for each in stage.gateways:
            self._row(each.name, stage.urls[each.name], f"process {each.pid}")
        self._row("log", log, f"process {stage.log.pid}, in {stage.data / 'log'}")
        self._row("token", stage.token, style=DIM)
        print("\nPublish, from another terminal:\n")
        print(f"  {self._in(BOLD, publish_line(stage))}")
        print(
            f"\nKill {one.name}, or freeze {two.name} for a while. What ended comes back after {stage.again_s:g} s:\n"
        )
        print(f"  {self._in(BOLD, f'kill -9 {one.pid}')}")
        print(f"  {self._in(BOLD, f'kill -STOP {two.pid}; sleep 5; kill -CONT {two.pid}')}")
        print("\nCtrl-C ends everything.\n", flush=True)

    def _row(self, name: str, where: str, about: str = "", *, style: str = "") -> None:
        padding = " " * (WIDTH - len(where))
        print(f"  {name:<7}{self._in(style, where)}{padding}{self._in(DIM, about)}".rstrip())

    def tell(self, at: float, text: str, gateways: Sequence[Charge]) -> None:
        """Something happened."""
        if self.as_json:
            pids = {each.name: each.pid for each in gateways}
            self._line({"is": "event", "at": at, "text": text, "pids": pids})
            return
        clock = time.strftime("%H:%M:%S", time.localtime(at))
        print(f"{self._in(DIM, clock)}  {text}", flush=True)

    def ending(self, stage: Stage) -> None:
        """It is over."""
        if self.as_json:
            self._line({"is": "over", "published": stage.ticks})
        else:
            print(f"\n{stage.ticks} messages were published, and each is durable. Everything has ended.", flush=True)

    def _in(self, style: str, text: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self.has_colour and style and text else text

    @staticmethod
    def _line(value: dict[str, Any]) -> None:
        print(json.dumps(value, ensure_ascii=False), flush=True)


def publish_line(stage: Stage) -> str:
    """What to paste into a terminal to publish."""
    token_file = quote(str(stage.data / "token"))
    url = next(iter(stage.urls.values()))
    return (
        f'curl {url}/v1/publish -H "authorization: Bearer $(cat {token_file})" '
        """-d '{"channel": "room", "data": "hello from a terminal"}'"""
    )
