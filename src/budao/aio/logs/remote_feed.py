"""A feed over a connection of its own: it follows again from where it was whenever that is made anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from budao.aio.logs.line import Line, Where, keep_connected
from budao.aio.logs.local import FEED_BYTES_MAX, FOLLOWED_MAX
from budao.model import LocalWireError
from budao.push import (
    Appended,
    Following,
    Hole,
    Jumped,
    LogAway,
    LogCameBack,
    LogError,
    LogRefused,
    LogWentAway,
    News,
    Stretch,
)
from budao.wire import log_frames as wire


class RemoteFeed:
    """A `Feed` of a `LogServer`. What nobody takes stays in the server's log, from where it is told later."""

    def __init__(self, where: Where, timeout_s: float, closed: Callable[[RemoteFeed], object]) -> None:
        self.timeout_s = timeout_s
        self._where = where
        self._closed = closed
        self._following = Following()
        """Places behind what was put in the queue."""
        self._asked: dict[int, _Asked] = {}
        self._anew: dict[str, int] = {}
        """Channels whose following was asked for and not answered, and how often: what comes of them is of the time before."""
        self._number = 0
        self._queue: list[News] = []
        self._queued: set[str] = set()
        """Channels in the queue."""
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._line: Line | None = None
        self._is_away = False
        """Whether this was told."""
        self._problem = "not connected yet"
        self._running: asyncio.Task[None] | None = None
        self._ended: str | None = None

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Hangs up."""
        if self._ended is None:
            self._ended = "its feed is closed"
        self._closed(self)
        self._arrived.set()
        for asked in tuple(self._asked.values()):
            asked.fail(LogAway(self._where.name, self._ended))
        if self._running is not None:
            running, self._running = self._running, None
            running.cancel()
            await asyncio.wait([running])

    async def follow(self, channel: str, *, recent: int = 0) -> Stretch:
        self._start()
        told = self._following.told
        if channel not in told and len(told) + len(self._anew) >= FOLLOWED_MAX:
            raise LogRefused("follow", f"a feed follows {len(told)} channels, and that is the bound")
        self._number += 1
        number = self._number
        try:
            frame = wire.format_message(wire.Ask(number, wire.Follow(channel, max(recent, 0))))
        except LocalWireError as problem:
            raise LogRefused(f"follow {channel!a}", str(problem)) from problem
        asked = self._asked[number] = _Asked(channel, frame, asyncio.get_running_loop().create_future())
        self._anew[channel] = self._anew.get(channel, 0) + 1
        if self._line is not None:
            self._line.link.post(frame)
        try:
            async with asyncio.timeout(self.timeout_s):
                return await asked.answered
        except TimeoutError:
            happened = f"no answer within {self.timeout_s:.3g} s"
            if self._line is None:
                happened += f": {self._problem}"
            raise LogAway(self._where.name, happened) from None
        finally:
            del self._asked[number]
            if not asked.is_answered:
                self._is_asked(asked)

    def _is_asked(self, asked: _Asked) -> None:
        """It is over. Unless it came about, what was followed goes on from where it was."""
        channel = asked.channel
        self._anew[channel] -= 1
        if not self._anew[channel]:
            del self._anew[channel]
            if not asked.is_answered and channel in self._following.told:
                self._say(wire.Ask(0, wire.Follow(channel, 0, self._following.told[channel])))

    def unfollow(self, channel: str) -> None:
        self._following.unfollow(channel)
        self._say(wire.Unfollow(channel))

    async def next(self) -> Sequence[News]:
        while True:
            if self._queue:
                queue, self._queue = self._queue, []
                self._queued.clear()
                self._bytes = 0
                if self._line is not None:
                    self._line.link.read(is_wanted=True)
                return queue
            if self._ended is not None:
                raise LogAway(self._where.name, self._ended)
            self._arrived.clear()
            await self._arrived.wait()

    # ----------------------------------------------------------------------------------------------- connection

    def _start(self) -> None:
        if self._ended is not None:
            raise LogAway(self._where.name, self._ended)
        if self._running is None or self._running.done():
            name = f"feed of {self._where.name}"
            self._running = asyncio.get_running_loop().create_task(self._run(), name=name)

    async def _run(self) -> None:
        try:
            await keep_connected(self._where, self, lambda: None)
        except Exception as mistake:  # of ours; it must not leave anybody waiting
            self._ended = f"its connection has stopped for a mistake of its own: {mistake!r}"
            self._line = None
            self._arrived.set()
            for asked in tuple(self._asked.values()):
                asked.fail(LogAway(self._where.name, self._ended))
            raise

    def _say(self, message: wire.Message) -> None:
        if self._line is not None:
            self._line.link.post(wire.format_message(message))

    def came(self, line: Line) -> None:
        """There is a connection: what was followed is followed again, from where it was."""
        self._line = line
        if self._is_away:
            self._is_away = False
            self._put(LogCameBack())
        for channel, place in self._following.told.items():
            if channel not in self._anew:
                line.link.post(wire.format_message(wire.Ask(0, wire.Follow(channel, 0, place))))
        for asked in self._asked.values():
            line.link.post(asked.frame)
        line.link.read(is_wanted=self._bytes < FEED_BYTES_MAX)

    def went(self, line: Line, problem: str) -> None:
        """It broke."""
        del line
        self._line = None
        self._tell_away(problem)

    def denied(self, problem: LogError) -> None:
        """There is none."""
        said = problem.happened if isinstance(problem, LogAway | LogRefused) else str(problem)
        if isinstance(problem, LogRefused):
            for asked in tuple(self._asked.values()):
                asked.fail(LogRefused(problem.tried, problem.happened))
        self._tell_away(said)

    def _tell_away(self, problem: str) -> None:
        self._problem = problem
        if not self._is_away:
            self._is_away = True
            self._put(LogWentAway(problem))

    def received(self, line: Line, message: wire.Message) -> None:
        """What the server said."""
        if isinstance(message, wire.Told):
            for run in message.runs:
                self._told(run)
        elif isinstance(message, Jumped):
            self._jumped(message)
        elif isinstance(message, wire.Answered):
            if message.number:
                self._followed(message)
        elif isinstance(message, wire.Failed):
            if message.number in self._asked:
                self._asked[message.number].fail(message.error)
            elif not message.number:  # what was followed cannot be any more: begin anew
                line.link.close(f"it does not follow again: {message.error}")
        else:
            line.link.close(f"a server does not say {type(message).__name__} here")

    def _followed(self, message: wire.Answered) -> None:
        asked = self._asked.get(message.number)
        stretch = message.answer
        if not isinstance(stretch, Stretch):
            return
        if asked is None or asked.answered.done():  # whoever asked has left
            if stretch.channel not in self._following.told:
                self._say(wire.Unfollow(stretch.channel))
            else:  # it goes on from the place that is known here, and not from the one just said
                place = self._following.told[stretch.channel]
                self._say(wire.Ask(0, wire.Follow(stretch.channel, 0, place)))
            return
        channel = stretch.channel
        if channel in self._queued:  # what was told of it before it was followed anew
            self._queue = [each for each in self._queue if getattr(each, "channel", None) != channel]
            self._queued.discard(channel)
        self._following.follow(channel, stretch.head, stretch.head)
        asked.is_answered = True
        self._is_asked(asked)
        asked.answered.set_result(stretch)

    def _told(self, run: Appended) -> None:
        channel = run.channel
        told = self._following.told.get(channel)
        if told is None or channel in self._anew:
            return
        epoch, first = run.messages[0].position
        if epoch == told.epoch and first <= told.seq:  # told twice, since it was followed again meanwhile
            run = Appended(channel, run.messages[told.seq - first + 1 :])
            if not run.messages:
                return
        for news in self._following.offer(run, has_room=True):
            self._put(news)

    def _jumped(self, jump: Jumped) -> None:
        told = self._following.told.get(jump.channel)
        if told is None or jump.channel in self._anew:
            return
        if jump.why is not Hole.EPOCH and jump.head.epoch == told.epoch and jump.head.seq <= told.seq:
            return
        self._following.told[jump.channel] = jump.head
        self._put(jump)

    def _put(self, news: News) -> None:
        self._queue.append(news)
        if isinstance(news, Appended | Jumped):
            self._queued.add(news.channel)
        if isinstance(news, Appended):
            self._bytes += sum(len(message.data) + 64 for message in news.messages)
            if self._bytes >= FEED_BYTES_MAX and self._line is not None:
                self._line.link.read(is_wanted=False)
        self._arrived.set()


class _Asked:
    """A following that waits for its answer."""

    __slots__ = ("answered", "channel", "frame", "is_answered")

    def __init__(self, channel: str, frame: bytes, answered: asyncio.Future[Stretch]) -> None:
        self.channel = channel
        self.frame = frame
        self.answered = answered
        self.is_answered = False

    def fail(self, error: LogError) -> None:
        if not self.answered.done():
            self.answered.set_exception(error)
            self.answered.exception()
