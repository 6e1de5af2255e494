"""What a reader does with what it is told of a channel: each message once and in order, or a gap that names what is missing.

It is the client's half of the promise. Several connections may tell of the same channel, one after the other or side by side,
and each may begin anywhere at or before the place of the reader: what was there already is dropped. What comes too late or is
never named is no small matter, so it raises; so does a life of the channel that may be older than the reader's or newer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

from budao.model import BudaoError
from budao.push.frames import FromGateway, Missing, Msg, Welcome
from budao.push.message import START, Gap, Hole, Message, Position

LIVES_MAX: Final = 4
"""Lives of a channel that are remembered as over: a connection that is still in one of them says nothing new."""


class BrokenPromise(BudaoError):
    """Messages were left out and nobody said so, or a place went backwards. The server is wrong; the reader stays where it was."""

    def __init__(self, channel: str, place: Position, got: Message | Gap) -> None:
        super().__init__(channel, place, got)
        self.channel = channel
        self.place = place
        self.got = got

    def __str__(self) -> str:
        got = self.got
        said = (
            f"the message {_shown(got.position)}"
            if isinstance(got, Message)
            else f"a gap from {_shown(got.after)} to {_shown(got.upto)}"
        )
        return (
            f"channel {self.channel}: {said} does not follow {_shown(self.place)}, and no gap names what is missing; "
            "subscribe again from that place"
        )


class Follower:
    """The place of one reader in one channel.

    Without a place it takes the first one it is told. `take` hands back what the reader gets: the message or gap itself, a gap
    shortened to what is news, or None for a repetition.
    """

    __slots__ = ("_over", "channel", "delivered", "dropped", "gaps", "missed", "place")

    def __init__(self, channel: str, place: Position | None = None) -> None:
        self.channel = channel
        self.place = place
        """After the last thing handed out; None before anything was told."""
        self.delivered = 0
        self.dropped = 0
        self.gaps = 0
        self.missed = 0
        """Messages that gaps named, where their number is known: not over the border of two lives."""
        self._over: deque[str] | None = None  # most channels live once, and there may be many followers

    def begin(self, position: Position) -> None:
        """A connection says where it begins. That is news only for a reader that has no place yet."""
        if self.place is None:
            self.place = position

    def take(self, item: Message | Gap) -> Message | Gap | None:
        """What the reader gets, if anything.

        Raises:  BrokenPromise; the place stays.
        """
        if isinstance(item, Gap):
            return self._take_gap(item)
        position, place = item.position, self.place
        if place is not None:
            if position.epoch == place.epoch:
                if position.seq != place.seq + 1:
                    if position.seq > place.seq:
                        raise BrokenPromise(self.channel, place, item)
                    self.dropped += 1
                    return None
            elif place != START or position.seq != 1:
                if not self._is_over(position):
                    raise BrokenPromise(self.channel, place, item)
                self.dropped += 1
                return None
        self.place = position
        self.delivered += 1
        return item

    def _take_gap(self, gap: Gap) -> Gap | None:
        if self.place is not None and not self._is_news(gap, self.place):
            self.dropped += 1
            return None
        place, upto = gap.after if self.place is None else self.place, gap.upto
        if place == START or (place.epoch == upto.epoch and place.seq < upto.seq):
            self.missed += upto.seq - place.seq
        elif place.epoch != upto.epoch:
            over = () if self._over is None else self._over
            self._over = deque((*(each for each in over if each != upto.epoch), place.epoch), maxlen=LIVES_MAX)
        self.place = upto
        self.gaps += 1
        return gap if gap.after == place else Gap(gap.channel, place, upto, gap.why)

    def _is_news(self, gap: Gap, place: Position) -> bool:
        """Whether it leads on from the place.

        Raises:  BrokenPromise if it leaves out something itself, or nobody can tell.
        """
        after, upto = gap.after, gap.upto
        is_of_ours = after.epoch == place.epoch
        is_news = upto.epoch != place.epoch or upto.seq > place.seq
        if is_of_ours and upto.epoch == place.epoch and upto.seq < after.seq:  # an older log was put in place
            is_news = upto != place
            is_fine = not is_news or (after == place and gap.why is Hole.EPOCH)
        elif is_of_ours or place == START or not is_news:
            is_news &= upto != START
            is_fine = not is_news or after.seq <= place.seq
        elif upto.epoch == place.epoch:
            is_fine = True
        else:
            # Of two lives that both came after an earlier one nobody can say here which is the newer. Whoever is asked what
            # follows our place can; going back to the older one would leave out all of the newer one unnoticed.
            is_news = False
            is_fine = upto == START or self._is_over(upto)
        if not is_fine:
            raise BrokenPromise(self.channel, place, gap)
        return is_news

    def _is_over(self, position: Position) -> bool:
        """Whether it is a place in a life that is known to have ended."""
        return self._over is not None and position.epoch in self._over


class Followers:
    """A follower for each channel of a client, for whoever has frames in hand: a client, or a test that trusts nobody."""

    __slots__ = ("_by_channel",)

    def __init__(self, channels: Mapping[str, Position | None] | None = None) -> None:
        self._by_channel = {name: Follower(name, place) for name, place in (channels or {}).items()}

    def __getitem__(self, channel: str) -> Follower:
        return self._by_channel[channel]

    def __contains__(self, channel: object) -> bool:
        return channel in self._by_channel

    def follow(self, channel: str, place: Position | None = None) -> Follower:
        """The channel's follower; a new one, from `place`, if there was none."""
        found = self._by_channel.get(channel)
        if found is None:
            found = self._by_channel[channel] = Follower(channel, place)
        return found

    def forget(self, channel: str) -> None:
        """Follows a channel no more."""
        self._by_channel.pop(channel, None)

    def places(self) -> dict[str, Position | None]:
        """Where to go on: what a hello says of its channels."""
        return {name: follower.place for name, follower in self._by_channel.items()}

    def take(self, frame: FromGateway) -> Message | Gap | None:
        """What the reader gets from a frame. A channel that is not followed tells nothing, and other frames neither.

        Raises:  BrokenPromise.
        """
        if isinstance(frame, Msg):
            follower = self._by_channel.get(frame.message.channel)
            return None if follower is None else follower.take(frame.message)
        if isinstance(frame, Missing):
            follower = self._by_channel.get(frame.gap.channel)
            return None if follower is None else follower.take(frame.gap)
        if isinstance(frame, Welcome):
            for channel, position in frame.channels.items():
                if (follower := self._by_channel.get(channel)) is not None:
                    follower.begin(position)
        return None


def _shown(position: Position) -> str:
    return f"{position.epoch or '(start)'}:{position.seq}"
