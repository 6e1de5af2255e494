"""What a NATS server sends is read however it is cut, and garbage is refused."""

from __future__ import annotations

import contextlib
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import LocalWireError, RemoteWireError
from budao.wire import nats

HEADERS = nats.format_headers({"A": "1", "B": "two words"})
SENT = (
    b'INFO {"server_id":"N","version":"2.9.10","max_payload":1048576,"headers":true,"jetstream":true} \r\n'
    b"PING\r\nPONG\r\n+OK\r\n"
    b"MSG told.a 7 5\r\nhel\r\n\r\n"
    b"MSG told.a 7 _INBOX.x.1 0\r\n\r\n"
    b"HMSG told.b 8 %d %d\r\n%s{}\r\n"
    % (len(HEADERS), len(HEADERS) + 2, HEADERS)
    + b"HMSG _INBOX.x.2 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
    + b"HMSG _INBOX.x.3 1 $JS.ACK.S.C.1.9.2.1795.0 27 27\r\nNATS/1.0 404 No Messages\r\n\r\n\r\n".replace(
        b"27 27", b"28 28"
    )
    + b"-ERR 'Authorization Violation'\r\n"
)


def everything(pieces: list[bytes]) -> list[nats.Said]:
    decoder = nats.Decoder()
    return [said for piece in pieces for said in decoder.feed(piece)]


def test_what_a_server_sends_is_read() -> None:
    info, ping, pong, one, two, three, none, empty, error = everything([SENT])
    assert isinstance(info, nats.Info)
    assert info.fields["version"] == "2.9.10"
    assert (ping, pong) == (nats.Pinged(), nats.Ponged())
    assert one == nats.Delivered(7, "told.a", "", b"", b"hel\r\n")
    assert two == nats.Delivered(7, "told.a", "_INBOX.x.1", b"", b"")
    assert isinstance(three, nats.Delivered)
    assert (nats.parse_headers(three.headers), three.data, three.status) == ({"A": "1", "B": "two words"}, b"{}", 0)
    assert isinstance(none, nats.Delivered)
    assert (none.status, none.data) == (nats.NO_RESPONDERS, b"")
    assert isinstance(empty, nats.Delivered)
    assert (empty.status, empty.reply) == (nats.NOT_FOUND, "$JS.ACK.S.C.1.9.2.1795.0")
    assert error == nats.Complained("Authorization Violation")


@given(st.lists(st.integers(0, len(SENT)), max_size=12))
def test_it_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(SENT)]
    assert everything([SENT[a:b] for a, b in itertools.pairwise(at)]) == everything([SENT])


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"MSG a\r\n",
        b"MSG a x 3\r\nabc\r\n",
        b"MSG a 1 -3\r\n",
        b"MSG a 1 3\r\nabcd\r\n",
        b"MSG a 1 99999999999999999999999999\r\n",
        b"MSG a 1 %d\r\n" % (nats.PAYLOAD_BYTES_MAX + 1),
        b"HMSG a 1 9 3\r\nabc\r\n",
        b"INFO nothing\r\n",
        b"INFO []\r\n",
        b"x" * (nats.LINE_BYTES_MAX + 1),
        b"INFO " + b"x" * (nats.LINE_BYTES_MAX + 1) + b"\r\n",
    ],
)
def test_garbage_is_refused(raw: bytes) -> None:
    with pytest.raises(RemoteWireError):
        everything([raw])


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    with contextlib.suppress(RemoteWireError):
        everything([raw[:50], raw[50:]])


@given(
    st.text("abc.", min_size=1),
    st.binary(max_size=50),
    st.dictionaries(st.text("AB-c", min_size=1), st.text("xyz: ", max_size=9)),
)
def test_what_is_published_has_the_shape_of_what_is_delivered(
    subject: str, data: bytes, headers: dict[str, str]
) -> None:
    raw = nats.format_headers(headers) if headers else b""
    sent = nats.publish(subject, data, reply="r", headers=raw)
    verb, _, rest = sent.partition(b" ")
    line, _, payload = rest.partition(b"\r\n")
    said, _, sizes = line.partition(b" r ")
    heard = verb.replace(b"PUB", b"MSG") + b" " + said + b" 3 r " + sizes + b"\r\n" + payload
    (found,) = everything([heard])
    assert isinstance(found, nats.Delivered)
    assert (found.subject, found.data, found.reply) == (subject, data, "r")
    assert nats.parse_headers(found.headers) == {name: value.strip() for name, value in headers.items()}


def test_requests_are_these_bytes() -> None:
    assert nats.publish("a.b", b"hi") == b"PUB a.b 2\r\nhi\r\n"
    assert nats.publish("a.b", b"hi", reply="c") == b"PUB a.b c 2\r\nhi\r\n"
    assert nats.publish("a", b"hi", headers=b"NATS/1.0\r\n\r\n") == b"HPUB a 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"
    assert nats.subscribe("a.*", 3) + nats.unsubscribe(3) == b"SUB a.* 3\r\nUNSUB 3\r\n"
    assert json.loads(nats.connect({"verbose": False}).removeprefix(b"CONNECT ")) == {"verbose": False}


def test_a_header_does_not_end_its_line() -> None:
    with pytest.raises(LocalWireError, match="end of a line"):
        nats.format_headers({"A": "1\r\nB: 2"})


def test_headers_that_do_not_begin_as_such_are_refused() -> None:
    assert nats.parse_headers(b"") == {}
    assert nats.parse_headers(b"NATS/1.0\r\nA: 1\r\nA: 2\r\nnothing\r\n\r\n") == {"A": "1"}
    with pytest.raises(RemoteWireError):
        nats.parse_headers(b"HTTP/1.1 200\r\n\r\n")
