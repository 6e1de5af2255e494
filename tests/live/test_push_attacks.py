"""What somebody would try who means harm: each is answered, costs its bound and no more, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from budao.aio.gateway import Access, Gateway, http_api
from tests.live.push_raw import answer_to, gateway_over, hang_up, play, raw, until
from tests.live.redis_server import PATIENCE_S

LOOPS = pytest.mark.parametrize("uvloop", [False, True], ids=["asyncio", "uvloop"])


def get(target: str, *more: str) -> bytes:
    return "\r\n".join((f"GET {target} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *more, "", "")).encode()


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/v1/stream", "/v1/events", "/v1/presence"])
def test_a_query_of_a_thousand_fields_is_answered_and_holds_no_connection(path: str) -> None:
    async def story() -> None:
        async with gateway_over() as gateway:
            found = await answer_to(gateway.port, get(f"{path}?{'&' * 1_001}"))
            assert found.startswith(b"HTTP/1.1 400 ")
            await until(lambda: not gateway.doors)
            assert gateway.metrics.errors["mistake"] == 0

    play(story)


@pytest.mark.parametrize(
    "said", ["a%00b:3", "a%1b:3", "a%7f:3", "%C2%85:3", "a:%D9%A3", "a:+3", "a:1_0", "a:" + "9" * 19]
)
def test_a_place_that_no_gateway_has_said_is_refused(said: str) -> None:
    async def story() -> None:
        async with gateway_over() as gateway:
            found = await answer_to(gateway.port, get(f"/v1/events?channel=a&last-event-id={said}"))
            assert found.startswith(b"HTTP/1.1 400 ")
            await until(lambda: not gateway.doors and not gateway.connections)
            assert gateway.metrics.errors["mistake"] == 0

    play(story)


def test_a_mistake_while_a_stream_begins_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with gateway_over() as gateway:

            def mistaken(*_: object, **__: object) -> None:
                raise RuntimeError("a mistake of ours")

            monkeypatch.setattr(gateway, "reads", mistaken)
            await answer_to(gateway.port, get("/v1/events?channel=a"))
            await until(lambda: not gateway.doors and not gateway.connections)
            assert gateway.metrics.errors["mistake"] == 1

    play(story)


@LOOPS
def test_who_asks_and_never_reads_the_answers_is_read_no_further_and_then_gets_them_all(
    monkeypatch: pytest.MonkeyPatch, uvloop: bool
) -> None:
    served = 0
    serve = http_api.serve

    def counting(gateway: Gateway, *asked: object) -> None:
        nonlocal served
        served += 1
        serve(gateway, *asked)  # type: ignore[arg-type]

    monkeypatch.setattr(http_api, "serve", counting)
    asked = 2_000

    async def story() -> None:
        async with gateway_over() as gateway:
            reader, writer = await raw(gateway.port)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * (asked - 1) + get("/healthz"))
            (door,) = await one_door(gateway)
            await until(lambda: door._is_full)  # type: ignore[attr-defined]
            await asyncio.sleep(0.3)  # it goes on with nothing
            assert served < asked * 3 // 4
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            count = 0
            async with asyncio.timeout(2 * PATIENCE_S):
                tail = b""
                while data := await reader.read(1 << 20):
                    data = tail + data
                    count += data.count(b"HTTP/1.1 200 OK\r\n")
                    tail = data[-16:]
                    assert b"HTTP/1.1 200 OK\r\n" not in tail
            assert (count, served) == (asked, asked)
            await hang_up(writer)

    async def one_door(gateway: Gateway) -> list[object]:
        await until(lambda: len(gateway.doors) == 1)
        return list(gateway.doors)

    play(story, uvloop=uvloop)


@pytest.mark.parametrize("said", ["", "Authorization: Bearer x.y.z\r\n"])
def test_a_body_of_somebody_who_may_say_nothing_is_not_kept(said: str) -> None:
    async def story() -> None:
        async with gateway_over(access=Access()) as gateway:
            size = 4 * 1024 * 1024
            reader, writer = await raw(gateway.port)
            head = f"POST /v1/publish HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{said}Content-Length: {size}\r\n\r\n"
            tracemalloc.start()
            try:
                writer.write(head.encode())
                for _ in range(63):
                    writer.write(bytes(size // 64))
                    await writer.drain()
                await until(lambda: bool(gateway.doors) and writer.transport.get_write_buffer_size() == 0)
                await asyncio.sleep(0.1)
                kept, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert kept < size // 2
            writer.write(bytes(size // 64))
            async with asyncio.timeout(PATIENCE_S):
                assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
            await hang_up(writer)

    play(story)
