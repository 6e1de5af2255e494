"""A gRPC service and its client, guarded on both sides: a busy server says when to come back, and the client does.

Messages are plain bytes, so that nothing has to be generated; with your own stubs only `Inventory` looks different.

    pip install "budao[grpc]"
    python examples/grpc_service.py
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from budao import BreakerPolicy, CallRefused, Guard, GuardPolicy, RatePolicy
from budao.adapters.grpc_aio import ServerInterceptor, client_interceptors

STOCK = "/shop.Inventory/Stock"

# Numbers small enough for a demonstration; `Guard("inventory", objective=Latency(0.99, under_s=0.2))` gives real ones.
serving = Guard("serving", policy=GuardPolicy(breaker=None, rate=RatePolicy(calls_per_s=5.0, burst=3)))
inventory = Guard("inventory", policy=GuardPolicy(breaker=BreakerPolicy(calls_min=10, rest_s=2.0)))


class Inventory:
    """Answers as it is told to."""

    def __init__(self) -> None:
        self.is_down = False
        self.asked = 0

    async def stock(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        self.asked += 1
        if self.is_down:
            await context.abort(grpc.StatusCode.INTERNAL, "the database is away")
        return b"7 of " + request


async def tour(stock: Any, service: Inventory) -> None:
    print("all is well ", await stock(b"apples"))

    for _ in range(3):
        await stock(b"apples")
    print("it is busy  ", inventory.snapshot().retries, "call came back when it was told to")

    serving.obey(GuardPolicy(breaker=None))
    service.is_down = True
    before, refused = service.asked, 0
    for _ in range(100):
        try:
            await stock(b"apples", timeout=1.0)
        except grpc.aio.AioRpcError as error:  # a refusal is one as well, so a handler that is there goes on working
            refused += isinstance(error, CallRefused)
    print("it is down  ", f"100 calls, {refused} refused here, {service.asked - before} sent")


async def main() -> None:
    service = Inventory()
    server = grpc.aio.server(interceptors=[ServerInterceptor(serving)])
    methods = {"Stock": grpc.unary_unary_rpc_method_handler(service.stock)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Inventory", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    interceptors = client_interceptors(inventory, safe={STOCK})
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", interceptors=interceptors) as channel:
        await tour(channel.unary_unary(STOCK), service)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
