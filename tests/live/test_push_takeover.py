"""A successor process takes over from a gateway under traffic, on both loops, and clients do not notice."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from budao.aio.gateway.fd_link import FdLink
from budao.aio.gateway.handover import TakeOverFailed, take_over
from budao.aio.logs import LogServer
from budao.push import Draft, Kind, Position, Pub
from budao.wire import handover as wire
from budao.wire import push_frames, websocket
from tests.live.push_moving import CHANNELS, GatewayProcess, Reader, SseReader, Traffic
from tests.live.push_raw import play, until
from tests.live.redis_server import PATIENCE_S, free_port

READERS = 96
"""Four messages full of sockets."""


async def _readers(port: int, count: int) -> list[Reader]:
    begin = Position("", 0)
    found: list[Reader] = []
    for index in range(count):
        codec = push_frames.MSGPACK if index % 3 == 0 else push_frames.JSON
        if index % 4 == 3:
            names = CHANNELS[:1] if index % 8 == 3 else CHANNELS
            found.append(await SseReader(dict.fromkeys(names)).open(port))
        else:
            found.append(await Reader({CHANNELS[index % 3]: begin, "quiet": None}, codec=codec).open(port))
    return found


async def _all_got(readers: list[Reader], counts: dict[str, int]) -> None:
    for each in readers:
        await each.until(
            lambda each=each: (
                each.ended or all(got[-1:] == [counts[name]] for name, got in each.got.items() if name in counts)
            )
        )
        assert not each.ended, f"a client saw an end: {each.ended}"
        for name, got in each.got.items():
            assert got == list(range(got[0], counts[name] + 1)) if name in counts else not got


@asynccontextmanager
async def _log(folder: Path) -> AsyncIterator[LogServer]:
    async with LogServer(folder / "log") as server:
        yield server


@pytest.mark.parametrize(("old_uvloop", "new_uvloop"), [(True, True), (False, False), (True, False)])
def test_nobody_notices_that_a_successor_took_over_under_traffic(
    tmp_path: Path, old_uvloop: bool, new_uvloop: bool
) -> None:
    async def main() -> None:
        async with _log(tmp_path) as server:
            with GatewayProcess(tmp_path, server.port, "a", uvloop=old_uvloop) as old:
                await old.ready()
                traffic = Traffic(server)
                readers = await _readers(old.port, READERS)
                await traffic.more(20)
                successor = GatewayProcess(tmp_path, server.port, "a", take_over=old.control, uvloop=new_uvloop)
                with successor as new:
                    await new.ready()
                    assert new.port == old.port
                    assert new.taken["served"] == READERS
                    assert new.taken["failed"] == 0
                    assert await old.ended() == 0
                    await traffic.more(40)
                    status = await new.status()
                    assert status is not None
                    assert status["connections"] == READERS
                    newcomer = await Reader({"news": Position("", 0)}).open(new.port)
                    # What a client asks for is answered by the successor, over the old connection.
                    talker = readers[0]
                    talker.send(Pub(ref=7, channel="quiet", data=b"1"))
                    await talker.until(lambda: talker.got["quiet"] == [1] and talker.frames)
                    assert [getattr(frame, "ref", None) for frame in talker.frames] == [7]
                    counts = await traffic.stop()
                    quiet = {**counts, "quiet": 1}
                    await _all_got(readers, quiet)
                    await _all_got([newcomer], counts)
                    for each in [*readers, newcomer]:
                        await each.close()

    play(main)


def test_a_message_that_a_client_has_begun_is_finished_with_the_successor(tmp_path: Path) -> None:
    async def main() -> None:
        async with _log(tmp_path) as server:
            with GatewayProcess(tmp_path, server.port) as old:
                await old.ready()
                reader = await Reader({"news": None}).open(old.port)
                said = push_frames.JSON.encode(Pub(ref=1, channel="news", data=b'"half"'))
                begin = websocket.frame(1, said[:20], mask=os.urandom(4), fin=False)
                whole = begin + websocket.frame(0, said[20:], mask=os.urandom(4))
                cut = len(begin) + 9
                reader.raw(whole[:cut])
                await old.status()
                with GatewayProcess(tmp_path, server.port, "b", take_over=old.control) as new:
                    await new.ready()
                    assert new.taken["served"] == 1
                    await old.ended()
                    reader.raw(whole[cut:])
                    await reader.until(lambda: reader.got["news"] == [1] and reader.frames)
                    assert not reader.ended
                    await reader.close()

    play(main)


@pytest.mark.parametrize("uvloop", [True, False])
def test_a_successor_that_dies_before_it_owns_anything_changes_nothing(tmp_path: Path, uvloop: bool) -> None:
    async def main() -> None:
        async with _log(tmp_path) as server:
            with GatewayProcess(tmp_path, server.port, uvloop=uvloop) as old:
                await old.ready()
                traffic = Traffic(server)
                readers = await _readers(old.port, READERS)
                for steps in (0, 1, 2):
                    await _fail_after(old.control, steps)
                    await until(lambda: _is_free(old))  # for the next one
                    await traffic.more(10)
                newcomer = await Reader({"news": Position("", 0)}).open(old.port)
                with GatewayProcess(tmp_path, server.port, "b", take_over=old.control) as new:  # and the next one can
                    await new.ready()
                    assert new.taken["served"] == READERS + 1
                    await old.ended()
                    counts = await traffic.stop()
                    await _all_got([*readers, newcomer], counts)
                    for each in [*readers, newcomer]:
                        await each.close()

    play(main)


async def _is_free(gateway: GatewayProcess) -> bool:
    status = await gateway.status()
    return status is not None and status["take_over"] != "under way"


async def _fail_after(control: Path, steps: int) -> None:
    """A successor that is lost: after the offer, with the first sockets in its hands, or with all but the last."""
    taking = await take_over(control)
    link: FdLink = taking._link
    if steps:
        await link.send(wire.Ready())
        for number in range(steps):
            came = await link.receive()
            assert came is not None
            assert isinstance(came[0], wire.Parcels)
            for descriptor in came[1]:
                os.close(descriptor)
            if number + 1 < steps:
                await link.send(wire.Held(number))
    for each in taking.listening:
        each.socket.close()
    taking.close()


def test_a_successor_that_is_lost_after_it_owned_everything_costs_its_connections_and_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        async with _log(tmp_path) as server:
            with GatewayProcess(tmp_path, server.port) as old:
                await old.ready()
                readers = await _readers(old.port, 8)
                taking = await take_over(old.control)
                link = taking._link
                await link.send(wire.Ready())
                while (came := await link.receive()) is not None and not isinstance(came[0], wire.Yours):
                    for descriptor in came[1]:
                        os.close(descriptor)
                    assert isinstance(came[0], wire.Parcels)
                    await link.send(wire.Held(came[0].number))
                for each in taking.listening:
                    each.socket.close()
                taking.close()
                for reader in readers:
                    await reader.until(lambda reader=reader: reader.ended)
                newcomer = await Reader({"news": None}).open(old.port)  # the old one serves on
                assert newcomer.welcome is not None
                for each in [*readers, newcomer]:
                    await each.close()

    play(main)


def test_a_control_socket_is_for_its_user_and_says_what_is_wrong(tmp_path: Path) -> None:
    async def main() -> None:
        async with _log(tmp_path) as server:
            with GatewayProcess(tmp_path, server.port) as gateway:
                await gateway.ready()
                assert stat.S_IMODE(gateway.control.stat().st_mode) == 0o600
                for said in (b"garbage\n", b"[1]\n", b'{"do":"fly"}\n', b'{"do":["x"]}\n', b"x" * 100_000 + b"\n"):
                    with socket.socket(socket.AF_UNIX) as plain:
                        plain.connect(str(gateway.control))
                        plain.sendall(said)
                        plain.settimeout(PATIENCE_S)
                        assert b'"ok": false' in plain.recv(4096)
                assert await gateway.status() is not None

    play(main)


def test_what_is_no_gateway_cannot_be_taken_over(tmp_path: Path) -> None:
    with pytest.raises(TakeOverFailed, match="No such file"):
        asyncio.run(take_over(tmp_path / "nobody.sock"))


def test_a_successor_that_does_not_reach_its_log_takes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with _log(tmp_path) as server:
            with GatewayProcess(tmp_path, server.port) as old:
                await old.ready()
                reader = await Reader({"news": None}).open(old.port)
                with GatewayProcess(tmp_path, free_port(), "b", take_over=old.control) as new:
                    await until(new.control.with_name(f"b.sock.{new.process.pid}").exists)
                    new.kill()
                await server.log.publish([Draft("news", b"1", Kind.JSON)])
                await reader.until(lambda: reader.got["news"] == [1])
                status = await old.status()
                assert status is not None
                assert (status["ready"], status["connections"]) == (True, 1)
                assert 1 <= status["tasks"] < 20
                assert "stage=kept" in status["take_over"]
                # It says so in one line and hangs up: who asks how it is does not want to take over.
                said = await asyncio.to_thread(_all_that_is_said, old.control, b'{"do":"status"}\n')
                assert said.index(b"\n") == len(said) - 1
                await reader.close()

    play(main)


def _all_that_is_said(control: Path, question: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as plain:
        plain.settimeout(PATIENCE_S)
        plain.connect(str(control))
        plain.sendall(question)
        return b"".join(iter(lambda: plain.recv(65_536), b""))
