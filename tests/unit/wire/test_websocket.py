from __future__ import annotations

from random import Random

import pytest

from budao.model import LocalWireError
from budao.wire import deflate, http1, websocket
from budao.wire.websocket import BINARY, CLOSE, PING, PONG, TEXT, Binary, Reader, Text, WsClose, WsPing, WsPong

MASK = b"\x37\xfa\x21\x3d"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def at_server(raw: bytes, *, step: int = 0, bytes_max: int = 100_000, inflate: bool = False) -> list[websocket.Event]:
    reader = Reader(bytes_max, is_server=True, inflate=deflate.Inflate(bytes_max) if inflate else None)
    step = step or len(raw)
    return [event for at in range(0, len(raw), step) for event in reader.feed(raw[at : at + step])]


def code(raw: bytes, **how: int) -> int:
    with pytest.raises(websocket.BadFrame) as caught:
        at_server(raw, **how)
    assert str(caught.value)
    return caught.value.code


def masked(opcode: int, payload: bytes, *, fin: bool = True, rsv1: bool = False) -> bytes:
    return websocket.frame(opcode, payload, mask=MASK, fin=fin, rsv1=rsv1)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 125, 126, 127, 4096, 4097, 65535, 65536, 70001])
@pytest.mark.parametrize("mask", [None, MASK])
def test_a_message_of_any_length_comes_back(size: int, mask: bytes | None) -> None:
    payload = Random(size).randbytes(size)
    raw = websocket.frame(BINARY, payload, mask=mask)
    for step in (len(raw), 1000):
        reader = Reader(100_000, is_server=mask is not None)
        found = [event for at in range(0, len(raw), step) for event in reader.feed(raw[at : at + step])]
        assert found == [Binary(payload)]
        assert not reader.is_mid_message


def test_a_message_in_fragments_lets_control_frames_through() -> None:
    raw = (
        masked(TEXT, b"one ", fin=False)
        + masked(PING, b"p")
        + masked(0, b"", fin=False)
        + masked(PONG, b"q")
        + masked(0, b"two")
        + masked(BINARY, b"b")
    )
    for step in (0, 1, 2, 5):
        assert at_server(raw, step=step) == [WsPing(b"p"), WsPong(b"q"), Text(b"one two"), Binary(b"b")]


def test_a_character_may_be_cut_by_fragments_and_by_pieces() -> None:
    said = "κόσμε 😀".encode()
    raw = b"".join(
        masked(TEXT if at == 0 else 0, said[at : at + 1], fin=at == len(said) - 1) for at in range(len(said))
    )
    assert at_server(raw, step=1) == at_server(raw) == [Text(said)]


def test_a_text_that_cannot_become_utf8_is_refused_before_it_is_whole() -> None:
    reader = Reader(1000, is_server=True)
    raw = masked(TEXT, b"ok \xf4\x90" + b"x" * 50)
    assert reader.feed(raw[:10]) == []
    with pytest.raises(websocket.BadFrame) as caught:
        reader.feed(raw[10:11])
    assert caught.value.code == 1007


def test_a_text_that_ends_within_a_character_is_refused() -> None:
    assert code(masked(TEXT, "ö".encode()[:1])) == 1007
    assert code(masked(TEXT, "ö".encode()[:1], fin=False) + masked(0, b"")) == 1007


@pytest.mark.parametrize(
    "raw",
    [
        websocket.frame(TEXT, b"not masked"),
        masked(0, b"never began"),
        masked(TEXT, b"a", fin=False) + masked(TEXT, b"b"),
        masked(TEXT, b"a", fin=False) + masked(BINARY, b"b", fin=False),
        masked(PING, b"a", fin=False),
        b"\x89\xfe\x00\x7e" + MASK + bytes(126),
        *(bytes([0x80 | opcode, 0x80]) + MASK for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        *(bytes([0x81 | bits, 0x80]) + MASK for bits in (0x40, 0x20, 0x10, 0x70)),
        b"\x82\xfe\x00\x7d" + MASK,
        b"\x82\xff" + (0xFFFF).to_bytes(8, "big") + MASK,
        b"\x82\xff" + (1 << 63).to_bytes(8, "big") + MASK,
        masked(CLOSE, b"\x03"),
        *(masked(CLOSE, bad.to_bytes(2, "big")) for bad in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)),
    ],
)
def test_a_frame_that_breaks_the_protocol_is_refused(raw: bytes) -> None:
    assert code(raw) == code(raw, step=1) == 1002


