"""The Python client against gateways that break their promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from budao.aio.push_client import GivenUp, PushClient
from budao.model import Wall
from budao.push import (
    Ack,
    Advice,
    BackoffPolicy,
    BrokenPromise,
    Bye,
    ClientPolicy,
    FromClient,
    FromGateway,
    Hello,
    Kind,
    Message,
    Msg,
    Position,
    Sub,
    Unsub,
    Welcome,
)
from budao.wire import framing, push_frames
from tests.live.redis_server import PATIENCE_S

Say = Callable[[FromGateway], None]


@asynccontextmanager
async def stranger(answer: Callable[[FromClient, Say], None]) -> AsyncIterator[str]:
    """A gateway over plain TCP that says what the test wants."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = framing.Reader(1 << 20)

        def say(frame: FromGateway) -> None:
            writer.write(framing.frame(push_frames.MSGPACK.encode(frame)))

        try:
            while data := await reader.read(65536):
                for raw in frames.feed(data):
                    answer(push_frames.MSGPACK.decode(raw), say)
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def message(seq: int) -> Msg:
    return Msg(Message("n", Position("e", seq), str(seq).encode(), Kind.JSON, Wall(0.0)))


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), PATIENCE_S))


def test_what_a_gateway_left_out_is_asked_for_again() -> None:
    asked: list[FromClient] = []

    def answer(frame: FromClient, say: Say) -> None:
        asked.append(frame)
        if isinstance(frame, Hello):
            say(Welcome(session="s", gateway="g"))
        elif isinstance(frame, Sub):
            after = frame.after or Position("e", 0)
            say(Ack(ref=frame.ref, position=after))
            for seq in (1, 3) if after.seq == 0 else (2, 3):
                say(message(seq))

    async def main() -> None:
        async with stranger(answer) as url, PushClient([url]) as client:
            await client.connected()
            async with client.subscribe("n") as items:
                got = [await anext(items) for _ in range(3)]
        assert [each.data for each in got if isinstance(each, Message)] == [b"1", b"2", b"3"]
        assert client.metrics.broken_promises == 1
        assert [type(each) for each in asked[1:4]] == [Sub, Unsub, Sub]

    run(main)


def test_a_gateway_that_leaves_out_the_same_again_and_again_is_told_of() -> None:
    def answer(frame: FromClient, say: Say) -> None:
        if isinstance(frame, Hello):
            say(Welcome(session="s", gateway="g"))
        elif isinstance(frame, Sub):
            say(Ack(ref=frame.ref, position=Position("e", 0)))
            say(message(3))

    async def main() -> None:
        async with stranger(answer) as url, PushClient([url]) as client:
            await client.connected()
            with pytest.raises(BrokenPromise, match="e:3 does not follow e:0"):
                await anext(client.subscribe("n"))
            assert client.metrics.broken_promises == 3

    run(main)


def test_advice_never_ends_the_client_and_says_why() -> None:
    def answer(_: FromClient, say: Say) -> None:
        say(Bye(code=4305, why="version", advice=Advice.NEVER, detail="this gateway speaks version 9"))

    async def main() -> None:
        async with stranger(answer) as url, PushClient([url]) as client:
            with pytest.raises(GivenUp, match=r"speaks version 9 \(code 4305\); the client has ended"):
                await anext(client.subscribe("n"))

    run(main)


def test_garbage_is_a_failure_like_any_other() -> None:
    async def main() -> None:
        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"\x00\x00\x00\x03abc")
            await writer.drain()
            writer.close()

        policy = ClientPolicy(backoff=BackoffPolicy(first_s=0.01, max_s=0.01))
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            url = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with PushClient([url], policy=policy) as client:
                while client.metrics.failures < 3:  # noqa: ASYNC110 - nobody says when a client has failed
                    await asyncio.sleep(0.005)
                assert "cannot be read" in client.problem

    run(main)
