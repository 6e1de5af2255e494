from __future__ import annotations

import json

import msgpack
import pytest

from budao.model import LocalWireError, RemoteWireError, Wall
from budao.push import Hello, Kind, Message, Msg, Position, Pub
from budao.wire.json_data import check_json_data
from budao.wire.push_frames import JSON, MSGPACK, FrameRefused, parse_hello_query

HEAD = b'{"type":"pub","ref":3,"channel":"a","data":'


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"NaN", "NaN is not JSON"),
        (b"-Infinity", "not JSON"),
        (b"1e400", "beyond what a double"),
        (b"18446744073709551616", "beyond 64 bits"),
        (b"-9223372036854775809", "beyond 64 bits"),
        (b'"\\ud800"', "half a surrogate pair"),
        (b'{"\\uDFFF":1}', "half a surrogate pair"),
        (b'[{"a":1,"a":2}]', "says a key twice"),
        (b"[" * 65 + b"]" * 65, "deeper than 64"),
    ],
)
def test_wrong_data_is_answered_to_its_request_and_refused_alone(data: bytes, said: str) -> None:
    with pytest.raises(FrameRefused, match=said) as caught:
        JSON.decode(HEAD + data + b"}")
    assert (caught.value.ref, caught.value.problem.why) == (3, "bad-data")
    with pytest.raises(RemoteWireError, match=said):
        check_json_data(data)


@pytest.mark.parametrize(
    "data", [b"18446744073709551615", b"-9223372036854775808", b"1.50", b"-0", b'"\\ud83d\\ude00"', b'"\\\\ud800"']
)
def test_good_data_stays_as_it_was_written(data: bytes) -> None:
    pub = JSON.decode(HEAD + b" " + data + b" }")
    assert isinstance(pub, Pub)
    assert pub.data == data


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "sub", "ref": True, "channel": "a"},
        {"type": "sub", "ref": 0, "channel": "a"},
        {"type": "sub", "ref": 1.0, "channel": "a"},
        {"type": "sub", "ref": 1},
        {"type": "sub", "ref": 1, "channel": 7},
        {"type": "sub", "ref": 1, "channel": "a", "after": {"epoch": "e", "seq": True}},
        {"type": "sub", "ref": 1, "channel": "a", "after": {"epoch": "e" * 65, "seq": 1}},
        {"type": "sub", "ref": 1, "channel": "a", "after": 7},
        {"type": "sub", "ref": 1, "channel": "a", "presence": 1},
        {"type": "hello", "channels": []},
        {"type": "hello", "beat_s": -1},
        {"type": "hello", "session": "x" * 129},
        {"type": "pub", "channel": "a", "data": 1},
        {"type": "pub", "ref": 1, "channel": "a", "data": 1, "id": ""},
        {"type": "msg"},
        {"type": 7},
        {},
    ],
)
def test_a_field_that_is_not_what_it_must_be_is_refused_in_both_subprotocols(frame: dict[str, object]) -> None:
    for codec, raw in ((JSON, json.dumps(frame).encode()), (MSGPACK, msgpack.packb(frame))):
        with pytest.raises(RemoteWireError):
            codec.decode(raw)


def test_a_key_said_twice_is_refused_in_both_subprotocols() -> None:
    with pytest.raises(RemoteWireError, match="twice"):
        JSON.decode(b'{"type":"ping","type":"ping"}')
    with pytest.raises(RemoteWireError, match="twice"):
        JSON.decode(b'{"type":"pub","ref":1,"channel":"a","\\u0063hannel":"b","data":1}')
    with pytest.raises(RemoteWireError, match="twice"):
        MSGPACK.decode(b"\x82\xa4type\xa4ping\xa4type\xa4ping")
    with pytest.raises(RemoteWireError):
        MSGPACK.decode(msgpack.packb({"type": "ping", 7: 1}))


@pytest.mark.parametrize("data", [float("nan"), [b"x"], {"a": b"x"}, msgpack.Timestamp(1), msgpack.ExtType(4, b"x")])
def test_what_json_cannot_say_is_no_data_in_msgpack_either(data: object) -> None:
    with pytest.raises(FrameRefused):
        MSGPACK.decode(msgpack.packb({"type": "pub", "ref": 1, "channel": "a", "data": data}))


def test_unknown_keys_are_passed_over() -> None:
    assert JSON.decode(b'{"type":"hello","later":{"a":[1]}}') == Hello()
    assert MSGPACK.decode(msgpack.packb({"type": "hello", "later": b"x"})) == Hello()


def test_the_first_frame_of_a_connection_without_a_head_may_hold_a_token() -> None:
    assert MSGPACK.decode_hello(msgpack.packb({"type": "hello", "token": "a.b.c"})) == (Hello(), "a.b.c")
    assert JSON.decode_hello(b'{"type":"hello"}') == (Hello(), None)
    for raw in (b'{"type":"ping"}', b'{"type":"hello","token":7}'):
        with pytest.raises(RemoteWireError):
            JSON.decode_hello(raw)


def test_a_hello_in_a_url_is_bounded() -> None:
    with pytest.raises(RemoteWireError, match="at most"):
        parse_hello_query("A" * 10_000)


def test_data_that_is_no_json_is_not_sent_as_such() -> None:
    broken = Message("a", Position("e", 1), b"{", Kind.JSON, Wall(0.0))
    with pytest.raises(LocalWireError, match="published as JSON"):
        MSGPACK.encode(Msg(broken))
    with pytest.raises(LocalWireError):
        JSON.encode_msg(Message("\ud800", Position("e", 1), b"1", Kind.JSON, Wall(0.0)))


@pytest.mark.parametrize("key", ["type", "ref", "channel", "after", "presence"])
def test_a_value_that_is_nested_a_thousand_times_is_refused_as_any_wrong_one(key: str) -> None:
    frame = {"type": "sub", "ref": 1, "channel": "a", "after": {"epoch": "e", "seq": 1}, key: "deep"}
    deep = b"\x91" * 1000 + b"\xc0"
    raw = msgpack.packb(frame).replace(msgpack.packb("deep"), deep)
    for decode in (MSGPACK.decode, MSGPACK.decode_from_gateway, MSGPACK.decode_hello):
        with pytest.raises(RemoteWireError):
            decode(raw)
