"""RFC 6455, the WebSocket protocol: its own examples. What Autobahn adds is in `python -m bench.autobahn`."""

from __future__ import annotations

import pytest

from budao.wire import websocket
from budao.wire.websocket import Binary, Reader, Text, WsClose, WsPing, WsPong

MASKED_HELLO = bytes.fromhex("818537fa213d7f9f4d5158")
BOUND = 100_000


def client(raw: bytes) -> list[websocket.Event]:
    return Reader(BOUND, is_server=False).feed(raw)


def server(raw: bytes) -> list[websocket.Event]:
    return Reader(BOUND, is_server=True).feed(raw)


def test_section_1_3_the_key_of_the_example() -> None:
    assert websocket.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_section_5_7_a_text_in_one_frame() -> None:
    assert client(bytes.fromhex("810548656c6c6f")) == [Text(b"Hello")]
    assert websocket.frame(websocket.TEXT, b"Hello") == bytes.fromhex("810548656c6c6f")
    assert server(MASKED_HELLO) == [Text(b"Hello")]
    assert websocket.frame(websocket.TEXT, b"Hello", mask=bytes.fromhex("37fa213d")) == MASKED_HELLO


def test_section_5_7_a_text_in_two_frames() -> None:
    assert client(bytes.fromhex("010348656c80026c6f")) == [Text(b"Hello")]


def test_section_5_7_a_ping_and_its_answer() -> None:
    assert client(bytes.fromhex("890548656c6c6f")) == [WsPing(b"Hello")]
    assert server(bytes.fromhex("8a8537fa213d7f9f4d5158")) == [WsPong(b"Hello")]


def test_section_5_7_256_and_65536_bytes() -> None:
    assert client(bytes.fromhex("827e0100") + bytes(256)) == [Binary(bytes(256))]
    assert client(bytes.fromhex("827f0000000000010000") + bytes(65536)) == [Binary(bytes(65536))]


def test_section_5_1_a_server_takes_no_frame_that_is_not_masked() -> None:
    with pytest.raises(websocket.BadFrame) as caught:
        server(bytes.fromhex("810548656c6c6f"))
    assert caught.value.code == 1002


def test_section_5_4_control_frames_stand_between_fragments_and_messages_do_not() -> None:
    assert client(bytes.fromhex("010348656c 8900 80026c6f")) == [WsPing(b""), Text(b"Hello")]
    with pytest.raises(websocket.BadFrame):
        client(bytes.fromhex("010348656c 8200 80026c6f"))


def test_section_5_5_1_a_close_without_a_body_has_no_code() -> None:
    assert client(bytes.fromhex("8800")) == [WsClose(1005)]
    assert client(bytes.fromhex("880203e8")) == [WsClose(1000)]


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999])
def test_section_7_4_codes_that_may_be_sent(code: int) -> None:
    assert client(websocket.close_frame(code)) == [WsClose(code)]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_section_7_4_codes_that_may_not_be_sent(code: int) -> None:
    with pytest.raises(websocket.BadFrame) as caught:
        client(b"\x88\x02" + code.to_bytes(2, "big"))
    assert caught.value.code == 1002


@pytest.mark.parametrize(
    "raw",
    [
        b"\xc0\xaf",  # overlong
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",  # half a pair
        b"\xf4\x90\x80\x80",  # beyond the last character
        b"\xf5",
        b"\x80",
        b"\xfe",
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    ],
)
def test_section_8_1_text_is_utf8(raw: bytes) -> None:
    for frames in (
        websocket.frame(1, raw),
        b"".join(websocket.frame(0 if at else 1, raw[at : at + 1], fin=False) for at in range(len(raw))),
    ):
        with pytest.raises(websocket.BadFrame) as caught:
            client(frames)
        assert caught.value.code == 1007
