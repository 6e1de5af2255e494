"""Further connections for publishing: as many as are wanted, each opened again when it ends."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

from budao.aio.background import Background
from budao.aio.push_client.errors import PushError
from budao.aio.push_client.link import Link
from budao.aio.push_client.publishing import Publishing
from budao.model import Mono
from budao.push import Ack, Advice, Backoff, FromGateway, Hello, Move, PoolSize, Welcome, reunion

if TYPE_CHECKING:
    from budao.aio.push_client.client import PushClient

LOOK_S: Final = 1.0
"""How often the number of connections is looked at, once anything was published."""


class _Fates(NamedTuple):
    """What one connection waits for."""

    welcomed: asyncio.Future[None]
    ended: asyncio.Future[reunion.Ended]


class Spares:
    """Connections beside the active one, over which messages are published and nothing is read."""

    def __init__(self, client: PushClient, tasks: Background, publishing: Publishing, rng: Random) -> None:
        self.links: list[Link] = []
        self._client = client
        self._tasks = tasks
        self._publishing = publishing
        self._rng = rng
        self._size = PoolSize(client.policy.pool)
        self._loop = asyncio.get_running_loop()
        self._keepers: list[asyncio.Task[None]] = []
        self._fates: dict[int, _Fates] = {}
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """Something is about to be published: looks whether there are enough connections."""
        if self._client.policy.pool.connections_max > 1 and self._timer is None:
            self._resize()

    def close(self) -> None:
        """No more connections."""
        if self._timer is not None:
            self._timer.cancel()
        for link in self.links:
            link.hang_up()
        for keeper in self._keepers:
            keeper.cancel()

    def _resize(self) -> None:
        now = Mono(self._loop.time())
        publishing = self._publishing
        wanted = self._size.look(publishing.load_share, publishing.use_share, now) - 1
        publishing.ask_for_load()
        self._keepers = [keeper for keeper in self._keepers if not keeper.done()]
        while len(self._keepers) < wanted:
            self._keepers.append(self._tasks.spawn(self._keep(), "a connection for publishing"))
        while len(self._keepers) > wanted:
            self._keepers.pop().cancel()
        self._timer = self._loop.call_later(LOOK_S, self._resize)

    async def _keep(self) -> None:
        """Keeps one connection open until it is cancelled."""
        policy = self._client.policy
        backoff = Backoff(policy.backoff)
        while True:
            began = self._loop.time()
            fact = await self._one(policy.welcome_s)
            backoff.connected_for(self._loop.time() - began)
            # The session's own connection says what is wrong for good; this one only waits longer.
            advice = None if fact is None or fact.advice is Advice.NEVER else fact.advice
            await asyncio.sleep(backoff.pause_s(self._rng, advice, 0.0 if fact is None else fact.after_s) or 0.0)

    async def _one(self, welcome_s: float) -> reunion.Ended | None:
        """Opens a connection and waits for its end."""
        self._number -= 1  # the session's connections count upward
        number, link = self._number, None
        fates = self._fates[number] = _Fates(self._loop.create_future(), self._loop.create_future())
        try:
            async with asyncio.timeout(welcome_s):
                link = await self._client.open(number, self._url(), self._hello, self)
                self.links.append(link)
                await fates.welcomed
            return await fates.ended
        except (OSError, ValueError, PushError):  # a time-out is an OSError as well
            return None
        finally:
            del self._fates[number]
            if link is not None:
                self.links.remove(link)
                link.hang_up()
                self._publishing.close(link)

    def _hello(self) -> Hello:
        return Hello(client=self._client.name)

    def _url(self) -> str:
        """The gateway with the fewest connections of ours."""
        urls = self._client.urls
        used = [link.address.url for link in self.links] + [self._client.gateway]
        return min(urls, key=lambda url: (used.count(url), self._rng.random()))

    # --------------------------------------------------------------------------------------- `Owner` of the links

    def welcomed(self, link: Link, welcome: Welcome) -> None:  # noqa: ARG002 - what `Owner` asks for
        """It takes messages now."""
        self._client.metrics.connects += 1
        if (fates := self._fates.get(link.number)) is not None and not fates.welcomed.done():
            fates.welcomed.set_result(None)
            self._publishing.open(link)

    def received(self, link: Link, frame: FromGateway) -> None:
        """It answers, or asks to move: then it ends, and another one is opened elsewhere."""
        if isinstance(frame, Ack):
            self._publishing.answered(link, frame)
        elif isinstance(frame, Move):
            link.hang_up()
            self.ended(link, reunion.Ended(link=link.number, advice=Advice.NOW, problem="it asked to move"))

    def ended(self, link: Link, fact: reunion.Ended) -> None:
        """It is opened again after a while."""
        self._client.metrics.failures += 1
        if (fates := self._fates.get(link.number)) is not None and not fates.ended.done():
            fates.ended.set_result(fact)
            if not fates.welcomed.done():
                fates.welcomed.set_result(None)
