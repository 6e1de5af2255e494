"""What etcd and gRPC say, in the words of a store. The only place where their codes and sentences are read.

Source: etcd api/v3rpc/rpctypes/error.go; the sentences are the same in 3.4, 3.5 and 3.6.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from grpc import StatusCode
from grpc.aio import AioRpcError

from budao.store import StoreDenied, StoreError, StoreRefused


class Lost(Exception):
    """The connection was given up while a request was under way."""


class Turn(Enum):
    """What to do after a request that was not answered."""

    UNDONE = "it was not carried out; ask another endpoint"
    UNKNOWN = "it may have been carried out"
    TOKEN = "it was not carried out, since the token has run out"
    GONE = "the lease is gone"
    COMPACTED = "the revision is forgotten"


SENTENCES: Final[tuple[tuple[str, Turn], ...]] = (
    ("requested lease not found", Turn.GONE),
    ("required revision has been compacted", Turn.COMPACTED),
    ("invalid auth token", Turn.TOKEN),
    ("revision of auth store is old", Turn.TOKEN),
    ("no leader", Turn.UNDONE),
    ("not capable", Turn.UNDONE),
    ("too many requests", Turn.UNDONE),
    ("not supported for learner", Turn.UNDONE),
    # gRPC's own, before a byte of the request has left.
    ("failed to connect to all addresses", Turn.UNDONE),
)

DENIED: Final = (
    "permission denied",
    "user name is empty",
    "authentication failed",
    "user name not found",
    "permission not given",
)

REFUSED: Final = frozenset(
    {
        StatusCode.INVALID_ARGUMENT,
        StatusCode.OUT_OF_RANGE,
        StatusCode.FAILED_PRECONDITION,
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.UNIMPLEMENTED,
    }
)


def understood(error: AioRpcError, name: str, tried: str) -> Turn | StoreError:
    """What an answer that is an error means: what to do next, or what to raise."""
    code, details = error.code(), error.details() or ""
    sentence = details.removeprefix("etcdserver: ").removeprefix("mvcc: ")
    return of_sentence(sentence, name) or (
        StoreRefused(tried, sentence or code.name.lower())
        if code in REFUSED
        else StoreDenied(name, sentence)
        if code in {StatusCode.PERMISSION_DENIED, StatusCode.UNAUTHENTICATED}
        else Turn.UNKNOWN
    )


def of_sentence(sentence: str, name: str) -> Turn | StoreError | None:
    """What a sentence of etcd means, where the sentence is enough."""
    for part, turn in SENTENCES:
        if part in sentence:
            return turn
    if any(part in sentence for part in DENIED):
        return StoreDenied(name, sentence)
    return None


def happened(error: AioRpcError) -> str:
    """An error in a few words, for a message."""
    return f"{error.code().name.lower().replace('_', ' ')}: {(error.details() or 'no details')[:200]}"
