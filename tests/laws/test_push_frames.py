"""Frames go through both subprotocols unchanged, and no bytes at all do harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from budao.model import RemoteWireError, Wall
from budao.push import FromClient, FromGateway, Kind, Message, Msg, Position, Pub
from budao.wire.json_data import DEPTH_MAX, check_json_data
from budao.wire.publish_body import parse_publish
from budao.wire.push_frames import CODECS, JSON, MSGPACK, Codec, format_hello_query, parse_hello_query
from tests.wires import push_samples as samples

CODEC = pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))
PLAIN = samples.json_values
KEYS = [
    "type",
    "ref",
    "channel",
    "data",
    "data64",
    "after",
    "epoch",
    "seq",
    "channels",
    "version",
    "position",
    "id",
    "at",
]
TYPES = ["hello", "sub", "unsub", "pub", "ack", "ping", "pong", "standby", "bye", "msg", "gap", "welcome", "move"]
NEARLY = st.dictionaries(
    st.sampled_from(KEYS), st.sampled_from(TYPES) | PLAIN | st.binary(max_size=4).map(bytes.hex), max_size=8
)


def written(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def refusal(read: Callable[[bytes], object], raw: bytes) -> str:
    """What it says against these bytes; empty if they are good. Anything but a RemoteWireError comes through."""
    try:
        read(raw)
    except RemoteWireError as problem:
        return str(problem)
    return ""


@CODEC
@given(frame=samples.without_data_from_client)
def test_what_a_client_says_arrives(codec: Codec, frame: FromClient) -> None:
    assert codec.decode(codec.encode(frame)) == frame


@CODEC
@given(frame=samples.without_data_from_gateway)
def test_what_a_gateway_says_arrives(codec: Codec, frame: FromGateway) -> None:
    assert codec.decode_from_gateway(codec.encode(frame)) == frame


@given(
    value=PLAIN, channel=samples.names, epoch=samples.texts, seq=st.integers(0, 2**63 - 1), id_=samples.ids,
    trace=samples.traces, at=st.floats(0, 2e9), ref=samples.refs,
)  # fmt: skip
def test_json_data_arrives_as_it_was_written(
    value: Any, channel: str, epoch: str, seq: int, id_: str | None, trace: str | None, at: float, ref: int
) -> None:
    data = written(value)
    message = Message(channel, Position(epoch, seq), data, Kind.JSON, Wall(round(at, 3)), id_, trace)
    assert JSON.decode_from_gateway(JSON.encode(Msg(message))) == Msg(message)
    through = MSGPACK.decode_from_gateway(MSGPACK.encode(Msg(message)))
    assert isinstance(through, Msg)
    assert json.loads(through.message.data) == value
    pub = Pub(ref=ref, channel=channel, data=data, id=id_, trace=trace)
    assert JSON.decode(JSON.encode(pub)) == pub


@CODEC
@given(data=st.binary(max_size=100), ref=samples.refs)
def test_bytes_arrive_as_they_are(codec: Codec, data: bytes, ref: int) -> None:
    pub = Pub(ref=ref, channel="a", data=data, kind=Kind.BYTES)
    assert codec.decode(codec.encode(pub)) == pub
    message = Msg(Message("a", Position("e", 1), data, Kind.BYTES, Wall(0.0)))
    assert codec.decode_from_gateway(codec.encode(message)) == message


@given(value=PLAIN, indent=st.sampled_from([None, 0, 1, "\t"]), ascii_only=st.booleans())
def test_spaces_between_tokens_go_and_nothing_else_does(value: Any, indent: int | str | None, ascii_only: bool) -> None:
    spaced = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    compact = json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":"))
    assert check_json_data(f" \n{spaced}\t".encode()) == compact.encode()


def is_good(value: Any, depth: int = 0) -> bool:
    """The slow, obvious twin: walks everything."""
    if isinstance(value, list | dict):
        if depth == DEPTH_MAX:
            return False
        inner = value if isinstance(value, list) else [*value, *value.values()]
        return all(is_good(each, depth + 1) for each in inner)
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, float):
        return value not in {float("inf"), float("-inf")} and value == value  # noqa: PLR0124
    return -(2**63) <= value < 2**64


class Twice(Exception):
    pass


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise Twice
    return dict(pairs)


PIECES = st.sampled_from(
    ["[", "]", "{", "}", ",", ":", " ", '"a"', '"b"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\\\"', '"\\""', '"x , y"', "1", "-0",
     "1e400", "1E5", "1.50", "18446744073709551615", "18446744073709551616", "-9223372036854775809", "NaN", "-Infinity", "null", "é",
     "\n", "\x00", '"\x00"', "0" * 20, '"12345678901234567890e9"'],
)  # fmt: skip


@given(
    text=st.one_of(
        st.lists(PIECES, max_size=12).map("".join),
        st.lists(PIECES, max_size=6).map(lambda pieces: "[" + ",".join(pieces) + "]"),
        st.lists(st.tuples(st.sampled_from(['"a"', '"b"', '"\\u0061"']), PIECES), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{key} : {value}" for key, value in pairs) + "}"
        ),
        st.integers(DEPTH_MAX - 2, DEPTH_MAX + 2).map(lambda depth: "[" * depth + "1" + "]" * depth),
        st.integers(DEPTH_MAX - 2, DEPTH_MAX + 2).map(lambda depth: '{"a":[' * (depth // 2) + "]}" * (depth // 2)),
    )
)
@example(text='["' + "[" * 100 + '"]')
@example(text="[" + "[]," * 100 + "[]]")
def test_data_is_taken_exactly_where_a_walk_through_all_of_it_finds_nothing_wrong(text: str) -> None:
    try:
        value = json.loads(text, object_pairs_hook=once)
        expected = is_good(value)
    except (ValueError, Twice):
        value, expected = None, False
    try:
        compact = check_json_data(text.encode())
    except RemoteWireError:
        assert not expected
    else:
        assert expected
        assert json.loads(compact) == value


@CODEC
@given(raw=st.binary(max_size=200))
@example(raw=b"[" * 100_000)
@example(raw=b'{"type":' + b"[" * 100_000)
@example(raw=b"\x91" * 5_000)
@example(raw=b"\x81\xa4type" * 3_000)
@example(raw=b'{"type":"pub","ref":1,"channel":"a","data":' + b'{"a":' * 50_000)
@example(raw=b'{"' + b"\\" * 99_999)
@example(raw=b'{"type":"ping","number":' + b"9" * 10_000 + b"}")
def test_no_bytes_do_more_than_being_refused(codec: Codec, raw: bytes) -> None:
    said = [refusal(read, raw) for read in (codec.decode, codec.decode_from_gateway, codec.decode_hello)]
    said += [refusal(parse_publish, raw), refusal(check_json_data, raw)]
    assert all(len(each) < 400 for each in said)  # it says what is wrong, not everything that was said


@given(value=NEARLY)
def test_what_is_nearly_a_frame_is_a_frame_or_refused(value: dict[str, Any]) -> None:
    for codec, raw in ((JSON, written(value)), (MSGPACK, msgpack.packb(value))):
        for read in (codec.decode, codec.decode_from_gateway, codec.decode_hello):
            refusal(read, raw)
    refusal(parse_publish, written(value))


@given(text=st.text(max_size=50))
def test_any_hello_in_a_url_is_one_or_is_refused(text: str) -> None:
    try:
        hello = parse_hello_query(text)
    except RemoteWireError:
        return
    assert parse_hello_query(format_hello_query(hello)) == hello
