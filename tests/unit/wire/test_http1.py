from __future__ import annotations

import pytest

from budao.model import BadSettings, LocalWireError
from budao.wire import http1
from budao.wire.http1 import Body, EndOfBody, HeadPolicy, Request, RequestReader, ResponseReader

OPENS = (
    b"GET /v1/stream?token=a HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def reader(**bounds: int) -> RequestReader:
    return RequestReader(HeadPolicy(**bounds))


def request(raw: bytes) -> Request:
    found = reader().feed(raw)[0]
    assert isinstance(found, Request)
    return found


def refusal(raw: bytes, **bounds: int) -> int:
    with pytest.raises(http1.BadRequest) as caught:
        reader(**bounds).feed(raw)
    assert str(caught.value)
    return caught.value.status


def test_a_request_is_its_line_and_its_fields() -> None:
    found = request(b"GET /a%20b?x=1&y HTTP/1.1\r\nHost: a:1\r\nX-One:  two \t\r\nx-one: three\r\n\r\n")
    assert found == Request(
        method="GET",
        target="/a%20b?x=1&y",
        path="/a%20b",
        query="x=1&y",
        headers={"host": "a:1", "x-one": "two, three"},
        is_http10=False,
        keeps_alive=True,
        body_bytes=0,
        expects_continue=False,
        wants_upgrade=False,
    )


def test_requests_follow_each_other_in_one_piece() -> None:
    found = reader().feed(GET + b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + GET)
    assert [each.path if isinstance(each, Request) else each for each in found] == [
        "/",
        EndOfBody(),
        "/b",
        Body(b"abc"),
        EndOfBody(),
        "/",
        EndOfBody(),
    ]


@pytest.mark.parametrize("step", [1, 2, 3, 100])
def test_one_empty_line_before_each_request_is_passed_over_and_a_second_is_not(step: int) -> None:
    one, raw = reader(), b"\r\n" + GET + b"\r\n" + GET + b"\r\n"
    assert len([each for at in range(0, len(raw), step) for each in one.feed(raw[at : at + step])]) == 4
    with pytest.raises(http1.BadRequest):
        [one.feed(b"\r\n"[at : at + step]) for at in range(0, 2, step)]


def test_a_body_may_come_with_any_method() -> None:
    found = reader().feed(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab" + GET)
    assert found[1:3] == [Body(b"ab"), EndOfBody()]
    assert len(found) == 5


def test_chunks_become_a_body_and_fields_behind_them_are_dropped() -> None:
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nabc\r\n0A\r\n0123456789\r\n0\r\nX: y\r\n\r\n"
    for step in (1, 2, 3, 7, len(raw)):
        one = reader()
        found = [each for at in range(0, len(raw), step) for each in one.feed(raw[at : at + step])]
        assert isinstance(found[0], Request)
        assert found[0].body_bytes is None
        assert b"".join(each.data for each in found if isinstance(each, Body)) == b"abc0123456789"
        assert found[-1] == EndOfBody()
        assert not one.is_mid_request
        assert len(one.feed(GET)) == 2


def test_a_request_is_in_the_middle_from_its_first_byte_to_its_last() -> None:
    one, raw = reader(), b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"
    assert not one.is_mid_request
    for byte in raw[:-1]:
        one.feed(bytes([byte]))
        assert one.is_mid_request
    one.feed(raw[-1:])
    assert not one.is_mid_request


def test_what_follows_a_request_to_upgrade_stays_unread() -> None:
    one = reader()
    opened, end = one.feed(OPENS + b"\x81\x80")
    assert isinstance(opened, Request)
    assert opened.wants_upgrade
    assert end == EndOfBody()
    assert one.feed(b"abcd") == []
    assert not one.is_mid_request
    assert one.taken_over() == b"\x81\x80abcd"
    assert one.feed(GET) == []


def test_after_a_refused_upgrade_requests_go_on() -> None:
    one = reader()
    one.feed(OPENS + GET)
    assert len(one.go_on()) == 2
    assert one.go_on() == []
    assert len(one.feed(GET)) == 2


def test_a_refused_upgrade_that_was_to_be_the_last_ends_it() -> None:
    one = reader()
    one.feed(OPENS.replace(b"keep-alive", b"close") + GET)
    assert one.go_on() == []


def test_what_follows_a_request_to_upgrade_is_bounded() -> None:
    one = reader(early_bytes_max=10)
    one.feed(OPENS + bytes(10))
    with pytest.raises(http1.BadRequest):
        one.feed(b"x")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Upgrade: websocket", b"Upgrade: h2c"),
        (b"keep-alive, Upgrade", b"keep-alive"),
        (b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
def test_another_upgrade_is_an_ordinary_request(old: bytes, new: bytes) -> None:
    assert not request(OPENS.replace(old, new)).wants_upgrade


def test_after_the_last_request_nothing_is_read() -> None:
    for raw in (GET.replace(b"1.1", b"1.0"), b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n"):
        one = reader()
        found = one.feed(raw + GET)
        assert isinstance(found[0], Request)
        assert not found[0].keeps_alive
        assert len(found) == 2
        assert one.feed(GET) == []


def test_what_came_before_a_bad_request_is_in_the_error_and_nothing_is_read_after_it() -> None:
    one = reader()
    with pytest.raises(http1.BadRequest) as caught:
        one.feed(GET + b"\r\n\r\n" + GET)
    assert len(caught.value.before) == 2
    assert one.feed(GET) == []


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        ("http://b:1/x?y", "/x", "y", "b:1"),
        ("HTTPS://b", "/", "", "b"),
        ("http://b?x", "/", "x", "b"),
        ("/?a?b", "/", "a?b", "a"),
    ],
)
def test_a_target_may_name_its_host_which_then_counts(target: str, path: str, query: str, host: str) -> None:
    found = request(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert (found.target, found.path, found.query, found.headers["host"]) == (target, path, query, host)


def test_options_may_ask_about_everything() -> None:
    assert request(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").path == "*"
    assert refusal(b"GET * HTTP/1.1\r\nHost: a\r\n\r\n") == 400


def test_a_body_may_wait_for_a_word() -> None:
    raw = b"POST / HTTP/1.%d\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: %d\r\n\r\n"
    assert request(raw % (1, 5)).expects_continue
    assert not request(raw % (0, 5)).expects_continue
    assert not request(raw % (1, 0)).expects_continue
    assert refusal(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\n\r\n") == 417


@pytest.mark.parametrize(
    ("raw", "bounds", "status"),
    [
        (b"GET /" + b"a" * 100 + b" HTTP/1.1\r\nHost: a\r\n\r\n", {"target_bytes_max": 100}, 414),
        (b"GET /" + b"a" * 300, {"target_bytes_max": 100}, 414),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 300 + b"\r\n\r\n", {"head_bytes_max": 256, "target_bytes_max": 64}, 431),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 300, {"head_bytes_max": 256}, 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 9 + b"\r\n", {"fields_max": 8}, 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n", {"body_bytes_max": 10}, 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n", {"body_bytes_max": 10}, 413),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n123456\r\n5\r\n",
            {"body_bytes_max": 10},
            413,
        ),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 43,
            {"head_bytes_max": 256},
            431,
        ),
    ],
)
def test_bounds_are_kept(raw: bytes, bounds: dict[str, int], status: int) -> None:
    assert refusal(raw, **bounds) == status
    one = reader(**bounds)
    with pytest.raises(http1.BadRequest) as caught:
        [one.feed(bytes([byte])) for byte in raw]
    assert caught.value.status == status


def test_a_head_as_large_as_allowed_is_read() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nA: "
    raw = head + b"b" * (256 - len(head) - 4) + b"\r\n\r\n"
    assert len(raw) == 256
    assert len(reader(head_bytes_max=256).feed(raw)) == 2


def test_settings_that_cannot_work_are_all_named() -> None:
    with pytest.raises(BadSettings) as caught:
        HeadPolicy(head_bytes_max=1, fields_max=-1)
    assert [path for path, _ in caught.value.problems] == ["head.head_bytes_max", "head.fields_max"]


# ------------------------------------------------------------------------------------------------- answers


def test_an_answer_is_written_with_its_length() -> None:
    assert http1.format_response(200, {"Content-Type": "text/plain"}, b"hello") == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
    )
    assert http1.format_response(404, {}, keeps_alive=False) == (
        b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    )
    assert http1.format_response(200, {}, b"hello", with_body=False).endswith(b"content-length: 5\r\n\r\n")
    assert http1.format_response(204, {}) == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert http1.format_response(299, {}).startswith(b"HTTP/1.1 299 \r\n")


