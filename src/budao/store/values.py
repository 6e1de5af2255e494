"""What is kept, asked and answered: entries, spans of keys, transactions, changes, leases.

The meaning is that of etcd's API, version 3, since the best-known backend must match it. Keys are text, in the order of
their code points, which is also the order of their UTF-8 bytes; values are bytes. Revision 0 means "now" in a question
and "never" in an entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

KEY_BYTES_MAX: Final = 1024
"""A key is at most this long, as UTF-8, in every backend."""

LAST_CODE_POINT: Final = 0x10FFFF
SURROGATES: Final = range(0xD800, 0xE000)


@dataclass(frozen=True, slots=True)
class Entry:
    """One key as it stands at some revision."""

    key: str
    value: bytes
    created: int
    """The revision at which the key came to be, anew after each delete."""
    modified: int
    """The revision of the latest put."""
    version: int
    """Puts since it came to be: 1 for a new key."""
    lease: int = 0
    """The lease it lives by; 0 if it needs none."""


@dataclass(frozen=True, slots=True)
class Span:
    """The keys from `start` up to and without `stop`; with no `stop`, all from `start` on."""

    start: str
    stop: str | None

    @classmethod
    def one(cls, key: str) -> Span:
        """Just this key."""
        return cls(key, key + "\0")

    @classmethod
    def prefix(cls, prefix: str) -> Span:
        """Every key that begins so; with "" every key."""
        return cls(prefix or "\0", _after(prefix))

    @property
    def is_one(self) -> bool:
        """Whether it holds a single key."""
        return self.stop == self.start + "\0"

    def __contains__(self, key: str) -> bool:
        return self.start <= key and (self.stop is None or key < self.stop)


def _after(prefix: str) -> str | None:
    """The first text that is above every text that begins with `prefix`."""
    for index in range(len(prefix) - 1, -1, -1):
        point = ord(prefix[index]) + 1
        if point in SURROGATES:
            point = SURROGATES.stop
        if point <= LAST_CODE_POINT:
            return prefix[:index] + chr(point)
    return None


class Field(Enum):
    """What of an entry a condition looks at. A key that is not there has 0 in every number, and no value at all."""

    VERSION = "version"
    CREATED = "created"
    MODIFIED = "modified"
    LEASE = "lease"
    VALUE = "value"


class Relation(Enum):
    """How it must stand to the number or value given."""

    EQUAL = "="
    NOT_EQUAL = "!="
    GREATER = ">"
    LESS = "<"


@dataclass(frozen=True, slots=True)
class Condition:
    """A claim about one key. A claim about the value of a key that is not there is false, whatever it says."""

    key: str
    field: Field
    relation: Relation
    against: int | bytes


def absent(key: str) -> Condition:
    """The key is not there."""
    return Condition(key, Field.VERSION, Relation.EQUAL, 0)


def present(key: str) -> Condition:
    """The key is there."""
    return Condition(key, Field.VERSION, Relation.GREATER, 0)


def unchanged(entry: Entry) -> Condition:
    """The key is as it was when `entry` was read."""
    return Condition(entry.key, Field.MODIFIED, Relation.EQUAL, entry.modified)


@dataclass(frozen=True, slots=True)
class Put:
    """Operation: set the value. A key put without a lease no longer lives by one."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Operation: remove what is there; its result is how many."""

    span: Span


@dataclass(frozen=True, slots=True)
class Read:
    """Operation: read, inside a transaction, what the operations before it made. 0 means no limit."""

    span: Span
    limit: int = 0


Operation = Put | Delete | Read


@dataclass(frozen=True, slots=True)
class Txn:
    """If every condition holds, do `then`, else `otherwise`: all at once, at one revision.

    No key may be put twice, or both put and deleted, by one branch.
    """

    when: tuple[Condition, ...] = ()
    then: tuple[Operation, ...] = ()
    otherwise: tuple[Operation, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """The entries of a span at one revision, by key."""

    revision: int
    """The revision of the whole store when it answered, also where an older one was asked for."""
    entries: tuple[Entry, ...]
    more: bool = False
    """Whether the limit left some out."""

    @property
    def first(self) -> Entry | None:
        """The entry, where one key was asked for."""
        return self.entries[0] if self.entries else None


Result = None | int | Page
"""Of a put, a delete, a read."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What a transaction did."""

    revision: int
    """Of the store afterwards. It grows by one if anything was put or deleted."""
    held: bool
    """Whether the conditions held, so that `then` was done and not `otherwise`."""
    results: tuple[Result, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One key changed: put if `entry` is there, deleted if not."""

    key: str
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything one revision changed within the span that is watched, each key once. Never empty."""

    revision: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Lease:
    """A life that must be renewed: keys put with it are deleted when it ends.

    Units:   `ttl_s` is what the store granted, in seconds; it may be more than was asked for.
    """

    id: int
    ttl_s: float


@dataclass(frozen=True, slots=True)
class LeaseView:
    """A lease as it stands.

    Units:   seconds; `left_s` is the time until it ends unless it is renewed.
    """

    id: int
    ttl_s: float
    left_s: float
    keys: tuple[str, ...]
