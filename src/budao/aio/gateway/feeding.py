"""What the hub wants of the log, carried out: the feed of news, channels that begin, and the past that is read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from budao.aio.channel_log import ChannelLog, Feed
from budao.aio.gateway.channel import Channel
from budao.aio.gateway.hub import Hub
from budao.push import Appended, Jumped, LogError, LogRefused, LogWentAway, News, Position, Problem

log = logging.getLogger("budao.gateway")

FEED_PAUSE_S: Final = 0.5
"""Before a feed that broke is opened anew."""
READ_PAUSE_S: Final = 0.5
NEWS_BYTES: Final = 1024
"""What news cost the loop beside their bytes."""
"""Before the log is asked again for what it did not give."""


class Feeding:
    """Keeps a hub fed. `problem` says what is wrong with the log; empty while nothing is."""

    def __init__(self, hub: Hub, channel_log: ChannelLog) -> None:
        self.hub = hub
        self.log = channel_log
        self.problem = "it was not reached yet"
        self.on_change: Callable[[str], None] = lambda _: None
        """Told when `problem` changed."""
        self._feed: Feed | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._reads = asyncio.Semaphore(hub.policy.reads_max)
        self._loop = asyncio.get_running_loop()
        self._is_later = False
        self._spent = 0
        """What was handed out since others had their turn, in bytes."""
        self._again: set[Channel] = set()
        hub.follow = self._begin
        hub.unfollow = self._end
        hub.read = self._read
        hub.later = self._later

    def start(self) -> None:
        """Begins; `aclose` ends it."""
        self._own(self._run())

    async def aclose(self) -> None:
        """Ends everything that is under way."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ------------------------------------------------------------------------------------------------- the news

    async def _run(self) -> None:
        while True:
            try:
                async with self.log.feed() as feed:
                    self._feed = feed
                    self._say("")
                    for channel in tuple(self.hub.channels.values()):
                        self._begin(channel)
                    while True:
                        for news in await feed.next():
                            await self._take(news)
            except LogError as problem:
                self._say(str(problem))
            except Exception as problem:
                self.hub.metrics.count_error("mistake")
                log.exception("the feed of %s broke; it is opened anew", self.log.name)
                self._say(f"its feed broke: {type(problem).__name__}")
            finally:
                self._feed = None
            await asyncio.sleep(FEED_PAUSE_S)

    async def _take(self, news: News) -> None:
        hub = self.hub
        if isinstance(news, Appended):
            for part in hub.parts(news):
                if (
                    self._spent > hub.policy.step_bytes_max
                ):  # others have their turn in between, also of many small news
                    await asyncio.sleep(0)
                    self._spent = 0
                self._spent += hub.append(news.channel, part) + NEWS_BYTES
        elif isinstance(news, Jumped):
            hub.jumped(news)
        elif isinstance(news, LogWentAway):
            self._say(news.problem)
        else:
            self._say("")

    def _say(self, problem: str) -> None:
        if problem == self.problem:
            return
        self.problem = problem
        if problem:
            log.warning("the log %s is away: %s; connections stay, and publishing is refused", self.log.name, problem)
        else:
            again, self._again = self._again, set()
            for channel in again:
                self._begin(channel)
        self.on_change(problem)

    # ------------------------------------------------------------------------------------------------- channels

    def _begin(self, channel: Channel) -> None:
        self._own(self._follow(channel))

    async def _follow(self, channel: Channel) -> None:
        feed = self._feed
        if feed is None:
            self._not_followed(channel, Problem(why="log-away", happened=f"the log: {self.problem}", after_s=1.0))
            return
        try:
            stretch = await feed.follow(channel.name, recent=self.hub.policy.recent_count)
        except LogRefused as problem:
            self._not_followed(channel, Problem(why="full", happened=str(problem), after_s=5.0))
        except LogError as problem:
            self._not_followed(channel, Problem(why="log-away", happened=str(problem), after_s=1.0))
        except Exception:
            log.exception("channel %s: could not be followed", channel.name)
            self._not_followed(channel, Problem(why="mistake", happened="a mistake of the gateway", after_s=1.0))
        else:
            if feed is self._feed:
                self.hub.followed(channel, stretch)

    def _not_followed(self, channel: Channel, problem: Problem) -> None:
        if channel.ring is not None:  # somebody reads it already, and goes on as soon as the log is back
            self._again.add(channel)
            if not self.problem:
                self._loop.call_later(READ_PAUSE_S, self._try_again)
        self.hub.not_followed(channel, problem)

    def _try_again(self) -> None:
        again, self._again = self._again, set()
        for channel in again:
            if self.hub.channels.get(channel.name) is channel:
                self._begin(channel)

    def _end(self, channel: Channel) -> None:
        self._again.discard(channel)
        if self._feed is not None:
            with suppress(LogError):
                self._feed.unfollow(channel.name)

    # ------------------------------------------------------------------------------------------------- the past

    def _read(self, channel: Channel, place: Position) -> None:
        self._own(self._look_back(channel, place))

    async def _look_back(self, channel: Channel, place: Position) -> None:
        try:
            async with self._reads:
                stretch = await self.log.read(channel.name, place, bytes_max=self.hub.policy.catch_up_bytes)
        except Exception as problem:
            if not isinstance(problem, LogError):
                log.exception("channel %s: could not be read", channel.name)
            await asyncio.sleep(READ_PAUSE_S)
            self.hub.could_not_read(channel, place)
            self._later()
        else:
            if self.hub.have_read(channel, place, stretch):
                await asyncio.sleep(READ_PAUSE_S)
                self.hub.ask_again()

    def _later(self) -> None:
        if not self._is_later:
            self._is_later = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_later = False
        self.hub.turn()
