"""The bytes of a store on disk: journals of commands, and snapshots, as records that nobody can cut or move unnoticed.

A file is a header and records, numbered from 0. A record carries its number, and its checksum covers the store, the
generation and the kind of file it belongs to, so it is good in one place only. Everything that is made durable at once
is one record: at most the last record of a journal can then be torn, and a good record behind a bad one proves that the
bad one was whole once. The one case is cut off, the other refused.

Source:  Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014), sections 3 and 4: what an append can leave.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final
from zlib import crc32

from budao.model import RemoteWireError
from budao.store import Command, Entry, Lease, Snapshot, StorePolicy
from budao.wire.packing import array_header, pack, unpack
from budao.wire.store_codec import (
    Plain,
    many,
    number,
    octets,
    parse_command,
    parse_entry,
    parse_lease,
    parse_policy,
    parts,
    plain_command,
    plain_entry,
    plain_lease,
    plain_policy,
)

FORMAT: Final = 1
MAGIC: Final = b"\x89budao\r\n"
"""Not text; and a transfer that changes line ends is noticed."""
MARK: Final = b"\xb7\xda\x0b\xe5"

HEADER: Final = struct.Struct(">8sHH16sQ")
SUM: Final = struct.Struct(">I")
RECORD: Final = struct.Struct(">4sQII")
HEADER_BYTES: Final = HEADER.size + SUM.size

RECORD_BYTES_MAX: Final = 256 * 1024 * 1024
"""No length beyond this is believed."""
CHUNK_ENTRIES: Final = 512
STORE_ID_BYTES: Final = 16
SEARCH_BYTES_MAX: Final = 64 * 1024 * 1024 * 1024
"""Bytes summed up in search of a good record behind a bad one. Some ten seconds; ordinary damage needs next to nothing."""


class Kind(IntEnum):
    """What a file holds."""

    JOURNAL = 1
    SNAPSHOT = 2


@dataclass(frozen=True, slots=True)
class Header:
    """Which file this is."""

    kind: Kind
    store: bytes
    """16 random bytes, the same in all files of one store."""
    generation: int
    """A snapshot holds what was before the journal of its number."""


class Unreadable(RemoteWireError):
    """A file of a store that cannot be trusted as it is. Nothing in it was changed."""

    def __init__(self, file: str, offset: int, problem: str, advice: str) -> None:
        super().__init__(file, offset, problem, advice)
        self.file = file
        self.offset = offset
        self.problem = problem
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.file}, byte {self.offset}: {self.problem}. {self.advice}"


BACKUP = "Put back the folder from a backup, or move it away to begin with an empty store"


@dataclass(frozen=True, slots=True)
class Records:
    """What a file holds."""

    header: Header
    payloads: tuple[memoryview, ...]
    end: int
    """Where the last good record ends, in bytes."""
    torn_bytes: int
    """What follows it and is no record: the end of a write that was never acknowledged."""


# ------------------------------------------------------------------------------------------------- records


def format_header(header: Header) -> bytes:
    """The first bytes of a file."""
    raw = HEADER.pack(MAGIC, FORMAT, header.kind, header.store, header.generation)
    return raw + SUM.pack(crc32(raw))


def seed_of(header: Header) -> int:
    """What the checksums of a file begin with."""
    return crc32(format_header(header))


def format_record(seed: int, index: int, payload: bytes) -> bytes:
    """One record."""
    head = RECORD.pack(MARK, index, len(payload), 0)[:-4]
    return head + SUM.pack(crc32(payload, crc32(head, seed))) + payload


def parse_header(raw: bytes | memoryview, file: str, kind: Kind) -> Header:
    """Raises:  Unreadable, with what it is instead."""
    if len(raw) < HEADER_BYTES:
        # A file gets its name once its header is durable.
        raise Unreadable(file, 0, f"it has {len(raw)} bytes, and its header alone has {HEADER_BYTES}", BACKUP)
    magic, version, said, store, generation = HEADER.unpack_from(raw)
    if magic != MAGIC:
        raise Unreadable(file, 0, "it is no file of a store", "Give another folder, or move the file away")
    if version > FORMAT:
        problem = f"it is of format {version}, and this version reads {FORMAT}"
        raise Unreadable(file, 8, problem, "Start the newer version of budao that wrote it")
    if version < FORMAT:
        problem = f"it is of format {version}, and this version reads {FORMAT}"
        raise Unreadable(file, 8, problem, "Start the older version of budao that wrote it, and move the keys over")
    if SUM.unpack_from(raw, HEADER.size)[0] != crc32(raw[: HEADER.size]):
        raise Unreadable(file, 0, "the checksum of its header is wrong", BACKUP)
    if said != kind:
        raise Unreadable(file, 10, f"it holds no {kind.name.lower()}", BACKUP)
    return Header(kind, store, generation)


def parse_records(
    raw: bytes, file: str, kind: Kind, *, may_be_torn: bool, search_bytes_max: int = SEARCH_BYTES_MAX
) -> Records:
    """The records of a file. Only the newest journal may be torn: what is older was durable before it was followed.

    Raises:  Unreadable if anything is damaged that had been whole.
    """
    header = parse_header(raw, file, kind)
    seed, view = seed_of(header), memoryview(raw)
    payloads: list[memoryview] = []
    at = HEADER_BYTES
    while (found := _record_at(view, at, seed)) is not None and found[0] == len(payloads):
        payloads.append(found[1])
        at += RECORD.size + len(found[1])
    if at == len(raw):
        return Records(header, tuple(payloads), at, 0)
    expected = len(payloads)
    try:
        later = _next_record(raw, view, at, seed, search_bytes_max)
    except _TooManyMarks:
        problem = f"no record {expected} begins here, and too much of what follows looks like the beginning of one"
        raise Unreadable(file, at, problem, BACKUP) from None
    if later is not None:
        lost = "a record is out of its place" if later <= expected else _lost(expected, later - 1)
        raise Unreadable(file, at, f"{lost}, and good records follow, so this is no unfinished write", BACKUP)
    if not may_be_torn:
        raise Unreadable(file, at, f"it ends in {len(raw) - at} bytes that are no record {expected}", BACKUP)
    return Records(header, tuple(payloads), at, len(raw) - at)


class _TooManyMarks(Exception):
    """The search for a good record takes too long."""


def _lost(first: int, last: int) -> str:
    return f"record {first} is damaged" if first == last else f"the records {first} to {last} are damaged"


def _record_at(view: memoryview, at: int, seed: int) -> tuple[int, memoryview] | None:
    if at + RECORD.size > len(view):
        return None
    mark, index, size, checksum = RECORD.unpack_from(view, at)
    begin = at + RECORD.size
    if mark != MARK or size > RECORD_BYTES_MAX or begin + size > len(view):
        return None
    payload = view[begin : begin + size]
    if crc32(payload, crc32(view[at : begin - 4], seed)) != checksum:
        return None
    return index, payload


def _next_record(raw: bytes, view: memoryview, at: int, seed: int, left_bytes: int) -> int | None:
    """The number of the first good record at or after `at`.

    Raises:  _TooManyMarks: values may hold marks, too, and each could begin a record that is as long as the rest of the file.
    """
    while (at := raw.find(MARK, at)) >= 0:
        if at + RECORD.size <= len(view) and (size := RECORD.unpack_from(view, at)[2]) <= len(view) - at:
            left_bytes -= size
            if left_bytes < 0:
                raise _TooManyMarks
        if (found := _record_at(view, at, seed)) is not None:
            return found[0]
        at += 1
    return None


# ------------------------------------------------------------------------------------------------ journals


@dataclass(frozen=True, slots=True)
class Start:
    """The first record of a journal: what was in force when it was begun."""

    revision: int
    policy: StorePolicy


def format_start(start: Start) -> bytes:
    """The payload of the first record."""
    return pack([start.revision, plain_policy(start.policy)])


def parse_start(payload: bytes | memoryview) -> Start:
    """Raises:  RemoteWireError."""
    revision, policy = parts(unpack(payload), 2, "the start of a journal")
    return Start(number(revision, "a revision"), parse_policy(policy))


def format_command(command: Command) -> bytes:
    """One command, to be joined with others.

    Raises:  LocalWireError for what cannot be kept.
    """
    return pack(plain_command(command))


def format_group(revision: int, commands: Sequence[bytes]) -> bytes:
    """The payload of one write: the store's revision before it, and its commands."""
    return b"".join((array_header(2), pack(revision), array_header(len(commands)), *commands))


