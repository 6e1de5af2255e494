"""A store server under clients that ask for much, vanish, or come from another time."""

from __future__ import annotations

import asyncio
import shutil
import socket
from contextlib import AsyncExitStack, aclosing
from errno import EMFILE
from pathlib import Path
from random import Random

import pytest

from budao.aio import Lost, RemoteStore, ServerPolicy, StoreServer, follow
from budao.store import Compacted, Put, Span, StoreAway, Txn
from budao.wire.store_frames import Piece

PATIENCE_S = 60.0
EVERYTHING = Span.prefix("")
PUT = Txn(then=(Put("k", b"v"),))


def test_many_large_reads_at_once_are_answered_on_one_connection_in_bounded_room(tmp_path: Path) -> None:
    async def story() -> None:
        async with StoreServer(tmp_path) as server, RemoteStore("127.0.0.1", server.port, timeout_s=30.0) as store:
            await store.commit(Txn(then=(Put("k", bytes(1_000_000)),)))
            pages = await asyncio.gather(*(store.read(Span.one("k")) for _ in range(150)))
            assert {len(page.entries[0].value) for page in pages} == {1_000_000}
            assert store.reconnects == 1  # more than the outbox takes, and nobody was cut off for it

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_watch_from_a_revision_that_was_taken_back_is_told_to_read_again(tmp_path: Path) -> None:
    async def story() -> None:
        folder, backup = tmp_path / "store", tmp_path / "backup"
        async with StoreServer(folder) as server, RemoteStore("127.0.0.1", server.port) as store:
            await store.commit(PUT)
        shutil.copytree(folder, backup)
        async with StoreServer(folder) as server:
            port = server.port
            store = RemoteStore("127.0.0.1", port, timeout_s=30.0)
            for _ in range(9):
                await store.commit(PUT)
            seen = (await store.read(EVERYTHING)).revision
        async with StoreServer(backup, port=port) as server:
            assert (await store.read(EVERYTHING)).revision < seen  # it has met the store that was put back
            async with aclosing(store.watch(EVERYTHING, after=seen)) as batches:
                with pytest.raises(Compacted):
                    await anext(batches)
            await store.aclose()

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_server_whose_end_nobody_waits_for_ends_all_the_same(tmp_path: Path) -> None:
    async def story() -> None:
        server = StoreServer(tmp_path)
        await server.__aenter__()
        async with RemoteStore("127.0.0.1", server.port) as store:
            await store.commit(PUT)
            for _ in range(3):
                closing = asyncio.create_task(server.aclose())
                await asyncio.sleep(0)
                closing.cancel()
                await asyncio.wait([closing])
            await server.aclose()
        async with StoreServer(tmp_path, port=server.port) as again, RemoteStore("127.0.0.1", again.port) as store:
            assert len((await store.read(EVERYTHING)).entries) == 1

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_client_that_is_accepted_while_the_server_stops_does_not_hold_it_up(tmp_path: Path) -> None:
    async def story() -> None:
        async with StoreServer(tmp_path, server_policy=ServerPolicy(stop_s=2 * PATIENCE_S)) as server:
            with socket.create_connection(("127.0.0.1", server.port)):
                while not server.sessions:  # noqa: ASYNC110 -- it must be this very turn of the loop
                    await asyncio.sleep(0)
                await server.aclose()
            assert not server.sessions

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


class Loaded(Random):
    """Dice that fall off the table, once."""

    fell = False

    def uniform(self, a: float, b: float) -> float:
        if not self.fell:
            self.fell = True
            raise ArithmeticError("a mistake")
        return super().uniform(a, b)

    def random(self) -> float:
        return self.uniform(0.0, 1.0) if not self.fell else super().random()


def test_a_mistake_in_the_connection_leaves_nobody_waiting_and_the_next_request_begins_anew(tmp_path: Path) -> None:
    async def story() -> None:
        server = StoreServer(tmp_path)
        async with server:
            port = server.port
        async with RemoteStore("127.0.0.1", port, timeout_s=2 * PATIENCE_S, rng=Loaded()) as store:
            watching = asyncio.ensure_future(anext(store.watch(EVERYTHING, after=1)))  # type: ignore[arg-type]
            for each in (store.commit(PUT), watching):
                with pytest.raises(StoreAway, match="a mistake"):
                    await each
            async with StoreServer(tmp_path, port=port):
                assert (await store.commit(PUT)).held

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_page_is_never_put_together_from_two_stores(tmp_path: Path) -> None:
    async def fill(folder: str, value: bytes, port: int = 0) -> int:
        async with StoreServer(tmp_path / folder, port=port) as server:
            async with RemoteStore("127.0.0.1", server.port) as store:
                for number in range(4):
                    await store.commit(Txn(then=(Put(f"k{number}", value * 400_000),)))
            return server.port

    async def story() -> None:
        port = await fill("old", b"o")
        await fill("new", b"n")
        await fill("new", b"n")
        async with AsyncExitStack() as servers:
            await servers.enter_async_context(StoreServer(tmp_path / "old", port=port))

            class Swapped(RemoteStore):
                pieces = 0

                async def _search(self, span: Span, revision: int, limit: int) -> Piece:
                    self.pieces += 1
                    if self.pieces == 2:
                        await servers.aclose()
                        await servers.enter_async_context(StoreServer(tmp_path / "new", port=port))
                    return await super()._search(span, revision, limit)

            async with Swapped("127.0.0.1", port, timeout_s=30.0) as store:
                page = await store.read(EVERYTHING)
                assert {entry.value[:1] for entry in page.entries} == {b"n"}
                assert len(page.entries) == 4

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_server_without_descriptors_says_so_once_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        tries = 0
        enough = asyncio.Event()

        async def accept(listener: socket.socket) -> None:
            nonlocal tries
            tries += 1
            if tries == 3:
                enough.set()
            raise OSError(EMFILE, "Too many open files")

        monkeypatch.setattr(asyncio.get_running_loop(), "sock_accept", accept)
        async with StoreServer(tmp_path):
            await enough.wait()

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))
    said = [record.getMessage() for record in caplog.records if "cannot accept" in record.getMessage()]
    assert len(said) == 1
    assert "ulimit -n" in said[0]


def test_an_answer_to_another_question_is_a_store_that_does_not_answer() -> None:
    class Odd(RemoteStore):
        async def _ask(self, request: object, tried: str, *, is_safe: bool) -> None:
            """Answers everything with nothing, as a server that is out of its mind may."""

    async def story() -> None:
        async with Odd("127.0.0.1", 1) as store:
            for asked, may_have in (
                (store.read(EVERYTHING), False),
                (store.commit(PUT), True),
                (store.grant(9.0), True),
            ):
                with pytest.raises(StoreAway, match="answered with NoneType") as away:
                    await asked
                assert away.value.may_have_taken_effect == may_have
            told = follow(store, EVERYTHING)
            assert isinstance(await anext(told), Lost)
            await told.aclose()

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))
