"""What travels through a channel: drafts, messages, their positions, and what is missing between two of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from budao.model import Wall


class Position(NamedTuple):
    """A place in a channel: after the message `seq` of the life `epoch`.

    A channel counts its messages from 1, without holes. When it loses its count (its log was replaced, or the channel was
    forgotten) it begins a new life with another epoch. `("", 0)` is the place before the first message of any life.
    """

    epoch: str
    seq: int


START = Position("", 0)


class Kind(Enum):
    """What the data of a message is."""

    JSON = "json"
    """One JSON value as compact UTF-8 text, checked when it was published, and never parsed again on its way."""
    BYTES = "bytes"
    """Bytes that only the clients understand."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A message that somebody wants published."""

    channel: str
    data: bytes
    kind: Kind = Kind.JSON
    id: str | None = None
    """Publishing the same id to the same channel again is the same message, for as long as the log remembers."""
    trace: str | None = None
    """A W3C traceparent, handed on to every reader."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message with its place. `position` is where a reader stands who has seen it."""

    channel: str
    position: Position
    data: bytes
    kind: Kind
    at: Wall
    """When the log took it, in Unix seconds."""
    id: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """A draft is durable, and this is its place."""

    position: Position
    is_repeat: bool = False
    """Its id was there already, so nothing was added."""


@dataclass(frozen=True, slots=True)
class NotPlaced:
    """A draft was not taken, and will not turn up later."""

    why: str
    """A word for programs: `too-large`, `no-room` (a bound), `no-space` (the disk), `bad-data`."""
    happened: str


class Hole(Enum):
    """Why messages are missing."""

    TRIMMED = "trimmed"
    """The history no longer reaches back so far."""
    SLOW = "slow"
    """The reader was too slow, and its channel prefers the latest to the complete."""
    EPOCH = "epoch"
    """The channel began a new life; how many messages are missing is not known."""


@dataclass(frozen=True, slots=True)
class Gap:
    """What a reader does not get: everything after `after` up to and including `upto`."""

    channel: str
    after: Position
    upto: Position
    why: Hole


@dataclass(frozen=True, slots=True)
class Stretch:
    """Messages of one channel, oldest first and without holes, and where the channel stood when it was asked.

    Where the first message does not follow what was asked for, what lies between is not retained any more.
    """

    channel: str
    head: Position
    messages: tuple[Message, ...]
    more: bool = False
    """Whether a bound left out messages between the last one here and the head."""


@dataclass(frozen=True, slots=True)
class Appended:
    """News of a channel: messages in order, the first one right behind what the feed told before."""

    channel: str
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Jumped:
    """News of a channel: what lies between what the feed told before and `head` cannot be told any more."""

    channel: str
    head: Position
    why: Hole


@dataclass(frozen=True, slots=True)
class LogWentAway:
    """News of all channels: the log does not answer. What it said so far stands."""

    problem: str


@dataclass(frozen=True, slots=True)
class LogCameBack:
    """The log answers again; what was missed follows, or a `Jumped` for each channel where it cannot be told."""


News = Appended | Jumped | LogWentAway | LogCameBack


def follows(before: Position, after: Position) -> bool:
    """Whether a reader at `before` misses nothing by going on to `after`."""
    return after.seq == before.seq + 1 and (after.epoch == before.epoch or before == START)
