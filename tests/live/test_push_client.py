"""The Python client against real gateways, in this process and in others that are killed and frozen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from budao.aio.gateway import Access, Gateway, GatewayPolicy
from budao.aio.gateway.load import Load
from budao.aio.gateway.roll import call_roll
from budao.aio.logs import LogServer, MemoryLog
from budao.aio.push_client import (
    ChannelRefused,
    Closed,
    Forbidden,
    PublishTimedOut,
    PushClient,
    PushError,
    Unauthorized,
)
from budao.aio.security import client_tls, server_tls
from budao.model import BadSettings, Wall
from budao.push import (
    BackoffPolicy,
    ChannelPolicy,
    ChannelRules,
    ClientPolicy,
    Gap,
    Grant,
    Message,
    PoolSizePolicy,
    Position,
    Problem,
    SessionPolicy,
)
from budao.wire import tokens
from tests.live.certificates import Authority
from tests.live.push_gateway_process import GatewayProcess
from tests.live.redis_server import PATIENCE_S, free_port

ANYBODY = Grant(subscribe=("**",), publish=("**",))
RATES = SessionPolicy(
    beat_min_s=0.05, publishes_per_s=1e5, publishes_burst=100_000, frames_per_s=1e5, frames_burst=100_000
)
QUICK = BackoffPolicy(first_s=0.05, max_s=0.2, lasted_s=0.0)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE_S))


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - what is waited for is said by nobody
            await asyncio.sleep(0.005)


def gateway(log: MemoryLog, **more: Any) -> Gateway:
    return Gateway(log, **{"access": Access(anonymous=ANYBODY), "session_policy": RATES, **more})


def url(at: Gateway) -> str:
    return f"http://127.0.0.1:{at.port}"


@asynccontextmanager
async def two_gateways(**more: Any) -> AsyncIterator[tuple[Gateway, Gateway]]:
    async with MemoryLog() as log, gateway(log, **more) as one, gateway(log, **more) as other:
        yield one, other


@asynccontextmanager
async def two_processes(folder: Path) -> AsyncIterator[tuple[GatewayProcess, GatewayProcess]]:
    async with LogServer(folder) as log, AsyncExitStack() as stack:
        one, other = (stack.enter_context(GatewayProcess(log.port)) for _ in range(2))
        for each in (one, other):
            await asyncio.to_thread(each.wait)
        yield one, other


async def read(client: PushClient, channel: str, count: int, after: Position | None = None) -> list[Any]:
    """So many items: the numbers of messages, and gaps."""
    found: list[Any] = []
    async with asyncio.timeout(PATIENCE_S), client.subscribe(channel, after=after) as items:
        async for item in items:
            found.append(item if isinstance(item, Gap) else int(item.data))
            if len(found) == count:
                break
    return found


@pytest.mark.parametrize("transport", ["json", "msgpack", "tcp"])
def test_what_is_published_is_read_once_and_in_order_over_every_transport(transport: str) -> None:
    async def main() -> None:
        async with MemoryLog() as log, gateway(log, tcp_port=0) as at:
            where = f"tcp://127.0.0.1:{at.tcp_port}" if transport == "tcp" else url(at)
            codec: Any = "json" if transport == "tcp" else transport
            async with PushClient([where], codec=codec) as client:
                news = client.subscribe("news")
                place = await news.ready()
                first = await client.publish("news", {"ü": [1, None]}, id="one")
                assert await client.publish("news", "again", id="one") == first
                await client.publish("news", b"\x00raw")
                positions = await client.publish_many("news", range(100))
                got = [item for _ in range(102) if isinstance(item := await anext(news), Message)]
                assert [item.data for item in got] == [
                    '{"ü":[1,null]}'.encode(),
                    b"\x00raw",
                    *(str(number).encode() for number in range(100)),
                ]
                assert client.position("news") == news.position == positions[-1]
                assert client.metrics.repeats == 1
                await news.aclose()
                assert client.position("news") is None
                async with client.subscribe("news", after=first) as again:  # another subscription of the same channel
                    assert (await anext(again)) == got[1]
                async with client.subscribe("news", last=2) as latest:
                    assert [(await anext(latest)), (await anext(latest))] == got[-2:]
            async with PushClient([where], codec=codec) as later:
                assert await read(later, "news", 100, after=got[1].position) == list(range(100))
            assert place is not None

    run(main)


def test_where_a_reader_begins_is_said_even_if_messages_came_in_the_same_breath() -> None:
    async def main() -> None:
        async with two_gateways() as (one, _), PushClient([url(one)]) as writer, PushClient([url(one)]) as reader:
            for number in range(3):
                await writer.publish("n", number)
            async with reader.subscribe("n", last=3) as items:
                await until(lambda: reader.metrics.messages == 3)
                place = await items.ready()
                assert place is not None
                assert place.seq == 0
                async with asyncio.timeout(PATIENCE_S):
                    assert [(await anext(items)).position.seq for _ in range(3)] == [1, 2, 3]  # type: ignore[union-attr]
                assert await items.ready() == items.position

    run(main)


def test_a_gateway_that_is_killed_loses_and_doubles_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with two_processes(tmp_path) as both:
            urls = [each.url for each in both]
            policy = ClientPolicy(backoff=QUICK)
            async with PushClient(urls, policy=policy) as reader, PushClient(urls, policy=policy) as writer:
                numbers = reader.subscribe("n")
                other = reader.subscribe("other")
                await numbers.ready()
                await other.ready()

                async def publish() -> None:
                    for number in range(300):
                        await writer.publish("n", number)
                        if number % 10 == 0:
                            await writer.publish("other", number)

                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(publish())
                    got = []
                    for index in range(300):
                        item = await anext(numbers)
                        assert isinstance(item, Message)
                        got.append(int(item.data))
                        if index == 100:
                            next(each for each in both if each.url[5:] in (reader.gateway or "")).kill()
                assert got == list(range(300))
                assert [int((await anext(other)).data) for _ in range(30)] == list(range(0, 300, 10))  # type: ignore[union-attr]
                assert reader.metrics.connects == 2
                assert reader.metrics.gaps == 0

    run(main)


@pytest.mark.parametrize("ending", ["freeze", "kill"])
def test_a_standby_goes_on_where_a_frozen_or_killed_gateway_stopped(tmp_path: Path, ending: str) -> None:
    async def main() -> None:
        async with two_processes(tmp_path) as both:
            urls = [each.url for each in both]
            async with PushClient(urls, standby=True, policy=ClientPolicy(standby_spread_s=0.0)) as client:
                await client.connected()
                await until(lambda: client.has_standby)
                numbers = client.subscribe("n")
                await numbers.ready()
                before = client.gateway
                used = next(each for each in both if each.url[5:] in (before or ""))
                async with PushClient([each.url for each in both if each is not used]) as writer:

                    async def publish() -> None:
                        for number in range(200):
                            await writer.publish("n", number)
                            await asyncio.sleep(0.002)

                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(publish())
                        got = []
                        for index in range(200):
                            item = await anext(numbers)
                            assert isinstance(item, Message)
                            got.append(int(item.data))
                            if index == 50:
                                getattr(used, ending)()
                assert got == list(range(200))
                assert client.metrics.promotions == 1
                assert client.gateway != before
                if ending == "freeze":
                    used.thaw()

    run(main)


def test_a_gateway_that_asks_to_move_is_left_without_a_gap() -> None:
    async def main() -> None:
        async with two_gateways() as (one, other), PushClient([url(one)]) as client:
            numbers = client.subscribe("n")
            await numbers.ready()
            for number in range(100):
                await client.publish("n", number)
                if number == 50:
                    for connection in [*one.connections]:
                        connection.move(url(other), "no good ticket", within_s=10.0)
            got = [int(item.data) for _ in range(100) if isinstance(item := await anext(numbers), Message)]
            assert got == list(range(100))
            await until(lambda: client.gateway is not None and str(other.port) in client.gateway)
            await until(lambda: not one.connections)
            assert (client.metrics.moves, client.metrics.gaps) == (1, 0)

    run(main)


def test_a_slow_reader_rests_and_another_one_does_not_notice() -> None:
    async def main() -> None:
        async with two_gateways() as (one, _):  # noqa: SIM117 - on one line they are harder to read
            async with PushClient([url(one)], policy=ClientPolicy(queue_count_max=10)) as client:
                slow, quick = client.subscribe("slow"), client.subscribe("quick")
                await slow.ready()
                await quick.ready()
                for number in range(100):
                    await client.publish("slow", number)
                    await client.publish("quick", number)
                    assert int((await anext(quick)).data) == number  # type: ignore[union-attr]
                assert client.metrics.rests == 1
                assert len(slow._reading.queue) == 10
                got = [int((await anext(slow)).data) for _ in range(100)]  # type: ignore[union-attr]
                assert got == list(range(100))

    run(main)


def test_what_was_trimmed_while_a_reader_rested_is_named_by_a_gap() -> None:
    async def main() -> None:
        rules = ChannelRules([("**", ChannelPolicy(history_count=20))])
        async with MemoryLog(rules=rules) as log, gateway(log, rules=rules, policy=GatewayPolicy(recent_count=5)) as at:  # noqa: SIM117
            async with PushClient([url(at)], policy=ClientPolicy(queue_count_max=10)) as client:
                slow = client.subscribe("slow")
                await slow.ready()
                await client.publish_many("slow", range(100))
                seen: list[int] = []
                async for item in slow:
                    if isinstance(item, Gap):
                        assert item.after.seq == len(seen)
                        seen += range(len(seen), item.upto.seq)
                    else:
                        assert int(item.data) == len(seen)
                        seen.append(int(item.data))
                    if len(seen) == 100:
                        break
                assert client.metrics.gaps
                assert 0 < client.metrics.missed < 100

    run(main)


def test_a_token_that_ran_out_is_renewed_and_reading_goes_on() -> None:
    async def main() -> None:
        secret = "a secret of more than thirty-two bytes, for tests"
        keys = tokens.TokenKeys.of_secret(secret, leeway_s=0.0)
        given: list[str] = []

        async def token() -> str:
            lives_s = 600.0 if given else 2.0
            given.append(
                tokens.sign_development_token(
                    secret, subject="me", subscribe=["n"], publish=["n"], now=Wall(time.time()), lives_s=lives_s
                )
            )
            return given[-1]

        async with two_gateways(access=Access(keys=keys)) as (one, _):
            async with PushClient([url(one)], token=token, policy=ClientPolicy(backoff=QUICK)) as client:
                numbers = client.subscribe("n")
                await numbers.ready()
                await client.publish("n", 0)
                await until(lambda: len(given) == 2 and client.metrics.connects == 2)
                await client.publish("n", 1)
                assert [int((await anext(numbers)).data) for _ in range(2)] == [0, 1]  # type: ignore[union-attr]
                with pytest.raises(Forbidden, match="ask for a token that allows it"):
                    await client.publish("secret", 1)
                with pytest.raises(Forbidden, match="read secret"):
                    await anext(client.subscribe("secret"))
                assert all(each not in repr(client) + client.problem for each in given)
            async with PushClient([url(one)], token="of no use at all") as stranger:
                reading = stranger.subscribe("n")
                with pytest.raises(Unauthorized, match="open another one with a token"):
                    await anext(reading)
                with pytest.raises(Unauthorized):
                    await stranger.publish("n", 1)
                with pytest.raises(Unauthorized):
                    await stranger.connected()
                assert stranger.state == "given-up"

    run(main)


def test_a_gateway_that_is_busy_is_left_alone_and_another_one_taken() -> None:
    async def main() -> None:
        async with two_gateways() as (one, other):
            one.pace = lambda: Problem(why="paced", happened="too many come at once", after_s=60.0)
            policy = ClientPolicy(is_shuffled=False)
            async with PushClient([url(one), url(other)], policy=policy) as client:
                await asyncio.wait_for(client.connected(), PATIENCE_S)
                assert str(other.port) in (client.gateway or "")
                assert "too many come at once" in client.problem

    run(main)


def test_a_publish_has_a_deadline_and_says_under_which_id_to_try_again() -> None:
    async def main() -> None:
        async with PushClient([f"http://127.0.0.1:{free_port()}"]) as client:
            with pytest.raises(PublishTimedOut, match="it was not sent; publish again with id='mine'") as problem:
                await client.publish("n", 1, id="mine", within_s=0.05)
            assert isinstance(problem.value, TimeoutError)
            assert not problem.value.may_have_taken_effect
            assert client.state == "connecting"

    run(main)


def test_messages_spread_over_more_connections_when_one_is_full() -> None:
    async def main() -> None:
        async with two_gateways() as (one, other):
            pool = PoolSizePolicy(connections_max=3, settle_s=0.0)
            policy = ClientPolicy(publishing_max=2, pool=pool)
            async with PushClient([url(one), url(other)], policy=policy) as client:
                await client.connected()
                done = asyncio.Event()

                async def publish(channel: str) -> None:
                    while not done.is_set():
                        await client.publish(channel, 1)

                async with asyncio.TaskGroup() as tasks:
                    for number in range(8):
                        tasks.create_task(publish(f"c{number}"))
                    await until(lambda: client.metrics.connects >= 3)
                    done.set()
                assert len(one.connections) + len(other.connections) == 3

    run(main)


def test_what_readers_have_dealt_with_is_known_at_the_gateway_however_often_they_say_it() -> None:
    async def main() -> None:
        async with two_gateways() as (one, _), PushClient([url(one)]) as client:

            def unacknowledged() -> object:
                (told,) = call_roll(one, {})[1]["sessions"]
                return told["unacknowledged"]

            numbers, others = client.subscribe("n"), client.subscribe("other")
            await numbers.ready()
            await others.ready()
            numbers.acknowledge()
            await until(lambda: unacknowledged() == 0)
            await client.publish_many("n", range(10))
            assert unacknowledged() == 10
            for _ in range(7):
                await anext(numbers)
                numbers.acknowledge()
            await until(lambda: unacknowledged() == 3)
            assert client._ack_timer is not None  # so they were gathered
            others.acknowledge()
            await others.aclose()
            others.acknowledge()
            assert not client._acks
            await until(lambda: client._ack_timer is None)

    run(main)


class Said(Load):
    """Of a gateway that says how busy it is, whatever is the case."""

    def __init__(self, share: float) -> None:
        super().__init__(0.0, 0.0)
        self.share = share

    def look(self, cpu_s: float, now: float) -> None:
        pass


def test_messages_spread_to_another_gateway_when_one_says_that_it_is_busy_and_no_further_while_that_helps() -> None:
    async def main() -> None:
        async with two_gateways() as (one, other):
            one.load, other.load = Said(0.9), Said(0.1)
            policy = ClientPolicy(pool=PoolSizePolicy(connections_max=4, settle_s=0.0), is_shuffled=False)
            async with PushClient([url(one), url(other)], policy=policy) as client:
                await client.publish("n", 0)
                assert client.gateway_load_share == 0.0  # nobody was asked before
                await until(lambda: client.gateway_load_share == 0.9)
                await until(lambda: client.gateway_load_share == 0.5)
                assert [len(each.connections) for each in (one, other)] == [1, 1]

    run(main)


def test_closing_ends_everything_that_waits() -> None:
    async def main() -> None:
        async with two_gateways() as (one, _):
            async with PushClient([url(one)]) as client:
                reading = client.subscribe("n")
                await reading.ready()
                with pytest.raises(PushError, match="being read already"):
                    client.subscribe("n")
                waiting = asyncio.create_task(anext(reading, None))
                lonely = asyncio.create_task(client.publish("n", "x" * 70_000_00))
                await asyncio.sleep(0)
                lonely.cancel()
            assert await waiting is None
            with pytest.raises(Closed):
                await client.publish("n", 1)
            with pytest.raises(Closed):
                client.subscribe("n")
            await asyncio.gather(lonely, return_exceptions=True)
            await until(lambda: len(asyncio.all_tasks()) < 20 and not one.connections)
            assert not [task for task in asyncio.all_tasks() if "dial" in task.get_name()]

    run(main)


def test_a_message_that_is_too_large_is_refused_here() -> None:
    async def main() -> None:
        async with two_gateways() as (one, _), PushClient([url(one)]) as client:
            with pytest.raises(ChannelRefused, match="at most"):
                await client.publish("n", "x" * 300_000)
            assert await client.publish("n", 1)

    run(main)


def test_a_loop_that_is_left_gives_its_channel_back() -> None:
    async def main() -> None:
        async with two_gateways() as (one, _), PushClient([url(one)]) as client:
            await client.publish("n", 1)
            async for item in client.subscribe("n", last=1):
                assert isinstance(item, Message)
                break
            await until(lambda: client.position("n") is None)
            assert await read(client, "n", 1, after=Position("", 0)) == [1]

    run(main)


def test_a_token_never_travels_in_the_clear_beyond_this_machine() -> None:
    with pytest.raises(BadSettings, match="in the clear"):
        PushClient(["http://push.example.org"], token="a secret")
    for wrong in (["ftp://127.0.0.1"], ["http://me:secret@127.0.0.1"], ["http://127.0.0.1?token=secret"], []):
        with pytest.raises(BadSettings) as problem:
            PushClient(wrong)
        assert "secret" not in str(problem.value)


def test_tls_carries_frames_and_a_wrong_certificate_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        authority = Authority(tmp_path)
        certificate, key = authority.issue("server")
        async with MemoryLog() as log, gateway(log, tls=server_tls(certificate, key)) as at:
            where = [f"https://127.0.0.1:{at.port}"]
            async with PushClient(where, tls=client_tls(authority.path)) as client:
                news = client.subscribe("news")
                await news.ready()
                await client.publish("news", 1)
                item = await anext(news)
                assert isinstance(item, Message)
                assert item.data == b"1"
            async with PushClient(where) as stranger:
                await until(lambda: "certificate" in stranger.problem)
                assert stranger.state == "connecting"

    run(main)


def test_a_token_that_can_be_none_is_refused_and_not_shown() -> None:
    for wrong in ("secret\r\nX: y", "", "sécret"):
        with pytest.raises(BadSettings) as problem:
            PushClient(["http://127.0.0.1"], token=wrong)
        assert "cret" not in str(problem.value)
