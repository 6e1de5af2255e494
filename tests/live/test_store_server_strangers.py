"""Who is let in, who is not, and what strangers, slow readers and crowds can do to a store server."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import time
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from budao.aio import RemoteStore, ServerPolicy, StoreServer, client_tls, read_token, server_tls
from budao.model import BadSettings, context
from budao.store import Batch, Compacted, Put, Span, StoreAway, StoreDenied, StoreRefused, Txn
from budao.wire import store_frames as wire
from tests.live.certificates import DAY, Authority

PATIENCE_S = 60.0
TOKEN = "a token that nobody guesses"
EVERYTHING = Span.prefix("")
PUT = Txn(then=(Put("k", b"v"),))


async def said_to(port: int, raw: bytes) -> list[wire.Message]:
    """What the server answers to raw bytes, until it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    answer = await reader.read()
    writer.close()
    return wire.Decoder().feed(answer)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "the other side speaks HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "the other side begins with TLS"),
        (b"\x00\x00\x00\x03abc", "are not one msgpack value"),
        (b"\xff" * 64, "the bound is 4096"),
        (wire.format_message(wire.Beat(1)), "a client says hello first"),
    ],
)
def test_garbage_is_answered_with_what_was_wrong(tmp_path: Path, raw: bytes, said: str) -> None:
    async def story() -> None:
        async with StoreServer(tmp_path) as server:
            (answer,) = await said_to(server.port, raw)
            assert isinstance(answer, wire.Denied)
            assert said in answer.problem

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_version_that_is_not_spoken_is_answered_with_those_that_are(tmp_path: Path) -> None:
    async def story() -> None:
        async with StoreServer(tmp_path) as server:
            for low, high in ((0, 0), (7, 9)):
                answers = await said_to(server.port, wire.format_message(wire.Hello("", low, high)))
                assert answers == [wire.Versions(wire.VERSION_LOW, wire.VERSION_HIGH)]

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_client_says_which_versions_its_server_speaks(tmp_path: Path) -> None:
    async def newer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(wire.format_message(wire.Versions(7, 9)))
        writer.close()

    async def story() -> None:
        server = await asyncio.start_server(newer, "127.0.0.1", 0)
        async with server, RemoteStore("127.0.0.1", server.sockets[0].getsockname()[1]) as store:
            with pytest.raises(StoreDenied, match="it speaks versions 7 to 9 of the protocol, this client 1 to 1"):
                await store.read(EVERYTHING)

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_whoever_says_no_hello_is_let_go(tmp_path: Path) -> None:
    async def story() -> None:
        policy = ServerPolicy(hello_s=0.2)
        async with StoreServer(tmp_path, server_policy=policy) as server:
            assert await said_to(server.port, b"\x00\x00") == []
            assert not server.sessions

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_one_client_too_many_is_told_to_come_later(tmp_path: Path) -> None:
    async def story() -> None:
        async with StoreServer(tmp_path, server_policy=ServerPolicy(connections_max=1)) as server:
            async with RemoteStore("127.0.0.1", server.port) as first:
                await first.commit(PUT)
                async with RemoteStore("127.0.0.1", server.port, timeout_s=0.5) as second:
                    with pytest.raises(StoreAway, match="1 clients are connected"):
                        await second.read(EVERYTHING)
            async with RemoteStore("127.0.0.1", server.port, timeout_s=PATIENCE_S) as third:
                assert (await third.read(EVERYTHING)).entries

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_wrong_token_is_denied_and_a_right_one_is_not(tmp_path: Path) -> None:
    async def story() -> None:
        async with StoreServer(tmp_path, token=TOKEN) as server:
            for wrong, said in ((None, "it wants a token"), (TOKEN + "!", "the token is wrong")):
                async with RemoteStore("127.0.0.1", server.port, token=wrong) as store:
                    with pytest.raises(StoreDenied, match=said) as denied:
                        await store.commit(PUT)
                    assert TOKEN not in str(denied.value)
            async with RemoteStore("127.0.0.1", server.port, token=TOKEN) as store:
                await store.commit(PUT)

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_over_tls_both_sides_prove_who_they_are(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    tls = server_tls(*authority.issue("server"), authority=authority.path)
    certificate, key = authority.issue("client")
    good = client_tls(authority.path, certificate=certificate, key=key)
    stranger, stranger_key = other.issue("stranger")

    async def refused(port: int, context_: ssl.SSLContext | None, said: str) -> None:
        async with RemoteStore("127.0.0.1", port, tls=context_, timeout_s=1.0) as store:
            with pytest.raises(StoreAway, match=said) as away:
                await store.commit(PUT)
            assert not away.value.may_have_taken_effect

    async def story() -> None:
        async with StoreServer(tmp_path / "store", tls=tls, token=TOKEN) as server:
            async with RemoteStore("127.0.0.1", server.port, tls=good, token=TOKEN) as store:
                await store.commit(Txn(then=(Put("k", bytes(900_000)),)))
                assert len((await store.read(EVERYTHING)).entries[0].value) == 900_000
            await refused(server.port, None, "with or without TLS")
            await refused(server.port, client_tls(other.path, certificate=certificate, key=key), "is not accepted")
            await refused(server.port, client_tls(authority.path), "127.0.0.1")
            await refused(server.port, client_tls(authority.path, certificate=stranger, key=stranger_key), "127.0.0.1")
        async with StoreServer(tmp_path / "plain") as server:
            await refused(server.port, good, "does not speak TLS there")

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_files_of_tls_and_tokens_are_checked_before_anything_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("good")
    _, other_key = authority.issue("other")
    old, old_key = authority.issue("old", since=datetime.now(UTC) - 3 * DAY)
    early, early_key = authority.issue("early", since=datetime.now(UTC) + 3 * DAY)
    nothing, text = tmp_path / "nothing.pem", tmp_path / "text.pem"
    text.write_text("hello")
    for pair, said in (
        ((nothing, key), "nothing.pem cannot be read: No such file"),
        ((certificate, nothing), "nothing.pem cannot be read: No such file"),
        ((certificate, other_key), "is not the key of the certificate"),
        ((old, old_key), "old.pem expired on"),
        ((early, early_key), "early.pem is not valid before"),
        ((text, key), "holds no certificate"),
        ((certificate, text), "cannot be used"),
    ):
        with pytest.raises(BadSettings, match=said):
            server_tls(*pair)
    with pytest.raises(BadSettings, match="go together"):
        client_tls(authority.path, certificate=certificate)
    with pytest.raises(BadSettings, match="holds no certificate"):
        client_tls(text)

    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    token.chmod(0o644)
    with pytest.raises(BadSettings, match="can be read by others"):
        read_token(file=token)
    token.chmod(0o600)
    assert read_token(file=token) == TOKEN
    monkeypatch.setenv("BUDAO_TEST_TOKEN", "short")
    with pytest.raises(BadSettings, match="has 5 characters") as short:
        read_token(environment="BUDAO_TEST_TOKEN")
    assert "short" not in str(short.value)
    with pytest.raises(BadSettings, match="is not set"):
        read_token(environment="BUDAO_TEST_NO_TOKEN")
    assert read_token() is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "store.example"])
