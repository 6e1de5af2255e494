from __future__ import annotations

import zlib
from random import Random

import pytest

from budao.model import RemoteWireError
from budao.wire import deflate, http1, websocket

TEXT = b'{"type":"msg","channel":"news","data":"' + b"again and " * 20 + b'"}'


def inflated(raw: bytes, inflate: deflate.Inflate) -> bytes:
    return inflate.feed(raw) + inflate.end()


def test_a_message_comes_back_and_needs_none_before_it() -> None:
    packed = deflate.compress(TEXT)
    assert len(packed) < len(TEXT) / 3
    inflate = deflate.Inflate(1000)
    assert [inflated(packed, inflate) for _ in range(3)] == [TEXT] * 3


def test_an_empty_message_is_one_byte() -> None:
    assert deflate.compress(b"") == b"\x00"
    assert inflated(b"\x00", deflate.Inflate(10)) == b""


def test_no_bytes_at_all_are_an_empty_message_and_spoil_nothing() -> None:
    inflate = deflate.Inflate(1000, takeover=True)
    assert inflated(b"", inflate) == b""
    assert inflated(deflate.compress(TEXT), inflate) == TEXT


def test_a_bomb_is_refused_once_it_is_larger_than_allowed() -> None:
    packed = deflate.compress(bytes(50_000_000))
    assert len(packed) < 250_000
    with pytest.raises(websocket.BadFrame, match="more than 1000 bytes") as caught:
        deflate.Inflate(1000).feed(packed)
    assert caught.value.code == 1009


def test_a_message_as_large_as_allowed_is_read_and_one_byte_more_is_not() -> None:
    assert len(inflated(deflate.compress(bytes(1000)), deflate.Inflate(1000))) == 1000
    with pytest.raises(websocket.BadFrame):
        inflated(deflate.compress(bytes(1001)), deflate.Inflate(1000))


def test_pieces_of_a_message_share_one_bound() -> None:
    inflate, packed = deflate.Inflate(1000), deflate.compress(Random(1).randbytes(1001))
    with pytest.raises(websocket.BadFrame):
        [inflate.feed(packed[at : at + 10]) for at in range(0, len(packed), 10)]


def test_what_is_no_deflate_is_refused() -> None:
    with pytest.raises(websocket.BadFrame) as caught:
        deflate.Inflate(1000).feed(b"\xff\xff\xff\xff")
    assert caught.value.code == 1007


def test_a_message_that_ends_again_and_again_is_refused() -> None:
    packer = zlib.compressobj(wbits=-15)
    ended = packer.compress(b"a") + packer.flush(zlib.Z_FINISH)
    assert inflated(ended * 16, deflate.Inflate(1000)) == b"a" * 16
    with pytest.raises(websocket.BadFrame, match="ends more than 16 times"):
        deflate.Inflate(100_000).feed(ended * 17)


@pytest.mark.parametrize("takeover", [False, True])
def test_a_memory_is_kept_where_that_was_agreed_on(takeover: bool) -> None:
    packer = zlib.compressobj(wbits=-15)
    first, second = ((packer.compress(TEXT) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(2))
    inflate = deflate.Inflate(1000, takeover=takeover)
    assert inflated(first, inflate) == TEXT
    if takeover:
        assert inflated(second, inflate) == TEXT
    else:
        with pytest.raises(websocket.BadFrame):
            inflated(second, inflate)


@pytest.mark.parametrize("bits", range(8, 16))
def test_a_small_window_can_read_what_was_made_for_it(bits: int) -> None:
    rng = Random(bits)
    words = [rng.randbytes(rng.randint(3, 40)) for _ in range(40)]
    payload = b"".join(rng.choices(words, k=4000))
    unpacker, packed = zlib.decompressobj(-bits), deflate.compress(payload, window_bits=bits) + b"\x00\x00\xff\xff"
    out = b""
    while packed:  # in small steps, so that only the window can be pointed into
        out += unpacker.decompress(packed, 16)
        packed = unpacker.unconsumed_tail
    assert out + unpacker.decompress(b"") == payload


PLAIN = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


@pytest.mark.parametrize(
    ("offers", "header", "out_bits", "in_bits"),
    [
        ("permessage-deflate", PLAIN, 15, 15),
        ("permessage-deflate; client_max_window_bits", PLAIN, 15, 15),
        ("PerMessage-Deflate;client_max_window_bits=10", f"{PLAIN}; client_max_window_bits=10", 15, 10),
        ('permessage-deflate; client_max_window_bits="10"', f"{PLAIN}; client_max_window_bits=10", 15, 10),
        (
            "permessage-deflate; server_max_window_bits=9",
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=9; client_no_context_takeover",
            9,
            15,
        ),
        ("x-webkit-deflate-frame, permessage-deflate; wrong, permessage-deflate", PLAIN, 15, 15),
    ],
)
def test_the_first_offer_that_can_be_met_is_taken(offers: str, header: str, out_bits: int, in_bits: int) -> None:
    assert deflate.accept(offers) == deflate.Agreed(header, out_bits, in_bits, False)


@pytest.mark.parametrize(
    "offers",
    [
        "",
        " ",
        "bbf-usp-protocol",
        "permessage-deflate; unknown",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=09",
        "permessage-deflate; client_max_window_bits=+9",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
    ],
)
def test_an_offer_that_cannot_be_met_is_let_go(offers: str) -> None:
    assert deflate.accept(offers) is None


@pytest.mark.parametrize("offers", ["permessage-deflate;", ";", ",", "a=;b", "a b", "a=\x01", ", ".join(["a"] * 17)])
def test_offers_that_cannot_be_read_are_refused(offers: str) -> None:
    with pytest.raises(http1.BadRequest) as caught:
        deflate.accept(offers)
    assert caught.value.status == 400


def test_a_window_too_small_for_frames_that_others_share_is_not_agreed_on() -> None:
    offers = "permessage-deflate; server_max_window_bits=9, permessage-deflate"
    assert deflate.accept(offers, out_window_bits_min=15) == deflate.Agreed(PLAIN)


def test_a_client_keeps_its_memory_only_if_both_want_that() -> None:
    agreed = deflate.accept("permessage-deflate", in_takeover=True)
    assert agreed == deflate.Agreed("permessage-deflate; server_no_context_takeover", in_takeover=True)
    refused = deflate.accept("permessage-deflate; client_no_context_takeover", in_takeover=True)
    assert refused is not None
    assert not refused.in_takeover


def test_client_and_server_agree() -> None:
    at_server = deflate.accept(deflate.offer())
    assert at_server is not None
    at_client = deflate.agreed(at_server.header)
    assert at_client is not None
    assert inflated(deflate.compress(TEXT, window_bits=at_server.out_window_bits), at_client.inflate(1000)) == TEXT
    assert deflate.agreed("") is None


def test_a_client_hears_of_windows_from_its_own_side() -> None:
    header = "permessage-deflate; server_no_context_takeover; server_max_window_bits=12; client_max_window_bits=9"
    assert deflate.agreed(header) == deflate.Agreed(header, out_window_bits=9, in_window_bits=12)


@pytest.mark.parametrize(
    "header",
    [
        "permessage-deflate",
        "other",
        f"{PLAIN}, {PLAIN}",
        f"{PLAIN}; unknown",
        f"{PLAIN}; client_max_window_bits",
        "permessage-deflate; ;",
    ],
)
def test_a_client_refuses_what_it_did_not_offer(header: str) -> None:
    with pytest.raises(RemoteWireError):
        deflate.agreed(header)
