"""A real gRPC server that does what a request tells it to; run as a program, it can be killed.

Messages are plain bytes, so nothing has to be generated. A request is a word and perhaps a number: `b"slow 0.2"`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from budao.model import context

STOCK, WATCH, TOTAL, CHAT = (f"/shop.Inventory/{name}" for name in ("Stock", "Watch", "Total", "Chat"))

STATUSES = {status.name.lower(): status for status in grpc.StatusCode if status.name != "OK"}

UNHURRIED_S = 0.1
"""Before a stream is broken off: a status may overtake messages that nobody has read yet."""


class Inventory:
    """The same four methods for both kinds of server; counts what it was asked."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.cancelled = 0

    def word(self, request: bytes) -> tuple[str, float]:
        word, _, number = request.decode().partition(" ")
        self.asked[word] += 1
        return word, float(number or 0)

    def seen(self, servicer: Any) -> bytes:
        names = ("budao-priority", "traceparent", "user-key")
        found = [f"{name}={value}" for name, value in servicer.invocation_metadata() or () if name in names]
        left_s = servicer.time_remaining()
        inside = f"inside={context.priority.get().name},{context.trace.get()},{context.deadline.get() < 1e9}"
        return "\n".join(
            [*sorted(found), f"left={left_s if left_s is not None and left_s < 1e9 else None}", inside]
        ).encode()

    def refused(self, word: str, number: float, servicer: Any) -> bool:
        """Whether this word is a status; "flaky 2" is UNAVAILABLE twice."""
        if word == "pushback":
            servicer.set_trailing_metadata((("grpc-retry-pushback-ms", str(int(number))),))
            return self.asked[word] == 1
        return word in STATUSES or (word == "flaky" and self.asked[word] <= number)

    # -- for grpc.aio

    async def stock_aio(self, request: bytes, servicer: Any) -> bytes:
        word, number = self.word(request)
        try:
            if self.refused(word, number, servicer):
                await servicer.abort(STATUSES.get(word, grpc.StatusCode.UNAVAILABLE), "as told")
            if word == "slow" or (word == "slow-once" and self.asked[word] == 1):
                await asyncio.sleep(number)
            if word == "raise":
                raise ValueError("as told")
            if word == "says":
                servicer.set_code(grpc.StatusCode.UNAVAILABLE)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.seen(servicer) if word == "seen" else request

    async def watch_aio(self, request: bytes, servicer: Any) -> AsyncIterator[bytes]:
        word, number = self.word(request)
        if self.refused(word, number, servicer):
            await servicer.abort(STATUSES.get(word, grpc.StatusCode.UNAVAILABLE), "as told")
        if word == "late":
            await asyncio.sleep(number)
        for index in range(3):
            yield str(index).encode()
            if word == "break" and index == 1:
                await asyncio.sleep(UNHURRIED_S)
                await servicer.abort(grpc.StatusCode.UNAVAILABLE, "as told")
            if word == "hang":
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    self.cancelled += 1
                    raise

    async def total_aio(self, requests: AsyncIterator[bytes], servicer: Any) -> bytes:
        parts = []
        async for part in requests:
            parts.append(part)
            if part.decode() in STATUSES:
                await servicer.abort(STATUSES[part.decode()], "as told")
        return b"+".join(parts)

    async def chat_aio(self, requests: AsyncIterator[bytes], servicer: Any) -> AsyncIterator[bytes]:
        async for part in requests:
            if part.decode() in STATUSES:
                await asyncio.sleep(UNHURRIED_S)
                await servicer.abort(STATUSES[part.decode()], "as told")
            yield b"re: " + part

    async def watch_writes(self, request: bytes, servicer: Any) -> None:
        async for message in self.watch_aio(request, servicer):
            await servicer.write(message)

    # -- for threads

    def stock(self, request: bytes, servicer: Any) -> bytes:
        word, number = self.word(request)
        if self.refused(word, number, servicer):
            servicer.abort(STATUSES.get(word, grpc.StatusCode.UNAVAILABLE), "as told")
        if word == "slow" or (word == "slow-once" and self.asked[word] == 1):
            time.sleep(number)
        if word == "raise":
            raise ValueError("as told")
        if word == "says":
            servicer.set_code(grpc.StatusCode.UNAVAILABLE)
        return self.seen(servicer) if word == "seen" else request

    def watch(self, request: bytes, servicer: Any) -> Iterator[bytes]:
        word, number = self.word(request)
        if self.refused(word, number, servicer):
            servicer.abort(STATUSES.get(word, grpc.StatusCode.UNAVAILABLE), "as told")
        if word == "late":
            time.sleep(number)
        try:
            for index in range(3):
                yield self.seen(servicer) if word == "seen" else str(index).encode()
                if word == "break" and index == 1:
                    time.sleep(UNHURRIED_S)
                    servicer.abort(grpc.StatusCode.UNAVAILABLE, "as told")
                while word == "hang" and servicer.is_active():
                    time.sleep(0.01)
        finally:
            self.cancelled += word == "hang"

    def total(self, requests: Iterator[bytes], servicer: Any) -> bytes:
        parts = []
        for part in requests:
            parts.append(part)
            if part.decode() in STATUSES:
                servicer.abort(STATUSES[part.decode()], "as told")
        return b"+".join(parts)

    def chat(self, requests: Iterator[bytes], servicer: Any) -> Iterator[bytes]:
        for part in requests:
            if part.decode() in STATUSES:
                time.sleep(UNHURRIED_S)
                servicer.abort(STATUSES[part.decode()], "as told")
            yield b"re: " + part

    def handlers(self, *, is_async: bool, writes: bool = False) -> grpc.GenericRpcHandler:
        stock, watch, total, chat = (
            (self.stock_aio, self.watch_writes if writes else self.watch_aio, self.total_aio, self.chat_aio)
            if is_async
            else (self.stock, self.watch, self.total, self.chat)
        )
        return grpc.method_handlers_generic_handler(
            "shop.Inventory",
            {
                "Stock": grpc.unary_unary_rpc_method_handler(stock),
                "Watch": grpc.unary_stream_rpc_method_handler(watch),
                "Total": grpc.stream_unary_rpc_method_handler(total),
                "Chat": grpc.stream_stream_rpc_method_handler(chat),
            },
        )


def start(inventory: Inventory, *interceptors: Any, threads: int = 8) -> tuple[grpc.Server, str]:
    """A server with threads, and where it is."""
    server = grpc.server(ThreadPoolExecutor(threads), interceptors=list(interceptors))
    server.add_generic_rpc_handlers([inventory.handlers(is_async=False)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


async def start_aio(
    inventory: Inventory, *interceptors: Any, is_async: bool = True, writes: bool = False
) -> tuple[Any, str]:
    """A server on the event loop, and where it is."""
    server = grpc.aio.server(ThreadPoolExecutor(4), interceptors=list(interceptors))
    server.add_generic_rpc_handlers([inventory.handlers(is_async=is_async, writes=writes)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


if __name__ == "__main__":
    running, place = start(Inventory())
    sys.stdout.write(place + "\n")
    sys.stdout.flush()
    running.wait_for_termination()
