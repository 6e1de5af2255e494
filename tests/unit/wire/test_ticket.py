"""Tickets as text: what was signed is read, and every other text is refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import BadSettings, LocalWireError, Wall
from budao.push import Flaw, Grant, Ticket, TicketRefused
from budao.wire import TICKET_CHARACTERS_MAX, TicketKeys

OLD, NEW = b"o" * 32, b"n" * 32
KEYS = TicketKeys({"new": NEW, "old": OLD}, "new")
TICKET = Ticket(
    source="gateway-a",
    target="gateway-b",
    session="s-1",
    at=Wall(1_700_000_000.25),
    until=Wall(1_700_000_015.125),
    nonce=bytes(range(16)),
    grant=Grant(
        subject="ada", subscribe=("news", "room:**"), publish=("room:*",), presence=(), operate=True, until=Wall(1.8e9)
    ),
)
TEXT = KEYS.sign(TICKET)


def _flaw(found: Ticket | TicketRefused) -> Flaw | None:
    return found.flaw if isinstance(found, TicketRefused) else None


def test_what_was_signed_is_read_as_it_was() -> None:
    assert KEYS.read(TEXT) == TICKET


def test_a_ticket_has_these_bytes() -> None:
    fixed = TicketKeys({"k": b"k" * 32}, "k")
    text = fixed.sign(
        Ticket(source="a", target="b", session="s", at=Wall(1.0), until=Wall(2.5), nonce=b"\0" * 16, grant=Grant())
    )
    assert text == (
        "AQFrWyJhIiwiYiIsInMiLDEuMCwyLjUsIjAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwIiwiIixbXSxbXSxbXSxmYWxz"
        "ZSxudWxsXQg-mtjAw0HsOu-s8BiGIoi2Jb9ZMVDXiiYh7ByAC9Cl"
    )


@given(st.integers(0, len(TEXT) * 8 - 1))
def test_any_flipped_bit_is_refused(bit: int) -> None:
    raw = bytearray(TEXT.encode())
    raw[bit // 8] ^= 1 << bit % 8
    assert isinstance(KEYS.read(raw.decode("latin-1")), TicketRefused)


@given(st.integers(0, len(TEXT) - 1))
def test_any_truncation_is_refused(length: int) -> None:
    assert isinstance(KEYS.read(TEXT[:length]), TicketRefused)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    assert isinstance(KEYS.read(text), TicketRefused)


@given(st.text(), st.text(), st.text(), st.lists(st.text(max_size=20), max_size=3).map(tuple), st.booleans())
def test_whatever_a_ticket_says_is_read_as_it_was(
    source: str, session: str, subject: str, patterns: tuple[str, ...], operate: bool
) -> None:
    grant = Grant(subject=subject, subscribe=patterns, operate=operate)
    ticket = Ticket(
        source=source, target="b", session=session, at=Wall(0.1), until=Wall(0.3), nonce=b"x" * 16, grant=grant
    )
    try:
        text = KEYS.sign(ticket)
    except (LocalWireError, UnicodeEncodeError):
        return
    assert KEYS.read(text) == ticket


def test_each_way_to_be_no_good_has_a_name() -> None:
    other = TicketKeys({"new": b"x" * 32, "third": b"y" * 32}, "new")
    assert _flaw(other.read(TEXT)) is Flaw.FORGED
    assert _flaw(TicketKeys({"third": b"y" * 32}, "third").read(TEXT)) is Flaw.UNKNOWN_KEY
    assert _flaw(KEYS.read("A" * (TICKET_CHARACTERS_MAX + 1))) is Flaw.TOO_LONG
    assert _flaw(KEYS.read(TEXT + "=")) is Flaw.MALFORMED
    assert _flaw(KEYS.read(" " + TEXT)) is Flaw.MALFORMED
    assert _flaw(KEYS.read("")) is Flaw.MALFORMED


def test_keys_change_without_a_pause() -> None:
    before = TicketKeys({"old": OLD}, "old")
    both = TicketKeys({"old": OLD, "new": NEW}, "old")
    assert KEYS.read(before.sign(TICKET)) == TICKET
    assert before.read(both.sign(TICKET)) == TICKET
    assert both.read(TEXT) == TICKET


def test_keys_are_read_from_lines_and_the_first_one_signs() -> None:
    text = f"# for the cluster\nnew {NEW.hex()}  # since June\n\nold {OLD.hex()}\n"
    keys = TicketKeys.parse(text)
    assert keys.signing == "new"
    assert keys.read(TEXT) == TICKET


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "there is no key"),
        ("new", "line 1 is not an id and a key"),
        (f"new {NEW.hex()}z", "line 1 is not an id and a key"),
        (f"new {NEW.hex()[:-2]}", "has 31 bytes, at least 32"),
        (f"new {NEW.hex()}\nnew {OLD.hex()}", "line 2 has the id 'new' once more"),
        (f"n/w {NEW.hex()}", "is no id"),
    ],
)
def test_what_is_no_key_is_said_and_not_shown(text: str, problem: str) -> None:
    with pytest.raises(BadSettings, match=problem) as caught:
        TicketKeys.parse(text)
    assert NEW.hex()[:20] not in str(caught.value)


def test_keys_are_not_shown() -> None:
    assert repr(KEYS) == "TicketKeys(ids=['new', 'old'], signing='new')"


def test_a_grant_that_is_too_long_for_a_url_gets_no_ticket() -> None:
    many = Grant(subscribe=tuple(f"room:{'x' * 100}:{index}" for index in range(60)))
    with pytest.raises(LocalWireError, match="characters"):
        KEYS.sign(Ticket(source="a", target="b", session="s", at=Wall(0), until=Wall(1), nonce=b"x" * 16, grant=many))


def test_only_numbers_that_are_some_are_instants() -> None:
    ticket = Ticket(
        source="a", target="b", session="s", at=Wall(0), until=Wall(float("inf")), nonce=b"x" * 16, grant=Grant()
    )
    with pytest.raises(LocalWireError, match="cannot be written"):
        KEYS.sign(ticket)
