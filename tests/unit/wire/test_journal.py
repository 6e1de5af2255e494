from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import Mono, RemoteWireError
from budao.store import Commit, Compact, Grant, Keeper, Put, Revoke, Snapshot, StorePolicy, Txn
from budao.wire import journal
from budao.wire.journal import Header, Kind, Unreadable
from budao.wire.packing import pack

HEADER = Header(Kind.JOURNAL, bytes(range(16)), 7)
PAYLOADS = (b"first", b"", b"the third is longer than the others", b"\xb7\xda\x0b\xe5 looks like a mark")


def file_of(payloads: tuple[bytes, ...] = PAYLOADS, header: Header = HEADER) -> bytes:
    seed = journal.seed_of(header)
    return journal.format_header(header) + b"".join(
        journal.format_record(seed, index, payload) for index, payload in enumerate(payloads)
    )


def read(raw: bytes, *, may_be_torn: bool = True) -> journal.Records:
    return journal.parse_records(raw, "the-file", Kind.JOURNAL, may_be_torn=may_be_torn)


def starts(payloads: tuple[bytes, ...] = PAYLOADS) -> list[int]:
    return [len(file_of(payloads[:count])) for count in range(len(payloads) + 1)]


def test_what_was_written_is_read() -> None:
    found = read(file_of())
    assert found.header == HEADER
    assert tuple(map(bytes, found.payloads)) == PAYLOADS
    assert (found.end, found.torn_bytes) == (len(file_of()), 0)


def test_a_file_cut_at_any_byte_keeps_every_record_that_is_whole() -> None:
    raw, begins = file_of(), starts()
    for size in range(journal.HEADER_BYTES, len(raw)):
        whole = sum(begin <= size for begin in begins[1:])
        found = read(raw[:size])
        assert (len(found.payloads), found.end, found.torn_bytes) == (whole, begins[whole], size - begins[whole])


def test_a_file_shorter_than_its_header_is_refused() -> None:
    for size in range(journal.HEADER_BYTES):
        with pytest.raises(Unreadable, match=rf"the-file, byte 0: it has {size} bytes"):
            read(file_of()[:size])


def test_any_byte_changed_before_the_last_record_is_damage_that_names_where_and_what() -> None:
    raw, begins = file_of(), starts()
    for at in range(journal.HEADER_BYTES, begins[-2]):
        record = sum(begin <= at for begin in begins) - 1
        with pytest.raises(Unreadable) as refused:
            read(raw[:at] + bytes([raw[at] ^ 0x41]) + raw[at + 1 :])
        assert refused.value.offset == begins[record]
        assert f"record {record} is damaged, and good records follow" in str(refused.value)
        assert "backup" in str(refused.value)


def test_any_byte_changed_in_the_last_record_is_a_torn_tail() -> None:
    raw, begins = file_of(), starts()
    for at in range(begins[-2], len(raw)):
        found = read(raw[:at] + bytes([raw[at] ^ 0x41]) + raw[at + 1 :])
        assert (found.end, found.torn_bytes) == (begins[-2], len(raw) - begins[-2])


def test_several_records_lost_in_the_middle_are_counted() -> None:
    raw, begins = file_of(), starts()
    with pytest.raises(Unreadable, match="the records 1 to 2 are damaged"):
        read(raw[: begins[1]] + bytes(begins[3] - begins[1]) + raw[begins[3] :])


@given(st.binary(max_size=400))
def test_garbage_after_the_last_record_is_cut_off(garbage: bytes) -> None:
    found = read(file_of() + garbage)
    assert tuple(map(bytes, found.payloads)) == PAYLOADS
    assert found.torn_bytes == len(garbage)


def test_a_record_out_of_its_place_is_not_taken_for_one() -> None:
    raw, begins = file_of(), starts()
    again = raw[begins[1] : begins[2]]
    with pytest.raises(Unreadable, match="a record is out of its place"):
        read(raw + again)


