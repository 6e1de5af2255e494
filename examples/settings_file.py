"""Numbers in a file, changed while the program runs; a mistake in the file changes nothing.

python examples/settings_file.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from budao import Guard, Latency, follow


def until(happened: Callable[[], object]) -> None:
    while not happened():
        time.sleep(0.01)


def main() -> None:
    guard = Guard("inventory", objective=Latency(0.99, under_s=0.2))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "budao.toml")
        path.write_text("[guard.inventory.breaker]\nrest_s = 30\nrest_max_s = 300\n")
        with follow(path, [guard], every_s=0.05) as following:
            print("from the file  ", guard.policy.breaker and guard.policy.breaker.rest_s)
            path.write_text("[guard.inventory.breaker]\nrest_s = 5\n")
            until(lambda: guard.policy.breaker and guard.policy.breaker.rest_s == 5)
            print("after an edit  ", guard.policy.breaker and guard.policy.breaker.rest_s)
            path.write_text("[guard.inventory.breaker]\nrest_s = -5\nhegde = 1\n")
            until(lambda: following.problems)
            for where, problem in following.problems:
                print("a bad edit     ", where.rpartition("/")[2], problem)
            print("still in force ", guard.policy.breaker and guard.policy.breaker.rest_s)


if __name__ == "__main__":
    main()
