"""What a client and a gateway say to each other, as values. How they look in bytes is in `wire`.

`ref` is a number of the client's choice, from 1; the `Ack` of a request carries it. A frame is the same in every subprotocol and
on every transport. SSE knows `Welcome`, `Msg`, `Gap`, `Ping`, `Move` and `Bye`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from budao.push.closing import Advice
from budao.push.message import Gap, Kind, Message, Position

VERSION: Final = 1
STANDBY_BEAT_S: Final = 5.0
"""A quiet connection hears something at least this often, or as often as its welcome says if that is longer."""


# -------------------------------------------------------------------------------------- client to gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The first frame of a connection; `?hello=` of the URL may carry it, so that everything comes with the first answer."""

    version: int = VERSION
    session: str | None = None
    """The session that goes on; None begins a new one. Whoever says it again elsewhere takes it along."""
    ticket: str | None = None
    """From `Move` or `Standby`: proves who comes, in place of a token."""
    channels: Mapping[str, Position | None] = field(default_factory=dict)
    """Subscriptions, each with the place to go on from; None begins with what comes next."""
    is_standby: bool = False
    """Stay quiet: nothing is delivered until this connection is promoted."""
    beat_s: float | None = None
    """How often it wishes to hear something, in seconds; the welcome says what it gets."""
    client: str | None = None
    """What to call it in a log: name and version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sub:
    """Request: subscribe. With `last` and no `after`, begin with up to so many of the latest messages."""

    ref: int
    channel: str
    after: Position | None = None
    last: int = 0
    presence: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsub:
    """Request: stop. Nothing of the channel follows the answer."""

    ref: int
    channel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pub:
    """Request: publish; the answer comes once it is durable, and carries the place."""

    ref: int
    channel: str
    data: bytes
    kind: Kind = Kind.JSON
    id: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Said `ack` on the wire: the client has dealt with everything up to here. No answer."""

    channel: str
    position: Position


# ---------------------------------------------------------------------------------------------- both ways


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """Answer with a `Pong` of the same number; number 0 is a beat, and wants no answer."""

    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong:
    """The answer to a `Ping`."""

    number: int = 0
    load_share: float = 0.0
    """From a gateway, said `load`: the share of one core that it was busy over the last seconds; 0 says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standby:
    """From the client, with `ref`: promote this quiet connection; `channels` says where to go on.

    From the gateway: where to keep a second, quiet connection, with a ticket for it; on a quiet connection and without a URL, that
    it is time to promote it.
    """

    ref: int | None = None
    channels: Mapping[str, Position | None] = field(default_factory=dict)
    url: str | None = None
    ticket: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bye:
    """The last frame: why it ends, and what to do next."""

    code: int = 1000
    why: str = "done"
    advice: Advice = Advice.NEVER
    after_s: float = 0.0
    detail: str = ""
    """For people."""


# -------------------------------------------------------------------------------------- gateway to client


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The answer to `Hello`, before anything else."""

    version: int = VERSION
    session: str
    gateway: str
    resumed: bool = False
    channels: Mapping[str, Position] = field(default_factory=dict)
    """Where each channel of the hello begins for this connection; one that was refused has an `Ack` with a problem instead."""
    refused: Mapping[str, Problem] = field(default_factory=dict)
    """Channels of the hello that it does not get."""
    beat_s: float = 0.0
    """It will hear something at least this often, a standby once it is promoted; 0 means no promise."""
    peers: tuple[str, ...] = ()
    """Other gateways, by URL, for when this one is gone."""
    frame_bytes_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a request was refused, as a word for programs and a sentence for people."""

    why: str
    happened: str
    after_s: float = 0.0
    """When another try has a chance, in seconds; 0 where it has none unchanged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """The answer to a request. `position`: of a `Sub`, where it begins; of a `Pub`, the place of the message."""

    ref: int
    position: Position | None = None
    is_repeat: bool = False
    problem: Problem | None = None
    channels: Mapping[str, Position] = field(default_factory=dict)
    """Of a `Standby`: where each channel begins."""
    refused: Mapping[str, Problem] = field(default_factory=dict)
    """Of a `Standby`: channels that it does not get."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Go to another gateway by `within_s`: open it beside this one, and let go here once it has welcomed you."""

    url: str
    ticket: str | None = None
    within_s: float = 0.0
    why: str = "drain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """Who came to and left a channel since the last frame of its kind; the first one after a `Sub` names everybody."""

    channel: str
    joined: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    count: int = 0


@dataclass(frozen=True, slots=True)
class Msg:
    """A message on its way to a client; said `msg` on the wire."""

    message: Message


@dataclass(frozen=True, slots=True)
class Missing:
    """Said `gap` on the wire."""

    gap: Gap


FromClient = Hello | Sub | Unsub | Pub | Seen | Ping | Pong | Standby | Bye
FromGateway = Welcome | Ack | Msg | Missing | Ping | Pong | Move | Standby | Present | Bye
Frame = FromClient | FromGateway
