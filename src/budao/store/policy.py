"""The bounds of a store that this package keeps itself, and the checks of what it is asked to do.

The checks need no store, so a client can refuse what the server would refuse before anything is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Final

from budao.model import Checks
from budao.store.errors import StoreRefused
from budao.store.values import KEY_BYTES_MAX, Condition, Delete, Field, Operation, Put, Span, Txn

NUMBER_MAX: Final = 2**63 - 1
"""Revisions, versions and lease ids are at most this, on every wire."""

EDGE_BYTES_MAX: Final = KEY_BYTES_MAX + 3
"""What follows the longest key is a byte longer; what follows the longest prefix, by up to three."""

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePolicy:
    """What a store refuses to hold, and how much of the past it keeps.

    Units:   spans in seconds; bytes are those of keys (as UTF-8) and values, without what Python adds.
    Raises:  BadSettings with every problem, if the numbers cannot work together.
    """

    value_bytes_max: int = MIB
    """A longer value is refused."""
    operations_max: int = 128
    """Conditions of one transaction, and operations of each of its two branches."""
    txn_bytes_max: int = 3 * MIB // 2
    """Keys and values of one transaction together."""
    entries_max: int = 200_000
    """Keys held at once."""
    bytes_max: int = 256 * MIB
    """Keys and values held at once, the past not counted."""
    leases_max: int = 50_000
    """Leases alive at once."""
    ttl_min_s: float = 1.0
    """A lease that is asked to be shorter is granted for this long."""
    ttl_max_s: float = 86_400.0
    """A longer lease is refused."""
    history_revisions_max: int = 10_000
    """Revisions that can still be read and watched from; beyond, the oldest eighth is forgotten at once."""
    history_bytes_max: int = 64 * MIB
    """Keys and values that only the past still needs."""
    watchers_max: int = 10_000
    """Watches open at once, over all clients."""

    def __post_init__(self) -> None:
        check = Checks("store")
        check.count("value_bytes_max", self.value_bytes_max, 1, 1024 * MIB)
        check.count("operations_max", self.operations_max, 1, 10_000)
        check.count("txn_bytes_max", self.txn_bytes_max, 1, 1024 * MIB)
        check.count("entries_max", self.entries_max, 1)
        check.count("bytes_max", self.bytes_max, 1, 1024 * 1024 * MIB)
        check.count("leases_max", self.leases_max, 1)
        check.number("ttl_min_s", self.ttl_min_s, 0.0, 86_400.0, open_low=True)
        check.number("ttl_max_s", self.ttl_max_s, 0.0, 10 * 365 * 86_400.0, open_low=True)
        check.count("history_revisions_max", self.history_revisions_max, 1)
        check.count("history_bytes_max", self.history_bytes_max, 1, 1024 * 1024 * MIB)
        check.count("watchers_max", self.watchers_max, 1)
        if not check.problems:
            check.need(
                self.ttl_min_s <= self.ttl_max_s,
                "ttl_max_s",
                f"{self.ttl_max_s:g} s is shorter than ttl_min_s, {self.ttl_min_s:g} s",
            )
            check.need(
                self.txn_bytes_max >= self.value_bytes_max + KEY_BYTES_MAX,
                "txn_bytes_max",
                f"{self.txn_bytes_max} bytes do not hold one key of {KEY_BYTES_MAX} and one value of "
                f"value_bytes_max, {self.value_bytes_max}",
            )
        check.done()


def check_key(key: str, tried: str) -> int:
    """How many bytes a key has.

    Raises:  StoreRefused if it is empty, too long, or no text that UTF-8 can write.
    """
    size = _size(key, tried)
    if not size:
        raise StoreRefused(tried, "a key is never empty")
    if size > KEY_BYTES_MAX:
        raise StoreRefused(tried, f"the key {key[:64]!a}... has {size} bytes, the bound is {KEY_BYTES_MAX}")
    return size


def check_span(span: Span, tried: str) -> None:
    """Raises:  StoreRefused unless the span starts somewhere and stops, if it does, above its start."""
    if not span.start:
        raise StoreRefused(tried, "a span starts with nothing; that of every key is Span.prefix('')")
    size = _size(span.start, tried)
    if span.stop is not None:
        size = max(size, _size(span.stop, tried))
        if span.stop <= span.start:
            raise StoreRefused(tried, f"the span stops at {span.stop[:64]!a}, not above its start {span.start[:64]!a}")
    if size > EDGE_BYTES_MAX:
        raise StoreRefused(tried, f"the span {span.start[:64]!a}... has an edge of {size} bytes; no key is that long")


def _size(text: str, tried: str) -> int:
    try:
        return len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        problem = f"the key {text[:64]!a} holds half a surrogate pair, which UTF-8 cannot write"
        raise StoreRefused(tried, problem) from None


def check_number(number: int, name: str, tried: str) -> None:
    """Raises:  StoreRefused unless it is a whole number from 0 that every wire can carry."""
    if not 0 <= number <= NUMBER_MAX:
        raise StoreRefused(tried, f"{name} {number} is not from 0 to {NUMBER_MAX}")


def check_ttl(ttl_s: float, policy: StorePolicy) -> None:
    """Raises:  StoreRefused unless a lease may live that long."""
    if not (isfinite(ttl_s) and 0.0 < ttl_s <= policy.ttl_max_s):
        raise StoreRefused("grant a lease", f"{ttl_s:g} s is not above 0 and at most {policy.ttl_max_s:g}")


def check_txn(txn: Txn, policy: StorePolicy) -> None:
    """Raises:  StoreRefused if the transaction breaks a rule, or a bound that can be seen without a store."""
    for name, parts in (("conditions", txn.when), ("operations", txn.then), ("operations", txn.otherwise)):
        if len(parts) > policy.operations_max:
            raise StoreRefused("commit", f"{len(parts)} {name}, the bound is {policy.operations_max}")
    size = sum(map(_check_condition, txn.when)) + _check_branch(txn.then, policy)
    if txn.otherwise:
        size += _check_branch(txn.otherwise, policy)
    if size > policy.txn_bytes_max:
        raise StoreRefused("commit", f"{size} bytes of keys and values, the bound is {policy.txn_bytes_max}")


def _check_condition(condition: Condition) -> int:
    size = check_key(condition.key, "commit")
    against = condition.against
    if condition.field is Field.VALUE:
        if not isinstance(against, bytes):
            raise StoreRefused("commit", f"a condition holds the value of {condition.key[:64]!a} against a number")
        return size + len(against)
    if isinstance(against, bytes):
        raise StoreRefused("commit", f"a condition holds a number of {condition.key[:64]!a} against bytes")
    check_number(against, "a condition's number", "commit")
    return size


def _check_branch(operations: tuple[Operation, ...], policy: StorePolicy) -> int:
    size = 0
    put: set[str] = set()
    deleted: list[Span] = []
    for each in operations:
        if isinstance(each, Put):
            if len(each.value) > policy.value_bytes_max:
                bound = policy.value_bytes_max
                raise StoreRefused("commit", f"{each.key[:64]!a}: {len(each.value)} bytes, the bound is {bound}")
            if each.key in put:
                raise StoreRefused("commit", f"the key {each.key[:64]!a} is put twice")
            size += check_key(each.key, "commit") + len(each.value)
            check_number(each.lease, "lease", "commit")
            put.add(each.key)
        elif isinstance(each, Delete):
            check_span(each.span, "commit")
            deleted.append(each.span)
        else:
            check_span(each.span, "commit")
            check_number(each.limit, "limit", "commit")
    for span in deleted:
        for key in put:
            if key in span:
                raise StoreRefused("commit", f"the key {key[:64]!a} is both put and deleted")
    return size