@pytest.mark.parametrize("first", [0xC9, 0xC0, 0xE1, 0x91, 0xF2])
def test_a_reserved_bit_stands_only_where_a_compressed_message_begins(first: int) -> None:
    reader = Reader(100, is_server=True, inflate=deflate.Inflate(100))
    with pytest.raises(websocket.BadFrame):
        reader.feed(masked(TEXT, b"a", fin=False) + bytes((first, 0x80)) + MASK)


def test_a_client_refuses_masked_frames() -> None:
    with pytest.raises(websocket.BadFrame):
        Reader(100, is_server=False).feed(masked(TEXT, b"a"))
    assert Reader(100, is_server=False).feed(websocket.frame(TEXT, b"a")) == [Text(b"a")]


def test_a_message_is_refused_for_its_size_as_soon_as_it_is_known() -> None:
    assert at_server(masked(BINARY, bytes(10)), bytes_max=10) == [Binary(bytes(10))]
    assert code(masked(BINARY, bytes(11)), bytes_max=10) == 1009
    assert code(masked(BINARY, bytes(11))[:6], bytes_max=10) == 1009
    assert code(masked(BINARY, bytes(6), fin=False) + masked(0, bytes(5))[:6], bytes_max=10) == 1009
    assert code(masked(BINARY, bytes(1 << 20))[:14], bytes_max=10) == 1009


def test_what_came_before_a_bad_frame_is_in_the_error_and_nothing_is_read_after_it() -> None:
    reader = Reader(100, is_server=True)
    with pytest.raises(websocket.BadFrame) as caught:
        reader.feed(masked(TEXT, b"a") + b"\xff\xff" + masked(TEXT, b"b"))
    assert caught.value.before == (Text(b"a"),)
    assert reader.feed(masked(TEXT, b"b")) == []


def test_nothing_is_read_after_a_close() -> None:
    reader = Reader(100, is_server=True)
    raw = masked(CLOSE, b"\x03\xe9" + "später".encode())
    assert reader.feed(raw + masked(TEXT, b"a")) == [WsClose(1001, "später")]
    assert reader.feed(b"\xff") == []
    assert at_server(masked(CLOSE, b"")) == [WsClose(1005)]
    assert code(masked(CLOSE, b"\x03\xe8\xff")) == 1007


def test_a_close_may_come_within_a_message() -> None:
    assert at_server(masked(TEXT, b"a", fin=False) + masked(CLOSE, b"\x0f\xa0")) == [WsClose(4000)]


def test_a_close_frame_says_as_much_of_its_reason_as_fits() -> None:
    raw = websocket.close_frame(1000, "x" * 122 + "ö")
    assert Reader(1000, is_server=False).feed(raw) == [WsClose(1000, "x" * 122)]
    assert Reader(1000, is_server=False).feed(websocket.close_frame(4101, "slow")) == [WsClose(4101, "slow")]
    assert websocket.close_frame(1005) == b"\x88\x00"
    assert at_server(websocket.close_frame(1000, mask=MASK)) == [WsClose(1000)]
    for never in (1006, 1015, 999, 5000):
        with pytest.raises(LocalWireError):
            websocket.close_frame(never)


def test_a_frame_has_the_shortest_head() -> None:
    assert websocket.frame(TEXT, b"x" * 125)[:2] == b"\x81\x7d"
    assert websocket.frame(TEXT, b"x" * 126)[:4] == b"\x81\x7e\x00\x7e"
    assert websocket.frame(BINARY, bytes(0x10000), fin=False)[:10] == b"\x02\x7f" + bytes(5) + b"\x01\x00\x00"
    assert websocket.frame(TEXT, b"", rsv1=True) == b"\xc1\x00"


