"""Files of records that nobody can cut or move unnoticed: what stores and logs keep on disk.

A file is a header and records, numbered from 0. A record carries its number, and its checksum covers the store, the
generation and the kind of file it belongs to, so it is good in one place only. Everything that is made durable at once
is one record: at most the last record of a journal can then be torn, and a good record behind a bad one proves that the
bad one was whole once. The one case is cut off, the other refused.

Source:  Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014), sections 3 and 4: what an append can leave.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final
from zlib import crc32

from budao.model import RemoteWireError

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
STORE_ID_BYTES: Final = 16
SEARCH_BYTES_MAX: Final = 64 * 1024 * 1024 * 1024
"""Bytes summed up in search of a good record behind a bad one. Some ten seconds; ordinary damage needs next to nothing."""


class Kind(IntEnum):
    """What a file holds."""

    JOURNAL = 1
    """Of a store, as is the next."""
    SNAPSHOT = 2
    LOG_JOURNAL = 3
    """Of a log of channels, as is the next."""
    LOG_SNAPSHOT = 4

    @property
    def stem(self) -> str:
        """What the names of such files begin with."""
        return "journal" if self in {Kind.JOURNAL, Kind.LOG_JOURNAL} else "snapshot"

    @property
    def is_of_log(self) -> bool:
        """Whether it belongs to a log of channels."""
        return self >= Kind.LOG_JOURNAL


@dataclass(frozen=True, slots=True)
class Header:
    """Which file this is."""

    kind: Kind
    store: bytes
    """16 random bytes, the same in all files of one store, or of one log."""
    generation: int
    """A snapshot holds what was before the journal of its number."""


class Unreadable(RemoteWireError):
    """A file of a store or log that cannot be trusted as it is. Nothing in it was changed."""

    def __init__(self, file: str, offset: int, problem: str, advice: str) -> None:
        super().__init__(file, offset, problem, advice)
        self.file = file
        self.offset = offset
        self.problem = problem
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.file}, byte {self.offset}: {self.problem}. {self.advice}"


BACKUP = "Put back the folder from a backup, or move it away to begin with an empty one"


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
        raise Unreadable(file, 0, f"it is no file of a {_owner(kind)}", "Give another folder, or move the file away")
    if version > FORMAT:
        problem = f"it is of format {version}, and this version reads {FORMAT}"
        raise Unreadable(file, 8, problem, "Start the newer version of budao that wrote it")
    if version < FORMAT:
        problem = f"it is of format {version}, and this version reads {FORMAT}"
        raise Unreadable(
            file, 8, problem, "Start the older version of budao that wrote it, and move over what it holds"
        )
    if SUM.unpack_from(raw, HEADER.size)[0] != crc32(raw[: HEADER.size]):
        raise Unreadable(file, 0, "the checksum of its header is wrong", BACKUP)
    if said != kind:
        is_others = said in set(Kind) and Kind(said).is_of_log != kind.is_of_log
        holds = f", it belongs to a {_owner(Kind(said))}" if is_others else ""
        raise Unreadable(file, 10, f"it holds no {kind.stem}{holds}", "Give another folder" if is_others else BACKUP)
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


def _owner(kind: Kind) -> str:
    return "log" if kind.is_of_log else "store"


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
