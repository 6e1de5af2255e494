from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import LocalWireError, RemoteWireError
from budao.wire import etcd, protobuf
from budao.wire.protobuf import Kind, decode, encode

HEADER = etcd.Header(-(2**63) + 5, 1_234_567)
KV = etcd.KeyValue(b"a/b", 5, 300, 2, b"\x00\xff", 2**62 + 1)

# Written by protobuf 7.36 from the messages of etcd 3.6.5, with fields that are not read here among them.
CAPTURED: list[tuple[str, Any]] = [
    (
        "0a016112010018ac0220ffffffffffffffff7f380140014801",
        etcd.RangeRequest(
            b"a", b"\0", limit=300, revision=2**63 - 1, serializable=True, keys_only=True, count_only=True
        ),
    ),
    (
        "0a1c08fdffffffffffffffff0110858080808080808080011887ad4b2007121a0a03612f62100518ac0220022a0200ff3081808080808080804012030a016318012009",
        etcd.RangeResponse(HEADER, (KV, etcd.KeyValue(b"c")), True, 9),
    ),
    (
        "0a09080310041a016b40000a0710031a016b3a000a09080110021a016b304d0a09080210011a016b28000a051a016b2001128d01128a010a0170128201"
        + "76" * 130
        + "180912081a060a016412016512050a030a01721a021200",
        etcd.TxnRequest(
            (
                etcd.Compare(etcd.NOT_EQUAL, etcd.LEASE, b"k", lease=0),
                etcd.Compare(etcd.EQUAL, etcd.VALUE, b"k", value=b""),
                etcd.Compare(etcd.GREATER, etcd.MOD, b"k", mod_revision=77),
                etcd.Compare(etcd.LESS, etcd.CREATE, b"k", create_revision=0),
                etcd.Compare(etcd.EQUAL, etcd.VERSION, b"k", version=1),
            ),
            (
                etcd.RequestOp(put=etcd.PutRequest(b"p", b"v" * 130, 9)),
                etcd.RequestOp(delete_range=etcd.DeleteRangeRequest(b"d", b"e")),
                etcd.RequestOp(range=etcd.RangeRequest(b"r")),
            ),
            (etcd.RequestOp(put=etcd.PutRequest()),),
        ),
    ),
    (
        "0a1c08fdffffffffffffffff0110858080808080808080011887ad4b200710011a2212200a021804121a0a03612f62100518ac0220022a0200ff308180808080808080401a241a220a02180410031a1a0a03612f62100518ac0220022a0200ff308180808080808080401a200a1e121a0a03612f62100518ac0220022a0200ff308180808080808080402001",
        etcd.TxnResponse(
            HEADER,
            True,
            (
                etcd.ResponseOp(put=etcd.PutResponse(etcd.Header(revision=4))),
                etcd.ResponseOp(delete_range=etcd.DeleteRangeResponse(etcd.Header(revision=4), 3)),
                etcd.ResponseOp(range=etcd.RangeResponse(None, (KV,), False, 1)),
            ),
        ),
    ),
    ("080c1001", etcd.CompactionRequest(12, True)),
    (
        "0a0e0a0161120162180a200138034001",
        etcd.WatchRequest(create=etcd.WatchCreateRequest(b"a", b"b", 10, True, 3, True)),
    ),
    ("120b08ffffffffffffffffff01", etcd.WatchRequest(cancel=etcd.WatchCancelRequest(-1))),
    ("1a00", etcd.WatchRequest(progress=etcd.WatchProgressRequest())),
    (
        "0a1c08fdffffffffffffffff0110858080808080808080011887ad4b200710ffffffffffffffffff01180120012863320e657463647365727665723a20c3a938015a25080112050a017818081a1a0a03612f62100518ac0220022a0200ff308180808080808080405a1c121a0a03612f62100518ac0220022a0200ff30818080808080808040",
        etcd.WatchResponse(
            HEADER,
            -1,
            True,
            True,
            99,
            "etcdserver: é",
            True,
            (etcd.Event(etcd.DELETE, etcd.KeyValue(b"x", mod_revision=8)), etcd.Event(etcd.PUT, KV)),
        ),
    ),
    ("081e1005", etcd.LeaseGrantRequest(30, 5)),
    (
        "0a1c08fdffffffffffffffff0110858080808080808080011887ad4b200710808080808080808040181e22026e6f",
        etcd.LeaseGrantResponse(HEADER, 2**62, 30, "no"),
    ),
    ("0805", etcd.LeaseRevokeRequest(5)),
    ("0805", etcd.LeaseKeepAliveRequest(5)),
    (
        "0a1c08fdffffffffffffffff0110858080808080808080011887ad4b20071005181e",
        etcd.LeaseKeepAliveResponse(HEADER, 5, 30),
    ),
    ("08051001", etcd.LeaseTimeToLiveRequest(5, True)),
    (
        "0a1c08fdffffffffffffffff0110858080808080808080011887ad4b2007100518ffffffffffffffffff01201e2a01612a00",
        etcd.LeaseTimeToLiveResponse(HEADER, 5, -1, 30, (b"a", b"")),
    ),
    ("0a04726f6f741206736573616d65", etcd.AuthenticateRequest("root", "sesame")),
    (
        "0a1c08fdffffffffffffffff0110858080808080808080011887ad4b20071203742e31",
        etcd.AuthenticateResponse(HEADER, "t.1"),
    ),
    (
        "0a1c08fdffffffffffffffff0110858080808080808080011887ad4b20071205332e362e35180420ffffffffffffffffff012809300242016550015a03332e36",
        etcd.StatusResponse(HEADER, "3.6.5", -1, ("e",)),
    ),
    (
        "0a1c08fdffffffffffffffff0110858080808080808080011887ad4b20071210080112016e1a01701a01712201632801",
        etcd.MemberListResponse(HEADER, (etcd.Member(1, "n", ("p", "q"), ("c",)),)),
    ),
]

