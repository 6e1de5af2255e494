"""A program of a user: a pool over a directory, and the clients that pick from it, all with exact types."""

from __future__ import annotations

from random import Random
from typing import assert_type

import aiohttp
import grpc.aio
import httpx
import httpx2

from budao import CallRefused, Guard, NobodyThere
from budao.adapters import httpx as ours_httpx
from budao.adapters import httpx2 as ours_httpx2
from budao.adapters.aiohttp import guard_middleware, pool_middleware
from budao.adapters.asgi_load import LoadMiddleware, waiting
from budao.adapters.grpc_channel import BalancedChannel, channel
from budao.adapters.grpc_load import AioLoadInterceptor
from budao.aio import Directory, Pool
from budao.discovery import LiveCost, LoadMeter, Picked, PoolView
from budao.model import Endpoint, Load
from budao.wire import format_load, parse_load

guard = Guard("inventory")
fixed = Pool.of("10.0.0.1:80", "[::1]:80", service="inventory", balancer="round-robin")


async def program(directory: Directory) -> None:
    pool = Pool(directory, balancer=LiveCost(rng=Random(1)), protocol="http", zone="a")
    try:
        picked = pool.pick(key=b"user-7", avoid={"inventory-1"})
    except NobodyThere as error:
        assert_type(error.found, str)
        refused: CallRefused = error
        print(refused.retry_after_s)
        return
    assert_type(picked, Picked)
    assert_type(picked.endpoint, Endpoint)
    pool.settle(picked, failed=False, load=parse_load("in-flight=1;service-ms=2.5"))
    assert_type(pool.view(), PoolView)
    assert_type(pool.explain(), str)

    transport = ours_httpx.AsyncGuardedTransport(guard, ours_httpx.AsyncPoolTransport(pool))
    async with httpx.AsyncClient(transport=transport) as client:
        assert_type(await client.get("http://inventory/stock"), httpx.Response)
    with httpx2.Client(transport=ours_httpx2.PoolTransport({"inventory": pool, "shop": fixed})) as client2:
        assert_type(client2.get("http://inventory/stock"), httpx2.Response)
    session = aiohttp.ClientSession(middlewares=[guard_middleware(guard), pool_middleware(pool)])
    async with session, session.get("http://inventory/stock") as reply:
        assert_type(reply, aiohttp.ClientResponse)
    async with channel("budao:///inventory", directory, guard=guard, safe={"/shop.Inventory/Stock"}) as inventory:
        assert_type(inventory, BalancedChannel)
        plain: grpc.aio.Channel = inventory
        await plain.channel_ready()


async def app(scope: object, receive: object, send: object) -> None:
    with waiting():
        pass


meter = LoadMeter()
served = LoadMiddleware(app, meter=meter, tells=False)
telling = AioLoadInterceptor(meter=meter)
assert_type(meter.load(), Load | None)
assert_type(format_load(Load(1, 0.5)), str)
