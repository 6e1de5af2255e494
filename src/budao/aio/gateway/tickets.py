"""Tickets of one gateway: written for others, and taken once each."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from secrets import token_bytes

from budao.model import BadSettings, LocalWireError, Wall
from budao.push import NONCE_BYTES, Flaw, Grant, Ticket, TicketGate, TicketPolicy, TicketRefused
from budao.wire import TicketKeys


def read_ticket_keys(file: Path) -> TicketKeys:
    """The keys that the gateways of a cluster share, from a file that others must not read: see `TicketKeys.parse`.

    Raises:  BadSettings; a key is never part of a message.
    """
    try:
        mode = file.stat().st_mode
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        happened = getattr(problem, "strerror", None) or "it is no text"
        raise BadSettings([("ticket_keys", f"{file} cannot be read: {happened}")]) from problem
    if mode & 0o077:
        raise BadSettings([("ticket_keys", f"{file} can be read by others (mode {mode & 0o777:o}); set it to 600")])
    return TicketKeys.parse(text)


class TicketOffice:
    """Writes and takes tickets. Without keys it can do neither, and clients show their token again."""

    def __init__(
        self,
        name: str,
        keys: TicketKeys | None,
        *,
        since: Wall,
        policy: TicketPolicy | None = None,
        wall: Callable[[], float] = time.time,
        count: Callable[[str], object] = lambda _: None,
    ) -> None:
        """`count` is told what becomes of each ticket: `written`, `taken`, or its flaw."""
        self.name = name
        self.keys = keys
        self.policy = TicketPolicy() if policy is None else policy
        self.gate = TicketGate(name, since, self.policy)
        self.written = 0
        self._wall = wall
        self._count = count

    def renew(self, keys: TicketKeys | None) -> None:
        """Other keys from now on."""
        self.keys = keys

    def write(self, target: str, session: str, grant: Grant) -> str | None:
        """A ticket for a gateway; None where there are no keys, the target has no name, or the grant is too long."""
        if self.keys is None or not target:
            return None
        now = Wall(self._wall())
        try:
            text = self.keys.sign(
                Ticket(
                    source=self.name,
                    target=target,
                    session=session,
                    at=now,
                    until=Wall(now + self.policy.life_s),
                    nonce=token_bytes(NONCE_BYTES),
                    grant=grant,
                )
            )
        except LocalWireError:
            return None
        self.written += 1
        self._count("written")
        return text

    def redeem(self, text: str, session: str | None) -> Grant | str:
        """What a ticket grants, once; or why nothing, as a word and a sentence."""
        if self.keys is None:
            self._count(Flaw.UNKNOWN_KEY.value)
            return "unknown-key: this gateway has no keys for tickets"
        ticket = self.keys.read(text)
        refused = self.gate.admit(ticket, session, Wall(self._wall()))
        self._count("taken" if refused is None else refused.flaw.value)
        if refused is not None:
            return f"{refused.flaw.value}: {refused.happened}"
        assert not isinstance(ticket, TicketRefused), "it was admitted"
        return ticket.grant
