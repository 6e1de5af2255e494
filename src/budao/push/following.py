"""What one reader of a log follows, and how far each channel was told: what decides what a feed says next."""

from __future__ import annotations

from collections.abc import Callable

from budao.push.message import START, Appended, Hole, Jumped, Position, Stretch, follows

Read = Callable[[str, Position], Stretch]
"""What is retained after a place."""


class Following:
    """Channels and places. It holds no messages, so a reader that does not read costs its places only.

    What is appended while there is room is told at once. What is not, is behind: it is read from the log once there is room
    again, and if the log does not hold it any more, a `Jumped` says so.
    """

    __slots__ = ("behind", "told")

    def __init__(self) -> None:
        self.told: dict[str, Position] = {}
        """By channel: the place behind what was told."""
        self.behind: dict[str, None] = {}
        """Channels that are to be read, in order."""

    def follow(self, channel: str, after: Position, head: Position) -> None:
        """Tells of a channel from a place on. One that is not the head is behind at once."""
        self.told[channel] = after
        self.behind.pop(channel, None)
        if after != head:
            self.behind[channel] = None

    def unfollow(self, channel: str) -> None:
        """No more of it."""
        self.told.pop(channel, None)
        self.behind.pop(channel, None)

    def offer(self, run: Appended, *, has_room: bool) -> tuple[Appended | Jumped, ...]:
        """Something was appended: what to tell of it now.

        Cost:  two dictionary lookups for a channel nobody follows here or that is behind.
        """
        channel = run.channel
        told = self.told.get(channel)
        if told is None or channel in self.behind:
            return ()
        if not has_room:
            self.behind[channel] = None
            return ()
        self.told[channel] = run.messages[-1].position
        first = run.messages[0].position
        return (run,) if follows(told, first) else (_jump(channel, told, first), run)

    def catch_up(self, read: Read) -> tuple[Appended | Jumped, ...]:
        """What to tell of the channel that is behind longest; nothing if none is. To be called again while one is."""
        if not self.behind:
            return ()
        channel = next(iter(self.behind))
        return self.have_read(channel, read(channel, self.told[channel]))

    def have_read(self, channel: str, stretch: Stretch) -> tuple[Appended | Jumped, ...]:
        """What to tell of a channel that is behind, now that it was read after the place that was told."""
        self.behind.pop(channel, None)
        told = self.told[channel]
        if stretch.more:
            self.behind[channel] = None  # the others come first
        if not stretch.messages:
            if stretch.head in {told, START}:  # a channel that was forgotten says more when its next life begins
                return ()
            self.told[channel] = stretch.head
            return (Jumped(channel, stretch.head, _why(told, stretch.head)),)
        self.told[channel] = stretch.messages[-1].position
        run, first = Appended(channel, stretch.messages), stretch.messages[0].position
        return (run,) if follows(told, first) else (_jump(channel, told, first), run)


def _jump(channel: str, told: Position, first: Position) -> Jumped:
    return Jumped(channel, Position(first.epoch, first.seq - 1), _why(told, first))


def _why(told: Position, upto: Position) -> Hole:
    # A count that went back is another life, whatever it calls itself: somebody has put an older log in place.
    is_same_life = told.epoch in {upto.epoch, ""} and upto.seq >= told.seq
    return Hole.TRIMMED if is_same_life else Hole.EPOCH
