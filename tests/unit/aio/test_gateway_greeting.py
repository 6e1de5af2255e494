"""What thousands say alike is read once, and what they are told alike is written once: always as if it were done anew."""

from __future__ import annotations

from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.aio.gateway.encoding import WS_JSON, WS_MSGPACK
from budao.aio.gateway.greeting import REMEMBERED_MAX, Greeting
from budao.model import RemoteWireError
from budao.push import Ack, Hello, Position
from budao.wire import push_frames

HERE = Position("e1", 41)
sessions = st.none() | st.text("ab.~-", min_size=1, max_size=3)
hellos = st.builds(
    Hello,
    session=sessions,
    ticket=st.none() | st.just("t"),
    channels=st.dictionaries(st.sampled_from(["a", "b", "session"]), st.none() | st.just(HERE), max_size=2),
    is_standby=st.booleans(),
    client=st.none() | st.sampled_from(["x", 'a"session":"b"', "\\"]),
)


def text_of(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode()


@given(st.lists(hellos, max_size=12))
def test_a_hello_is_what_it_says_however_many_were_heard_before(those: list[Hello]) -> None:
    greeting = Greeting("g", (), 1_000)
    for hello in those:
        assert greeting.hello(push_frames.format_hello_query(hello)) == hello


def test_hellos_that_differ_in_the_session_only_are_read_once_and_the_latest_are_kept() -> None:
    greeting = Greeting("g", (), 1_000)
    for number in range(3):
        greeting.hello(push_frames.format_hello_query(Hello(session=f"s-{number}", channels={"a": HERE})))
    assert len(greeting._hellos) == 1
    for number in range(REMEMBERED_MAX + 5):
        greeting.hello(push_frames.format_hello_query(Hello(channels={f"c{number}": None})))
    assert len(greeting._hellos) == REMEMBERED_MAX
    greeting.hello(push_frames.format_hello_query(Hello(ticket="a secret", client="somebody")))
    assert "secret" not in repr(greeting._hellos)


def test_what_only_looks_like_the_name_of_a_session_is_not_taken_for_one() -> None:
    greeting = Greeting("g", (), 1_000)
    for inner, outer in (("a", "a"), ("b", "a"), ("a", "b")):
        raw = f'{{"type":"hello","more":{{"session":"{inner}"}},"session":"{outer}"}}'.encode()
        assert greeting.hello(text_of(raw)).session == outer
    assert greeting.hello(text_of(b'{"type":"hello","more":{"session":"a"}}')).session is None
    assert greeting.hello(text_of(b'{"type":"hello","more":{"session":"b"}}')).session is None
    for _ in range(2):
        with pytest.raises(RemoteWireError):
            greeting.hello(text_of(b'{"type":"hello","channels":{"session":"a"}}'))
        with pytest.raises(RemoteWireError):
            greeting.hello("a hello?")


def test_the_answer_to_a_promotion_is_the_one_that_the_codec_writes() -> None:
    greeting = Greeting("g", (), 1_000)
    wide = {f"c{number}": HERE for number in range(40)}
    for encoding in (WS_JSON, WS_MSGPACK):
        for ref in (1, 2, 1):
            for channels in ({"a": HERE}, {"a": Position("e1", 42)}, {"b": HERE}, {}, wide):
                assert greeting.promoted(encoding, ref, channels) == encoding.frame(Ack(ref=ref, channels=channels))
    assert len(greeting._acks) == 16
    for ref in range(REMEMBERED_MAX + 5):
        greeting.promoted(WS_JSON, ref, {"a": HERE})
    assert len(greeting._acks) == REMEMBERED_MAX
