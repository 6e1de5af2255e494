"""What one reader gets of one channel: a bounded queue, and the place behind it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from budao.push import Follower, Gap, Members, Message, Position, Present


class Reading:
    """The client's side of a subscription: what waits for its reader."""

    __slots__ = (
        "bytes_waiting",
        "channel",
        "error",
        "follower",
        "has_presence",
        "is_asked",
        "is_over",
        "is_resting",
        "last",
        "members",
        "members_changed",
        "place",
        "queue",
        "ready",
        "strikes",
        "told_by",
        "waiter",
    )

    def __init__(self, channel: str, after: Position | None, last: int, *, has_presence: bool = False) -> None:
        self.channel = channel
        self.follower = Follower(channel, after)
        self.last = last
        """How many of the latest messages it begins with, until it has begun."""
        self.place = after
        """After what was handed to the reader."""
        self.queue: deque[Message | Gap] = deque()
        self.bytes_waiting = 0
        self.is_resting = False
        """Its queue was full, so the gateway was told to stop."""
        self.is_asked = False
        """A gateway was asked for it and has not answered."""
        self.is_over = False
        self.error: Exception | None = None
        self.strikes = 0
        """Times in a row that the gateway left something out."""
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiter: asyncio.Future[None] | None = None
        self.has_presence = has_presence
        """Its reader wants to know who else reads the channel."""
        self.members: Members | None = None
        self.members_changed = asyncio.Event()
        self.told_by: object = None
        """The connection whose word on presence is the latest, once it has named everybody."""

    def tell(self, connection: object, present: Present) -> None:
        """A connection says who came and left. What it says first names everybody."""
        names = dict.fromkeys(self.members.names) if self.members is not None and self.told_by is connection else {}
        for name in present.left:
            names.pop(name, None)
        names.update(dict.fromkeys(present.joined))
        self.told_by = connection
        self.members = Members(tuple(names), present.count)
        self._wake_watchers()

    def begin(self, position: Position) -> None:
        """A gateway said where it begins."""
        self.follower.begin(position)
        if self.place is None:
            self.place = position
        if not self.ready.done():
            self.ready.set_result(None)

    def put(self, item: Message | Gap) -> None:
        """Adds what its reader gets."""
        self.queue.append(item)
        if isinstance(item, Message):
            self.bytes_waiting += len(item.data)
        self._wake()

    def pop(self) -> Message | Gap:
        """What its reader gets next."""
        item = self.queue.popleft()
        if isinstance(item, Message):
            self.bytes_waiting -= len(item.data)
            self.place = item.position
        else:
            self.place = item.upto
        return item

    def end(self, error: Exception | None = None) -> None:
        """Nothing is added any more; the reader gets what waits, and then the error."""
        self.is_over = True
        self.error = self.error or error
        if not self.ready.done():
            self.ready.set_result(None)
        self._wake()
        self._wake_watchers()

    def _wake_watchers(self) -> None:
        self.members_changed.set()
        self.members_changed = asyncio.Event()

    def _wake(self) -> None:
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Subscription:
    """An async iterator over the messages and gaps of a channel. It ends with its `async with`, with `aclose`, or when it is dropped.

    Raises:  from the iteration, once what waits was handed out: Forbidden, ChannelRefused, Unauthorized, GivenUp, BrokenPromise.
    """

    def __init__(
        self,
        reading: Reading,
        taken: Callable[[Reading], None],
        left: Callable[[Reading], None],
        acknowledged: Callable[[Reading], None],
    ) -> None:
        self._reading = reading
        self._taken = taken
        self._left = left
        self._acknowledged = acknowledged
        self._loop = asyncio.get_running_loop()

    @property
    def channel(self) -> str:
        """What it reads."""
        return self._reading.channel

    @property
    def position(self) -> Position | None:
        """After the last item that was handed out: what to keep, once it is dealt with, to go on from in another process."""
        return self._reading.place

    @property
    def members(self) -> Members | None:
        """Who reads the channel, as was told latest; None before, and without `presence`."""
        return self._reading.members

    async def presence(self) -> AsyncIterator[Members]:
        """Who reads the channel: as it is, and whenever it changes. A slow watcher skips to the latest. It ends with the subscription.

        Raises:  as the iteration over messages does; ValueError without `presence`.
        """
        reading = self._reading
        if not reading.has_presence:
            raise ValueError(f"{reading.channel} was subscribed without presence; subscribe with presence=True")
        seen = None
        while True:
            if reading.members != seen and reading.members is not None:
                seen = reading.members
                yield seen
                continue
            if reading.error is not None:
                raise reading.error
            if reading.is_over:
                return
            await reading.members_changed.wait()

    def acknowledge(self) -> None:
        """Everything that was handed out so far is dealt with: the gateway is told, so that operators see how far behind it is.

        It may be called for each message: what is sent is the latest place, about once a second. Nothing is delivered again for
        want of it; to go on after a crash, keep `position`.
        """
        if not self._reading.is_over:
            self._acknowledged(self._reading)

    async def ready(self) -> Position | None:
        """Waits until a gateway has said where it begins, and answers with that place: what is published now will be seen.

        What has come in the same breath waits behind it, to be handed out. Once items were handed out, it is the place behind those.

        Raises:  as the iteration does.
        """
        await asyncio.shield(self._reading.ready)
        if self._reading.error is not None:
            raise self._reading.error
        return self._reading.place

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message | Gap:
        reading = self._reading
        while not reading.queue:
            if reading.error is not None:
                raise reading.error
            if reading.is_over:
                raise StopAsyncIteration
            assert reading.waiter is None, "one task at a time reads a subscription"
            reading.waiter = self._loop.create_future()
            try:
                await reading.waiter
            finally:
                reading.waiter = None
        item = reading.pop()
        if reading.is_resting:
            self._taken(reading)
        return item

    async def aclose(self) -> None:
        """Ends it; what waits is dropped."""
        self._end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def __del__(self) -> None:
        # A loop that was left by `break` drops its iterator; the channel should not go on filling a queue nobody reads.
        if not self._reading.is_over and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._left, self._reading)

    def _end(self) -> None:
        if not self._reading.is_over:
            self._left(self._reading)
        self._reading.queue.clear()
