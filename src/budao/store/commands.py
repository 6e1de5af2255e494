"""Everything that can be done to a store's state: plain values that a journal can keep and play again."""

from __future__ import annotations

from dataclasses import dataclass

from budao.store.values import Committed, Lease, Txn


@dataclass(frozen=True, slots=True)
class Commit:
    """Command: carry out a transaction. Answered with `Committed`."""

    txn: Txn


@dataclass(frozen=True, slots=True)
class Grant:
    """Command: begin a lease; 0 lets the store choose the id. Answered with `Lease`."""

    lease: int
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Revoke:
    """Command: end a lease, and its keys with it. Also what expiry is."""

    lease: int


@dataclass(frozen=True, slots=True)
class Compact:
    """Command: forget what was before a revision."""

    revision: int


Command = Commit | Grant | Revoke | Compact
Answer = Committed | Lease | None
