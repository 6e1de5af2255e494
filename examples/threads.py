"""A guard on many threads: exact counts, background work that does not crash unheard.

python examples/threads.py
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from budao import Guard
from budao.guard import Crashed

guard = Guard("archive")


@guard
def read(page: int) -> int:
    if page % 1000 == 999:
        raise OSError(f"page {page} is torn")
    return page


def safely(page: int) -> int | None:
    try:
        return read(page)
    except OSError:
        return None


def rebuild_index() -> None:
    raise RuntimeError("the index is torn as well")


def main() -> None:
    with ThreadPoolExecutor(16) as pool:
        read_well = sum(page is not None for page in pool.map(safely, range(20_000)))
        key = guard.snapshot().keys[0]
        print(f"{read_well} pages read; the guard counted {key.ok + key.slow} and {key.failed} failed")
        guard.submit(pool, rebuild_index)
    guard.thread(rebuild_index).join()
    for event in guard.snapshot().events:
        if isinstance(event, Crashed):
            print("crashed:", event.where.split(", ")[-1], "-", event.error)


if __name__ == "__main__":
    main()
