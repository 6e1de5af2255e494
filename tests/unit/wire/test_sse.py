from __future__ import annotations

import pytest

from budao.model import LocalWireError, RemoteWireError
from budao.wire import sse


def test_an_event_is_lines_and_an_empty_one() -> None:
    assert sse.event(b'{"a":1}') == b'data: {"a":1}\n\n'
    assert sse.event(b"x", id="e:7", event="gap") == b"id: e:7\nevent: gap\ndata: x\n\n"
    assert sse.event(b"x", retry_s=1.5) == b"retry: 1500\ndata: x\n\n"
    assert sse.retry(0.25) == b"retry: 250\n\n"


def test_data_of_several_lines_comes_back_with_newlines() -> None:
    raw = sse.event(b"a\nb\r\nc\rd\n")
    assert raw == b"data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"
    assert sse.Reader(100).feed(raw) == [sse.Event(b"a\nb\nc\nd\n")]


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\0b"])
def test_an_id_or_a_name_that_would_be_two_lines_is_not_sent(text: str) -> None:
    with pytest.raises(LocalWireError, match="one line"):
        sse.event(b"", id=text)
    with pytest.raises(LocalWireError, match="one line"):
        sse.event(b"", event=text)


def test_the_last_id_stands_until_another_is_said() -> None:
    reader = sse.Reader(100, last_id="before")
    assert reader.feed(b"data: a\n\n") == [sse.Event(b"a", "message", "before")]
    assert reader.feed(b"id: 1\ndata: b\n\ndata: c\n\n") == [sse.Event(b"b", id="1"), sse.Event(b"c", id="1")]
    assert reader.feed(b"id\ndata: d\n\n") == [sse.Event(b"d")]
    assert reader.feed(b"id: 2\n\n") == []
    assert reader.last_id == "2"


def test_an_id_with_nul_is_ignored() -> None:
    assert sse.Reader(100, last_id="1").feed(b"id: a\0b\ndata: x\n\n") == [sse.Event(b"x", id="1")]


def test_comments_and_unknown_fields_say_nothing() -> None:
    assert sse.Reader(100).feed(sse.BEAT + b": hello\nwhat: ever\ndata\n\n") == [sse.Event(b"")]


def test_one_space_after_the_colon_belongs_to_the_field() -> None:
    assert sse.Reader(100).feed(b"data:a\n\ndata:  b\n\n") == [sse.Event(b"a"), sse.Event(b" b")]


def test_a_name_holds_for_one_event() -> None:
    assert sse.Reader(100).feed(b"event: gap\ndata: a\n\nevent: x\n\ndata: b\n\n") == [
        sse.Event(b"a", "gap"),
        sse.Event(b"b"),
    ]


def test_a_pause_is_told_and_garbage_in_it_is_not() -> None:
    assert sse.Reader(100).feed(b"retry: 1500\nretry: 1s\nretry: -1\nretry:\nretry: 1234567890123\n") == [
        sse.Retry(1.5)
    ]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_lines_end_in_any_of_three_ways_wherever_they_are_cut(end: bytes) -> None:
    raw = b"\xef\xbb\xbf" + end.join([b"id: 1", b"data: a", b"data: b", b"", b"data: c", b"", b""])
    for cut in range(len(raw)):
        reader = sse.Reader(100)
        assert reader.feed(raw[:cut]) + reader.feed(raw[cut:]) == [sse.Event(b"a\nb", id="1"), sse.Event(b"c", id="1")]


def test_a_stream_may_end_its_mark_byte_by_byte() -> None:
    reader = sse.Reader(100)
    assert [reader.feed(bytes([byte])) for byte in b"\xef\xbb\xbfdata: a\n\n"][-1] == [sse.Event(b"a")]


@pytest.mark.parametrize("raw", [b"data: " + b"x" * 100, b"data: xx\n" * 12, b"x" * 51 + b"\n" + b"y" * 51])
def test_an_event_beyond_the_bound_is_refused(raw: bytes) -> None:
    with pytest.raises(RemoteWireError, match="more than 100 bytes"):
        sse.Reader(100).feed(raw)


def test_the_bound_is_for_each_event() -> None:
    assert len(sse.Reader(100).feed(sse.event(b"x" * 60) * 50)) == 50


def test_after_an_event_that_was_too_large_nothing_is_read() -> None:
    reader = sse.Reader(100)
    with pytest.raises(RemoteWireError):
        reader.feed(b"data: " + b"x" * 100)
    with pytest.raises(RemoteWireError):
        reader.feed(b"\n\ndata: a\n\n")
