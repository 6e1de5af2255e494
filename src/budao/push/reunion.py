"""How a client keeps its session in one piece while connections and gateways come and go.

One connection is active. A second, quiet one may stand by at another gateway, and a third is opened beside the active one when a
gateway asks to move. What is lost is replaced: by the standby within one round trip, else by another gateway, each left alone
for a while after it failed. What a gateway advises is followed. Places are not known here: the reader has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from random import Random
from typing import Final

from budao.model import Mono
from budao.push.backoff import Backoff
from budao.push.client_policy import ClientPolicy
from budao.push.closing import Advice
from budao.push.liveness import Liveness

TICKET_S: Final = 15.0
"""No ticket is good for longer."""
LEFT_S: Final = 10.0
"""A gateway that sent us away is not tried for so long after its bound, if there is another."""
BEAT_S: Final = 2.0
BEAT_WITH_STANDBY_S: Final = 0.05
REFRESHED_MAX: Final = 2
"""New tokens in a row that a gateway may refuse."""
TOKEN_CODES: Final = frozenset({4300, 4301})
TICKET_CODE: Final = 4304
REPLACED_CODE: Final = 4104
GHOST_S: Final = 60.0
"""How long a gateway may take to read what we said on a connection that we gave up: as long as it was frozen, or cut off."""
GHOSTS_MAX: Final = 8


class Role(Enum):
    """What a connection is for."""

    ACTIVE = "active"
    STANDBY = "standby"
    NEXT = "next"
    """Will replace the active one, once it is welcomed."""


class Shape(Enum):
    """How the session is."""

    CONNECTING = "connecting"
    ONLINE = "online"
    GIVEN_UP = "given-up"
    """It cannot go on before a person or a program has changed something."""
    CLOSED = "closed"


# -------------------------------------------------------------------------------------------------------- facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcomed:
    """Fact: a connection was welcomed."""

    link: int
    beat_s: float = 0.0
    peers: tuple[str, ...] = ()
    """Other gateways that it named, only those that can be trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Fact: a connection ended, or could not be opened."""

    link: int
    code: int = 1006
    advice: Advice | None = None
    """None if nobody said anything."""
    after_s: float = 0.0
    problem: str = "cut"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivers:
    """Fact: a standby has answered that it delivers."""

    link: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """Fact: a gateway named another one: to move to by `within_s`, or to stand by at. No `url`: it trusts our choice."""

    link: int
    url: str | None = None
    ticket: str | None = field(default=None, repr=False)
    within_s: float = 0.0
    is_move: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedToPromote:
    """Fact: a gateway wants the session to go on at its standby. The standby's own said it, or the home, by `within_s`."""

    link: int
    within_s: float = 0.0


Fact = Welcomed | Ended | Delivers | Offered | AskedToPromote

# ------------------------------------------------------------------------------------------------------ effects


@dataclass(frozen=True, slots=True)
class Dial:
    """Effect: open a connection, say hello, and tell how it went."""

    link: int
    url: str
    role: Role
    beat_s: float
    ticket: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """Effect: this is the active connection from now on. A standby is to be promoted first, with the places of now."""

    link: int
    is_standby: bool = False


@dataclass(frozen=True, slots=True)
class Promote:
    """Effect: promote a standby, with the places of now. The active connection goes on until the standby delivers."""

    link: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HangUp:
    """Effect: end a connection, and tell no more of it."""

    link: int
    is_dead: bool = False
    """Nobody is there to say goodbye to."""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """Effect: tell everybody who waits."""

    code: int
    problem: str


Effect = Dial | Adopt | Promote | HangUp | GiveUp


class _Gateway:
    """What is known of one gateway."""

    __slots__ = ("backoff", "free_at", "ghosts", "ghosts_until", "left_until", "url")

    def __init__(self, url: str, backoff: Backoff) -> None:
        self.url = url
        self.backoff = backoff
        self.free_at = -inf
        """It is left alone until then."""
        self.left_until = -inf
        """It asked us to leave: until then it is our home only if there is no other, and never our standby."""
        self.ghosts = 0
        """Connections that we gave up before they were answered. It may read our hello there after a later one, and then replaces us
        by ourselves."""
        self.ghosts_until = -inf

    def free_for(self, role: Role) -> float:
        """When it may be dialled."""
        return self.free_at if role is Role.ACTIVE else max(self.free_at, self.left_until)

    def gave_up(self, link: _Link, now: Mono) -> None:
        """We hang up."""
        if link.due < inf:
            self.ghosts = min(GHOSTS_MAX, self.ghosts + 1)
            self.ghosts_until = now + GHOST_S

    def is_ghost(self, now: Mono) -> bool:
        """Whether it was one of them that replaced us; each does so once."""
        if now > self.ghosts_until:
            self.ghosts = 0
        self.ghosts -= (found := self.ghosts > 0)
        return found


