"""Revisioned keys with leases and watches: the meaning that every backend must match.

Nothing here is durable, and nothing here sends: a backend keeps and carries what these machines decide.
"""

from budao.store.commands import Answer, Command, Commit, Compact, Grant, Revoke
from budao.store.errors import Compacted, LeaseGone, StoreAway, StoreDenied, StoreError, StoreRefused
from budao.store.keeper import Keeper, Prepared, Snapshot
from budao.store.mirror import Mirror
from budao.store.patience import Patience, PatiencePolicy
from budao.store.policy import NUMBER_MAX, StorePolicy, check_key, check_span, check_ttl, check_txn
from budao.store.values import (
    KEY_BYTES_MAX,
    Batch,
    Change,
    Committed,
    Condition,
    Delete,
    Entry,
    Field,
    Lease,
    LeaseView,
    Operation,
    Page,
    Put,
    Read,
    Relation,
    Result,
    Span,
    Txn,
    absent,
    present,
    unchanged,
)

__all__ = [
    "KEY_BYTES_MAX",
    "NUMBER_MAX",
    "Answer",
    "Batch",
    "Change",
    "Command",
    "Commit",
    "Committed",
    "Compact",
    "Compacted",
    "Condition",
    "Delete",
    "Entry",
    "Field",
    "Grant",
    "Keeper",
    "Lease",
    "LeaseGone",
    "LeaseView",
    "Mirror",
    "Operation",
    "Page",
    "Patience",
    "PatiencePolicy",
    "Prepared",
    "Put",
    "Read",
    "Relation",
    "Result",
    "Revoke",
    "Snapshot",
    "Span",
    "StoreAway",
    "StoreDenied",
    "StoreError",
    "StorePolicy",
    "StoreRefused",
    "Txn",
    "absent",
    "check_key",
    "check_span",
    "check_ttl",
    "check_txn",
    "present",
    "unchanged",
]
