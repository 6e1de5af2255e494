"""Two copies of a service register themselves, a client finds them, and one leaves.

pip install "budao[store]"
python examples/register_and_find.py
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing

from budao.adapters.registration import Here, Place, registration
from budao.adapters.stores import open_store
from budao.aio import Directory, Registrar, StoreSource
from budao.discovery import Address, DrainPolicy, Instance, Roster
from budao.model import Stage

QUICK = DrainPolicy.of(30.0, lag_s=0.0)  # every caller watches the store, so nobody else has to be waited for


def told(roster: Roster) -> str:
    return ", ".join(f"{each.id} {each.stage.value}" for each in roster.instances) or "nobody"


async def until(directory: Directory, count: int, stage: Stage = Stage.READY) -> Roster:
    """The first roster with so many instances in that stage."""
    while sum(each.stage is stage for each in directory.roster.instances) != count:
        await directory.latest.changed(directory.roster)
    return directory.roster


async def main() -> None:
    # One process, so the store is in memory. With "budao://127.0.0.1:7420" each part may be on its own.
    async with (
        aclosing(open_store("memory:")) as store,
        aclosing(StoreSource(store)) as source,
        Directory(source, "orders", watcher="billing") as directory,
        AsyncExitStack() as second,
    ):
        print("before      ", told(await directory.ready()))

        # A program of its own kind says what it is; `registration` adds signals and the drain.
        place = Place(service="orders", id="one", protocol="tcp", host="127.0.0.1", port=9001)
        async with registration(store=store, place=place, drain=QUICK, signals=False) as one:
            # A `Registrar` is the bare thing: it registers, stays registered, and takes itself off.
            two = Instance(service="orders", id="two", addresses={"tcp": Address("127.0.0.1", 9002)})
            await second.enter_async_context(Registrar(store, two))
            print("both        ", told(await until(directory, 2)))
            for endpoint in directory.roster.endpoints():
                print(f"    {endpoint.id} at {endpoint.authority}")

            await leave_with_work(one, directory)
        print("afterwards  ", told(await until(directory, 1)))


async def leave_with_work(one: Here, directory: Directory) -> None:
    """Told to leave in the middle of something, it ends that first."""
    with one.call():
        one.leave()
        print("it leaves   ", told(await until(directory, 1, Stage.DRAINING)))
    proof = await one.left()
    print("its proof   ", ", ".join(f"{who} knew after {after_s:.3f} s" for who, after_s in proof.acknowledged))
    assert proof.is_clean


if __name__ == "__main__":
    asyncio.run(main())
