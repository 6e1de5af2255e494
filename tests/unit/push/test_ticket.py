"""A ticket is taken once, soon, at its target, for its session; everything else has a name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from budao.model import BadSettings, Wall
from budao.push import Flaw, Grant, Ticket, TicketGate, TicketPolicy, TicketRefused

NOW = Wall(1_000_000.0)
GOOD = Ticket(
    source="a",
    target="b",
    session="s",
    at=NOW,
    until=Wall(NOW + 15.0),
    nonce=b"n" * 16,
    grant=Grant(subject="ada", subscribe=("news",)),
)


def _gate(**policy: float) -> TicketGate:
    return TicketGate("b", Wall(0.0), TicketPolicy(**policy))  # type: ignore[arg-type]


def _flaw(gate: TicketGate, ticket: Ticket, at: float = NOW + 1.0, session: str | None = "s") -> Flaw | None:
    refused = gate.admit(ticket, session, Wall(at))
    return None if refused is None else refused.flaw


def test_a_good_ticket_is_taken_once() -> None:
    gate = _gate()
    assert _flaw(gate, GOOD) is None
    assert _flaw(gate, GOOD) is Flaw.REPLAYED
    assert (gate.taken, gate.refused[Flaw.REPLAYED]) == (1, 1)


def test_the_hello_may_leave_its_session_to_the_ticket() -> None:
    assert _flaw(_gate(), GOOD, session=None) is None
    assert _flaw(_gate(), GOOD, session="other") is Flaw.OTHER_SESSION


@pytest.mark.parametrize(
    ("ticket", "at", "flaw"),
    [
        (replace(GOOD, target="c"), NOW, Flaw.ELSEWHERE),
        (GOOD, NOW + 15.0, Flaw.EXPIRED),
        (GOOD, NOW + 14.999, None),
        (GOOD, NOW - 0.9, None),
        (GOOD, NOW - 1.1, Flaw.EARLY),
        (replace(GOOD, until=Wall(NOW + 15.1)), NOW, Flaw.EARLY),
        (replace(GOOD, until=Wall(NOW + 1e9)), NOW, Flaw.EARLY),
        (replace(GOOD, at=Wall(NOW + 5.0), until=Wall(NOW + 4.0)), NOW + 3.9, Flaw.EARLY),
        (replace(GOOD, until=Wall(float("nan"))), NOW, Flaw.EARLY),
    ],
)
def test_a_ticket_is_good_for_its_target_and_its_time_only(ticket: Ticket, at: float, flaw: Flaw | None) -> None:
    assert _flaw(_gate(), ticket, at) is flaw


def test_a_ticket_from_before_the_gateway_began_may_have_been_used_and_is_refused() -> None:
    gate = TicketGate("b", Wall(NOW + 0.5))
    assert _flaw(gate, GOOD) is Flaw.BEFORE_START


def test_used_tickets_are_forgotten_when_they_have_expired_and_are_still_not_taken() -> None:
    gate = _gate()
    assert _flaw(gate, GOOD) is None
    assert len(gate) == 1
    later = replace(GOOD, nonce=b"m" * 16, at=Wall(NOW + 20.0), until=Wall(NOW + 35.0))
    assert _flaw(gate, later, NOW + 20.0) is None
    assert len(gate) == 1
    assert _flaw(gate, GOOD, NOW + 1.0) is Flaw.EXPIRED, "the clock went back, and the nonce is forgotten"


def test_a_full_memory_refuses_and_forgets_nothing() -> None:
    gate = _gate(remembered_max=2)
    tickets = [replace(GOOD, nonce=bytes([index]) * 16) for index in range(3)]
    assert [_flaw(gate, each) for each in tickets] == [None, None, Flaw.FULL]
    assert _flaw(gate, tickets[0]) is Flaw.REPLAYED
    fresh = replace(tickets[2], at=Wall(NOW + 15.0), until=Wall(NOW + 30.0))
    assert _flaw(gate, fresh, NOW + 15.0) is None


def test_a_successor_remembers_what_its_predecessor_took() -> None:
    gate = _gate()
    assert _flaw(gate, GOOD) is None
    successor = _gate()
    successor.remember(gate.used())
    assert _flaw(successor, GOOD) is Flaw.REPLAYED


def test_what_could_not_be_read_is_counted_under_its_name() -> None:
    gate = _gate()
    refused = TicketRefused(Flaw.FORGED, "its signature is wrong")
    assert gate.admit(refused, "s", NOW) is refused
    assert gate.refused[Flaw.FORGED] == 1


def test_no_ticket_lives_longer_than_fifteen_seconds() -> None:
    with pytest.raises(BadSettings, match=r"ticket\.life_s"):
        TicketPolicy(life_s=15.5)


def test_a_nonce_is_not_shown() -> None:
    assert "nnnn" not in repr(GOOD)
