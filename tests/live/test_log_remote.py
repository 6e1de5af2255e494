"""A log behind a server: killed, frozen, stopped and started again, and clients that lose nothing by it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import pytest

from budao.aio import LogServer, LogServerPolicy, RemoteLog
from budao.model import BadSettings
from budao.push import (
    START,
    Appended,
    ChannelPolicy,
    ChannelRules,
    Draft,
    Jumped,
    LogAway,
    LogCameBack,
    LogRefused,
    LogWentAway,
    Message,
    News,
    Placed,
    Position,
)
from tests.live.log_process import LogProcess, log_serving

PATIENCE_S = 60.0
TOKEN = "a-token-that-nobody-guesses"


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, PATIENCE_S))


async def when(claim: Callable[[], bool]) -> None:
    while not claim():  # noqa: ASYNC110 -- nothing tells of it
        await asyncio.sleep(0.01)


async def publish(log: RemoteLog, draft: Draft) -> Placed:
    """Until it is taken; its id makes it one message."""
    while True:
        try:
            (answer,) = await log.publish([draft])
        except LogAway:
            await asyncio.sleep(0.02)
            continue
        assert isinstance(answer, Placed)
        return answer


class Told:
    """What a feed told, held to its promise."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.other: list[News] = []

    async def take(self, feed: Any, until: Callable[[], bool]) -> None:
        while not until():
            for news in await feed.next():
                if isinstance(news, Appended):
                    self.messages += news.messages
                else:
                    self.other.append(news)

    @property
    def seqs(self) -> list[int]:
        return [message.position.seq for message in self.messages]


def kinds(news: Iterable[News]) -> list[type]:
    return [type(each) for each in news]


def test_a_server_killed_again_and_again_loses_nothing_it_acknowledged_and_tells_everything_once(
    tmp_path: Path,
) -> None:
    async def story(server: LogProcess) -> None:
        acknowledged: dict[str, Position] = {}
        is_over = asyncio.Event()

        async def publisher(log: RemoteLog, who: int) -> None:
            number = 0
            while not is_over.is_set():
                name = f"{who}-{number}"
                acknowledged[name] = (await publish(log, Draft("a", b"1", id=name))).position
                number += 1

        async with RemoteLog("127.0.0.1", server.port) as log, log.feed() as feed:
            told = Told()
            await feed.follow("a")
            async with asyncio.TaskGroup() as tasks:
                taking = tasks.create_task(told.take(feed, lambda: False))
                publishing = [tasks.create_task(publisher(log, who)) for who in range(8)]
                for _ in range(5):
                    before = len(acknowledged)
                    await when(lambda before=before: len(acknowledged) >= before + 50)  # type: ignore[misc]
                    server.kill()
                    await asyncio.to_thread(server.start)
                is_over.set()
                await asyncio.gather(*publishing)
                head = (await log.latest("a", 0)).head
                await when(lambda: bool(told.seqs) and told.seqs[-1] == head.seq)
                taking.cancel()
            assert told.seqs == list(range(1, head.seq + 1)), "each message once and in order"
            assert head.seq == len(acknowledged), "nothing was taken twice, and nothing lost"
            by_id = {message.id: message.position for message in told.messages}
            assert by_id == acknowledged
            assert Jumped not in kinds(told.other)
            assert LogWentAway in kinds(told.other)
            assert LogCameBack in kinds(told.other)

    with log_serving(tmp_path) as server:
        run(story(server))


def test_a_frozen_server_is_noticed_and_what_was_under_way_may_have_taken_effect(tmp_path: Path) -> None:
    async def story(server: LogProcess) -> None:
        async with RemoteLog("127.0.0.1", server.port, timeout_s=20.0) as log, log.feed() as feed:
            await feed.follow("a")
            await log.publish([Draft("a", b"1", id="one")])
            await feed.next()
            with server.frozen():
                begun = time.monotonic()
                publishing = asyncio.create_task(log.publish([Draft("a", b"2", id="two")]))
                reading = asyncio.create_task(log.read("a", START))
                (away,) = await feed.next()
                assert isinstance(away, LogWentAway)
                assert time.monotonic() - begun > 1.0, "a pause is no death"
                with pytest.raises(LogAway, match="nothing was heard") as lost:
                    await publishing
                assert lost.value.may_have_taken_effect
            told = Told()
            await publish(log, Draft("a", b"2", id="two"))
            await told.take(feed, lambda: 2 in told.seqs)
            assert told.seqs == [2]
            assert kinds(told.other) == [LogCameBack]
            assert (await reading).head.seq >= 1, "what was only read is read again"

    with log_serving(tmp_path) as server:
        run(story(server))


def test_what_a_stopping_server_did_not_answer_is_asked_again(tmp_path: Path) -> None:
    async def story(server: LogProcess) -> None:
        async with RemoteLog("127.0.0.1", server.port, timeout_s=20.0) as log:
            await log.publish([Draft("a", b"1")])
            assert await asyncio.to_thread(server.stop) == 0
            later = asyncio.create_task(log.publish([Draft("a", b"2")]))
            await asyncio.sleep(0.05)
            await asyncio.to_thread(server.start)
            (placed,) = await later
            assert isinstance(placed, Placed)
            assert placed.position.seq == 2

    with log_serving(tmp_path) as server:
        run(story(server))


