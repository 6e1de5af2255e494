"""The store in this process keeps the laws that every store must keep."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from budao.aio import MemoryStore, Store
from tests.live.store_suite import LAWS, Law, keep, name_of


class OneOfMany(MemoryStore):
    """Closing it closes one client's view, of which a store in memory has none."""

    async def aclose(self) -> None:
        pass


def one_store() -> Callable[[], Store]:
    made: list[Store] = []

    def client() -> Store:
        if not made:
            made.append(OneOfMany())
        return made[0]

    return client


@pytest.mark.parametrize("law", LAWS, ids=name_of)
def test_a_store_in_memory_keeps(law: Law) -> None:
    keep(law, one_store())
