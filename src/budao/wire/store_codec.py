"""The nouns of the store as lists that msgpack can carry, and back: for the journal, and for frames.

Numbers on the wire never change their meaning. Whoever reads checks every type, since bytes come from a stranger, or
from a disk; the rules of the store itself are checked by the store.
"""

from __future__ import annotations

from dataclasses import fields
from math import isfinite
from reprlib import Repr
from typing import Any, Final

from budao.model import BadSettings, LocalWireError, RemoteWireError
from budao.store import (
    Batch,
    Change,
    Command,
    Commit,
    Committed,
    Compact,
    Condition,
    Delete,
    Entry,
    Field,
    Grant,
    Lease,
    LeaseView,
    Operation,
    Page,
    Put,
    Read,
    Relation,
    Result,
    Revoke,
    Span,
    StorePolicy,
    Txn,
)

Plain = Any
"""What msgpack gives or takes."""

FIELDS: Final = (Field.VERSION, Field.CREATED, Field.MODIFIED, Field.LEASE, Field.VALUE)
RELATIONS: Final = (Relation.EQUAL, Relation.NOT_EQUAL, Relation.GREATER, Relation.LESS)
NUMBER_OF_FIELD: Final = {field: number for number, field in enumerate(FIELDS)}
NUMBER_OF_RELATION: Final = {relation: number for number, relation in enumerate(RELATIONS)}

OPERATIONS_MAX: Final = 10_000
"""Of each kind in one transaction; no policy allows more. Half a million would be read before a policy could say so."""

COMMIT, GRANT, REVOKE, COMPACT = range(4)
PUT, DELETE, READ = range(3)


_SHOWN: Final = Repr()
"""Bounded in depth and length: a stranger's value may nest deeper than `repr` can follow, or be as long as a frame."""
_SHOWN.maxstring = _SHOWN.maxother = 80


def wrong(what: str, value: object) -> RemoteWireError:
    """What to raise for something else than `what`."""
    return RemoteWireError(f"{what} cannot be {_SHOWN.repr(value)[:80]}")


def parts(value: Plain, count: int, what: str) -> list[Plain]:
    """A list of so many."""
    if type(value) is not list or len(value) != count:
        raise wrong(what, value)
    return value


def many(value: Plain, what: str) -> list[Plain]:
    """A list."""
    if type(value) is not list:
        raise wrong(what, value)
    return value


def number(value: Plain, what: str) -> int:
    """A whole number from 0."""
    if type(value) is not int or value < 0:
        raise wrong(what, value)
    return value


def text(value: Plain, what: str) -> str:
    """A text."""
    if type(value) is not str:
        raise wrong(what, value)
    return value


def octets(value: Plain, what: str) -> bytes:
    """Bytes."""
    if type(value) is not bytes:
        raise wrong(what, value)
    return value


def flag(value: Plain, what: str) -> bool:
    """Yes or no."""
    if type(value) is not bool:
        raise wrong(what, value)
    return value


def span_s(value: Plain, what: str) -> float:
    """Seconds."""
    if type(value) not in {int, float} or not isfinite(value):
        raise wrong(what, value)
    return float(value)


# ------------------------------------------------------------------------------------------------- values


def plain_span(span: Span) -> Plain:
    """A span, to be packed."""
    return [span.start, span.stop]


def parse_span(value: Plain) -> Span:
    """A span, unpacked. Raises RemoteWireError."""
    start, stop = parts(value, 2, "a span")
    return Span(text(start, "the start of a span"), None if stop is None else text(stop, "the stop of a span"))


def plain_entry(entry: Entry) -> Plain:
    """An entry, to be packed."""
    return [entry.key, entry.value, entry.created, entry.modified, entry.version, entry.lease]


def parse_entry(value: Plain) -> Entry:
    """An entry, unpacked. Raises RemoteWireError."""
    key, content, created, modified, version, lease = parts(value, 6, "an entry")
    return Entry(
        text(key, "a key"),
        octets(content, "a value"),
        number(created, "a revision"),
        number(modified, "a revision"),
        number(version, "a version"),
        number(lease, "a lease"),
    )


def plain_lease(lease: Lease) -> Plain:
    """A lease, to be packed."""
    return [lease.id, lease.ttl_s]


def parse_lease(value: Plain) -> Lease:
    """A lease, unpacked. Raises RemoteWireError."""
    lease, ttl_s = parts(value, 2, "a lease")
    return Lease(number(lease, "a lease"), span_s(ttl_s, "a lease's span"))


def plain_view(view: LeaseView) -> Plain:
    """A view of a lease, to be packed."""
    return [view.id, view.ttl_s, view.left_s, list(view.keys)]


def parse_view(value: Plain) -> LeaseView:
    """A view of a lease, unpacked. Raises RemoteWireError."""
    lease, ttl_s, left_s, keys = parts(value, 4, "a lease")
    named = tuple(text(key, "a key") for key in many(keys, "keys"))
    return LeaseView(number(lease, "a lease"), span_s(ttl_s, "a span"), span_s(left_s, "a span"), named)


def plain_batch(batch: Batch) -> Plain:
    """A batch, to be packed."""
    changes = [
        [change.key] if change.entry is None else [change.key, *plain_entry(change.entry)[1:]]
        for change in batch.changes
    ]
    return [batch.revision, changes]


def parse_batch(value: Plain) -> Batch:
    """A batch, unpacked. Raises RemoteWireError."""
    revision, changes = parts(value, 2, "a batch")
    parsed = tuple(map(_parse_change, many(changes, "changes")))
    if not parsed:
        raise RemoteWireError("a batch is never empty")
    return Batch(number(revision, "a revision"), parsed)