def parse_group(payload: bytes | memoryview) -> tuple[int, tuple[Command, ...]]:
    """Raises:  RemoteWireError."""
    revision, commands = parts(unpack(payload), 2, "a group of commands")
    return number(revision, "a revision"), tuple(map(parse_command, many(commands, "commands")))


# ----------------------------------------------------------------------------------------------- snapshots


def format_snapshot(snapshot: Snapshot) -> Iterable[bytes]:
    """The payloads of a snapshot, a bounded number of entries in each; the last one says that nothing is missing."""
    yield pack([snapshot.revision, snapshot.lease_next])
    for at in range(0, len(snapshot.leases), CHUNK_ENTRIES):
        yield pack(["leases", list(map(plain_lease, snapshot.leases[at : at + CHUNK_ENTRIES]))])
    for at in range(0, len(snapshot.entries), CHUNK_ENTRIES):
        yield pack(["entries", list(map(plain_entry, snapshot.entries[at : at + CHUNK_ENTRIES]))])
    yield pack(["end", len(snapshot.leases), len(snapshot.entries)])


def parse_snapshot(payloads: Sequence[bytes | memoryview]) -> Snapshot:
    """Raises:  RemoteWireError."""
    if len(payloads) < 2:
        raise RemoteWireError("the snapshot is not whole")
    revision, lease_next = parts(unpack(payloads[0]), 2, "the start of a snapshot")
    leases: list[Lease] = []
    entries: list[Entry] = []
    for payload in payloads[1:-1]:
        name, content = parts(unpack(payload), 2, "a part of a snapshot")
        if name == "leases":
            leases.extend(map(parse_lease, many(content, "leases")))
        else:
            entries.extend(map(parse_entry, many(content, "entries")))
    end: Plain = unpack(payloads[-1])
    if end != ["end", len(leases), len(entries)]:
        raise RemoteWireError(f"the snapshot is not whole: {len(leases)} leases and {len(entries)} entries")
    return Snapshot(number(revision, "a revision"), tuple(entries), tuple(leases), number(lease_next, "a lease"))


def store_id(raw: object) -> bytes:
    """16 bytes, checked."""
    found = octets(raw, "the id of a store")
    if len(found) != STORE_ID_BYTES:
        raise RemoteWireError(f"the id of a store has {STORE_ID_BYTES} bytes, not {len(found)}")
    return found