MESSAGES = [found for found in vars(etcd).values() if isinstance(found, type) and found.__module__ == etcd.__name__]


@pytest.mark.parametrize(("captured", "message"), CAPTURED, ids=lambda each: type(each).__name__)
def test_what_another_encoder_wrote_is_read(captured: str, message: Any) -> None:
    assert decode(type(message), bytes.fromhex(captured)) == message


@pytest.mark.parametrize(
    ("captured", "message"),
    [(captured, message) for captured, message in CAPTURED if type(message).__name__.endswith("Request")],
    ids=lambda each: type(each).__name__,
)
def test_what_is_asked_is_written_as_another_encoder_writes_it(captured: str, message: Any) -> None:
    assert encode(message).hex() == captured


def value_of(slot: protobuf.Slot) -> st.SearchStrategy[Any]:
    match slot.kind:
        case Kind.NUMBER:
            value: st.SearchStrategy[Any] = st.integers(-(2**63), 2**63 - 1)
        case Kind.FLAG:
            value = st.booleans()
        case Kind.BYTES:
            value = st.binary(max_size=200)
        case Kind.TEXT:
            value = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
        case _:
            assert slot.inner is not None
            value = message_of(slot.inner)
    if slot.many:
        return st.lists(value, max_size=3).map(tuple)
    return st.none() | value if slot.always else value


def message_of(message: type[Any]) -> st.SearchStrategy[Any]:
    return st.builds(message, **{each.name: value_of(each.metadata["slot"]) for each in fields(message)})


@given(st.sampled_from(MESSAGES).flatmap(message_of))
def test_what_is_written_is_read_back(message: Any) -> None:
    assert decode(type(message), encode(message)) == message


@given(st.sampled_from(MESSAGES), st.binary(max_size=120))
def test_bytes_of_a_stranger_are_a_message_or_refused(message: type[Any], data: bytes) -> None:
    try:
        found = decode(message, data)
    except RemoteWireError:
        return
    assert decode(message, encode(found)) == found


