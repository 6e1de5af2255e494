"""The bytes of a store on disk: what the records of its journals and snapshots hold. The records are those of `records`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from budao.model import RemoteWireError
from budao.store import Command, Entry, Lease, Snapshot, StorePolicy
from budao.wire.packing import array_header, pack, unpack
from budao.wire.records import (
    BACKUP,
    FORMAT,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    MARK,
    RECORD,
    RECORD_BYTES_MAX,
    STORE_ID_BYTES,
    SUM,
    Header,
    Kind,
    Records,
    Unreadable,
    format_header,
    format_record,
    parse_header,
    parse_records,
    seed_of,
)
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

CHUNK_ENTRIES: Final = 512

__all__ = [
    "BACKUP",
    "CHUNK_ENTRIES",
    "FORMAT",
    "HEADER",
    "HEADER_BYTES",
    "MAGIC",
    "MARK",
    "RECORD",
    "RECORD_BYTES_MAX",
    "STORE_ID_BYTES",
    "SUM",
    "Header",
    "Kind",
    "Records",
    "Start",
    "Unreadable",
    "format_command",
    "format_group",
    "format_header",
    "format_record",
    "format_snapshot",
    "format_start",
    "parse_group",
    "parse_header",
    "parse_records",
    "parse_snapshot",
    "parse_start",
    "seed_of",
    "store_id",
]


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
