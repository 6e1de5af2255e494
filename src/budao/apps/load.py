"""Customers who come when they come: an open-loop load that no slow answer holds back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from random import Random

from budao.apps.asking import Connection, connect, exchange
from budao.apps.recording import Visits

PATIENCE_S = 5.0
"""After this a customer walks away, which counts as an error."""
SKUS = 150
IDLE_MAX = 64


class Customers:
    """Asks one shop for products over plain HTTP/1.1, keeping connections where it can.

    Units: `start` is an instant of time.perf_counter, the zero of the visits' times.
    """

    def __init__(self, port: int, visits: Visits, start: float) -> None:
        self._port = port
        self._visits = visits
        self._start = start
        self._idle: list[Connection] = []

    async def visit(self, sku: str, at_s: float) -> None:
        """One visit, counted from the instant it was due: if we are late, that is waiting too."""
        number = self._visits.arrived(at_s)
        is_good, source = False, ""
        with contextlib.suppress(OSError, EOFError, ValueError, TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                is_good, source = await self._look_at(sku)
        took_s = time.perf_counter() - self._start - at_s
        self._visits.answered(number, took_s, is_good=is_good, source=source)

    def close(self) -> None:
        """Closes the connections nobody uses; those in use close with their visit."""
        while self._idle:
            self._idle.pop()[1].close()

    async def _look_at(self, sku: str) -> tuple[bool, str]:
        connection = await self._connection()
        stays = False
        try:
            reply = await exchange(connection, "GET", f"/product/{sku}")
            stays = reply.can_stay and len(self._idle) < IDLE_MAX
            return reply.status == 200, str(reply.body["from"]) if reply.status == 200 else ""
        finally:
            if stays:
                self._idle.append(connection)
            else:
                connection[1].close()

    async def _connection(self) -> Connection:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await connect(self._port)


async def visit_all(
    shops: tuple[Customers, ...], *, start: float, seconds: float, calls_per_s: float, rng: Random
) -> None:
    """Sends the same customers to every shop, at random instants, and ends when all have left."""
    at_s = rng.expovariate(calls_per_s)
    async with asyncio.TaskGroup() as visits:
        while at_s < seconds:
            sku = f"sku-{some_sku(rng)}"
            await asyncio.sleep(max(0.0, start + at_s - time.perf_counter()))
            for shop in shops:
                visits.create_task(shop.visit(sku, at_s))
            at_s += rng.expovariate(calls_per_s)


def some_sku(rng: Random) -> int:
    """A few things are asked for often and many seldom, so that a cache knows most of what is asked, never all."""
    return int(SKUS * rng.random() ** 4)
