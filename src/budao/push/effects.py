"""What a session asks its gateway to do, as values.

A request with a `ref` has exactly one answer: an `Answer`, or the `Ack` that the gateway sends once it has carried out the
effect with that `ref`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from budao.push.frames import VERSION, Bye, FromGateway, Problem, Welcome
from budao.push.message import Draft, Position


@dataclass(frozen=True, slots=True)
class Answer:
    """Effect: send this."""

    frame: FromGateway


@dataclass(frozen=True, slots=True)
class Redeem:
    """Effect: find out whether this ticket is good, and say so with `Session.redeemed`."""

    ticket: str
    session: str | None

    def __repr__(self) -> str:
        return f"Redeem(ticket='...', session={self.session!r})"


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Effect: deliver a channel from a place on, and answer with an `Ack` that says where it begins; `ref` 0 wants no `Ack`.

    If it cannot be done, answer with a problem and call `Session.forget`.
    """

    ref: int
    channel: str
    after: Position | None
    last: int
    """With no `after`: begin with up to so many of the latest messages."""
    presence: bool = False


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Effect: deliver it no longer, and answer with an `Ack`."""

    ref: int
    channel: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Effect: publish; answer with an `Ack` once it is durable or has failed, and call `Session.published` then."""

    ref: int
    draft: Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Effect: the hello is good. Find where its channels begin, send the welcome, deliver, and call `Session.opened`.

    A standby is welcomed with the same places, and nothing is delivered to it.
    """

    session: str
    is_resumed: bool
    is_standby: bool
    subscribe: tuple[Subscribe, ...]
    """With `ref` 0. One that cannot be done is refused in the welcome, and forgotten."""
    refused: Mapping[str, Problem] = field(default_factory=dict)
    beat_s: float
    client: str | None = None

    def welcome(
        self,
        gateway: str,
        channels: Mapping[str, Position],
        *,
        refused: Mapping[str, Problem] | None = None,
        peers: tuple[str, ...] = (),
        frame_bytes_max: int = 0,
    ) -> Welcome:
        """The frame that answers. `refused` adds channels that could not be followed."""
        return Welcome(
            version=VERSION,
            session=self.session,
            gateway=gateway,
            resumed=self.is_resumed,
            channels=channels,
            refused={**self.refused, **refused} if refused else self.refused,
            beat_s=self.beat_s,
            peers=peers,
            frame_bytes_max=frame_bytes_max,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Promote:
    """Effect: deliver these channels from now on, each from its place, and answer with an `Ack` that says where each begins.

    `ref` is None when the gateway itself promoted: then there is nobody to answer.
    """

    ref: int | None
    subscribe: tuple[Subscribe, ...]
    """With `ref` 0."""
    refused: Mapping[str, Problem] = field(default_factory=dict)
    """Channels the client named and does not get; they belong into the `Ack`."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Effect: the client answered the ping of this number."""

    number: int


@dataclass(frozen=True, slots=True)
class End:
    """Effect: send this and end the connection. Nothing follows."""

    bye: Bye


SessionEffect = Answer | Redeem | Open | Subscribe | Unsubscribe | Publish | Promote | Heard | End
