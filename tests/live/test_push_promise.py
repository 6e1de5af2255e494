"""What the promise of a gateway rests on, with real sockets: nothing waits in the kernel, and who breaks rules is counted."""

from __future__ import annotations

import logging
import shutil
import socket
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from budao.aio.logs import DurableLog, LogServer, MemoryLog, RemoteLog
from budao.push import (
    Ack,
    BookPolicy,
    Draft,
    Follower,
    Gap,
    Hello,
    Hole,
    Placed,
    Position,
    SessionPolicy,
    Welcome,
    bridge,
)
from tests.live.push_raw import gateway_over, hang_up, play, raw, tcp_frame, until, ws

LOOPS = pytest.mark.parametrize("uvloop", [False, True], ids=["asyncio", "uvloop"])


@LOOPS
def test_what_is_written_leaves_at_once_whichever_loop_it_is(uvloop: bool) -> None:
    async def story() -> None:
        async with gateway_over(tcp_port=0) as gateway:
            assert gateway.tcp_port is not None
            _, web = await raw(gateway.port)
            web.write(b"GET /v1/events?channel=c HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            _, plain = await raw(gateway.tcp_port)
            plain.write(tcp_frame(Hello(channels={"c": None})))
            await until(lambda: len(gateway.connections) == 2)
            for connection in gateway.connections:
                sock = connection.socket
                assert sock is not None
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), connection
            await hang_up(web)
            await hang_up(plain)

    play(story, uvloop=uvloop)


def test_frames_whose_data_is_wrong_count_against_the_rate_like_any_other() -> None:
    async def story() -> None:
        policy = SessionPolicy(beat_min_s=0.05, frames_per_s=1.0, frames_burst=10)
        async with gateway_over(session_policy=policy) as gateway, ws(gateway.port) as client:
            await client.say(Hello())
            assert isinstance(await client.hear(), Welcome)
            refused = 0
            try:
                for _ in range(100):
                    await client.connection.send('{"type":"pub","ref":7,"channel":"c","data":NaN}')
                for _ in range(101):
                    refused += isinstance(await client.hear(), Ack)
            except ConnectionClosed:
                pass
            assert 10 <= refused < 50
            assert client.connection.close_reason == "rate"

    play(story)


def test_who_follows_anew_hears_nothing_of_the_time_before() -> None:
    async def story() -> None:
        policy = BookPolicy(channels_max=1, idle_s=0.0)
        async with MemoryLog(policy=policy) as log, log.feed() as feed:
            await log.publish([Draft("a", b"1")])
            await feed.follow("a")
            await log.publish([Draft("b", b"1")])  # makes room for itself
            await log.publish([Draft("a", b"2")])  # in its next life: a jump and a message wait to be told
            before = (await feed.follow("a")).head
            await log.publish([Draft("a", b"3")])
            told = [each for each in await feed.next() if getattr(each, "channel", "") == "a"]
            assert [type(each).__name__ for each in told] == ["Appended"], before

    play(story)


def test_a_log_put_back_from_a_backup_begins_new_lives_and_whoever_was_beyond_it_hears_of_a_gap(tmp_path: Path) -> None:
    async def story() -> None:
        folder, backup = tmp_path / "log", tmp_path / "backup"
        async with DurableLog(folder) as log:
            await log.publish([Draft("c", b"%d" % number, id=str(number)) for number in range(1, 4)])
            epoch = log.book.head("c").epoch
        shutil.copytree(folder, backup)
        async with DurableLog(folder) as log:
            await log.publish([Draft("c", b"4"), Draft("c", b"5")])
        shutil.rmtree(folder)
        shutil.copytree(backup, folder)
        follower = Follower("c", Position(epoch, 5))
        async with DurableLog(folder, is_restored=True) as log:
            (again,) = await log.publish([Draft("c", b"3", id="3")])
            life = log.book.head("c").epoch
            assert life != epoch
            assert again == Placed(Position(life, 3), is_repeat=True)
            await log.publish([Draft("c", b"%d" % number) for number in range(14, 20)])  # past the reader's place
        async with DurableLog(folder) as log:  # said once, it holds
            stretch = await log.read("c", Position(epoch, 5))
            assert stretch.head == Position(life, 9)
            gap = bridge(Position(epoch, 5), stretch)
            assert gap == Gap("c", Position(epoch, 5), Position(life, 0), Hole.EPOCH)
            assert follower.take(gap) == gap
            assert [follower.take(each) for each in stretch.messages] == list(stretch.messages)
            assert [each.data for each in stretch.messages[:4]] == [b"1", b"2", b"3", b"14"]

    play(story)


def test_a_log_that_ends_before_what_it_told_says_so_to_whoever_runs_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        folder, backup = tmp_path / "log", tmp_path / "backup"
        async with LogServer(folder) as server:
            port = server.port
            await server.log.publish([Draft("c", b"1")])
        shutil.copytree(folder, backup)
        async with RemoteLog("127.0.0.1", port) as remote, remote.feed() as feed:
            async with LogServer(folder, port=port) as server:
                await feed.follow("c")
                await server.log.publish([Draft("c", b"2")])
                await feed.next()
            shutil.rmtree(folder)
            shutil.copytree(backup, folder)
            with caplog.at_level(logging.CRITICAL, "budao.log"):
                async with LogServer(folder, port=port):
                    await until(lambda: "--restored" in caplog.text)

    play(story)
