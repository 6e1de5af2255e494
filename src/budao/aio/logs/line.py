"""A connection to a log server that is made again whenever it breaks."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from math import inf
from random import Random
from typing import Final, Protocol

from budao.aio.link import BEAT_S, Link
from budao.aio.security import explain_tls
from budao.guard import pause_s
from budao.model import RemoteWireError, RetryPolicy
from budao.push import LogAway, LogError, LogRefused
from budao.wire import log_frames as wire

CONNECT_S: Final = 2.5
"""How long one address may take to say welcome."""
PAUSES: Final = RetryPolicy(pause_first_s=0.02, pause_max_s=1.0)
"""Between two tries to connect, with full jitter."""
STEADY_S: Final = 1.0
"""A connection that lasted this long was a good one: the next try comes soon."""


class User(Protocol):
    """Who a line is kept for."""

    def came(self, line: Line) -> None:
        """It can be used from here on."""

    def received(self, line: Line, message: wire.Message) -> None:
        """The server has said something."""

    def went(self, line: Line, problem: str) -> None:
        """It cannot be used any more."""

    def denied(self, problem: LogError) -> None:
        """It was not made: the server is there and does not want us, or nothing is there."""


class Where:
    """How to reach a log server."""

    def __init__(
        self, addresses: Sequence[tuple[str, int]], tls: ssl.SSLContext | None, token: str, rng: Random
    ) -> None:
        self.addresses = tuple(addresses)
        self.tls = tls
        self.token = token
        self.rng = rng
        self.name = ("budao://" if tls is None else "budaos://") + ",".join(
            f"{host}:{port}" for host, port in addresses
        )

    def __repr__(self) -> str:
        return f"Where({self.name})"


async def keep_connected(where: Where, user: User, wanted: Callable[[], asyncio.Future[None] | None]) -> None:
    """Makes a connection, and another one when it ends, for as long as it runs.

    `wanted` answers with what to wait for before the next try; None for nothing.
    """
    turn = attempt = 0
    while True:
        if (waiting := wanted()) is not None:
            await waiting
        host, port = where.addresses[turn % len(where.addresses)]
        line = Line(where, user, host, port)
        try:
            await line.open()
        except LogError as problem:
            user.denied(problem)
        else:
            attempt = 0
            user.came(line)
            problem_said = await line.ended()
            user.went(line, problem_said)
            if line.lasted_s() < STEADY_S:
                attempt = 1
        turn += 1
        attempt += 1
        await asyncio.sleep(pause_s(attempt, PAUSES, where.rng) or 0.0)


class Line:
    """One connection, from the first byte to the last."""

    def __init__(self, where: Where, user: User, host: str, port: int) -> None:
        self.where = where
        self.host, self.port = host, port
        self.said_goodbye = False
        self.request_bytes_max = 0
        self._user = user
        self._greeted: asyncio.Future[wire.Welcome] = asyncio.get_running_loop().create_future()
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._welcome_at = inf
        self.link = Link(
            decoder=wire.Decoder(),
            outbox_bytes_max=2 * wire.FRAME_BYTES_MAX,
            received=self._receive,
            lost=self._lost,
            has_room=lambda: None,
            garbage=self._garbage,
        )

    async def open(self) -> None:
        """Connects and says hello.

        Raises:  LogAway; LogRefused if it is not wanted there.
        """
        loop, where = asyncio.get_running_loop(), self.where
        try:
            async with asyncio.timeout(CONNECT_S):
                server_hostname = self.host if where.tls else None
                await loop.create_connection(
                    lambda: self.link, self.host, self.port, ssl=where.tls, server_hostname=server_hostname
                )
                self.link.send(wire.format_message(wire.Hello(where.token)))
                welcome = await self._greeted
        except TimeoutError:
            self.link.cut("it did not answer")
            happened = f"{self.host}:{self.port} did not say welcome within {CONNECT_S:g} s"
            raise LogAway(where.name, happened) from None
        except (OSError, UnicodeError) as problem:  # the second for a name that no name server could be asked for
            self.link.cut("it did not answer")
            raise LogAway(where.name, f"{self.host}:{self.port}: {explain_tls(problem)}") from problem
        except BaseException:
            self.link.cut("it is closed")
            raise
        self.request_bytes_max = welcome.request_bytes_max
        self._welcome_at = time.monotonic()

    async def ended(self) -> str:
        """Waits until the connection is over, and sees to it that a dead one is."""
        beat = wire.format_message(wire.Beat())
        try:
            while not self._over.done():
                await asyncio.wait([self._over], timeout=BEAT_S)
                if not self._over.done():
                    self.link.beat(lambda: beat)
        finally:
            self.link.cut("it is closed")
        return f"{self.host}:{self.port}: {self._over.result()}"

    def lasted_s(self) -> float:
        """How long ago it was welcome."""
        return time.monotonic() - self._welcome_at

    def _receive(self, message: wire.Message) -> None:
        if self._greeted.done():
            if isinstance(message, wire.Goodbye):
                self.said_goodbye = True
                self.link.close("the server stops")
            elif not isinstance(message, wire.Beat):
                self._user.received(self, message)
        elif isinstance(message, wire.Welcome):
            self._greeted.set_result(message)
        elif isinstance(message, wire.Denied):
            refused = LogRefused(f"use the log {self.where.name}", message.problem)
            self._refuse(refused if message.is_for_good else LogAway(self.where.name, message.problem))
        elif isinstance(message, wire.Versions):
            ours = f"{wire.VERSION_LOW} to {wire.VERSION_HIGH}"
            problem = f"it speaks versions {message.low} to {message.high} of the protocol, this client {ours}"
            self._refuse(LogRefused(f"use the log {self.where.name}", f"{problem}; bring both to versions that fit"))
        else:
            self._refuse(LogAway(self.where.name, f"it says {type(message).__name__} before it says welcome"))

    def _garbage(self, problem: RemoteWireError) -> None:
        self._refuse(LogAway(self.where.name, f"{self.host}:{self.port} is no log: {problem}"))

    def _refuse(self, error: LogError) -> None:
        if not self._greeted.done():
            self._greeted.set_exception(error)
            self._greeted.exception()

    def _lost(self, why: str) -> None:
        hint = "" if self._greeted.done() else " before it said welcome; is this the right port, with or without TLS?"
        self._refuse(LogAway(self.where.name, f"{self.host}:{self.port}: {why}{hint}"))
        if not self._over.done():
            self._over.set_result(why)