def _parse_change(value: Plain) -> Change:
    change = many(value, "a change")
    if len(change) == 1:
        return Change(text(change[0], "a key"), None)
    entry = parse_entry(change)
    return Change(entry.key, entry)


def plain_page(page: Page) -> Plain:
    """A page, to be packed."""
    return [page.revision, list(map(plain_entry, page.entries)), page.more]


def parse_page(value: Plain) -> Page:
    """A page, unpacked. Raises RemoteWireError."""
    revision, entries, more = parts(value, 3, "a page")
    parsed = tuple(map(parse_entry, many(entries, "entries")))
    return Page(number(revision, "a revision"), parsed, flag(more, "the mark of a cut page"))


def plain_committed(committed: Committed) -> Plain:
    """An answer to a commit, to be packed."""
    results = [plain_page(each) if isinstance(each, Page) else each for each in committed.results]
    return [committed.revision, committed.held, results]


def parse_committed(value: Plain) -> Committed:
    """An answer to a commit, unpacked. Raises RemoteWireError."""
    revision, held, results = parts(value, 3, "the answer to a commit")
    parsed = tuple(map(_parse_result, many(results, "results")))
    return Committed(number(revision, "a revision"), flag(held, "whether it held"), parsed)


def _parse_result(value: Plain) -> Result:
    if value is None:
        return None
    return parse_page(value) if type(value) is list else number(value, "a count")


# ----------------------------------------------------------------------------------------------- commands


def plain_txn(txn: Txn) -> Plain:
    """A transaction, to be packed. Raises LocalWireError if it has more parts than any store takes."""
    longest = max(map(len, (txn.when, txn.then, txn.otherwise)))
    if longest > OPERATIONS_MAX:
        raise LocalWireError(f"{longest} conditions or operations, the bound is {OPERATIONS_MAX}")
    when = [[c.key, NUMBER_OF_FIELD[c.field], NUMBER_OF_RELATION[c.relation], c.against] for c in txn.when]
    return [when, list(map(_plain_operation, txn.then)), list(map(_plain_operation, txn.otherwise))]


def parse_txn(value: Plain) -> Txn:
    """A transaction, unpacked. Raises RemoteWireError."""
    when, then, otherwise = (many(each, "part of a transaction") for each in parts(value, 3, "a transaction"))
    if max(map(len, (when, then, otherwise))) > OPERATIONS_MAX:
        raise RemoteWireError(f"a transaction has at most {OPERATIONS_MAX} conditions or operations of a kind")
    return Txn(
        tuple(map(_parse_condition, when)),
        tuple(map(_parse_operation, then)),
        tuple(map(_parse_operation, otherwise)),
    )


def _parse_condition(value: Plain) -> Condition:
    key, field, relation, against = parts(value, 4, "a condition")
    if number(field, "a field") >= len(FIELDS) or number(relation, "a relation") >= len(RELATIONS):
        raise wrong("a condition", value)
    if type(against) is not bytes:
        number(against, "what a condition is held against")
    return Condition(text(key, "a key"), FIELDS[field], RELATIONS[relation], against)


def _plain_operation(operation: Operation) -> Plain:
    if isinstance(operation, Put):
        return [PUT, operation.key, operation.value, operation.lease]
    if isinstance(operation, Delete):
        return [DELETE, operation.span.start, operation.span.stop]
    return [READ, operation.span.start, operation.span.stop, operation.limit]


def _parse_operation(value: Plain) -> Operation:
    kind = many(value, "an operation")[:1]
    if kind == [PUT]:
        _, key, content, lease = parts(value, 4, "a put")
        return Put(text(key, "a key"), octets(content, "a value"), number(lease, "a lease"))
    if kind == [DELETE]:
        return Delete(parse_span(parts(value, 3, "a delete")[1:]))
    if kind == [READ]:
        return Read(parse_span(parts(value, 4, "a read")[1:3]), number(value[3], "a limit"))
    raise wrong("an operation", value)


def plain_command(command: Command) -> Plain:
    """A command, to be packed."""
    if isinstance(command, Commit):
        return [COMMIT, *plain_txn(command.txn)]
    if isinstance(command, Grant):
        return [GRANT, command.lease, command.ttl_s]
    if isinstance(command, Revoke):
        return [REVOKE, command.lease]
    return [COMPACT, command.revision]


def parse_command(value: Plain) -> Command:
    """A command, unpacked. Raises RemoteWireError."""
    kind = many(value, "a command")[:1]
    if kind == [COMMIT]:
        return Commit(parse_txn(value[1:]))
    if kind == [GRANT]:
        _, lease, ttl_s = parts(value, 3, "a grant")
        return Grant(number(lease, "a lease"), span_s(ttl_s, "a span"))
    if kind == [REVOKE]:
        return Revoke(number(parts(value, 2, "a revoke")[1], "a lease"))
    if kind == [COMPACT]:
        return Compact(number(parts(value, 2, "a compaction")[1], "a revision"))
    raise wrong("a command", value)


def plain_policy(policy: StorePolicy) -> Plain:
    """A policy, to be packed."""
    return {field.name: getattr(policy, field.name) for field in fields(policy)}


def parse_policy(value: Plain) -> StorePolicy:
    """A policy of an older version lacks some names, and has then their defaults of today."""
    known = {field.name for field in fields(StorePolicy)}
    if type(value) is not dict or not all(isinstance(name, str) for name in value):
        raise wrong("a policy", value)
    settings = {name: setting for name, setting in value.items() if name in known}
    if any(type(setting) not in {int, float} for setting in settings.values()):
        raise wrong("a policy", value)  # what nests could be too deep for the message that shows it
    try:
        return StorePolicy(**settings)
    except BadSettings as problem:
        raise RemoteWireError(f"the policy does not hold together: {problem}") from problem
