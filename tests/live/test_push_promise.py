"""What the promise of a gateway rests on, with real sockets: nothing waits in the kernel, and who breaks rules is counted."""

from __future__ import annotations

import socket

import pytest
from websockets.exceptions import ConnectionClosed

from budao.aio.logs import MemoryLog
from budao.push import Ack, BookPolicy, Draft, Hello, SessionPolicy, Welcome
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
