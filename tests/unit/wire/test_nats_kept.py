"""A message comes out of a stream of NATS as it went in, and any channel has a subject of its own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import RemoteWireError, Wall
from budao.push import Draft, Kind, Message, Position, check_channel
from budao.wire import nats, nats_kept

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def is_channel(name: str) -> bool:
    try:
        check_channel(name)
    except RemoteWireError:
        return False
    return True


@given(
    TEXTS,
    st.binary(max_size=50),
    st.sampled_from(Kind),
    st.none() | TEXTS,
    st.none() | TEXTS,
    st.integers(1, 2**60),
    st.floats(0, 4e9),
)
def test_what_goes_in_comes_out(
    channel: str, data: bytes, kind: Kind, name: str | None, trace: str | None, seq: int, at: float
) -> None:
    draft, position = Draft(channel, data, kind, name, trace), Position("e1", seq)
    headers = nats_kept.format_kept(draft, position, seq - 1, 77, Wall(at), "mine7")
    kept = nats_kept.parse_kept(channel, nats.format_headers(headers), data, sequence=9)
    message = Message(channel, position, data, kind, Wall(at), name, trace)
    assert kept == nats_kept.Kept(message, 9, seq - 1, 77, "mine7")


@given(TEXTS.filter(is_channel), TEXTS.filter(is_channel))
def test_every_channel_is_one_token_and_its_own(one: str, other: str) -> None:
    token = nats_kept.token_of(one)
    assert not set(token) & set(".*> \t\r\n")
    assert token.isascii()
    assert token.isprintable()
    assert (token == nats_kept.token_of(other)) == (one == other)


def test_the_sequence_of_a_republished_message_is_in_its_headers() -> None:
    headers = nats_kept.format_kept(Draft("c", b"1"), Position("e", 1), 0, 1, Wall(1.5), "a")
    assert headers == {"Budao-Place": "e 1 0 1 1.5 a"}
    assert nats_kept.kept_of("c", headers | {"Nats-Sequence": "12"}, b"1").sequence == 12


@pytest.mark.parametrize(
    "wrong",
    [
        {"Budao-Place": ""},
        {"Budao-Place": "e 1 0 1 1.5"},
        {"Budao-Place": "e x 0 1 1.5 a"},
        {"Budao-Place": "e 0 0 1 1.5 a"},
        {"Budao-Place": " 1 0 1 1.5 a"},
        {"Budao-Kind": "song"},
        {"Budao-Id": "%ff"},
        {"Nats-Sequence": "0"},
    ],
)
def test_what_no_gateway_published_is_refused(wrong: dict[str, Any]) -> None:
    headers = {"Budao-Place": "e 1 0 1 1.5 a", "Nats-Sequence": "3"}
    assert nats_kept.kept_of("c", headers, b"1").sequence == 3
    with pytest.raises(RemoteWireError, match="no gateway"):
        nats_kept.kept_of("c", headers | wrong, b"1")
