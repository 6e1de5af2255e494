"""Three workers want to write the nightly report, one leads; the next takes over, and an old leader can spoil nothing.

pip install "budao[store]"
python examples/leader.py
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from budao.adapters.stores import open_store
from budao.aio import Leadership, Store, campaign
from budao.store import Deposed, Put, Txn

OWNER = "report/owner"


def written_by(name: str) -> Txn:
    return Txn(then=(Put(OWNER, name.encode()),))


async def work(store: Store, name: str, led: list[Leadership]) -> None:
    async with campaign(store, "nightly-report", name.encode()) as leadership:
        led.append(leadership)
        done = await leadership.commit(written_by(name))  # done only while it leads: the store itself checks
        print(f"{name} leads with fencing number {leadership.fencing}, and wrote at revision {done.revision}")


async def main() -> None:
    async with aclosing(open_store("memory:")) as store:
        led: list[Leadership] = []
        async with asyncio.TaskGroup() as tasks:
            for name in ("ann", "bob", "cyd"):
                tasks.create_task(work(store, name, led))
        try:
            await led[0].commit(written_by("ann, who does not know that she is out"))
        except Deposed as error:
            print("ann later:", error)


if __name__ == "__main__":
    asyncio.run(main())
