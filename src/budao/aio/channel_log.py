"""What every log of channels can do, whichever backend keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from budao.push import Draft, News, NotPlaced, Placed, Position, Stretch


class Feed(Protocol):
    """News of the channels that one gateway follows, over one connection to the log. An async context manager."""

    async def follow(self, channel: str, *, recent: int = 0) -> Stretch:
        """Begins to tell of a channel; answers with up to `recent` of its latest messages, which end at the head.

        What `next` tells of it afterwards begins right behind that head. Following again begins anew.

        Raises:  LogAway if the log did not answer in time; LogRefused beyond a bound.
        """

    def unfollow(self, channel: str) -> None:
        """Stops; what is on its way may still be told."""

    async def next(self) -> Sequence[News]:
        """Waits for news: at least one, in order for each channel. Links are mended inside, and told of."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ChannelLog(Protocol):
    """Channels of messages with places, durable before they are acknowledged. Made ready by its own async context.

    Raises:  LogAway if no answer came in time; whether it took effect is then in the error.
    """

    @property
    def name(self) -> str:
        """What to call it in a message: kind and address, no secret."""

    async def publish(self, drafts: Sequence[Draft]) -> tuple[Placed | NotPlaced, ...]:
        """Adds messages, and answers once they are durable, each for itself and in order; drafts of one channel stay in order."""

    async def read(
        self, channel: str, after: Position, *, count_max: int = 1_000, bytes_max: int = 1024 * 1024
    ) -> Stretch:
        """What is retained after a place, oldest first. At least one message if there is one, whatever its size.

        A place of another epoch, or beyond the head, is answered with the retained messages from the first one on.
        """

    async def latest(self, channel: str, count: int) -> Stretch:
        """Up to `count` of the latest messages, oldest first."""

    def feed(self) -> Feed:
        """A feed of its own."""

    async def aclose(self) -> None:
        """Lets go of connections, files and tasks."""