def test_a_log_that_was_replaced_is_another_life(tmp_path: Path) -> None:
    async def story() -> None:
        async with LogServer(tmp_path / "one") as server:
            port = server.port
            log = RemoteLog("127.0.0.1", port, timeout_s=20.0)
            feed = log.feed()
            await feed.follow("a")
            await log.publish([Draft("a", b"1")])
            await feed.next()
        async with LogServer(tmp_path / "other", port=port):
            told = Told()
            await publish(log, Draft("a", b"1", id="x"))
            await told.take(feed, lambda: bool(told.messages))
            assert told.seqs == [1]
            jump = told.other[-1]
            assert isinstance(jump, Jumped)
            assert jump.head == (told.messages[0].position.epoch, 0)
            await log.aclose()

    run(story())


def test_a_feed_that_nobody_takes_costs_a_bounded_amount_and_then_jumps(tmp_path: Path) -> None:
    async def story() -> None:
        rules = ChannelRules(otherwise=ChannelPolicy(history_count=10, message_bytes_max=1024 * 1024))
        async with (
            LogServer(tmp_path, rules=rules) as server,
            RemoteLog("127.0.0.1", server.port) as log,
            log.feed() as feed,
            log.feed() as quick,
        ):
            await feed.follow("a")
            await quick.follow("a")
            told, other = Told(), Told()
            for _ in range(100):
                await log.publish([Draft("a", bytes(500_000))] * 2)
                await other.take(quick, lambda: len(other.messages) >= 2 or bool(other.other))
                other.messages.clear()
            waiting = [session.link.outbox_bytes for session in server.sessions if session.following.told]
            assert max(waiting) < 32 * 1024 * 1024
            await told.take(feed, lambda: bool(told.seqs) and told.seqs[-1] == 200)
            assert not other.other, "a slow one does not slow the others"
            jumps = [each for each in told.other if isinstance(each, Jumped)]
            assert jumps
            assert len(told.seqs) < 200
            assert told.seqs == sorted(set(told.seqs))

    run(story())


def test_a_client_that_is_not_wanted_hears_why(tmp_path: Path) -> None:
    async def story() -> None:
        async with LogServer(tmp_path, token=TOKEN) as server:
            for token, said in ((None, "it wants a token"), ("another-token-altogether", "the token is wrong")):
                async with RemoteLog("127.0.0.1", server.port, token=token) as log:
                    with pytest.raises(LogRefused, match=said) as refused:
                        await log.publish([Draft("a", b"1")])
                    assert TOKEN not in str(refused.value)
                    with pytest.raises(LogRefused, match=said):
                        await log.feed().follow("a")
            async with RemoteLog("127.0.0.1", server.port, token=TOKEN) as log:
                assert len(await log.publish([Draft("a", b"1")])) == 1

    run(story())


def test_nothing_listens_beyond_loopback_in_the_clear(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="needs TLS and a token"):
        LogServer(tmp_path, host="0.0.0.0")
    with pytest.raises(BadSettings, match="in the clear"):
        RemoteLog("log.example", 7430, token=TOKEN)


def test_a_server_that_is_not_there_or_is_something_else_is_told_of(tmp_path: Path) -> None:
    async def story() -> None:
        from tests.live.redis_server import free_port

        async with RemoteLog("127.0.0.1", free_port(), timeout_s=0.3) as log:
            with pytest.raises(LogAway, match="nothing listens there") as away:
                await log.publish([Draft("a", b"1")])
            assert not away.value.may_have_taken_effect
        async with LogServer(tmp_path) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert b"speaks HTTP" in await reader.read()
            writer.close()
            await writer.wait_closed()

    run(story())


def test_a_request_beyond_the_bound_of_the_server_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        small = LogServerPolicy(request_bytes_max=4096)
        async with (
            LogServer(tmp_path, server_policy=small) as server,
            RemoteLog("127.0.0.1", server.port) as log,
        ):
            with pytest.raises(LogRefused, match="takes 4096 at once"):
                await log.publish([Draft("a", bytes(5000))])
            assert len(await log.publish([Draft("a", bytes(3000))])) == 1

    run(story())


def test_following_anew_begins_at_the_head_and_tells_nothing_twice(tmp_path: Path) -> None:
    async def story() -> None:
        async with LogServer(tmp_path) as server, RemoteLog("127.0.0.1", server.port) as log, log.feed() as feed:
            await feed.follow("a")
            for turn in range(1, 6):
                await log.publish([Draft("a", b"1"), Draft("a", b"2")])
                stretch = await feed.follow("a", recent=1)
                assert stretch.head.seq == 2 * turn
                assert [message.position.seq for message in stretch.messages] == [2 * turn]
            await log.publish([Draft("a", b"3")])
            told = Told()
            await told.take(feed, lambda: bool(told.seqs))
            assert told.seqs == [11]

    run(story())


def test_what_is_published_at_once_travels_together_and_nobody_suffers_for_another(tmp_path: Path) -> None:
    async def story() -> None:
        async with LogServer(tmp_path) as server, RemoteLog("127.0.0.1", server.port) as log:
            told = await asyncio.gather(
                *(log.publish([Draft("a", str(number).encode(), id=f"id{number}")]) for number in range(50)),
                log.publish([Draft("\ud800", b"1")]),
                return_exceptions=True,
            )
            *good, bad = told
            assert isinstance(bad, LogRefused), "no frame can hold half of a surrogate pair"
            places = {answer.position.seq for (answer,) in good if isinstance(answer, Placed)}  # type: ignore[misc]
            assert places == set(range(1, 51))
            leaving = asyncio.create_task(log.publish([Draft("a", b"left", id="left")]))
            staying = asyncio.create_task(log.publish([Draft("a", b"stays", id="stays")]))
            await asyncio.sleep(0)
            leaving.cancel()
            (placed,) = await staying
            assert isinstance(placed, Placed)

    run(story())
