"""RFC 7692, permessage-deflate: the examples of section 7.2.3, and the offers of section 7.1.3."""

from __future__ import annotations

import pytest

from budao.wire import deflate, websocket
from budao.wire.websocket import Reader, Text


def heard(*frames: str, takeover: bool = False) -> list[websocket.Event]:
    inflate = deflate.Inflate(1000, takeover=takeover)
    reader = Reader(1000, is_server=False, inflate=inflate)
    return [event for raw in frames for event in reader.feed(bytes.fromhex(raw))]


def test_section_7_2_3_1_a_message_in_one_block() -> None:
    assert heard("c107 f248cdc9c90700") == [Text(b"Hello")]


def test_section_7_2_3_1_a_message_in_two_frames() -> None:
    assert heard("4103 f248cd", "8004 c9c90700") == [Text(b"Hello")]


def test_section_7_2_3_2_a_window_is_shared_between_messages() -> None:
    assert heard("c107 f248cdc9c90700", "c105 f200110000", takeover=True) == [Text(b"Hello")] * 2


def test_section_7_2_3_2_a_window_that_is_not_shared_does_not_reach_back() -> None:
    with pytest.raises(websocket.BadFrame):
        heard("c107 f248cdc9c90700", "c105 f200110000")


def test_section_7_2_3_3_a_block_without_compression() -> None:
    assert heard("c10b 000500faff48656c6c6f00") == [Text(b"Hello")]


def test_section_7_2_3_4_a_block_that_is_the_last_of_its_stream() -> None:
    assert heard("c108 f348cdc9c9070000") == [Text(b"Hello")]
    assert heard("c107 f348cdc9c90700", "c107 f248cdc9c90700", takeover=True) == [Text(b"Hello")] * 2


def test_section_7_2_3_5_two_blocks_in_one_message() -> None:
    assert heard("c10d f248050000 00ffffcac9c90700".replace(" ", "").replace("c10d", "c10d ")) == [Text(b"Hello")]


def test_section_7_2_3_6_an_empty_message() -> None:
    assert heard("c101 00") == [Text(b"")]
    assert deflate.compress(b"") == b"\x00"


def test_section_7_2_1_what_is_sent_ends_without_the_empty_block() -> None:
    assert deflate.compress(b"Hello", level=6) == bytes.fromhex("f248cdc9c90700")


@pytest.mark.parametrize(
    ("offers", "out_bits"),
    [
        ("permessage-deflate", 15),
        ("permessage-deflate; client_max_window_bits; server_max_window_bits=10", 10),
        (
            "permessage-deflate; client_max_window_bits; server_max_window_bits=10, permessage-deflate; client_max_window_bits",
            10,
        ),
        ('permessage-deflate; server_max_window_bits="10"', 10),
    ],
)
def test_section_7_1_3_offers_of_the_examples(offers: str, out_bits: int) -> None:
    agreed = deflate.accept(offers)
    assert agreed is not None
    assert agreed.out_window_bits == out_bits