def test_a_compressed_message_may_be_in_fragments_of_any_size() -> None:
    said = ("κόσμε " * 50).encode()
    packed = deflate.compress(said)
    for size in (1, 7, len(packed)):
        parts = [packed[at : at + size] for at in range(0, len(packed), size)]
        raw = b"".join(
            masked(0 if at else TEXT, part, fin=at == len(parts) - 1, rsv1=at == 0) for at, part in enumerate(parts)
        )
        whole = raw + masked(TEXT, b"plain") + masked(BINARY, deflate.compress(b"b"), rsv1=True)
        for step in (0, 1, 11):
            assert at_server(whole, step=step, inflate=True) == [Text(said), Text(b"plain"), Binary(b"b")]


def test_a_compressed_message_is_bounded_and_checked_once_it_is_inflated() -> None:
    bomb = masked(BINARY, deflate.compress(bytes(100_001)), rsv1=True)
    assert len(bomb) < 500
    with pytest.raises(websocket.BadFrame) as caught:
        at_server(bomb, inflate=True)
    assert caught.value.code == 1009
    with pytest.raises(websocket.BadFrame) as caught:
        at_server(masked(TEXT, deflate.compress(b"\xff"), rsv1=True), inflate=True)
    assert caught.value.code == 1007


# ------------------------------------------------------------------------------------------- the handshake


def opening(old: bytes = b"", new: bytes = b"") -> http1.Request:
    raw, _ = websocket.ask(
        "a:1", "/v1/stream", b"the sample nonce", subprotocols=("budao.v1.json", "x"), extensions=deflate.offer()
    )
    assert old in raw
    found = http1.RequestReader(http1.HeadPolicy()).feed(raw.replace(old, new) if old else raw)[0]
    assert isinstance(found, http1.Request)
    return found


def test_client_and_server_meet() -> None:
    upgrade = websocket.check_upgrade(opening())
    assert upgrade == websocket.Upgrade(KEY, ("budao.v1.json", "x"), deflate.offer())
    agreed = deflate.accept(upgrade.extensions)
    assert agreed is not None
    raw = websocket.accept(upgrade.key, subprotocol="x", extensions=agreed.header)
    answer = http1.ResponseReader(http1.HeadPolicy()).feed(raw)[0]
    assert isinstance(answer, http1.Response)
    assert websocket.check_answer(answer, KEY, ("budao.v1.json", "x")) == ("x", agreed.header)


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Upgrade: websocket", b"Upgrade: h2c", 426),
        (b"Connection: Upgrade", b"Connection: close", 426),
        (b"GET", b"POST", 426),
        (b"Version: 13", b"Version: 8", 426),
        (b"Sec-WebSocket-Version: 13\r\n", b"", 426),
        (b"Sec-WebSocket-Version", b"Content-Length: 3\r\nSec-WebSocket-Version", 400),
        (KEY.encode(), b"short==", 400),
        (b"Sec-WebSocket-Key", b"X-Key", 400),
        (b"budao.v1.json, x", b"a b", 400),
        (b"budao.v1.json, x", b"", 400),
        (b"budao.v1.json, x", b", ".join([b"a"] * 17), 400),
    ],
)
def test_a_request_that_opens_no_websocket_is_refused(old: bytes, new: bytes, status: int) -> None:
    with pytest.raises(http1.BadRequest) as caught:
        websocket.check_upgrade(opening(old, new))
    assert caught.value.status == status
    if status == 426:
        assert caught.value.headers["sec-websocket-version"] == "13"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"101 Switching Protocols", b"403 Forbidden"),
        (b"Upgrade: websocket", b"Upgrade: h2c"),
        (b"Connection: Upgrade", b"Connection: close"),
        (b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: x"),
        (b"Protocol: x", b"Protocol: y"),
    ],
)
def test_an_answer_that_opens_no_websocket_is_refused(old: bytes, new: bytes) -> None:
    raw = websocket.accept(KEY, subprotocol="x")
    assert old in raw
    answer = http1.ResponseReader(http1.HeadPolicy()).feed(raw.replace(old, new))[0]
    assert isinstance(answer, http1.Response)
    with pytest.raises(http1.BadResponse):
        websocket.check_answer(answer, KEY, ("x",))
