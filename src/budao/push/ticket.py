"""A ticket takes a session from one gateway to another, once and soon, in place of a token.

It is signed, so the target believes what it says about the client; it names its target, lives for seconds, and its nonce is
remembered until then, so that whoever steals one after it was used has nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from heapq import heappop, heappush
from typing import Final

from budao.model import Checks, Wall
from budao.push.grant import Grant

TICKET_S_MAX: Final = 15.0
"""No ticket lives longer."""
NONCE_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """Who comes from where, to go on with which session. `nonce` is random, and makes it the one ticket it is."""

    source: str
    """The gateway that wrote it."""
    target: str
    """The only gateway that takes it."""
    session: str
    at: Wall
    until: Wall
    nonce: bytes = field(repr=False)
    grant: Grant
    """What the client may do, with the end that its token had."""


class Flaw(Enum):
    """Why a ticket is not taken."""

    MALFORMED = "malformed"
    TOO_LONG = "too-long"
    UNKNOWN_KEY = "unknown-key"
    FORGED = "forged"
    EXPIRED = "expired"
    EARLY = "early"
    """It is dated in the future, or lives longer than any ticket may."""
    ELSEWHERE = "elsewhere"
    """It is for another gateway."""
    OTHER_SESSION = "other-session"
    BEFORE_START = "before-start"
    """It was written before this gateway began, which cannot know whether it has been used."""
    REPLAYED = "replayed"
    FULL = "full"
    """Too many tickets are remembered to tell whether this one is new."""


@dataclass(frozen=True, slots=True)
class TicketRefused:
    """A ticket is not taken. The client comes back with its token (4304)."""

    flaw: Flaw
    happened: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketPolicy:
    """How long tickets live, and how many are remembered.

    Raises:  BadSettings with every problem.
    """

    life_s: float = TICKET_S_MAX
    """Of the tickets that are written."""
    skew_s: float = 1.0
    """How far the clock of another gateway may be ahead. One that is behind shortens the life of its tickets."""
    remembered_max: int = 200_000
    """Used tickets that are remembered; beyond, none is taken until some have expired. About 200 bytes each."""

    def __post_init__(self) -> None:
        check = Checks("ticket")
        check.number("life_s", self.life_s, 0.0, TICKET_S_MAX, open_low=True)
        check.number("skew_s", self.skew_s, 0.0, 5.0)
        check.count("remembered_max", self.remembered_max, 1)
        check.done()


class TicketGate:
    """Lets each ticket in once. `since` is when this gateway began: what was written before may have been used already."""

    def __init__(self, name: str, since: Wall, policy: TicketPolicy | None = None) -> None:
        self.name = name
        self.since = since
        self.policy = TicketPolicy() if policy is None else policy
        self.refused: dict[Flaw, int] = dict.fromkeys(Flaw, 0)
        self.taken = 0
        self._used: set[bytes] = set()
        self._ends: list[tuple[float, bytes]] = []
        self._forgotten = Wall(0.0)
        """Tickets up to this end are forgotten, so none of them is taken, whatever the clock says later."""

    def __len__(self) -> int:
        return len(self._used)

    def admit(self, ticket: Ticket | TicketRefused, session: str | None, now: Wall) -> TicketRefused | None:
        """None lets it in, and never again. `session` is what the client says its session is, if it says so."""
        refused = ticket if isinstance(ticket, TicketRefused) else self._look(ticket, session, now)
        if refused is not None:
            self.refused[refused.flaw] += 1
            return refused
        assert isinstance(ticket, Ticket)
        self._remember(ticket.nonce, ticket.until)
        self.taken += 1
        return None

    def used(self) -> tuple[tuple[float, bytes], ...]:
        """What a successor of the same name must remember, each with its end."""
        return tuple(self._ends)

    def remember(self, used: Iterable[tuple[float, bytes]]) -> None:
        """Goes on with what a predecessor remembered, however much it is."""
        for until, nonce in used:
            self._remember(nonce, Wall(until))

    def _remember(self, nonce: bytes, until: Wall) -> None:
        self._used.add(nonce)
        heappush(self._ends, (until, nonce))

    def _look(self, ticket: Ticket, session: str | None, now: Wall) -> TicketRefused | None:
        policy = self.policy
        if ticket.target != self.name:
            return TicketRefused(Flaw.ELSEWHERE, f"it is for the gateway {ticket.target!r}, and this is {self.name!r}")
        if session is not None and session != ticket.session:
            return TicketRefused(Flaw.OTHER_SESSION, "it is for another session than the hello names")
        while self._ends and self._ends[0][0] <= now:
            until, nonce = heappop(self._ends)
            self._used.discard(nonce)
            self._forgotten = Wall(max(self._forgotten, until))
        if now >= ticket.until or ticket.until <= self._forgotten:
            return TicketRefused(Flaw.EXPIRED, f"it ended {now - ticket.until:.1f} s ago")
        if ticket.at > now + policy.skew_s:
            return TicketRefused(Flaw.EARLY, f"it is dated {ticket.at - now:.1f} s ahead; do the clocks agree?")
        # Written so that a number that is none is refused.
        if not ticket.until - ticket.at <= TICKET_S_MAX + 1e-6 or not ticket.at <= ticket.until:
            return TicketRefused(
                Flaw.EARLY, f"it lives for {ticket.until - ticket.at:.1f} s, {TICKET_S_MAX:g} s are allowed"
            )
        if ticket.at < self.since:
            return TicketRefused(Flaw.BEFORE_START, "it was written before this gateway began, and may have been used")
        if ticket.nonce in self._used:
            return TicketRefused(Flaw.REPLAYED, "it has been used")
        if len(self._used) >= policy.remembered_max:
            return TicketRefused(Flaw.FULL, f"{len(self._used)} tickets are remembered, and that is the bound")
        return None
