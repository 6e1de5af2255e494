"""A gRPC service of three instances that register themselves; a channel over all of them; one leaves under load.

pip install "budao[grpc,store]"
python examples/balanced_grpc.py
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import grpc

from budao import Guard, Latency
from budao.adapters.grpc_channel import channel
from budao.adapters.grpc_load import AioLoadInterceptor
from budao.adapters.grpc_registration import CountedCalls, registered_server
from budao.adapters.registration import Here
from budao.adapters.stores import open_store
from budao.aio import Directory, Store, StoreSource
from budao.discovery import DrainPolicy

STOCK = "/shop.Inventory/Stock"
QUICK = DrainPolicy.of(30.0, lag_s=0.0)  # every caller watches the store


@asynccontextmanager
async def serving(name: str, store: Store) -> AsyncIterator[Here]:
    async def stock(request: bytes, _context: object) -> bytes:
        await asyncio.sleep(0.01)
        return b"7 " + request + b" says " + name.encode()

    calls = CountedCalls()
    server = grpc.aio.server(interceptors=[calls, AioLoadInterceptor()])
    methods = {"Stock": grpc.unary_unary_rpc_method_handler(stock)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Inventory", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with registered_server(
        server, "inventory", store, host="127.0.0.1", port=port, id=name, calls=calls, drain=QUICK, signals=False
    ) as here:
        yield here


async def main() -> None:
    guard = Guard("inventory", objective=Latency(0.99, under_s=0.2))
    async with (
        aclosing(open_store("memory:")) as store,
        aclosing(StoreSource(store)) as source,
        AsyncExitStack() as servers,
        Directory(source, "inventory", watcher="shop") as directory,
    ):
        ann, *_ = [await servers.enter_async_context(serving(name, store)) for name in ("ann", "bob", "cyd")]
        await directory.ready()
        async with channel("budao:///inventory", directory, guard=guard, safe={STOCK}) as inventory:
            ask = inventory.unary_unary(STOCK)  # or a stub: it is a channel of grpc.aio
            answers: Counter[str] = Counter()

            async def call() -> None:
                answers[(await ask(b"apples")).decode()] += 1

            async with asyncio.TaskGroup() as calls:
                for number in range(300):
                    if number == 150:
                        ann.leave()  # what SIGTERM does
                    calls.create_task(call())
                    await asyncio.sleep(0.004)
            print("callers saw", dict(answers), "- retries:", guard.snapshot().retries)
            proof = await ann.left()
            print("ann left:", proof.why, f"and {proof.calls_finished} calls finished, {proof.calls_cut} were cut")
            print(inventory.pool.explain())
            assert proof.is_clean


if __name__ == "__main__":
    asyncio.run(main())
