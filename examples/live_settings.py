"""Settings of a program that runs: changed in a store, refused when wrong, and taken back.

pip install "budao[store]"
python examples/live_settings.py
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from budao.adapters.stores import open_store
from budao.aio import StoredSettings
from budao.protect import LiveSettings
from budao.settings import typed


@dataclass(frozen=True, kw_only=True)
class Shop:
    greeting: str = "hello"
    items_max: int = 10
    discount_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.discount_share <= 0.5:
            raise ValueError("discount_share must be from 0 to 0.5")


async def until(holds: Callable[[], bool]) -> None:
    """For this tour only: a service reads `live.value` where it needs it, or watches `live.latest`."""
    while not holds():  # noqa: ASYNC110 - a version that changes no value wakes nobody
        await asyncio.sleep(0.01)


async def main() -> None:
    environ = {"SHOP__ITEMS_MAX": "30"}
    # In a program: open_store("budao://127.0.0.1:7420"), and os.environ, which is the default.
    async with (
        aclosing(open_store("memory:")) as store,
        LiveSettings(partial(typed, Shop), environ=environ, prefix="SHOP", store=store, name="shop") as live,
    ):
        print("at the start ", live.value)

        stored = StoredSettings(store, "shop")
        await stored.set('greeting = "good evening"\ndiscount_share = 0.1\n', by="ann", note="happy hour")
        await until(lambda: live.version == 1)
        print("happy hour   ", live.value)

        await stored.set("discount_share = 5\n", by="bob", note="five percent")
        await until(lambda: bool(live.problems))
        print("a wrong one  ", live.value)
        for _, problem in live.problems:
            print("              because", problem)

        await stored.roll_back(1, by="ann")
        await until(lambda: live.version == 3)
        print("taken back   ", live.value)
        for version in await stored.history():
            print(f"              {version.number} by {version.by}", version.note or f"back to {version.back_to}")


if __name__ == "__main__":
    asyncio.run(main())
