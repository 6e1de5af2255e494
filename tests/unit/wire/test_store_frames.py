from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import BadSettings, LocalWireError, RemoteWireError
from budao.store import (
    Batch,
    Change,
    Commit,
    Committed,
    Compact,
    Compacted,
    Condition,
    Delete,
    Entry,
    Field,
    Grant,
    Lease,
    LeaseGone,
    LeaseView,
    Page,
    Put,
    Read,
    Relation,
    Revoke,
    Span,
    StoreAway,
    StoreDenied,
    StoreError,
    StorePolicy,
    StoreRefused,
    Txn,
)
from budao.wire import store_frames as frames
from budao.wire.packing import pack
from budao.wire.store_codec import OPERATIONS_MAX

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.integers(0, 2**63 - 1)
octets = st.binary(max_size=12)
seconds = st.floats(0.0, 1e9)
spans = st.builds(Span, texts, st.none() | texts)
entries = st.builds(Entry, texts, octets, numbers, numbers, numbers, numbers)
pages = st.builds(Page, numbers, st.lists(entries, max_size=3).map(tuple), st.booleans())
conditions = st.builds(Condition, texts, st.sampled_from(Field), st.sampled_from(Relation), numbers | octets)
operations = st.builds(Put, texts, octets, numbers) | st.builds(Delete, spans) | st.builds(Read, spans, numbers)
branches = st.lists(operations, max_size=3).map(tuple)
commands = (
    st.builds(Commit, st.builds(Txn, st.lists(conditions, max_size=3).map(tuple), branches, branches))
    | st.builds(Grant, numbers, seconds)
    | st.builds(Revoke, numbers)
    | st.builds(Compact, numbers)
)
requests = (
    commands
    | st.builds(frames.Search, spans, numbers, numbers)
    | st.builds(frames.Renew, numbers)
    | st.builds(frames.LookUp, numbers)
)
committed = st.builds(Committed, numbers, st.booleans(), st.lists(st.none() | numbers | pages, max_size=3).map(tuple))
answers = (
    st.none()
    | st.builds(frames.Piece, pages, st.booleans())
    | committed
    | st.builds(Lease, numbers, seconds)
    | st.builds(LeaseView, numbers, seconds, seconds, st.lists(texts, max_size=3).map(tuple))
)
changes = entries.map(lambda entry: Change(entry.key, entry)) | texts.map(lambda key: Change(key, None))
batches = st.builds(Batch, numbers, st.lists(changes, min_size=1, max_size=3).map(tuple))
errors = (
    st.builds(StoreRefused, texts, texts)
    | st.builds(Compacted, numbers, numbers)
    | st.builds(LeaseGone, numbers)
    | st.builds(StoreAway, texts, texts, may_have_taken_effect=st.booleans())
    | st.builds(StoreDenied, texts, texts)
)
by_kind = {
    frames.Hello: st.builds(frames.Hello, texts, numbers, numbers),
    frames.Welcome: st.builds(frames.Welcome, numbers, octets, numbers, numbers),
    frames.Versions: st.builds(frames.Versions, numbers, numbers),
    frames.Denied: st.builds(frames.Denied, texts, st.booleans()),
    frames.Ask: st.builds(frames.Ask, numbers, requests),
    frames.Answered: st.builds(frames.Answered, numbers, answers),
    frames.Failed: st.builds(frames.Failed, numbers, errors),
    frames.Watch: st.builds(frames.Watch, numbers, spans, numbers),
    frames.Unwatch: st.builds(frames.Unwatch, numbers),
    frames.Told: st.builds(frames.Told, numbers, st.lists(batches, max_size=3).map(tuple)),
    frames.Beat: st.builds(frames.Beat, numbers),
    frames.Goodbye: st.builds(frames.Goodbye, texts),
}
messages = st.one_of(*by_kind.values())


def test_every_message_is_drawn() -> None:
    assert set(by_kind) == set(get_args(frames.Message))


def same(one: object, other: object) -> bool:
    if isinstance(one, frames.Failed) and isinstance(other, frames.Failed):
        return (one.number, type(one.error), one.error.args) == (other.number, type(other.error), other.error.args)
    return one == other


@given(st.lists(messages, max_size=5), st.lists(st.integers(1, 40), min_size=1))
def test_messages_come_back_in_whatever_pieces_they_arrive(said: list[frames.Message], sizes: list[int]) -> None:
    raw = b"".join(map(frames.format_message, said))
    decoder, heard, at, turn = frames.Decoder(), list[frames.Message](), 0, 0
    while at < len(raw):
        size = sizes[turn % len(sizes)]
        heard += decoder.feed(raw[at : at + size])
        at, turn = at + size, turn + 1
    assert len(heard) == len(said)
    assert all(map(same, said, heard))
    assert decoder.is_between


