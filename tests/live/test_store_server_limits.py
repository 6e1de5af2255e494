"""A store server under clients that ask for much, vanish, or come from another time."""

from __future__ import annotations

import asyncio
from pathlib import Path

from budao.aio import RemoteStore, StoreServer
from budao.store import Put, Span, Txn

PATIENCE_S = 60.0


def test_many_large_reads_at_once_are_answered_on_one_connection_in_bounded_room(tmp_path: Path) -> None:
    async def story() -> None:
        async with StoreServer(tmp_path) as server, RemoteStore("127.0.0.1", server.port, timeout_s=30.0) as store:
            await store.commit(Txn(then=(Put("k", bytes(1_000_000)),)))
            pages = await asyncio.gather(*(store.read(Span.one("k")) for _ in range(150)))
            assert {len(page.entries[0].value) for page in pages} == {1_000_000}
            assert store.reconnects == 1  # more than the outbox takes, and nobody was cut off for it

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))
