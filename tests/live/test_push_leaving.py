"""A gateway drains under traffic: every client opens its new home beside the old one, with a ticket, and misses nothing."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from budao.aio.gateway import Access, Gateway, Mover
from budao.aio.gateway.tickets import TicketOffice, read_ticket_keys
from budao.aio.logs import LogServer, MemoryLog
from budao.model import Wall
from budao.push import Grant, Hello, LeavingPolicy, Move, Position, Standby, Target
from budao.wire import TicketKeys, push_frames, websocket
from tests.live.push_moving import CHANNELS, GatewayProcess, Reader, SseReader, Traffic
from tests.live.push_raw import play
from tests.live.redis_server import PATIENCE_S

CLIENTS = 120
KEY_BYTES = 32


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "tickets.keys"
    file.write_text(f"k1 {token_hex(KEY_BYTES)}\nk0 {token_hex(KEY_BYTES)}\n")
    file.chmod(0o600)
    return file


async def _follow(reader: Reader, ports: dict[str, int], *, lets_go: bool = True) -> Reader:
    """What a client does: opens the new home beside the old one, goes on from where it is, and lets go of the old one."""
    move: Move = await reader.moves.get()
    assert move.ticket is not None
    assert reader.welcome is not None
    home = Reader({name: each.place for name, each in reader.followers.items()}, codec=reader.codec)
    await home.open(ports[move.url], session=reader.welcome.session, ticket=move.ticket)
    assert home.welcome is not None, home.bye
    assert home.welcome.session == reader.welcome.session
    assert home.welcome.resumed
    if lets_go:
        reader.raw(websocket.close_frame(1000, mask=b"abcd"))
        await reader.until(lambda: reader.ended)
    return home


def test_nobody_misses_anything_when_a_gateway_drains_under_traffic(tmp_path: Path, keys: Path) -> None:
    async def main() -> None:
        async with LogServer(tmp_path / "log") as server:
            with (
                GatewayProcess(tmp_path, server.port, "b", keys=keys, anonymous=False) as b,
                GatewayProcess(tmp_path, server.port, "c", keys=keys, anonymous=False) as c,
            ):
                ports = {each.url: each.port for each in (await b.ready(), await c.ready())}
                targets = [("b", b.url), ("c", c.url)]
                leaving = {"lag_s": 0.0, "grace_s": 60.0}
                with GatewayProcess(tmp_path, server.port, "a", keys=keys, targets=targets, leaving=leaving) as a:
                    await a.ready()
                    traffic = Traffic(server)
                    readers = [
                        await Reader({CHANNELS[index % 3]: Position("", 0)}).open(a.port) for index in range(CLIENTS)
                    ]
                    event_reader = await SseReader({"news": None}).open(a.port)
                    await traffic.more(5)
                    moving = [asyncio.create_task(_follow(each, ports)) for each in readers]
                    await a.ask("drain")
                    homes = await asyncio.gather(*moving)
                    await event_reader.until(lambda: event_reader.ended)
                    assert event_reader.moves.qsize() == 1
                    assert event_reader.bye is not None
                    assert event_reader.bye.why == "moved"
                    assert await a.ended() == 0
                    counts = await _stopped(traffic, 10)
                    for index, home in enumerate(homes):
                        name = CHANNELS[index % 3]
                        await home.until(
                            lambda home=home, name=name: home.got[name][-1:] == [counts[name]] or home.ended
                        )
                        assert not home.ended
                        # The new home went on where the old one was at that moment; what both told is told twice to nobody.
                        seen = readers[index].got[name]
                        assert seen == list(range(1, seen[-1] + 1))
                        assert home.got[name] == list(range(home.got[name][0], counts[name] + 1))
                        assert home.got[name][0] <= seen[-1] + 1
                    taken = [await each.status() for each in (b, c)]
                    assert sum(each["tickets"]["taken"] for each in taken if each) == CLIENTS
                    assert all(each and each["tickets"]["taken"] >= CLIENTS // 2 for each in taken)
                    for each in [*readers, *homes, event_reader]:
                        await each.close()

    play(main)


async def _stopped(traffic: Traffic, more: int) -> dict[str, int]:
    await traffic.more(more)
    return await traffic.stop()


def test_a_browser_that_can_only_come_back_to_the_same_name_is_told_to_take_its_time() -> None:
    async def main() -> None:
        async with MemoryLog() as log, Gateway(log, access=Access(anonymous=Grant(subscribe=("**",)))) as gateway:
            mover = Mover(gateway, targets=[Target("b", "http://127.0.0.1:1")], leaving_policy=LeavingPolicy(lag_s=0.0))
            streams = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(5)]
            for _, writer in streams:
                writer.write(b"GET /v1/events?channel=c HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(PATIENCE_S):
                for reader, _ in streams:
                    await reader.readuntil(b"event: welcome")
                mover.drain()
                said = [await reader.read(-1) for reader, _ in streams]
            for _, writer in streams:
                writer.close()
            mover.close()
        pauses = []
        for each in said:
            assert b"event: move" in each
            (pause,) = re.findall(rb"event: bye\nretry: (\d+)\n", each)
            pauses.append(int(pause))
        assert all(1_000 <= pause <= 3_000 for pause in pauses), pauses
        assert len(set(pauses)) > 1

    asyncio.run(main())


def test_a_client_that_does_not_move_is_let_go_when_its_time_is_over(tmp_path: Path, keys: Path) -> None:
    async def main() -> None:
        async with LogServer(tmp_path / "log") as server:
            leaving = {"lag_s": 0.0, "grace_s": 10.0, "within_s": 0.3}
            targets = [("b", "http://127.0.0.1:9")]
            with GatewayProcess(tmp_path, server.port, "a", keys=keys, targets=targets, leaving=leaving) as a:
                await a.ready()
                reader = await Reader({"news": None}).open(a.port)
                await a.ask("drain")
                await reader.until(lambda: reader.ended)
                assert reader.moves.qsize() == 1
                assert reader.bye is not None
                assert (reader.bye.code, reader.bye.why) == (4100, "moved")
                assert await a.ended() == 0
                await reader.close()

    play(main)


def test_where_there_is_no_other_gateway_each_client_gets_a_slot_to_come_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with LogServer(tmp_path / "log") as server:
            leaving = {"lag_s": 0.0, "back_s": 3.0, "moves_per_s": 100.0}
            with GatewayProcess(tmp_path, server.port, "a", leaving=leaving) as a:
                await a.ready()
                readers = [await Reader({"news": None}).open(a.port) for _ in range(10)]
                await a.ask("drain")
                for each in readers:
                    await each.until(lambda each=each: each.ended)
                byes = [each.bye for each in readers if each.bye is not None]
                assert {bye.why for bye in byes} == {"paced"}
                slots = sorted(bye.after_s for bye in byes)
                assert slots[0] >= 3.0
                assert all(round(after - before, 3) == 0.01 for before, after in pairwise(slots))
                for each in readers:
                    await each.close()

    play(main)


def test_a_ticket_is_taken_once_and_a_bad_one_is_refused_with_4304(tmp_path: Path, keys: Path) -> None:
    async def main() -> None:
        async with LogServer(tmp_path / "log") as server:
            with GatewayProcess(tmp_path, server.port, "b", keys=keys, anonymous=False) as b:
                await b.ready()
                grant = Grant(subject="ada", subscribe=("news",))
                good, other = read_ticket_keys(keys), TicketKeys({"k1": b"x" * KEY_BYTES}, "k1")
                office = TicketOffice("a", good, since=Wall(0.0))
                once = office.write("b", "s1", grant)
                assert once is not None
                first = await Reader({"news": None}).open(b.port, session="s1", ticket=once)
                assert first.welcome is not None
                bad = {
                    "replayed": once,
                    "elsewhere": office.write("c", "s1", grant),
                    "other-session": office.write("b", "s2", grant),
                    "forged": TicketOffice("a", other, since=Wall(0.0)).write("b", "s1", grant),
                    "unknown-key": TicketOffice("a", TicketKeys({"kx": b"x" * 32}, "kx"), since=Wall(0.0)).write(
                        "b", "s1", grant
                    ),
                    "expired": TicketOffice("a", good, since=Wall(0.0), wall=_shifted(-60.0)).write("b", "s1", grant),
                    "early": TicketOffice("a", good, since=Wall(0.0), wall=_shifted(60.0)).write("b", "s1", grant),
                    "malformed": once[:40],
                }
                for flaw, text in bad.items():
                    reader = await Reader({"news": None}).open(b.port, session="s1", ticket=text)
                    await reader.until(lambda reader=reader: reader.ended)
                    assert reader.welcome is None
                    assert reader.bye is not None
                    assert (reader.bye.code, reader.bye.why, reader.bye.advice.value) == (4304, "bad-ticket", "now"), (
                        flaw
                    )
                    assert flaw in reader.bye.detail
                    assert text is None or text not in reader.bye.detail
                    await reader.close()
                # What the ticket does not grant is not had with it.
                assert not first.ended
                beyond = await Reader({"secret": None}).open(
                    b.port, session="s3", ticket=office.write("b", "s3", grant)
                )
                assert beyond.welcome is not None
                assert beyond.welcome.refused["secret"].why == "forbidden"
                status = await b.status()
                assert status is not None
                assert status["tickets"]["taken"] == 2
                assert set(status["tickets"]["refused"]) == set(bad)
                await first.close()
                await beyond.close()

    play(main)


def _shifted(by_s: float):  # type: ignore[no-untyped-def]
    import time

    return lambda: time.time() + by_s


def test_a_standby_is_promoted_in_one_round_trip_and_takes_the_place_of_the_old_connection(tmp_path: Path) -> None:
    async def main() -> None:
        async with LogServer(tmp_path / "log") as server:
            with GatewayProcess(tmp_path, server.port, "a") as a:
                await a.ready()
                traffic = Traffic(server)
                home = await Reader({"news": Position("", 0)}).open(a.port)
                assert home.welcome is not None
                quiet = Reader({"news": None})
                await quiet.open(a.port, session=home.welcome.session, is_standby=True)
                await traffic.more(10)
                await home.until(lambda: len(home.got["news"]) > 5)
                assert not quiet.got["news"]
                told = await a.ask("promote", session=home.welcome.session)
                assert told["told"] == 1
                await quiet.until(lambda: any(isinstance(each, Standby) for each in quiet.frames))
                place = home.followers["news"].place
                quiet.followers["news"] = type(quiet.followers["news"])("news", place)
                quiet.send(Standby(ref=1, channels={"news": place}))
                await home.until(lambda: home.ended)
                assert home.bye is not None
                assert home.bye.why == "replaced"
                counts = await _stopped(traffic, 10)
                await quiet.until(lambda: quiet.got["news"][-1:] == [counts["news"]] or quiet.ended)
                assert not quiet.ended
                assert quiet.got["news"] == list(range(quiet.got["news"][0], counts["news"] + 1))
                status = await a.status()
                assert status is not None
                assert status["standbys"] == {
                    "homes": 1,
                    "standbys": 0,
                    "promoted": 1,
                    "replaced": 1,
                    "refused": 0,
                    "advised": 0,
                }
                await home.close()
                await quiet.close()

    play(main)


def test_a_hello_that_is_read_after_its_client_gave_it_up_replaces_nobody(tmp_path: Path) -> None:
    async def story() -> None:
        async with LogServer(tmp_path / "log") as server:
            with GatewayProcess(tmp_path, server.port) as a:
                await a.ready()
                os.kill(a.process.pid, signal.SIGSTOP)
                said = Hello(session="s-1", channels={"news": None})
                target = f"/v1/stream?hello={push_frames.format_hello_query(said)}"
                asked = websocket.ask("127.0.0.1", target, bytes(16), subprotocols=("budao.v1.json",))[0]
                with socket.create_connection(("127.0.0.1", a.port)) as given_up:
                    os.kill(a.process.pid, signal.SIGCONT)
                    home = await Reader({"news": None}).open(a.port, session="s-1")
                    os.kill(a.process.pid, signal.SIGSTOP)
                    given_up.sendall(asked)
                os.kill(a.process.pid, signal.SIGCONT)
                await _until(a, lambda status: status["connections"] == 1 and status["requests"] == 0)
                status = await a.status()
                assert status is not None
                assert status["standbys"]["replaced"] == 0
                assert home.bye is None
                again = await Reader({"news": None}).open(a.port, session="s-1")
                await home.until(lambda: home.bye is not None)
                await again.close()

    play(story)


async def _until(gateway: GatewayProcess, claim: Callable[[Mapping[str, Any]], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (status := await gateway.status()) is None or not claim(status):  # noqa: ASYNC110 - nobody says so
            await asyncio.sleep(0.02)