@given(st.sampled_from(CAPTURED), st.data())
def test_a_message_with_a_flaw_is_a_message_or_refused(captured: tuple[str, Any], data: st.DataObject) -> None:
    good = bytes.fromhex(captured[0])
    at = data.draw(st.integers(0, len(good)))
    flawed = good[:at] + data.draw(st.binary(max_size=3)) + good[at + data.draw(st.integers(0, 3)) :]
    try:
        found = decode(type(captured[1]), flawed)
    except RemoteWireError:
        return
    assert decode(type(found), encode(found)) == found


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("08", "end within a number"),
        ("0880", "end within a number"),
        ("08" + "ff" * 9 + "02", "more than 64 bits"),
        ("08" + "ff" * 10 + "01", "more than 64 bits"),
        ("1205", "field 2 ends 5 bytes after"),
        ("0a00", "LeaseRevokeRequest.id has wire type 2, which is not how int64 is written"),
        ("0b", "wire type 3"),
        ("0c", "wire type 4"),
        ("0e", "wire type 6"),
        ("00", "0 is no number of a field"),
        ("8080808080800100", "is no number of a field"),
        ("1d0000", "field 3 ends 2 bytes after"),
        ("19000000", "field 3 ends 5 bytes after"),
    ],
)
def test_bytes_that_break_a_rule_are_refused_with_the_rule(data: str, said: str) -> None:
    with pytest.raises(RemoteWireError, match=said):
        decode(etcd.LeaseRevokeRequest, bytes.fromhex(data))


def test_text_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(RemoteWireError, match=r"Member\.name is no UTF-8"):
        decode(etcd.Member, b"\x12\x01\xff")


def test_a_field_that_is_longer_than_its_message_is_refused() -> None:
    with pytest.raises(RemoteWireError, match=r"KeyValue\.key ends 4 bytes after"):
        decode(etcd.KeyValue, bytes.fromhex("0a0561"))


def test_a_message_within_ends_where_its_length_says() -> None:
    # The header claims two bytes and its number needs three.
    with pytest.raises(RemoteWireError, match="end within a number"):
        decode(etcd.PutResponse, bytes.fromhex("0a0218ff01"))


def test_fields_that_are_not_known_are_skipped() -> None:
    data = bytes.fromhex("1001" + "1a03616263" + "2500000000" + "290000000000000000" + "0805" + "f87f01")
    assert decode(etcd.LeaseRevokeRequest, data) == etcd.LeaseRevokeRequest(5)


def test_the_last_of_a_field_that_comes_twice_counts() -> None:
    assert decode(etcd.LeaseRevokeRequest, bytes.fromhex("08050806")) == etcd.LeaseRevokeRequest(6)


def test_what_is_0_or_empty_is_not_written_unless_it_was_chosen() -> None:
    assert encode(etcd.KeyValue()) == b""
    assert encode(etcd.Compare(version=0)) == bytes.fromhex("2000")
    assert encode(etcd.Compare(value=b"")) == bytes.fromhex("3a00")
    assert encode(etcd.RequestOp(put=etcd.PutRequest())) == bytes.fromhex("1200")


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_a_number_that_64_bits_do_not_hold_is_not_sent(number: int) -> None:
    with pytest.raises(LocalWireError, match="does not fit"):
        encode(etcd.LeaseRevokeRequest(number))


def test_text_that_utf_8_cannot_write_is_not_sent() -> None:
    with pytest.raises(LocalWireError, match="half a surrogate pair"):
        encode(etcd.AuthenticateRequest("\ud800", ""))


def test_a_password_and_a_token_are_not_shown() -> None:
    assert "sesame" not in repr(etcd.AuthenticateRequest("root", "sesame"))
    assert "sesame" not in repr(etcd.AuthenticateResponse(None, "sesame"))
