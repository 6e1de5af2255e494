"""What one reader gets of one channel: a bounded queue, and the place behind it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from budao.push import Follower, Gap, Message, Position


class Reading:
    """The client's side of a subscription: what waits for its reader."""

    __slots__ = (
        "bytes_waiting",
        "channel",
        "error",
        "follower",
        "is_asked",
        "is_over",
        "is_resting",
        "last",
        "place",
        "queue",
        "ready",
        "strikes",
        "waiter",
    )

    def __init__(self, channel: str, after: Position | None, last: int) -> None:
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

    def _wake(self) -> None:
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Subscription:
    """An async iterator over the messages and gaps of a channel. It ends with its `async with`, with `aclose`, or when it is dropped.

    Raises:  from the iteration, once what waits was handed out: Forbidden, ChannelRefused, Unauthorized, GivenUp, BrokenPromise.
    """

    def __init__(self, reading: Reading, taken: Callable[[Reading], None], left: Callable[[Reading], None]) -> None:
        self._reading = reading
        self._taken = taken
        self._left = left
        self._loop = asyncio.get_running_loop()

    @property
    def channel(self) -> str:
        """What it reads."""
        return self._reading.channel

    @property
    def position(self) -> Position | None:
        """After the last item that was handed out: what to keep, once it is dealt with, to go on from in another process."""
        return self._reading.place

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