def test_beyond_loopback_nothing_goes_without_tls_and_a_token(tmp_path: Path, host: str) -> None:
    with pytest.raises(BadSettings, match="missing: TLS and a token"):
        StoreServer(tmp_path, host=host)
    with pytest.raises(BadSettings, match="missing: TLS"):
        StoreServer(tmp_path, host=host, token=TOKEN)
    with pytest.raises(BadSettings, match="missing: a token"):
        StoreServer(tmp_path, host=host, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    with pytest.raises(BadSettings, match="in the clear"):
        RemoteStore(host, 4711, token=TOKEN)


def test_a_request_that_never_left_has_not_taken_effect_and_the_deadline_cuts_it_short() -> None:
    async def story() -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        async with RemoteStore("127.0.0.1", port, timeout_s=30.0) as store:
            context.deadline.set(time.monotonic() + 0.2)
            with pytest.raises(StoreAway, match=r"no answer within 0\.\d+ s: 127") as away:
                await store.commit(PUT)
            assert not away.value.may_have_taken_effect
            context.deadline.set(time.monotonic() - 1.0)
            with pytest.raises(StoreAway, match="the deadline had passed"):
                await store.commit(PUT)

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_of_several_addresses_one_that_answers_is_enough(tmp_path: Path) -> None:
    async def story() -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        async with StoreServer(tmp_path) as server:
            store = RemoteStore("127.0.0.1", port, more=[("127.0.0.1", server.port)])
            await store.commit(PUT)
            await store.aclose()

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


NO_NAME = "a..b"
"""No name server can be asked for it; the standard library says so with UnicodeError, which is no OSError."""


def test_an_address_that_can_be_no_name_is_one_that_does_not_answer(tmp_path: Path) -> None:
    async def story() -> None:
        with pytest.raises(StoreRefused, match="no name of a host"):
            await StoreServer(tmp_path, host=NO_NAME, tls=ssl.create_default_context(), token=TOKEN).__aenter__()
        async with StoreServer(tmp_path) as server:
            store = RemoteStore(NO_NAME, 1, more=[("127.0.0.1", server.port)])
            await store.commit(PUT)
            await store.aclose()

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_watch_whose_store_was_replaced_is_told_to_read_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with StoreServer(tmp_path / "old") as server:
            port = server.port
            store = RemoteStore("127.0.0.1", port, timeout_s=PATIENCE_S)
            await store.commit(PUT)
            batches = store.watch(EVERYTHING, after=1)
            await anext(batches)
        async with StoreServer(tmp_path / "new", port=port):
            with pytest.raises(Compacted):
                await anext(batches)
            await store.aclose()

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_slow_watcher_delays_nobody_and_misses_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with StoreServer(tmp_path) as server, RemoteStore("127.0.0.1", server.port, timeout_s=30.0) as store:
            slow = RemoteStore("127.0.0.1", server.port, timeout_s=30.0)
            async with aclosing(slow.watch(EVERYTHING, after=1)) as batches:
                await store.commit(PUT)
                seen: list[Batch] = [await anext(batches)]
                for _ in range(100):  # far more than a client keeps for a watch that nobody reads
                    await store.commit(Txn(then=(Put("k", bytes(300_000)),)))
                    assert all(each.bytes < 10_000_000 for each in slow._feeds.values())
                while seen[-1].revision < 102:
                    seen.append(await anext(batches))
            assert [batch.revision for batch in seen] == list(range(2, 103))
            await slow.aclose()

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_watcher_that_reads_nothing_costs_no_more_than_its_room(tmp_path: Path) -> None:
    async def story() -> None:
        async with StoreServer(tmp_path) as server, RemoteStore("127.0.0.1", server.port, timeout_s=30.0) as store:
            with socket.create_connection(("127.0.0.1", server.port)) as deaf:
                deaf.sendall(wire.format_message(wire.Hello()) + wire.format_message(wire.Watch(1, EVERYTHING, 1)))
                for _ in range(60):
                    await store.commit(Txn(then=(Put("k", bytes(500_000)),)))
                    for session in server.sessions:
                        assert session.link._transport is not None
                        assert session.link._transport.get_write_buffer_size() < 3_000_000

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_a_page_longer_than_a_frame_should_be_comes_in_pieces_of_one_revision(tmp_path: Path) -> None:
    async def story() -> None:
        async with StoreServer(tmp_path) as server, RemoteStore("127.0.0.1", server.port, timeout_s=30.0) as store:
            for number in range(30):
                await store.commit(Txn(then=(Put(f"k{number:02}", bytes(100_000)),)))

            async def write() -> None:
                for number in range(120):
                    await other.commit(Txn(then=(Put(f"k{number * 7 % 30:02}", bytes(100_000)),)))

            other = RemoteStore("127.0.0.1", server.port, timeout_s=30.0)
            writing = asyncio.create_task(write())
            while not writing.done():
                page = await store.read(EVERYTHING)
                assert [entry.key for entry in page.entries] == [f"k{number:02}" for number in range(30)]
                assert all(entry.modified <= page.revision for entry in page.entries)
            await writing
            await other.aclose()
            limited = await store.read(EVERYTHING, limit=25)
            assert (len(limited.entries), limited.more) == (25, True)

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_what_is_too_large_is_refused_and_the_connection_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with StoreServer(tmp_path) as server, RemoteStore("127.0.0.1", server.port) as store:
            await store.commit(PUT)
            for size in (2_000_000, 20_000_000):
                with pytest.raises(StoreRefused, match="bound"):
                    await store.commit(Txn(then=(Put("k", bytes(size)),)))
            await store.commit(PUT)
            assert store.reconnects == 1

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_ten_thousand_connections_leave_nothing_behind(tmp_path: Path) -> None:
    hello = wire.format_message(wire.Hello())

    async def connect(port: int, turns: int) -> None:
        for _ in range(turns):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(hello)
            await reader.readexactly(4)
            writer.close()

    def held() -> tuple[int, int]:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir())), len(gc.get_objects())

    async def story() -> None:
        async with StoreServer(tmp_path) as server:
            await asyncio.gather(*(connect(server.port, 50) for _ in range(20)))
            while server.sessions:
                await asyncio.gather(*(session.gone.wait() for session in tuple(server.sessions)))
            files, objects = held()
            await asyncio.gather(*(connect(server.port, 450) for _ in range(20)))
            while server.sessions:
                await asyncio.gather(*(session.gone.wait() for session in tuple(server.sessions)))
            files_after, objects_after = held()
            assert files_after <= files + 2
            assert objects_after < objects + 5_000

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))