@pytest.mark.parametrize(
    "fields", [{"a": "b\r\nc: d"}, {"a": "b\nc"}, {"a": "\0"}, {"a b": "c"}, {"a\r\n": "c"}, {"": "c"}, {"a": "世"}]
)
def test_a_field_that_would_break_the_head_is_not_sent(fields: dict[str, str]) -> None:
    with pytest.raises(LocalWireError):
        http1.format_response(200, fields)


def test_a_value_that_cannot_be_sent_is_not_shown() -> None:
    with pytest.raises(LocalWireError) as caught:
        http1.format_head(200, {"Authorization": "Bearer sesame\n"})
    assert "sesame" not in str(caught.value)


def test_a_request_is_written_and_read() -> None:
    raw = http1.format_request("POST", "/v1/publish?a=b", {"Host": "a"}, b"{}")
    found = reader().feed(raw)
    assert isinstance(found[0], Request)
    assert (found[0].method, found[0].query, found[1:]) == ("POST", "a=b", [Body(b"{}"), EndOfBody()])
    with pytest.raises(LocalWireError):
        http1.format_request("GET", "/ HTTP/1.1\r\nA: b", {})


def test_a_client_reads_answers_of_every_kind() -> None:
    raw = (
        b"HTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"
        b"HTTP/1.1 204 No Content\r\n\r\n"
        b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\n"
        b"HTTP/1.1 200 OK\r\n\r\nrest"
    )
    one = ResponseReader(HeadPolicy())
    found = one.feed(raw)
    assert [each.status if isinstance(each, http1.Response) else each for each in found] == [
        200,
        Body(b"ab"),
        EndOfBody(),
        204,
        EndOfBody(),
        200,
        Body(b"c"),
        EndOfBody(),
        200,
        Body(b"rest"),
    ]
    assert one.feed(b"more") == [Body(b"more")]
    assert one.closed() == [EndOfBody()]
    assert one.closed() == []


