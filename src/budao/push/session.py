"""One client's session at a gateway: what it has said, what it may, what it reads, and what follows from its next frame.

The client speaks first, with a hello; the gateway answers with a welcome, and from then on the client asks, reads and publishes
within its grant and its bounds. What is merely wrong is answered with a problem; what breaks the protocol ends the connection.
The session knows places only as far as the client said them: what is delivered from where is the gateway's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Self

from budao.measure import TokenBucket
from budao.model import Mono, Wall
from budao.push.effects import (
    SessionEffect,
)
from budao.push.frames import (
    FromClient,
    Problem,
)
from budao.push.grant import Grant
from budao.push.message import Position
from budao.push.rules import ChannelRules
from budao.push.session_policy import SessionPolicy

SESSION_CHARACTERS_MAX: Final = 64
_SESSION: Final = re.compile(rf"[A-Za-z0-9._:~-]{{1,{SESSION_CHARACTERS_MAX}}}")
_NOTHING: Final[Mapping[str, Problem]] = {}


class Stage(Enum):
    """How far a session is."""

    NEW = "new"
    """It has not said hello."""
    REDEEMING = "redeeming"
    """Its ticket is being looked at."""
    OPENING = "opening"
    """Its welcome is being put together."""
    OPEN = "open"
    STANDBY = "standby"
    """Quiet until it is promoted."""
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """What another process needs to go on with an established session. Plain values only.

    Rates begin anew; what waits for the log must have been answered before.
    """

    session: str
    grant: Grant
    is_standby: bool = False
    channels: tuple[tuple[str, Position | None], ...] = ()
    """Subscriptions, each with the last place that the client acknowledged (or, for a standby, named)."""
    presence: tuple[str, ...] = ()
    """Those of them with presence."""


class Session:
    """The machine of one session.

    `grant` is None where nobody has shown a token: then only a ticket opens it. `name` is the session's, unless the hello brings one.

    Cost:    about 600 bytes with one subscription; rates are counted only once something beyond the hello was said.
    """

    __slots__ = (
        "_channels",
        "_frames",
        "_held",
        "_presence",
        "_publishes",
        "_waiting",
        "grant",
        "id",
        "policy",
        "rules",
        "stage",
    )

    def __init__(self, grant: Grant | None, policy: SessionPolicy, rules: ChannelRules, *, name: str) -> None:
        self.grant = grant
        self.policy = policy
        self.rules = rules
        self.id = name
        self.stage = Stage.NEW
        self._channels: dict[str, Position | None] | None = None
        self._presence: set[str] | None = None
        self._frames: TokenBucket | None = None
        self._publishes: TokenBucket | None = None
        self._waiting = 0
        """Publishes that the log has not answered."""
        self._held: list[FromClient] | None = None
        """What came while the hello was worked on; its hello first, while a ticket is looked at."""

    # ---------------------------------------------------------------------------------------------- what is

    @property
    def channels(self) -> Mapping[str, Position | None]:
        """Subscriptions, each with the last place the client acknowledged (or, for a standby, named); None where it has not."""
        return self._channels or {}

    @property
    def is_established(self) -> bool:
        """Whether it was welcomed, and has not ended."""
        return self.stage is Stage.OPEN or self.stage is Stage.STANDBY

    def state(self) -> SessionState:
        """What another process needs to go on with it. Only for an established session."""
        raise NotImplementedError

    @classmethod
    def restored(cls, state: SessionState, policy: SessionPolicy, rules: ChannelRules) -> Self:
        """A session that goes on where another process left it: established, with full rates."""
        raise NotImplementedError

    # --------------------------------------------------------------------------------------------- the client

    def received(self, frame: FromClient, now: Mono, wall: Wall) -> tuple[SessionEffect, ...]:
        """The client said this."""
        raise NotImplementedError

    # -------------------------------------------------------------------------------------------- the gateway

    def redeemed(self, grant: Grant | None, now: Mono, wall: Wall, *, happened: str = "") -> tuple[SessionEffect, ...]:
        """The ticket was good for this grant; or, None, it was not, and why."""
        raise NotImplementedError

    def opened(self, now: Mono, wall: Wall) -> tuple[SessionEffect, ...]:
        """The welcome is sent. Answers with what came meanwhile."""
        raise NotImplementedError

    def published(self) -> None:
        """A `Publish` was answered, one way or the other."""
        raise NotImplementedError

    def forget(self, channel: str) -> None:
        """A channel could not be followed, or is not delivered any more: the subscription is gone."""
        raise NotImplementedError

    def promoted(self) -> tuple[SessionEffect, ...]:
        """The gateway promotes it without having been asked by the client: it goes on from the places it knows."""
        raise NotImplementedError

    def end(self, why: str, *, after_s: float = 0.0, detail: str = "") -> tuple[SessionEffect, ...]:
        """The gateway ends it: `why` is one of `closing.BY_WHY`. Nothing if it has ended already."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------- time

    def wake_at(self) -> Wall | None:
        """When its grant runs out."""
        raise NotImplementedError

    def wake(self, wall: Wall) -> tuple[SessionEffect, ...]:
        """Time has passed: a grant that ran out ends the session with 4301."""
        raise NotImplementedError
