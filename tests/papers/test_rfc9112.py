"""RFC 9112, HTTP/1.1, and RFC 9110 where it says what a field may be: what smuggles a request is refused."""

from __future__ import annotations

import pytest

from budao.wire import http1
from budao.wire.http1 import Body, EndOfBody, HeadPolicy, Request, RequestReader

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def status(raw: bytes) -> int:
    with pytest.raises(http1.BadRequest) as caught:
        RequestReader(HeadPolicy()).feed(raw)
    return caught.value.status


def read(raw: bytes) -> list[Request | Body | EndOfBody]:
    return RequestReader(HeadPolicy()).feed(raw)


@pytest.mark.parametrize(
    ("section", "raw", "answer"),
    [
        ("2.2 bare LF ends no line", b"GET / HTTP/1.1\nHost: a\n\n", 400),
        ("2.2 bare LF within a head", b"GET / HTTP/1.1\r\nHost: a\nB: c\r\n\r\n", 400),
        ("2.2 bare CR", GET + b"A: b\rc\r\n\r\n", 400),
        ("2.2 bare CR before the end", GET + b"A: b\r\r\n\r\n", 400),
        ("2.2 space before the first line", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("2.2 two empty lines", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("2.2 space before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        ("2.3 another version", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("2.3 a version with more digits", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
        ("2.3 no capitals", b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        ("3 no version", b"GET /\r\n\r\n", 400),
        ("3 two spaces", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("3 a tab", b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("3 a space behind", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        ("3.1 an odd method", b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("3.1 a method that is not served", b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("3.1 a method in small letters is another", b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("3.2 a fragment", b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("3.2 beyond ASCII", b"GET /\xc3\xb6 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("3.2 NUL", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("3.2 no slash", b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("3.2.2 with a user", b"GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("3.2.3 a tunnel", b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("3.2 no Host", b"GET / HTTP/1.1\r\n\r\n", 400),
        ("3.2 two of them", GET + b"Host: a\r\n\r\n", 400),
        ("3.2 a Host that is none", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("3.2 a Host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("5 no colon", GET + b"A\r\n\r\n", 400),
        ("5 a known name without a colon", GET + b"Connection\r\n\r\n", 400),
        ("5 no name", GET + b": b\r\n\r\n", 400),
        ("5.1 a space before the colon", POST + b"Content-Length : 3\r\n\r\nabc", 400),
        ("5.1 a tab before the colon", POST + b"Content-Length\t: 3\r\n\r\nabc", 400),
        ("5.2 a folded line", GET + b"A: b\r\n c\r\n\r\n", 400),
        ("5.2 a folded length", POST + b"Content-Length:\r\n 3\r\n\r\nabc", 400),
        ("9110 5.5 NUL in a value", GET + b"A: b\0c\r\n\r\n", 400),
        ("9110 5.5 DEL in a value", GET + b"A: \x7f\r\n\r\n", 400),
        ("6.1 both", POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("6.1 both, the other way round", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400),
        ("6.1 with HTTP/1.0", CHUNKED.replace(b"1.1", b"1.0"), 400),
        ("6.1 another encoding", POST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        ("6.1 one more encoding", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("6.1 chunked is not last", POST + b"Transfer-Encoding: chunked, identity\r\n\r\n", 501),
        ("6.1 nearly chunked", POST + b"Transfer-Encoding: xchunked\r\n\r\n", 501),
        ("6.1 chunked and a vertical tab", POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400),
        ("6.1 chunked and a byte that some take for a space", POST + b"Transfer-Encoding: \xa0chunked\r\n\r\n", 501),
        ("6.1 empty", POST + b"Transfer-Encoding:\r\n\r\n", 501),
        ("7.1 chunked twice", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("6.3 two lengths", POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
        ("6.3 two equal lengths", POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        ("6.3 a list of lengths", POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
        ("9110 8.6 a sign", POST + b"Content-Length: +3\r\n\r\nabc", 400),
        ("9110 8.6 negative", POST + b"Content-Length: -1\r\n\r\n", 400),
        ("9110 8.6 hexadecimal", POST + b"Content-Length: 0x3\r\n\r\nabc", 400),
        ("9110 8.6 an underscore", POST + b"Content-Length: 1_0\r\n\r\n", 400),
        ("9110 8.6 empty", POST + b"Content-Length:\r\n\r\n", 400),
        ("9110 8.6 a digit beyond ASCII", POST + b"Content-Length: \xb2\r\n\r\n", 400),
        ("9110 8.6 beyond 64 bits", POST + b"Content-Length: 18446744073709551619\r\n\r\nabc", 400),
        ("7.1 no size", CHUNKED + b"\r\n", 400),
        ("7.1 a size that is none", CHUNKED + b"g\r\n", 400),
        ("7.1 a size with a sign", CHUNKED + b"+3\r\nabc\r\n", 400),
        ("7.1 a size with a mark", CHUNKED + b"0x3\r\nabc\r\n", 400),
        ("7.1 a size beyond 64 bits", CHUNKED + b"10000000000000003\r\nabc\r\n", 400),
        ("7.1 the largest size", CHUNKED + b"ffffffffffffffff\r\n", 413),
        ("7.1 a space behind the size", CHUNKED + b"3 \r\nabc\r\n", 400),
        ("7.1 a space before the size", CHUNKED + b" 3\r\nabc\r\n", 400),
        ("7.1 a size ends in LF", CHUNKED + b"3\nabc\r\n0\r\n\r\n", 400),
        ("7.1 a chunk that is longer than it said", CHUNKED + b"3\r\nabcd\r\n", 400),
        ("7.1 a chunk ends in LF", CHUNKED + b"3\r\nabc\n0\r\n\r\n", 400),
        ("7.1 a chunk ends in CR", CHUNKED + b"3\r\nabc\r0\r\n", 400),
        ("7.1.1 a bare LF in an extension", CHUNKED + b"3;a\nb\r\nabc\r\n", 400),
        ("7.1.1 a bare CR in an extension", CHUNKED + b"3;a\rb\r\nabc\r\n", 400),
        ("7.1.1 extensions without end", CHUNKED + b"3;" + b"a" * 300, 400),
        ("7.1.1 extensions that are too long", CHUNKED + b"3;" + b"a" * 300 + b"\r\nabc\r\n", 400),
        ("7.1.2 an odd field behind the chunks", CHUNKED + b"0\r\nA : b\r\n\r\n", 400),
        ("7.1.2 a folded field behind the chunks", CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n", 400),
        ("9110 10.1.1 another expectation", GET + b"Expect: 100-continue, x\r\n\r\n", 417),
        ("a handshake of TLS", b"\x16\x03\x01\x02\x00\x01", 400),
        ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 501),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_two_readers_could_understand_differently_is_refused(section: str, raw: bytes, answer: int) -> None:
    assert status(raw) == answer, section


@pytest.mark.parametrize(
    "raw", [b"GET / HTTP/1.1\nHost: a", b"GET / HTTP/1.1\r\nA: b\0", b"\x16\x03", b"GET / HTTP/1.1\rX"]
)
def test_a_head_that_cannot_become_good_is_refused_before_it_ends(raw: bytes) -> None:
    assert status(raw) == 400


def test_section_2_2_one_empty_line_before_a_request_is_passed_over() -> None:
    assert len(read(b"\r\n" + GET + b"\r\n\r\n" + GET + b"\r\n")) == 4


def test_section_3_2_2_a_whole_url_is_understood_and_its_host_counts() -> None:
    found = read(b"GET http://www.example.org/pub/WWW/TheProject.html HTTP/1.1\r\nHost: a\r\n\r\n")[0]
    assert isinstance(found, Request)
    assert (found.path, found.headers["host"]) == ("/pub/WWW/TheProject.html", "www.example.org")


def test_section_7_1_chunks_of_any_spelling() -> None:
    found = read(CHUNKED + b'4;a="b;c"\r\nWiki\r\n00006\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\n\r\n')
    assert b"".join(each.data for each in found if isinstance(each, Body)) == b"Wikipedia in \r\n\r\nchunks."


def test_section_7_1_2_a_field_behind_the_chunks_changes_nothing() -> None:
    found = read(CHUNKED + b"0\r\nContent-Length: 50\r\nHost: b\r\n\r\n" + GET + b"\r\n")
    assert [each.headers["host"] for each in found if isinstance(each, Request)] == ["a", "a"]


def test_section_9_6_nothing_is_read_behind_the_last_request() -> None:
    assert len(read(GET + b"Connection: close\r\n\r\n" + GET + b"\r\n")) == 2