def test_behind_101_nothing_is_read() -> None:
    one = ResponseReader(HeadPolicy())
    assert len(one.feed(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81")) == 1
    assert one.taken_over() == b"\x81"


@pytest.mark.parametrize("raw", [b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na"])
def test_an_answer_that_is_cut_off_is_noticed(raw: bytes) -> None:
    one = ResponseReader(HeadPolicy())
    one.feed(raw)
    with pytest.raises(http1.BadResponse, match="middle"):
        one.closed()


@pytest.mark.parametrize("raw", [b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 20 OK\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"\x15\x03"])
def test_what_is_no_answer_is_refused(raw: bytes) -> None:
    one = ResponseReader(HeadPolicy())
    with pytest.raises(http1.BadResponse):
        one.feed(raw)
    assert one.feed(b"HTTP/1.1 204 No Content\r\n\r\n") == []


def test_a_query_becomes_names_and_values() -> None:
    assert http1.parse_query("channel=a&channel=b%2Fc&x=&=y&plus=1+1&odd=%ff") == {
        "channel": ["a", "b/c"],
        "x": [""],
        "": ["y"],
        "plus": ["1 1"],
        "odd": ["\ufffd"],
    }
    assert http1.parse_query("") == {}
    with pytest.raises(http1.BadRequest):
        http1.parse_query("&" * 1000)
