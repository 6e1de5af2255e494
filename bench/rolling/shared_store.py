"""A store in this process that other processes reach: the simplest thing that does, for this bench and its tests."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

from budao.aio import MemoryStore
from budao.store import Batch, Committed, Lease, LeaseView, Page, Span, StoreAway, StoreError, Txn


async def _send(writer: asyncio.StreamWriter, value: Any) -> None:
    raw = pickle.dumps(value)
    writer.write(len(raw).to_bytes(4, "big") + raw)
    await writer.drain()


async def _receive(reader: asyncio.StreamReader) -> Any:
    return pickle.loads(await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big")))


@asynccontextmanager
async def shared(store: MemoryStore) -> AsyncIterator[int]:
    """Answers for `store` on a port of loopback."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError, asyncio.CancelledError):  # the bench ends
            while True:
                name, args, options = await _receive(reader)
                try:
                    if name == "watch":
                        async with aclosing(store.watch(*args, **options)) as batches:
                            async for batch in batches:
                                await _send(writer, batch)
                    answer = await getattr(store, name)(*args, **options)
                except StoreError as error:
                    answer = error
                await _send(writer, answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class SharedStore:
    """The other end: a connection for each request, which is slow and simple."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def name(self) -> str:
        return f"shared://127.0.0.1:{self.port}"

    async def _ask(self, name: str, *args: Any, **options: Any) -> Any:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                await _send(writer, (name, args, options))
                answer = await _receive(reader)
            finally:
                writer.close()
        except (OSError, EOFError) as error:
            raise StoreAway(self.name, str(error), may_have_taken_effect=True) from error
        if isinstance(answer, StoreError):
            raise answer
        return answer

    async def read(self, span: Span, *, revision: int = 0, limit: int = 0) -> Page:
        return await self._ask("read", span, revision=revision, limit=limit)

    async def commit(self, txn: Txn) -> Committed:
        return await self._ask("commit", txn)

    async def watch(self, span: Span, *, after: int) -> AsyncIterator[Batch]:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                await _send(writer, ("watch", (span,), {"after": after}))
                while True:
                    batch = await _receive(reader)
                    if isinstance(batch, StoreError):
                        raise batch
                    yield batch
            finally:
                writer.close()
        except (OSError, EOFError) as error:
            raise StoreAway(self.name, str(error)) from error

    async def grant(self, ttl_s: float, *, lease: int = 0) -> Lease:
        return await self._ask("grant", ttl_s, lease=lease)

    async def keep_alive(self, lease: int) -> Lease:
        return await self._ask("keep_alive", lease)

    async def revoke(self, lease: int) -> None:
        await self._ask("revoke", lease)

    async def look_up(self, lease: int) -> LeaseView:
        return await self._ask("look_up", lease)

    async def compact(self, revision: int) -> None:
        await self._ask("compact", revision)

    async def aclose(self) -> None: ...
