"""The latest messages of one channel, for those who catch up, and how far behind each of them is.

A ring tells either everything after a place or nothing: whoever stands before its oldest message reads the log instead, and
`bridge` says what is missing in what the log still has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from budao.push.message import START, Gap, Hole, Message, Position, Stretch, follows

OVERHEAD_BYTES: Final = 64
"""What a message costs a reader beside its data, roughly: its frame, its channel, its place."""


class Recent:
    """A message of a ring. `frames` holds it in bytes, by encoding, for as long as it is kept: encoded once for everybody."""

    __slots__ = ("frames", "message", "total_bytes")

    def __init__(self, message: Message, total_bytes: int) -> None:
        self.message = message
        self.total_bytes = total_bytes
        """Of the channel up to and including this message, as the ring has counted."""
        self.frames: dict[object, bytes] = {}


class Ring:
    """The latest messages of a channel that stands at `head`, bounded by count and bytes; it keeps at least the last one.

    Cost:    a list that is cut when half of it is old; looking up a place is arithmetic.
    """

    __slots__ = ("_begin", "_kept", "bytes_max", "count_max", "forgotten_bytes", "head", "oldest", "total_bytes")

    def __init__(self, head: Position, *, count_max: int, bytes_max: int) -> None:
        assert count_max > 0, "a ring keeps at least one message"
        self.count_max = count_max
        self.bytes_max = bytes_max
        self.head = head
        self.oldest = head
        """It can tell everything after this place."""
        self.total_bytes = 0
        """Of everything appended so far: the measure of how far behind somebody is."""
        self.forgotten_bytes = 0
        """Of that, what is not kept any more."""
        self._kept: list[Recent] = []
        self._begin = 0

    @property
    def bytes(self) -> int:
        """What it holds now."""
        return self.total_bytes - self.forgotten_bytes

    def __len__(self) -> int:
        return len(self._kept) - self._begin

    def append(self, messages: Sequence[Message]) -> list[Recent]:
        """Takes messages that follow its head, without holes; the value is what it made of them."""
        total = self.total_bytes
        made = []
        for message in messages:
            total += len(message.data) + OVERHEAD_BYTES
            made.append(Recent(message, total))
        if made:
            first = messages[0].position
            assert follows(self.head, first), "only what follows is appended"
            if self.head.epoch != first.epoch:  # it stood at START
                self.oldest = Position(first.epoch, 0)
            self.head = messages[-1].position
            self.total_bytes = total
            self._kept += made
            self._forget()
        return made

    def jump(self, head: Position) -> None:
        """Goes on at another place; what was kept is forgotten."""
        self._kept.clear()
        self._begin = 0
        self.forgotten_bytes = self.total_bytes
        self.head = self.oldest = head

    def covers(self, place: Position) -> bool:
        """Whether it can tell everything after a place."""
        if place.epoch == self.head.epoch:
            return self.oldest.seq <= place.seq <= self.head.seq
        return place == START and self.oldest.seq == 0

    def after(self, place: Position, bytes_max: int) -> list[Recent]:
        """What follows a place that it covers, up to so many bytes and at least one."""
        assert self.covers(place), "ask it first"
        kept, index = self._kept, self._begin + place.seq - self.oldest.seq
        if index == len(kept):
            return []
        before = kept[index].total_bytes - len(kept[index].message.data) - OVERHEAD_BYTES
        if kept[-1].total_bytes - before <= bytes_max:
            return kept[index:]
        end = index + 1
        while end < len(kept) and kept[end].total_bytes - before <= bytes_max:
            end += 1
        return kept[index:end]

    def mark_at(self, place: Position) -> int:
        """`total_bytes` as it was at a place, which it covers: the difference to now is how far behind that place is."""
        assert self.covers(place), "ask it first"
        index = self._begin + place.seq - self.oldest.seq
        if index < len(self._kept):
            kept = self._kept[index]
            return kept.total_bytes - len(kept.message.data) - OVERHEAD_BYTES
        return self.total_bytes

    def before_last(self, count: int, *, since: float = 0.0) -> Position:
        """The place from which a reader gets the latest `count` messages, or fewer: what is kept, and not older than `since`."""
        seq = self.head.seq
        for kept in reversed(self._kept[max(self._begin, len(self._kept) - count) :] if count > 0 else ()):
            if kept.message.at < since:
                break
            seq -= 1
        return self.head._replace(seq=seq)

    def _forget(self) -> None:
        kept, begin = self._kept, self._begin
        least = max(begin, len(kept) - self.count_max)
        bound = self.total_bytes - self.bytes_max
        last = len(kept) - 1
        while begin < last and (begin < least or kept[begin].total_bytes <= bound):
            begin += 1
        # The first one kept counts whole, so a bound that falls inside it lets it go.
        while begin < last and self.total_bytes - (kept[begin - 1].total_bytes if begin else 0) > self.bytes_max:
            begin += 1
        if begin == self._begin:
            return
        gone = kept[begin - 1]
        self.forgotten_bytes = gone.total_bytes
        self.oldest = gone.message.position
        if begin > len(kept) // 2:
            del kept[:begin]
            begin = 0
        self._begin = begin


def bridge(place: Position, stretch: Stretch) -> Gap | None:
    """What is missing between a reader's place and the answer to reading after it; None where nothing is."""
    if stretch.messages:
        first = stretch.messages[0].position
        if follows(place, first):
            return None
        upto = Position(first.epoch, first.seq - 1)
    else:
        upto = stretch.head
        if place == upto or (place == START and upto.seq == 0):
            return None
    is_same = place.epoch == upto.epoch or place == START
    why = Hole.TRIMMED if is_same and place.seq <= upto.seq else Hole.EPOCH
    return Gap(stretch.channel, place, upto, why)