@pytest.mark.parametrize(
    "other", [replace(HEADER, generation=8), replace(HEADER, store=bytes(16)), replace(HEADER, kind=Kind.SNAPSHOT)]
)
def test_a_record_of_another_file_is_not_taken_for_one(other: Header) -> None:
    alien = file_of(PAYLOADS, other)[starts()[-2] :]
    assert len(read(file_of(PAYLOADS[:3]) + alien).payloads) == 3


def test_only_the_newest_journal_may_be_torn() -> None:
    with pytest.raises(Unreadable, match="it ends in 3 bytes that are no record 4"):
        read(file_of() + b"abc", may_be_torn=False)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "it has 0 bytes"),
        (b"SQLite format 3\0" + bytes(100), "it is no file of a store"),
        (journal.MAGIC + b"\0\x02" + bytes(40), "it is of format 2, and this version reads 1. Start the newer version"),
        (journal.MAGIC + b"\0\0" + bytes(40), "it is of format 0, and this version reads 1. Start the older version"),
        (file_of()[:12] + b"!" + file_of()[13:], "the checksum of its header is wrong"),
        (file_of((), Header(Kind.SNAPSHOT, bytes(16), 1)), "it holds no journal"),
    ],
)
def test_another_file_is_refused_with_what_it_is(raw: bytes, said: str) -> None:
    with pytest.raises(Unreadable) as refused:
        read(raw)
    assert said in str(refused.value)


def test_a_group_of_commands_comes_back() -> None:
    commands = (Commit(Txn(then=(Put("k", b"v", 3),))), Grant(0, 2.5), Revoke(9), Compact(4))
    raw = journal.format_group(41, list(map(journal.format_command, commands)))
    assert journal.parse_group(raw) == (41, commands)


def test_the_start_of_a_journal_comes_back() -> None:
    start = journal.Start(12, StorePolicy(entries_max=5))
    assert journal.parse_start(journal.format_start(start)) == start


def test_a_snapshot_comes_back_and_one_that_is_not_whole_is_refused() -> None:
    keeper = Keeper()
    for number in range(1200):
        keeper.apply(Commit(Txn(then=(Put(f"k{number}", b"v"),))), Mono(0.0))
    keeper.apply(Grant(0, 5.0), Mono(0.0))
    snapshot = keeper.snapshot()
    payloads = list(journal.format_snapshot(snapshot))
    assert len(payloads) == 6
    assert journal.parse_snapshot(payloads) == snapshot
    for left_out in range(1, len(payloads)):
        with pytest.raises(RemoteWireError):
            journal.parse_snapshot(payloads[:left_out] + payloads[left_out + 1 :])
    empty = Snapshot(1, (), (), 1)
    assert journal.parse_snapshot(list(journal.format_snapshot(empty))) == empty


@given(st.binary(max_size=60))
def test_no_payload_is_read_as_something_it_is_not(raw: bytes) -> None:
    for parse in (journal.parse_group, journal.parse_start, lambda each: journal.parse_snapshot([each, each])):
        with pytest.raises(RemoteWireError):
            parse(raw)


def test_a_torn_write_full_of_marks_is_refused_before_the_search_takes_for_ever() -> None:
    count = 2_000
    marks = b"".join(
        journal.MARK + (9).to_bytes(8, "big") + (20 * (count - number - 1)).to_bytes(4, "big") + b"none"
        for number in range(count)
    )
    raw = file_of() + marks
    assert len(read(raw).payloads) == len(PAYLOADS)
    with pytest.raises(Unreadable, match="too much of what follows looks like the beginning of one"):
        journal.parse_records(raw, "a file", Kind.JOURNAL, may_be_torn=True, search_bytes_max=len(raw) * 100)


@pytest.mark.parametrize("setting", [None, "1", [1], True])
@pytest.mark.parametrize("depth", [0, 1_000])
def test_a_policy_whose_settings_are_no_numbers_is_refused(setting: object, depth: int) -> None:
    for _ in range(depth):
        setting = [setting]
    with pytest.raises(RemoteWireError, match="a policy cannot be"):
        journal.parse_start(pack([0, {"history_bytes_max": setting}]))
