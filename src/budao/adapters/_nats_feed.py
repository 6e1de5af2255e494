"""A feed: what the stream republishes, put in order, with what was missed read from the stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from budao.adapters._nats_keeper import ApiFailed
from budao.adapters._nats_link import Gone
from budao.model import RemoteWireError
from budao.push import (
    START,
    Appended,
    Following,
    Jumped,
    LogAway,
    LogCameBack,
    LogError,
    LogRefused,
    LogWentAway,
    News,
    Position,
    Stretch,
)
from budao.wire import nats, nats_kept

if TYPE_CHECKING:
    from budao.adapters.nats import NatsLog

MIB: Final = 1024 * 1024
FEED_BYTES_MAX: Final = 8 * MIB
"""So much waits for whoever takes it; what comes later is read from the stream once it has."""
FEED_RUNS_MAX: Final = 65_536
FOLLOWED_MAX: Final = 100_000
READS_MAX: Final = 32
"""Channels that are read at the same time."""
CHECKS_MAX: Final = 64
"""Channels whose head is looked at each time, so that a last message that was not told is found."""
SOON_S: Final = 0.25
"""A channel that was followed just now is looked at after this: in a cluster, other servers hear of us a little later."""
PAUSE_S: Final = 0.2
CAUGHT_UP_BYTES: Final = MIB


class NatsFeed:
    """A `Feed` over the connection of its log."""

    def __init__(self, log: NatsLog, closed: Callable[[], object]) -> None:
        self._log = log
        self._closed = closed
        self._following = Following()
        self._sids: dict[str, int] = {}
        self._pending: dict[str, int] = {}
        """Channels that are being followed, and not answered yet."""
        self._seen: dict[str, Position] = {}
        """By channel that is being followed or read: the latest that came meanwhile, which what is read may not hold yet."""
        self._queue: list[News] = []
        self._queued: set[str] = set()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._wanted = asyncio.Event()
        self._is_away = False
        self._ended: str | None = None
        self._round: deque[str] = deque()
        self._soon: dict[str, float] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._epoch = 0
        """Counts followings, so that what was read for one before is dropped."""
        self._turns: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Follows nothing any more."""
        if self._ended is None:
            self._ended = "its feed is closed"
        self._closed()
        self._arrived.set()
        for sid in self._sids.values():
            self._log.link.unsubscribe(sid)
        self._sids.clear()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self) -> None:
        if self._ended is not None:
            raise LogAway(self._log.name, self._ended)
        if not self._tasks:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._fill()), loop.create_task(self._check())]

    # ------------------------------------------------------------------------------------------------ following

    async def follow(self, channel: str, *, recent: int = 0) -> Stretch:
        self._start()
        told, log = self._following.told, self._log
        if channel not in told and len(told) + len(self._pending) >= FOLLOWED_MAX:
            raise LogRefused("follow", f"a feed follows {len(told)} channels, and that is the bound")
        if channel not in self._sids:  # before it is asked where it stands, so that nothing falls between both
            subject = log.policy.told + nats_kept.token_of(channel)
            self._sids[channel] = log.link.subscribe(subject, lambda said: self._heard(channel, said))
        self._pending[channel] = self._pending.get(channel, 0) + 1
        try:
            stretch = await log.latest(channel, recent)
            if channel in self._queued:  # what was told of it before it was followed anew
                self._queue = [each for each in self._queue if getattr(each, "channel", None) != channel]
                self._queued.discard(channel)
            seen = self._seen.get(channel, START)
            is_behind = seen.epoch != stretch.head.epoch or seen.seq > stretch.head.seq
            self._following.follow(channel, stretch.head, seen if seen != START and is_behind else stretch.head)
            self._epoch += 1
            self._turns[channel] = self._epoch
            self._soon[channel] = asyncio.get_running_loop().time() + SOON_S
            self._wanted.set()
            return stretch
        finally:
            self._pending[channel] -= 1
            if not self._pending[channel]:
                del self._pending[channel]
                self._seen.pop(channel, None)
                if channel not in told:
                    self._forget(channel)

    def unfollow(self, channel: str) -> None:
        self._following.unfollow(channel)
        if channel not in self._pending:
            self._forget(channel)

    def _forget(self, channel: str) -> None:
        self._seen.pop(channel, None)
        self._turns.pop(channel, None)
        self._soon.pop(channel, None)
        sid = self._sids.pop(channel, None)
        if sid is not None:
            self._log.link.unsubscribe(sid)

    async def next(self) -> Sequence[News]:
        while True:
            if self._queue:
                queue, self._queue = self._queue, []
                self._queued.clear()
                self._bytes = 0
                self._wanted.set()
                return queue
            if self._ended is not None:
                raise LogAway(self._log.name, self._ended)
            self._arrived.clear()
            await self._arrived.wait()

    # ------------------------------------------------------------------------------------------------- the news

    def _heard(self, channel: str, said: nats.Delivered) -> None:
        try:
            kept = nats_kept.parse_kept(channel, said.headers, said.data)
        except RemoteWireError:  # not by a gateway; the numbers tell whether anything is missing
            return
        self._log.noted(kept)
        position = kept.message.position
        if channel in self._pending or channel in self._following.behind:
            self._seen[channel] = position
        told = self._following.told.get(channel)
        if told is None:
            return
        if position.epoch == told.epoch and position.seq <= told.seq:
            return
        is_next = position.seq == told.seq + 1 and (position.epoch == told.epoch or told == START)
        if not is_next:
            self._behind(channel)
            return
        has_room = self._bytes < FEED_BYTES_MAX and len(self._queue) < FEED_RUNS_MAX
        for news in self._following.offer(Appended(channel, (kept.message,)), has_room=has_room):
            self._put(news)

    def _behind(self, channel: str) -> None:
        """What is missing is read from the stream."""
        if channel in self._following.told:
            self._following.behind.setdefault(channel)
            self._wanted.set()

    def _put(self, news: News) -> None:
        if isinstance(news, Appended):
            last = self._queue[-1] if self._queue else None
            if isinstance(last, Appended) and last.channel == news.channel:
                self._queue[-1] = Appended(news.channel, last.messages + news.messages)
            else:
                self._queue.append(news)
            self._queued.add(news.channel)
            self._bytes += sum(len(message.data) + 64 for message in news.messages)
        else:
            self._queue.append(news)
            if isinstance(news, Jumped):
                self._queued.add(news.channel)
        self._arrived.set()

    def came(self) -> None:
        """The stream can be used again: whatever was followed may have been told of more."""
        if self._is_away:
            self._is_away = False
            self._put(LogCameBack())
        for channel in self._following.told:
            self._behind(channel)

    def went(self, problem: str) -> None:
        """It cannot be used."""
        if not self._is_away and self._ended is None:
            self._is_away = True
            self._put(LogWentAway(problem))

    # ------------------------------------------------------------------------------------------- what was missed

    async def _fill(self) -> None:
        """Reads what is behind, as long as there is room for it."""
        reading: dict[asyncio.Task[Any], str] = {}
        try:
            while True:
                self._wanted.clear()
                for channel in tuple(self._following.behind):
                    if len(reading) >= READS_MAX or self._bytes >= FEED_BYTES_MAX:
                        break
                    if channel not in reading.values():
                        reading[asyncio.create_task(self._catch_up(channel))] = channel
                wanted: asyncio.Task[Any] = asyncio.create_task(self._wanted.wait())
                try:
                    done, _ = await asyncio.wait((wanted, *reading), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    wanted.cancel()
                for task in done:
                    reading.pop(task, None)
        finally:
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)

    async def _catch_up(self, channel: str) -> None:
        following, turn = self._following, self._turns.get(channel)
        told = following.told.get(channel)
        if told is None or channel not in following.behind:
            return
        try:
            stretch = await self._log.read(channel, told, bytes_max=CAUGHT_UP_BYTES)
        except (LogError, Gone, ApiFailed, TimeoutError):
            await asyncio.sleep(PAUSE_S)
            return
        except Exception as problem:  # noqa: BLE001  # told with its traceback
            self._log.mistake(problem)
            await asyncio.sleep(PAUSE_S)
            return
        if self._turns.get(channel) != turn or following.told.get(channel) != told or channel not in following.behind:
            return  # it was followed anew, or no more, meanwhile
        seen = self._seen.pop(channel, None) if channel not in self._pending else None
        for news in following.have_read(channel, stretch):
            self._put(news)
        place = following.told[channel]
        if seen is not None and (seen.epoch != place.epoch or seen.seq > place.seq):
            self._behind(channel)

    async def _check(self) -> None:
        """Looks at heads: of a few channels every so often, and of those followed just now."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._log.check_s
        while True:
            await asyncio.sleep(min(SOON_S, self._log.check_s))
            if not self._log.is_ready:
                continue
            now = loop.time()
            channels = [channel for channel, at in self._soon.items() if at <= now][:CHECKS_MAX]
            for channel in channels:
                del self._soon[channel]
            if now >= due:
                due = now + self._log.check_s
                if not self._round:
                    self._round.extend(self._following.told)
                while self._round and len(channels) < CHECKS_MAX:
                    channels.append(self._round.popleft())
            await asyncio.gather(*map(self._look, channels))

    async def _look(self, channel: str) -> None:
        if channel not in self._following.told:
            return
        try:
            kept = await self._log.keeper.head(channel)
        except (Gone, TimeoutError, ApiFailed, RemoteWireError):
            return
        told = self._following.told.get(channel)
        if kept is None or told is None:
            return  # one that is forgotten says more when its next life begins
        epoch, seq = kept.message.position
        if epoch != told.epoch or seq > told.seq:
            self._behind(channel)
