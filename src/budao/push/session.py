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
from budao.model import Mono, RemoteWireError, Wall
from budao.push.closing import BY_WHY
from budao.push.effects import (
    Answer,
    End,
    Heard,
    Open,
    Promote,
    Publish,
    Redeem,
    SessionEffect,
    Subscribe,
    Unsubscribe,
)
from budao.push.frames import (
    VERSION,
    Ack,
    Bye,
    FromClient,
    Hello,
    Ping,
    Pong,
    Problem,
    Pub,
    Seen,
    Standby,
    Sub,
    Unsub,
)
from budao.push.grant import Grant
from budao.push.message import Draft, Position
from budao.push.names import check_channel
from budao.push.rules import ChannelRules
from budao.push.session_policy import SessionPolicy

SESSION_CHARACTERS_MAX: Final = 64
NAMED_TIMES_MAX: Final = 2
"""A frame may name so many times the channels that a session may read; the refusals of more would be a flood."""
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
    OPENING_STANDBY = "opening standby"
    OPEN = "open"
    STANDBY = "standby"
    """Quiet until it is promoted."""
    ENDED = "ended"


_OPENINGS: Final = frozenset({Stage.OPENING, Stage.OPENING_STANDBY})


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


@dataclass(frozen=True, slots=True)
class Malformed:
    """In the place of a frame: a request that can be told from the rest, and whose data is wrong. It counts like any other."""

    ref: int
    problem: Problem


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
        self._held: list[FromClient | Malformed] | None = None
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

    @property
    def waits_for_log(self) -> bool:
        """Whether a publish of it has not been answered."""
        return self._waiting > 0

    def state(self) -> SessionState:
        """What another process needs to go on with it. Only for an established session."""
        assert self.is_established, "nothing is known of a session before its welcome, nor after its end"
        assert self.grant is not None, "an established session has a grant"
        return SessionState(
            session=self.id,
            grant=self.grant,
            is_standby=self.stage is Stage.STANDBY,
            channels=tuple(self.channels.items()),
            presence=tuple(sorted(self._presence or ())),
        )

    @classmethod
    def restored(cls, state: SessionState, policy: SessionPolicy, rules: ChannelRules) -> Self:
        """A session that goes on where another process left it: established, with full rates."""
        session = cls(state.grant, policy, rules, name=state.session)
        session.stage = Stage.STANDBY if state.is_standby else Stage.OPEN
        session._channels = dict(state.channels) or None
        session._presence = set(state.presence) or None
        return session

    # --------------------------------------------------------------------------------------------- the client

    def received(self, frame: FromClient | Malformed, now: Mono, wall: Wall) -> tuple[SessionEffect, ...]:
        """The client said this."""
        stage = self.stage
        if stage is Stage.ENDED:
            return ()
        if isinstance(frame, Bye):
            return self.end("done")
        if self.grant is not None and self.grant.has_expired(wall):
            return self.end("expired", detail="the token ran out")
        if stage is Stage.NEW:
            if isinstance(frame, Hello):
                return self._hello(frame)
            return self.end("bad-frame", detail=f"the first frame is hello, not {type(frame).__name__.lower()}")
        if isinstance(frame, Hello):
            return self.end("bad-frame", detail="hello is said once")
        if self._frames is None:
            policy = self.policy
            self._frames = TokenBucket(rate_per_s=policy.frames_per_s, burst=float(policy.frames_burst))
        if not self._frames.take(1.0, now):
            return self.end(
                "rate",
                after_s=self._frames.ready_in_s(1.0, now),
                detail=f"more than {self.policy.frames_per_s:g} frames a second",
            )
        if stage is Stage.OPEN or stage is Stage.STANDBY:
            return self._said(frame, now)
        return self._hold(frame)

    def _said(self, frame: FromClient | Malformed, now: Mono) -> tuple[SessionEffect, ...]:
        match frame:
            case Seen():
                self._see(frame)
                return ()
            case Pub():
                return self._pub(frame, now)
            case Ping():
                return (Answer(Pong(number=frame.number)),) if frame.number else ()
            case Pong():
                return (Heard(frame.number),)
            case Sub():
                return self._sub(frame)
            case Unsub():
                return self._unsub(frame)
            case Standby():
                return self._promote(frame)
            case Malformed():
                return (Answer(Ack(ref=frame.ref, problem=frame.problem)),)
            case _:
                return self.end("bad-frame", detail=f"{type(frame).__name__.lower()} does not fit here")

    def _hold(self, frame: FromClient | Malformed) -> tuple[SessionEffect, ...]:
        held = self._held
        if held is None:
            held = self._held = []
        held.append(frame)
        holds_bytes = sum(len(each.data) for each in held if isinstance(each, Pub))
        if len(held) > self.policy.held_max or holds_bytes > self.policy.frame_bytes_max:
            return self.end("rate", after_s=1.0, detail="too much was said before the welcome")
        return ()

    def _hello(self, hello: Hello) -> tuple[SessionEffect, ...]:
        if hello.version != VERSION:
            return self.end("version", detail=f"this gateway speaks version {VERSION}, not {hello.version}")
        if hello.session is not None and _SESSION.fullmatch(hello.session) is None:
            return self.end(
                "bad-frame", detail=f"the name of a session is 1 to {SESSION_CHARACTERS_MAX} of A-Z a-z 0-9 . _ : ~ -"
            )
        if len(hello.channels) > NAMED_TIMES_MAX * self.policy.subscriptions_max:
            return self.end(
                "bad-frame", detail=f"a hello with {len(hello.channels)} channels; no session reads so many"
            )
        if hello.ticket is not None:
            self.stage = Stage.REDEEMING
            self._held = [hello]
            return (Redeem(hello.ticket, hello.session),)
        if self.grant is None:
            return self.end("unauthorized", detail="neither a token nor a ticket was shown")
        return self._open(hello)

    def _open(self, hello: Hello) -> tuple[SessionEffect, ...]:
        self.stage = Stage.OPENING_STANDBY if hello.is_standby else Stage.OPENING
        if hello.session is not None:
            self.id = hello.session
        subscribe: list[Subscribe] = []
        refused: dict[str, Problem] = {}
        for channel, after in hello.channels.items():
            problem = self._refusal(channel)
            if problem is not None:
                refused[channel] = problem
            else:
                subscribe.append(self._subscribe(0, channel, after, 0))
                if hello.is_standby:
                    self._remember(channel, after)
        policy = self.policy
        wish_s = policy.beat_s if hello.beat_s is None else hello.beat_s
        return (
            Open(
                session=self.id,
                is_resumed=hello.session is not None,
                is_standby=hello.is_standby,
                subscribe=tuple(subscribe),
                refused=refused or _NOTHING,
                beat_s=min(max(wish_s, policy.beat_min_s), policy.beat_max_s),
                client=hello.client,
            ),
        )

    def _refusal(self, channel: str, *, presence: bool = False) -> Problem | None:
        """Why it may not subscribe to this one."""
        try:
            check_channel(channel)
        except RemoteWireError as problem:
            return Problem(why="bad-channel", happened=str(problem))
        if self.grant is None or not self.grant.may_subscribe(channel):
            return Problem(why="forbidden", happened=f"the token does not allow to read {channel!r}")
        if presence and not self.grant.may_see_presence(channel):
            return Problem(why="forbidden", happened=f"the token does not allow to ask who reads {channel!r}")
        if presence and not self.rules.of(channel).is_presence:
            return Problem(why="no-presence", happened=f"{channel!r} does not tell who is there")
        channels = self._channels
        if channels is not None and channel in channels:
            return Problem(why="subscribed", happened=f"{channel!r} is read already; unsubscribe first")
        if channels is not None and len(channels) >= self.policy.subscriptions_max:
            return Problem(
                why="too-many", happened=f"this session reads {len(channels)} channels already, as many as it may"
            )
        return None

    def _subscribe(
        self, ref: int, channel: str, after: Position | None, last: int, *, presence: bool = False
    ) -> Subscribe:
        """Remembers it, and says how it begins."""
        if after is not None:
            last = 0
        else:
            policy = self.rules.of(channel)
            last = min(last or policy.begins_with, policy.history_count)
        self._remember(channel, None)
        if presence:
            if self._presence is None:
                self._presence = set()
            self._presence.add(channel)
        return Subscribe(ref, channel, after, last, presence)

    def _remember(self, channel: str, place: Position | None) -> None:
        if self._channels is None:
            self._channels = {}
        self._channels[channel] = place

    def _sub(self, sub: Sub) -> tuple[SessionEffect, ...]:
        problem = self._refusal(sub.channel, presence=sub.presence)
        if problem is not None:
            return (Answer(Ack(ref=sub.ref, problem=problem)),)
        subscribe = self._subscribe(sub.ref, sub.channel, sub.after, sub.last, presence=sub.presence)
        if self.stage is Stage.OPEN:
            return (subscribe,)
        self._remember(sub.channel, sub.after)
        return (Answer(Ack(ref=sub.ref, position=sub.after)),)

    def _unsub(self, unsub: Unsub) -> tuple[SessionEffect, ...]:
        is_read = self._channels is not None and unsub.channel in self._channels
        if is_read:
            self.forget(unsub.channel)
        if is_read and self.stage is Stage.OPEN:
            return (Unsubscribe(unsub.ref, unsub.channel),)
        return (Answer(Ack(ref=unsub.ref)),)  # nothing of it follows, which is all that was asked

    def _pub(self, pub: Pub, now: Mono) -> tuple[SessionEffect, ...]:
        problem = self._publish_refusal(pub, now)
        if problem is not None:
            return (Answer(Ack(ref=pub.ref, problem=problem)),)
        self._waiting += 1
        return (Publish(pub.ref, Draft(pub.channel, pub.data, pub.kind, pub.id, pub.trace)),)

    def _publish_refusal(self, pub: Pub, now: Mono) -> Problem | None:
        if self.stage is not Stage.OPEN:
            return Problem(why="standby", happened="a standby only reads; promote it first")
        try:
            check_channel(pub.channel)
        except RemoteWireError as problem:
            return Problem(why="bad-channel", happened=str(problem))
        if self.grant is None or not self.grant.may_publish(pub.channel):
            return Problem(why="forbidden", happened=f"the token does not allow to publish to {pub.channel!r}")
        bytes_max = self.rules.of(pub.channel).message_bytes_max
        if len(pub.data) > bytes_max:
            return Problem(
                why="too-large", happened=f"{len(pub.data)} bytes of data; {pub.channel!r} takes {bytes_max}"
            )
        policy = self.policy
        if self._waiting >= policy.publishing_max:
            return Problem(why="busy", happened=f"{self._waiting} messages wait for the log already", after_s=0.1)
        if self._publishes is None:
            self._publishes = TokenBucket(rate_per_s=policy.publishes_per_s, burst=float(policy.publishes_burst))
        if not self._publishes.take(1.0, now):
            return Problem(
                why="rate",
                happened=f"more than {policy.publishes_per_s:g} messages a second",
                after_s=self._publishes.ready_in_s(1.0, now),
            )
        return None

    def _see(self, seen: Seen) -> None:
        channels = self._channels
        if channels is None or seen.channel not in channels:
            return  # the last of a channel that it has just left
        before, position = channels[seen.channel], seen.position
        if before is None or before.epoch != position.epoch:
            channels[seen.channel] = position
        elif position.seq > before.seq:
            # The text of the epoch is kept once, however often it is said.
            channels[seen.channel] = Position(before.epoch, position.seq)

    def _promote(self, asked: Standby) -> tuple[SessionEffect, ...]:
        if asked.ref is None:
            return self.end("bad-frame", detail="standby has no ref")
        if self.stage is not Stage.STANDBY:
            problem = Problem(
                why="not-standby", happened="this connection is not quiet; subscribe to go on from elsewhere"
            )
            return (Answer(Ack(ref=asked.ref, problem=problem)),)
        if len(asked.channels) > NAMED_TIMES_MAX * self.policy.subscriptions_max:
            problem = Problem(why="too-many", happened=f"{len(asked.channels)} channels; no session reads so many")
            return (Answer(Ack(ref=asked.ref, problem=problem)),)
        refused: dict[str, Problem] = {}
        for channel, place in asked.channels.items():
            if self._channels is None or channel not in self._channels:
                problem_there = self._refusal(channel)
                if problem_there is not None:
                    refused[channel] = problem_there
                    continue
            if place is not None or channel not in self.channels:
                self._remember(channel, place)
        return self._promoted(asked.ref, refused)

    def _promoted(self, ref: int | None, refused: Mapping[str, Problem]) -> tuple[SessionEffect, ...]:
        self.stage = Stage.OPEN
        presence = self._presence or ()
        subscribe = []
        for channel, after in self.channels.items():
            last = 0 if after is not None else self.rules.of(channel).begins_with
            subscribe.append(Subscribe(0, channel, after, last, channel in presence))
        return (Promote(ref=ref, subscribe=tuple(subscribe), refused=refused),)

    # -------------------------------------------------------------------------------------------- the gateway

    def redeemed(self, grant: Grant | None, wall: Wall, *, happened: str = "") -> tuple[SessionEffect, ...]:
        """The ticket was good for this grant; or, None, it was not, and why."""
        if self.stage is not Stage.REDEEMING:
            return ()  # it has ended meanwhile
        assert self._held, "its hello is held"
        if grant is None:
            return self.end("bad-ticket", detail=happened)
        self.grant = grant
        hello = self._held.pop(0)
        assert isinstance(hello, Hello), "its hello is held first"
        if grant.has_expired(wall):
            return self.end("expired", detail="what the ticket stands for ran out")
        return self._open(hello)

    def opened(self, now: Mono, wall: Wall) -> tuple[SessionEffect, ...]:
        """The welcome is sent. What the client said meanwhile is dealt with now."""
        if self.stage not in _OPENINGS:
            return ()  # it has ended meanwhile
        self.stage = Stage.OPEN if self.stage is Stage.OPENING else Stage.STANDBY
        held, self._held = self._held, None
        effects = self.wake(wall)
        for frame in held or ():
            if self.is_established:
                effects += self._said(frame, now)
        return effects

    def published(self) -> None:
        """A `Publish` was answered, one way or the other."""
        assert self._waiting > 0, "each publish is answered once"
        self._waiting -= 1

    def forget(self, channel: str) -> None:
        """A channel could not be followed, or is not delivered any more: the subscription is gone."""
        if self._channels is not None:
            self._channels.pop(channel, None)
        if self._presence is not None:
            self._presence.discard(channel)

    def promoted(self) -> tuple[SessionEffect, ...]:
        """The gateway promotes it without having been asked by the client: it goes on from the places it knows."""
        return self._promoted(None, _NOTHING) if self.stage is Stage.STANDBY else ()

    def end(self, why: str, *, after_s: float = 0.0, detail: str = "") -> tuple[SessionEffect, ...]:
        """The gateway ends it: `why` is one of `closing.BY_WHY`. Nothing if it has ended already."""
        if self.stage is Stage.ENDED:
            return ()
        self.stage = Stage.ENDED
        self._held = None
        ending = BY_WHY[why]
        return (End(Bye(code=ending.code, why=ending.why, advice=ending.advice, after_s=after_s, detail=detail)),)

    # ------------------------------------------------------------------------------------------------- time

    def wake_at(self) -> Wall | None:
        """When its grant runs out; None for never."""
        return None if self.grant is None or self.stage is Stage.ENDED else self.grant.until

    def wake(self, wall: Wall) -> tuple[SessionEffect, ...]:
        """Time has passed: a grant that ran out ends the session with 4301."""
        if self.grant is not None and self.grant.has_expired(wall):
            return self.end("expired", detail="the token ran out")
        return ()