class _Link:
    """One connection."""

    __slots__ = ("due", "gateway", "liveness", "number", "role", "since", "ticket")

    def __init__(self, number: int, gateway: _Gateway, role: Role, ticket: str | None, due: float) -> None:
        self.number = number
        self.gateway = gateway
        self.role = role
        self.ticket = ticket
        self.due = due
        """By when it has to be welcomed, or to deliver; infinite if nothing is due."""
        self.since = inf
        """When it was welcomed."""
        self.liveness: Liveness | None = None

    @property
    def is_up(self) -> bool:
        """Whether it was welcomed."""
        return self.since < inf


class Reunion:
    """The machine of one client's connections.

    Raises:  ValueError without any gateway.
    """

    def __init__(
        self,
        urls: Sequence[str],
        rng: Random,
        policy: ClientPolicy | None = None,
        *,
        has_standby: bool = False,
        can_refresh: bool = False,
    ) -> None:
        if not urls:
            raise ValueError("a client needs the URL of at least one gateway")
        self.policy = ClientPolicy() if policy is None else policy
        self.shape = Shape.CONNECTING
        self.problem = ""
        """The latest thing that went wrong, for people."""
        self._rng = rng
        self._has_standby = has_standby
        self._can_refresh = can_refresh
        self._gateways = {url: _Gateway(url, Backoff(self.policy.backoff)) for url in urls}
        self._gateways_max = len(self._gateways) + self.policy.peers_max
        self._active: _Link | None = None
        self._standby: _Link | None = None
        self._next: _Link | None = None
        self._number = 0
        self._active_at = inf
        self._standby_at = inf
        self._next_at = inf
        self._move_until = -inf
        self._offer: tuple[str, str | None, float] | None = None
        self._refreshed = 0
        self._lost_gateway: _Gateway | None = None
        """The one that was lost last is chosen last: it may be gone."""
        wished_s = self.policy.beat_s
        self._beat_s = (BEAT_WITH_STANDBY_S if has_standby else BEAT_S) if wished_s is None else wished_s

    # ------------------------------------------------------------------------------------------------- what is

    @property
    def active(self) -> int | None:
        """The connection in use."""
        return self._active.number if self._active is not None and self._active.is_up else None

    @property
    def standby(self) -> int | None:
        """The connection that stands by, ready."""
        return self._standby.number if self._standby is not None and self._standby.is_up else None

    def liveness(self, link: int) -> Liveness | None:
        """What is to be told whenever anything is heard on a connection that was welcomed."""
        found = self._find(link)
        return None if found is None else found.liveness

    def urls(self) -> tuple[str, ...]:
        """The gateways that are known."""
        return tuple(self._gateways)

    # -------------------------------------------------------------------------------------------------- orders

    def start(self, now: Mono) -> tuple[Effect, ...]:
        """Opens the first connection."""
        return self._dial_active(now)

    def close(self) -> tuple[Effect, ...]:
        """Ends everything."""
        self.shape = Shape.CLOSED
        return self._hang_up_all()

    # --------------------------------------------------------------------------------------------------- facts

    def handle(self, fact: Fact, now: Mono) -> tuple[Effect, ...]:
        """What follows from a fact. One about a connection that is gone changes nothing."""
        link = self._find(fact.link)
        if link is None:
            return ()
        if isinstance(fact, Welcomed):
            return self._welcomed(link, fact, now)
        if isinstance(fact, Ended):
            return self._ended(link, fact, now)
        if isinstance(fact, Delivers):
            link.due = inf
            return self._adopt(link, now, is_standby=False) if link is self._next else ()
        if isinstance(fact, AskedToPromote):
            return self._asked_to_promote(link, fact, now)
        return self._move(link, fact, now) if fact.is_move else self._advised(link, fact, now)

    def wake_at(self) -> Mono:
        """When to wake it; infinity is never. Waking it earlier does no harm."""
        at = min(self._active_at, self._standby_at, self._next_at)
        for link in self._links():
            at = min(at, link.due)
            if link.liveness is not None:
                at = min(at, link.liveness.wake_at())
        return Mono(at)

    def wake(self, now: Mono) -> tuple[Effect, ...]:
        """What follows from the time."""
        effects: tuple[Effect, ...] = ()
        for link in self._links():
            if link.due <= now:
                problem = "it does not deliver" if link.is_up else "it does not welcome us"
            elif link.liveness is not None and link.liveness.wake(now):
                problem = "it fell silent"
            else:
                continue
            effects += (HangUp(link=link.number, is_dead=True, problem=problem),)
            link.gateway.gave_up(link, now)
            effects += self._ended(link, Ended(link=link.number, problem=problem), now)
        if self._active_at <= now:
            effects += self._dial_active(now)
        if self._next_at <= now:
            effects += self._dial_next(now)
        if self._standby_at <= now:
            effects += self._dial_standby(now)
        return effects

    # ------------------------------------------------------------------------------------------------- welcome

    def _welcomed(self, link: _Link, fact: Welcomed, now: Mono) -> tuple[Effect, ...]:
        for url in fact.peers:
            if len(self._gateways) < self._gateways_max:
                self._named(url)
        link.since, link.due = now, inf
        is_quiet = link is self._standby
        silence_min_s = self.policy.standby_silent_s if is_quiet else 0.0
        link.liveness = Liveness(self.policy, fact.beat_s, now, silence_min_s=silence_min_s)
        if is_quiet:
            return () if self._active is not None and self._active.is_up else self._promote(link, now)
        self._refreshed = 0
        return self._adopt(link, now, is_standby=False)

    def _promote(self, standby: _Link, now: Mono) -> tuple[Effect, ...]:
        """The standby takes the place of the active connection, which is gone or not there yet."""
        self._rouse(standby, now)
        return self._adopt(standby, now, is_standby=True)

    def _rouse(self, standby: _Link, now: Mono) -> None:
        """The standby is quiet no longer: it has to deliver soon, and is heard as often as any."""
        beat_s = 0.0 if standby.liveness is None else standby.liveness.beat_s
        standby.liveness = Liveness(self.policy, beat_s, now)
        standby.due = now + self.policy.promote_s
        self._standby = None

    def _asked_to_promote(self, link: _Link, fact: AskedToPromote, now: Mono) -> tuple[Effect, ...]:
        standby = self._standby
        if self._next is not None or link not in (self._active, standby):
            return ()  # it is going elsewhere already
        if standby is None or not standby.is_up:
            # The home wants it gone, wherever to.
            return self._move(link, Offered(link=link.number, within_s=fact.within_s), now)
        if self._active is None or not self._active.is_up:
            return self._promote(standby, now)
        if fact.within_s > 0.0:
            self._move_until = now + fact.within_s
        self._rouse(standby, now)
        standby.role = Role.NEXT
        self._next = standby
        return (Promote(standby.number),)

    def _adopt(self, link: _Link, now: Mono, *, is_standby: bool) -> tuple[Effect, ...]:
        before, self._active = self._active, link
        effects: tuple[Effect, ...] = (Adopt(link=link.number, is_standby=is_standby),)
        if before is not None and before is not link:
            before.gateway.gave_up(before, now)
            if before.is_up:  # it asked us to leave
                before.gateway.left_until = max(before.gateway.left_until, now + LEFT_S, self._move_until + LEFT_S)
            effects += (HangUp(link=before.number),)
        if link is self._next:
            self._next = None
        link.role = Role.ACTIVE
        self.shape = Shape.ONLINE
        self._active_at = self._next_at = inf
        self._move_until = -inf
        if self._standby is not None and self._standby.gateway is link.gateway:
            effects += (HangUp(link=self._standby.number),)
            self._standby = None
        if self._has_standby and self._standby is None:
            self._standby_at = now + self._rng.uniform(0.0, self.policy.standby_spread_s)
        return effects

    # ----------------------------------------------------------------------------------------------------- end

    def _ended(self, link: _Link, fact: Ended, now: Mono) -> tuple[Effect, ...]:
        self.problem = f"{link.gateway.url}: {fact.problem}"
        is_active = link is self._active
        self._forget(link)
        if is_active and fact.code == REPLACED_CODE and self._next is not None:
            # By our own next connection, which may be at the same gateway, and whose answer is not read yet.
            return self._lost(now, was_up=link.is_up)
        if fact.code == TICKET_CODE and link.ticket is not None:
            return self._dial(link.gateway, link.role, now)  # the token opens what the ticket did not
        if is_active and fact.code == REPLACED_CODE and link.gateway.is_ghost(now):
            fact = Ended(link=link.number, problem=fact.problem)
        if fact.advice is Advice.NEVER and is_active:
            if fact.code not in TOKEN_CODES or not self._can_refresh or self._refreshed >= REFRESHED_MAX:
                self.shape = Shape.GIVEN_UP
                return (*self._hang_up_all(), GiveUp(code=fact.code, problem=self.problem))
            self._refreshed += 1
            self._wait_for(link.gateway, Ended(link=link.number, advice=Advice.NOW), now)
        else:
            self._wait_for(link.gateway, fact, now, lasted_s=now - link.since)
        if is_active:
            self._lost_gateway = link.gateway
            return self._lost(now, was_up=link.is_up)
        if link.role is Role.STANDBY:
            self._standby_at = now + self._rng.uniform(0.0, self.policy.standby_spread_s)
            return ()
        if self._has_standby and self._standby is None:  # it may have been the standby, or have made it give way
            self._standby_at = now + self._rng.uniform(0.0, self.policy.standby_spread_s)
        return self._dial_next(now)

    def _wait_for(self, gateway: _Gateway, fact: Ended, now: Mono, lasted_s: float = 0.0) -> None:
        """Leaves a gateway alone for a while."""
        gateway.backoff.connected_for(lasted_s)
        # To a standby, never means not for now: the token may be renewed, and the gateway with it.
        advice = None if fact.advice is Advice.NEVER else fact.advice
        pause_s = gateway.backoff.pause_s(self._rng, advice, fact.after_s)
        gateway.free_at = max(gateway.free_at, now + (pause_s or 0.0))

    def _lost(self, now: Mono, *, was_up: bool) -> tuple[Effect, ...]:
        """Nothing is active any more."""
        if self._standby is not None and self._standby.is_up:
            return self._promote(self._standby, now)
        self.shape = Shape.CONNECTING
        if self._next is not None:  # on its way already
            if self._next.is_up:
                return self._adopt(self._next, now, is_standby=False)
            self._active, self._next = self._next, None
            self._active.role = Role.ACTIVE
            return ()
        if was_up:
            self._active_at = now + self._rng.uniform(0.0, self.policy.again_spread_s)
            return ()
        return self._dial_active(now)

    # ---------------------------------------------------------------------------------------------------- move

    def _move(self, link: _Link, fact: Offered, now: Mono) -> tuple[Effect, ...]:
        if link is self._standby:
            self._standby = None
            link.gateway.left_until = max(link.gateway.left_until, now + fact.within_s + LEFT_S)
            if fact.url is not None:
                self._offer = (fact.url, fact.ticket, now + TICKET_S)
            self._standby_at = now
            return (HangUp(link=link.number), *self._dial_standby(now))
        if link is not self._active or self._next is not None:
            return ()
        self._move_until = now + fact.within_s
        if fact.url is None or fact.url == link.gateway.url:
            return self._dial_next(now)
        effects: tuple[Effect, ...] = ()
        if self._standby is not None and self._standby.gateway.url == fact.url:
            effects = (HangUp(link=self._standby.number),)
            self._standby = None
        return effects + self._dial(self._named(fact.url), Role.NEXT, now, ticket=fact.ticket)

    def _advised(self, link: _Link, fact: Offered, now: Mono) -> tuple[Effect, ...]:
        """Where to keep the standby. One that is elsewhere goes there, but not while it is needed."""
        if fact.url is None:
            return ()
        self._offer = (fact.url, fact.ticket, now + TICKET_S)
        standby = self._standby
        if link is not self._active or not link.is_up or self._next is not None or not self._has_standby:
            return ()
        if standby is None:
            return self._dial_standby(now)
        if standby.gateway.url == fact.url:
            self._offer = None
            return ()
        self._standby = None
        return (HangUp(link=standby.number), *self._dial_standby(now))

    # ---------------------------------------------------------------------------------------------------- dial

    def _dial_active(self, now: Mono) -> tuple[Effect, ...]:
        self._active_at = inf
        if self._active is not None:
            return ()
        gateway = self._choose(Role.ACTIVE, now)
        if gateway is None or gateway.free_for(Role.ACTIVE) > now:
            self._active_at = inf if gateway is None else gateway.free_for(Role.ACTIVE)
            return ()
        return self._dial(gateway, Role.ACTIVE, now)

    def _dial_next(self, now: Mono) -> tuple[Effect, ...]:
        self._next_at = inf
        if self._active is None or self._next is not None or now > self._move_until:
            return ()  # it stays where it is until it is sent away
        gateway = self._choose(Role.NEXT, now)
        if gateway is None or gateway.free_for(Role.NEXT) > now:
            self._next_at = inf if gateway is None else gateway.free_for(Role.NEXT)
            return ()
        return self._dial(gateway, Role.NEXT, now)

    def _dial_standby(self, now: Mono) -> tuple[Effect, ...]:
        self._standby_at = inf
        if self._active is None or not self._has_standby or self._standby is not None:
            return ()
        offer, self._offer = self._offer, None
        if offer is not None and now < offer[2] and offer[0] != self._active.gateway.url:
            return self._dial(self._named(offer[0]), Role.STANDBY, now, ticket=offer[1])
        gateway = self._choose(Role.STANDBY, now)
        if gateway is None or gateway.free_for(Role.STANDBY) > now:
            # With one gateway there is nowhere to stand by, until another one is named.
            self._standby_at = now + TICKET_S if gateway is None else gateway.free_for(Role.STANDBY)
            return ()
        return self._dial(gateway, Role.STANDBY, now)

    def _dial(self, gateway: _Gateway, role: Role, now: Mono, ticket: str | None = None) -> tuple[Effect, ...]:
        self._number += 1
        link = _Link(self._number, gateway, role, ticket, now + self.policy.welcome_s)
        if role is Role.ACTIVE:
            self._active = link
        elif role is Role.STANDBY:
            self._standby = link
        else:
            self._next = link
        return (Dial(link.number, gateway.url, role, self._beat_s, ticket),)

    def _choose(self, role: Role, now: Mono) -> _Gateway | None:
        """The gateway that is free, or is so first; among several, any, or the first as they were given."""
        avoided = None if self._active is None else self._active.gateway
        found = [each for each in self._gateways.values() if each is not avoided]
        if not found:
            return None

        def is_last_choice(each: _Gateway) -> bool:
            return each is self._lost_gateway or each.left_until > now

        soonest = min(found, key=lambda each: (max(each.free_for(role), now), is_last_choice(each)))
        free = [each for each in found if each.free_for(role) <= now and not is_last_choice(each)]
        # Those that are free are as good as each other, so without a draw the first one given wins.
        return self._rng.choice(free) if free and self.policy.is_shuffled else soonest

    def _named(self, url: str) -> _Gateway:
        """The gateway of a URL. Beyond the bound it is not kept."""
        found = self._gateways.get(url)
        if found is None:
            found = _Gateway(url, Backoff(self.policy.backoff))
            if len(self._gateways) < self._gateways_max:
                self._gateways[url] = found
        return found

    # ------------------------------------------------------------------------------------------------- helpers

    def _links(self) -> tuple[_Link, ...]:
        return tuple(link for link in (self._active, self._standby, self._next) if link is not None)

    def _find(self, number: int) -> _Link | None:
        return next((link for link in self._links() if link.number == number), None)

    def _forget(self, link: _Link) -> None:
        if link is self._active:
            self._active = None
        elif link is self._standby:
            self._standby = None
        elif link is self._next:
            self._next = None

    def _hang_up_all(self) -> tuple[Effect, ...]:
        links = self._links()
        self._active = self._standby = self._next = None
        self._active_at = self._standby_at = self._next_at = inf
        return tuple(HangUp(link=link.number) for link in links)