@given(st.binary(max_size=200))
def test_random_bytes_are_garbage_or_wait_for_more(raw: bytes) -> None:
    decoder = frames.Decoder(4096)
    try:
        decoder.feed(raw)
    except RemoteWireError:
        return
    assert len(raw) <= 4096


@given(st.data())
def test_a_changed_frame_is_a_message_or_garbage_and_nothing_else(data: st.DataObject) -> None:
    raw = bytearray(frames.format_message(data.draw(messages)))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(4, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = frames.Decoder().feed(bytes(raw))
    except RemoteWireError:
        return
    for each in found:
        try:
            again = frames.format_message(each)
        except LocalWireError:
            continue
        assert same(frames.Decoder().feed(again)[0], each)


@pytest.mark.parametrize("payload", [b"\x91" * 3000, b"\xdd\xff\xff\xff\xff", b"\xc1", b"\x90", b"\x91\x0c", b"\xc0"])
def test_a_frame_that_promises_what_it_does_not_hold_is_garbage(payload: bytes) -> None:
    with pytest.raises(RemoteWireError):
        frames.Decoder().feed(len(payload).to_bytes(4, "big") + payload)


def test_a_frame_beyond_the_bound_is_garbage_before_it_has_arrived() -> None:
    with pytest.raises(RemoteWireError, match="a frame of 4097 bytes, the bound is 4096"):
        frames.Decoder(4096).feed((4097).to_bytes(4, "big"))
    assert frames.Decoder(4096).feed((4096).to_bytes(4, "big")) == []


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"GET / HTTP/1.1\r\n", "speaks HTTP"),
        (b"\x16\x03\x01\x02\x00", "begins with TLS"),
        (b"\x15\x03\x01\x00\x02", "speaks TLS"),
        (b"SSH-2.0-x", "does not speak budao-store"),
    ],
)
def test_a_stranger_is_named(raw: bytes, said: str) -> None:
    with pytest.raises(RemoteWireError, match=said):
        frames.Decoder(frames.HELLO_BYTES_MAX).feed(raw)


def test_what_a_frame_cannot_hold_is_our_own_mistake() -> None:
    with pytest.raises(LocalWireError):
        frames.format_message(frames.Ask(1, Commit(Txn(then=(Put("\ud800", b""),)))))
    with pytest.raises(LocalWireError):
        frames.format_message(frames.Ask(1, Revoke(2**64)))
    with pytest.raises(LocalWireError):
        frames.format_message(frames.Failed(1, StoreError()))
    with pytest.raises(LocalWireError, match="the bound is"):
        frames.format_message(frames.Ask(1, Commit(Txn(then=(Put("k", bytes(frames.FRAME_BYTES_MAX)),)))))


def test_a_token_is_in_no_repr() -> None:
    assert "secret" not in repr(frames.Hello("secret"))


@pytest.mark.parametrize("depth", [980, 1000, 1023])
def test_a_value_nested_as_deep_as_msgpack_goes_is_garbage_that_can_be_said(depth: int) -> None:
    with pytest.raises(RemoteWireError, match="the kind of a frame cannot be"):
        frames.parse_message(b"\x91" * depth + b"\x00")


def test_a_transaction_of_more_parts_than_any_policy_allows_is_refused_before_they_are_read() -> None:
    assert StorePolicy(operations_max=OPERATIONS_MAX).operations_max == OPERATIONS_MAX
    with pytest.raises(BadSettings):
        StorePolicy(operations_max=OPERATIONS_MAX + 1)
    reads = (Read(Span("a", "b")),) * (OPERATIONS_MAX + 1)
    with pytest.raises(LocalWireError, match="10001 conditions or operations"):
        frames.format_message(frames.Ask(1, Commit(Txn(then=reads))))
    payload = pack([4, 1, 0, [0, [], [[2, "a", "b", 0]] * (OPERATIONS_MAX + 1), []]])
    with pytest.raises(RemoteWireError, match="at most 10000"):
        frames.parse_message(payload)
    whole = Txn(then=reads[1:])
    raw = frames.format_message(frames.Ask(1, Commit(whole)))
    assert frames.Decoder().feed(raw) == [frames.Ask(1, Commit(whole))]
