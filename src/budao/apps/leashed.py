"""Runs a `budao` command that never outlives whoever started it: it ends as soon as its standard input does.

That input is a pipe of its parent's, so it ends even if the parent is killed. The command itself runs in this very process, so
`kill -9` of its process number kills what it is.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final

LEFT_WITHIN_S: Final = 2.0
"""How long it may take to leave in order."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; the value is its exit status."""
    threading.Thread(target=_leave_with_standard_input, name="leash", daemon=True).start()
    from budao.apps.command import main as budao

    return budao(argv)


def _leave_with_standard_input() -> None:
    while os.read(0, 4_096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LEFT_WITHIN_S)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
