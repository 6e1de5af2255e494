from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import RemoteWireError
from budao.push import Draft, Kind, NotPlaced, Placed, Position, Problem
from budao.wire.publish_body import Publishing, format_error, format_publish, parse_publish, status_of
from tests.wires.push_samples import TRACE, json_values

OTHER = TRACE.replace("b7", "c8")


def test_one_message_is_taken_as_it_was_written() -> None:
    body = b'{ "channel" : "room:1", "id": "m-1", "data" : { "price" : 1.0, "big" : 18446744073709551615 } }'
    draft = Draft("room:1", b'{"price":1.0,"big":18446744073709551615}', Kind.JSON, "m-1")
    assert parse_publish(body) == Publishing((draft,), is_batch=False)


def test_the_trace_of_the_request_is_for_messages_that_bring_none() -> None:
    body = json.dumps({"messages": [{"channel": "a", "data": 1}, {"channel": "a", "data": 2, "trace": OTHER}]}).encode()
    assert [draft.trace for draft in parse_publish(body, trace=TRACE).drafts] == [TRACE, OTHER]


def test_a_wrong_message_of_a_batch_is_a_problem_in_its_place() -> None:
    body = (
        b'{"messages":[{"channel":"a","data":1},{"channel":"a b","data":1},{"channel":"a","data":NaN},3,{"channel":"a"},'
        b'{"channel":"b","data64":"aGk="},{"channel":"b","data64":"?"},{"channel":"b","data":1,"data64":"aGk="},{"channel":"b","data":1,"id":7}]}'
    )
    found = parse_publish(body)
    assert found.is_batch
    assert found.drafts == (Draft("a", b"1"), Draft("b", b"hi", Kind.BYTES))
    assert [item.why if isinstance(item, Problem) else "" for item in found.items] == [
        "", "bad-channel", "bad-data", "bad-data", "bad-data", "", "bad-data", "bad-data", "bad-data",
    ]  # fmt: skip
    results = [Placed(Position("e", 1)), NotPlaced("no-room", "full")]
    answer = json.loads(format_publish(found, results))["results"]
    assert answer[0] == {"epoch": "e", "seq": 1}
    assert answer[5] == {"error": {"why": "no-room", "happened": "full"}}
    assert [each["error"]["why"] for each in answer[1:5]] == ["bad-channel", "bad-data", "bad-data", "bad-data"]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"7", b"{", b"\xff", b'{"messages":[]}', b'{"messages":7}', b'{"messages":[{"channel":"a","data":1}', b'{"messages":[1}',
     b'{"messages":[{"channel":"a","data":1}],"channel":"a"}', b'{"channel":"a","channel":"b","data":1}', b'{"channel":"a","data":1} x',
     b'{"channel":"a","data":1,}', b'{"channel":"a","data":[1,}', b'{"messages":[' + b"[" * 5000],
)  # fmt: skip
def test_a_body_that_is_wrong_as_a_whole_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteWireError):
        parse_publish(body)


def test_a_batch_is_bounded() -> None:
    body = json.dumps({"messages": [{"channel": "a", "data": 1}] * 4}).encode()
    assert len(parse_publish(body, messages_max=4).drafts) == 4
    with pytest.raises(RemoteWireError, match="at most 3"):
        parse_publish(body, messages_max=3)


@given(values=st.lists(json_values, min_size=1, max_size=5), indent=st.sampled_from([None, 1]))
def test_any_data_arrives(values: list[object], indent: int | None) -> None:
    body = json.dumps({"messages": [{"channel": "a", "data": value} for value in values]}, indent=indent).encode()
    found = parse_publish(body)
    assert [json.loads(draft.data) for draft in found.drafts] == values


def test_an_answer_says_the_place_and_whether_it_is_a_repeat() -> None:
    one = Publishing((Draft("a", b"1"),), is_batch=False)
    assert format_publish(one, [Placed(Position("e", 7))]) == b'{"epoch":"e","seq":7}'
    assert format_publish(one, [Placed(Position("e", 7), is_repeat=True)]) == b'{"epoch":"e","seq":7,"repeat":true}'
    error = Problem(why="rate", happened="too fast", after_s=0.5)
    assert format_error(error) == b'{"error":{"why":"rate","happened":"too fast","after_s":0.5}}'
    assert [status_of(why) for why in ("rate", "too-large", "no-space", "what")] == [429, 413, 507, 400]
