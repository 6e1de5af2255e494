"""What a log server and its clients say is read back as it was said, and garbage is an error in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import LocalWireError, RemoteWireError, Wall
from budao.push import (
    Appended,
    Draft,
    Hole,
    Jumped,
    Kind,
    LogAway,
    LogRefused,
    Message,
    NotPlaced,
    Placed,
    Position,
    Stretch,
)
from budao.wire import log_codec
from budao.wire import log_frames as wire
from budao.wire.packing import pack

EPOCHS = st.text(max_size=12)
NAMES = st.text(min_size=1, max_size=12)
POSITIONS = st.builds(Position, EPOCHS, st.integers(0, 2**53))
OPTIONAL = st.none() | st.text(max_size=8)
KINDS = st.sampled_from(Kind)
DRAFTS = st.builds(Draft, NAMES, st.binary(max_size=20), KINDS, OPTIONAL, OPTIONAL)


@st.composite
def runs(draw: st.DrawFn) -> Appended:
    channel, epoch, first = draw(NAMES), draw(EPOCHS), draw(st.integers(1, 2**52))
    entries = draw(
        st.lists(
            st.tuples(st.binary(max_size=20), KINDS, st.floats(0, 4e9).map(Wall), OPTIONAL, OPTIONAL),
            min_size=1,
            max_size=4,
        )
    )
    return Appended(
        channel,
        tuple(Message(channel, Position(epoch, seq), *entry) for seq, entry in enumerate(entries, first)),
    )


@st.composite
def stretches(draw: st.DrawFn) -> Stretch:
    run = draw(runs())
    return Stretch(run.channel, draw(POSITIONS), draw(st.sampled_from([(), run.messages])), draw(st.booleans()))


NUMBERS = st.integers(0, 2**40)
REQUESTS = st.one_of(
    st.builds(wire.Publish, st.lists(DRAFTS, max_size=4).map(tuple)),
    st.builds(wire.Read, NAMES, POSITIONS, NUMBERS, NUMBERS),
    st.builds(wire.Latest, NAMES, NUMBERS),
    st.builds(wire.Follow, NAMES, NUMBERS, st.none() | POSITIONS),
)
ANSWERS = st.one_of(
    st.lists(st.builds(Placed, POSITIONS, st.booleans()) | st.builds(NotPlaced, NAMES, NAMES), max_size=4).map(tuple),
    stretches(),
)
MESSAGES = st.one_of(
    st.builds(wire.Hello, st.text(max_size=20), NUMBERS, NUMBERS),
    st.builds(wire.Welcome, NUMBERS, st.binary(min_size=16, max_size=16), NUMBERS),
    st.builds(wire.Versions, NUMBERS, NUMBERS),
    st.builds(wire.Denied, NAMES, st.booleans()),
    st.builds(wire.Ask, NUMBERS, REQUESTS),
    st.builds(wire.Answered, NUMBERS, ANSWERS),
    st.builds(wire.Unfollow, NAMES),
    st.builds(wire.Told, st.lists(runs(), max_size=3).map(tuple)),
    st.builds(Jumped, NAMES, POSITIONS, st.sampled_from(Hole)),
    st.just(wire.Beat()),
    st.builds(wire.Goodbye, NAMES),
)


@given(st.lists(MESSAGES, max_size=4), st.integers(1, 50))
def test_messages_arrive_as_they_were_sent_in_whatever_pieces(messages: list[wire.Message], size: int) -> None:
    stream = b"".join(map(wire.format_message, messages))
    decoder, found = wire.Decoder(), list[wire.Message]()
    for at in range(0, len(stream), size):
        found += decoder.feed(stream[at : at + size])
    assert found == messages


@given(st.lists(runs(), max_size=3))
def test_what_was_packed_once_is_the_same_news(news: list[Appended]) -> None:
    packed = [log_codec.format_run(run) for run in news]
    assert wire.format_told(packed) == wire.format_message(wire.Told(tuple(news)))


@pytest.mark.parametrize(
    "error", [LogAway("log", "gone", may_have_taken_effect=True), LogAway("log", "gone"), LogRefused("read", "no")]
)
def test_errors_say_the_same_on_the_other_side(error: LogAway | LogRefused) -> None:
    (failed,) = wire.Decoder().feed(wire.format_message(wire.Failed(7, error)))
    assert isinstance(failed, wire.Failed)
    assert type(failed.error) is type(error)
    assert str(failed.error) == str(error)


def test_a_token_is_never_shown() -> None:
    assert "secret" not in repr(wire.Hello("secret"))


RUN = ["a", "e", 1, [[1.0, 0, b"", None, None]]]


@pytest.mark.parametrize(
    "said",
    [
        7,
        [],
        [99],
        ["x"],
        [0, "budao-store", 1, 1, ""],
        [4, 1, 9, []],
        [4, 1, 0, [["a", 2, b"", None, None]]],
        [4, 1, 0, [["a", [], b"", None, None]]],
        [4, 1, 0, [["a", 0, "text", None, None]]],
        [4, 1, 0, [["a", 0, b"", 1, None]]],
        [4, 1, 1, ["a", ["e", 2**54], 1, 1]],
        [4, 1, 1, ["a", ["e", 1], -1, 1]],
        [5, 1, 0, [["e", 1, 1]]],
        [5, 1, 1, ["b", ["e", 1], False, RUN]],
        [8, ["a"]],
        [8, [["a", "e", 0, RUN[3]]]],
        [8, [["a", "e", 1, []]]],
        [8, [["a", "e", 1, [[1, 0, b"", None, None]]]]],
        [8, [["a", "e", 1, [[float("nan"), 0, b"", None, None]]]]],
        [8, [["a", "e", 1, [[1.0, True, b"", None, None]]]]],
        [9, "a", ["e", 1], 3],
        [10, 1],
    ],
)
def test_what_breaks_a_rule_is_refused(said: object) -> None:
    with pytest.raises(RemoteWireError):
        wire.parse_message(pack(said))


def test_a_frame_that_is_too_long_is_neither_sent_nor_read() -> None:
    with pytest.raises(RemoteWireError, match="speaks HTTP"):
        wire.Decoder(4096).feed(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(RemoteWireError, match="does not speak budao-log"):
        wire.Decoder(4096).feed(b"\xff" * 8)
    with pytest.raises(LocalWireError):
        wire.format_told([bytes(wire.FRAME_BYTES_MAX)])


def test_a_hello_has_the_bytes_it_always_had() -> None:
    assert wire.format_message(wire.Hello("t")) == b"\x00\x00\x00\x10\x95\x00\xa9budao-log\x01\x01\xa1t"
