"""Revisioned keys with leases and watches: the meaning that every backend must match.

Nothing here is durable, and nothing here sends: a backend keeps and carries what these machines decide.
"""

from budao.store.errors import Compacted, LeaseGone, StoreAway, StoreDenied, StoreError, StoreRefused
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
    "Batch",
    "Change",
    "Committed",
    "Compacted",
    "Condition",
    "Delete",
    "Entry",
    "Field",
    "Lease",
    "LeaseGone",
    "LeaseView",
    "Operation",
    "Page",
    "Put",
    "Read",
    "Relation",
    "Result",
    "Span",
    "StoreAway",
    "StoreDenied",
    "StoreError",
    "StoreRefused",
    "Txn",
    "absent",
    "present",
    "unchanged",
]
