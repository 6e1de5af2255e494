"""A log whose book is in this process, and the feeds of it: what the one in memory and the durable one share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from random import SystemRandom
from types import TracebackType
from typing import Final, Self

from budao.model import Wall
from budao.push import (
    Appended,
    Book,
    BookPolicy,
    ChannelRules,
    Following,
    LogAway,
    LogRefused,
    LogWentAway,
    News,
    Position,
    Stretch,
)

MIB: Final = 1024 * 1024
FEED_BYTES_MAX: Final = 8 * MIB
"""So much waits for a feed to take it; what comes later it reads from the log once it has."""
FEED_RUNS_MAX: Final = 65_536
FOLLOWED_MAX: Final = 1_000_000
"""Channels of one feed."""
CAUGHT_UP_BYTES: Final = MIB
"""What is read at once for a feed that is behind."""
SWEEP_S: Final = 1.0

WallClock = Callable[[], Wall]


def wall() -> Wall:
    """The machine's clock of the day."""
    return Wall(time.time())


class Epochs:
    """Names for the lives of channels, which never come twice."""

    def __init__(self) -> None:
        self._dice = SystemRandom()

    def __call__(self) -> str:
        return f"{self._dice.getrandbits(48):012x}"


class LocalLog:
    """The half of a `ChannelLog` that only reads its book, and tells its feeds. Publishing is added by who inherits."""

    def __init__(
        self,
        *,
        rules: ChannelRules | None,
        policy: BookPolicy | None,
        clock: WallClock,
        epochs: Callable[[], str] | None,
        name: str,
    ) -> None:
        self.name = name
        self.book = Book(rules, policy)
        """What can be read. Only to be asked."""
        self._clock = clock
        self._epochs = Epochs() if epochs is None else epochs
        self.feeds: dict[LocalFeed, None] = {}
        """Those that are open."""
        self._away: str | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def read(self, channel: str, after: Position, *, count_max: int = 1_000, bytes_max: int = MIB) -> Stretch:
        self.check_open()
        return self.book.read(channel, after, self._clock(), count_max=count_max, bytes_max=bytes_max)

    async def latest(self, channel: str, count: int) -> Stretch:
        self.check_open()
        return self.book.latest(channel, count, self._clock())

    def feed(self) -> LocalFeed:
        """A feed of its own."""
        self.check_open()
        return LocalFeed(self)

    def reconfigure(self, rules: ChannelRules) -> None:
        """Other rules, for all channels at once."""
        self.book.reconfigure(rules, self._clock())

    def now(self) -> Wall:
        """What its clock says."""
        return self._clock()

    def check_open(self) -> None:
        """Raises:  LogAway."""
        if self._away is not None:
            raise LogAway(self.name, self._away)

    def _tell(self, appended: Sequence[Appended]) -> None:
        for feed in self.feeds:
            feed.appended(appended)

    def _begin(self) -> None:
        """From here on, what is too old is let go of."""
        self._away = None
        self._sweeping = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.book.wake(self._clock())

    async def _end(self, why: str) -> None:
        self._away = why
        if self._sweeping is not None:
            self._sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeping
            self._sweeping = None
        for feed in tuple(self.feeds):
            feed.end(why)


class LocalFeed:
    """A `Feed` of a log in this process."""

    def __init__(self, log: LocalLog) -> None:
        self._log = log
        self._following = Following()
        self._queue: list[News] = []
        self._queued: set[str] = set()
        """Channels in the queue."""
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._ended: str | None = None
        log.feeds[self] = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.feeds.pop(self, None)
        self._ended = "its feed is closed"
        self._arrived.set()

    async def follow(self, channel: str, *, recent: int = 0) -> Stretch:
        self._log.check_open()
        told = self._following.told
        if channel not in told and len(told) >= FOLLOWED_MAX:
            raise LogRefused("follow", f"a feed follows {len(told)} channels, and that is the bound")
        if channel in self._queued:  # what was told of it before it was followed anew
            self._queue = [each for each in self._queue if getattr(each, "channel", None) != channel]
            self._queued.discard(channel)
        stretch = self._log.book.latest(channel, recent, self._log.now())
        self._following.follow(channel, stretch.head, stretch.head)
        return stretch

    def unfollow(self, channel: str) -> None:
        self._following.unfollow(channel)

    async def next(self) -> Sequence[News]:
        while True:
            if news := self._take():
                return news
            if self._ended is not None:
                raise LogAway(self._log.name, self._ended)
            self._arrived.clear()
            await self._arrived.wait()

    def appended(self, appended: Iterable[Appended]) -> None:
        """What is new, to be told of if it is followed."""
        following, queue = self._following, self._queue
        for run in appended:
            if run.channel not in following.told:
                continue
            has_room = self._bytes < FEED_BYTES_MAX and len(queue) < FEED_RUNS_MAX
            if offered := following.offer(run, has_room=has_room):
                queue += offered
                self._queued.add(run.channel)
                self._bytes += sum(len(message.data) for message in run.messages)
            self._arrived.set()

    def end(self, why: str) -> None:
        """No more comes."""
        self._ended = why
        self._queue.append(LogWentAway(why))
        self._arrived.set()

    def _take(self) -> Sequence[News]:
        if self._queue:
            queue, self._queue = self._queue, []
            self._queued.clear()
            self._bytes = 0
            return queue
        found: list[News] = []
        size = 0
        while self._following.behind and size < CAUGHT_UP_BYTES:
            for news in self._following.catch_up(self._read):
                found.append(news)
                if isinstance(news, Appended):
                    size += sum(len(message.data) + 64 for message in news.messages)
        return found

    def _read(self, channel: str, after: Position) -> Stretch:
        return self._log.book.read(channel, after, self._log.now(), bytes_max=CAUGHT_UP_BYTES)
