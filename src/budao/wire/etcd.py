"""The messages of etcd's API, version 3, as far as a store needs them. Keys and values are bytes here.

Fields that nothing reads are left out, and skipped when they come. A `oneof` is one field per choice, None where it was
not chosen.

Source: etcd api/etcdserverpb/rpc.proto and api/mvccpb/kv.proto, as of etcd 3.6; all of it is in 3.4 too.
"""

# ruff: noqa: D101, RUF009 - the names are those of rpc.proto, which explains them; a field is a call that says its number

from __future__ import annotations

from dataclasses import dataclass

from budao.wire.protobuf import flag, many, many_raw, many_text, maybe_number, maybe_raw, number, one, raw, text


@dataclass(frozen=True, slots=True)
class Header:
    member_id: int = number(2)
    """Member ids are numbers of 64 bits without a sign; here the upper half of them is negative. Compare them only."""
    revision: int = number(3)


@dataclass(frozen=True, slots=True)
class KeyValue:
    key: bytes = raw(1)
    create_revision: int = number(2)
    mod_revision: int = number(3)
    version: int = number(4)
    value: bytes = raw(5)
    lease: int = number(6)


PUT = 0
DELETE = 1


@dataclass(frozen=True, slots=True)
class Event:
    type: int = number(1)
    kv: KeyValue | None = one(2, KeyValue)


@dataclass(frozen=True, slots=True)
class RangeRequest:
    key: bytes = raw(1)
    range_end: bytes = raw(2)
    limit: int = number(3)
    revision: int = number(4)
    serializable: bool = flag(7)
    keys_only: bool = flag(8)
    count_only: bool = flag(9)


@dataclass(frozen=True, slots=True)
class RangeResponse:
    header: Header | None = one(1, Header)
    kvs: tuple[KeyValue, ...] = many(2, KeyValue)
    more: bool = flag(3)
    count: int = number(4)


@dataclass(frozen=True, slots=True)
class PutRequest:
    key: bytes = raw(1)
    value: bytes = raw(2)
    lease: int = number(3)


@dataclass(frozen=True, slots=True)
class PutResponse:
    header: Header | None = one(1, Header)


@dataclass(frozen=True, slots=True)
class DeleteRangeRequest:
    key: bytes = raw(1)
    range_end: bytes = raw(2)


@dataclass(frozen=True, slots=True)
class DeleteRangeResponse:
    header: Header | None = one(1, Header)
    deleted: int = number(2)


@dataclass(frozen=True, slots=True)
class RequestOp:
    range: RangeRequest | None = one(1, RangeRequest)
    put: PutRequest | None = one(2, PutRequest)
    delete_range: DeleteRangeRequest | None = one(3, DeleteRangeRequest)


@dataclass(frozen=True, slots=True)
class ResponseOp:
    range: RangeResponse | None = one(1, RangeResponse)
    put: PutResponse | None = one(2, PutResponse)
    delete_range: DeleteRangeResponse | None = one(3, DeleteRangeResponse)


EQUAL = 0
GREATER = 1
LESS = 2
NOT_EQUAL = 3

VERSION = 0
CREATE = 1
MOD = 2
VALUE = 3
LEASE = 4


@dataclass(frozen=True, slots=True)
class Compare:
    result: int = number(1)
    target: int = number(2)
    key: bytes = raw(3)
    version: int | None = maybe_number(4)
    create_revision: int | None = maybe_number(5)
    mod_revision: int | None = maybe_number(6)
    value: bytes | None = maybe_raw(7)
    lease: int | None = maybe_number(8)


@dataclass(frozen=True, slots=True)
class TxnRequest:
    compare: tuple[Compare, ...] = many(1, Compare)
    success: tuple[RequestOp, ...] = many(2, RequestOp)
    failure: tuple[RequestOp, ...] = many(3, RequestOp)


@dataclass(frozen=True, slots=True)
class TxnResponse:
    header: Header | None = one(1, Header)
    succeeded: bool = flag(2)
    responses: tuple[ResponseOp, ...] = many(3, ResponseOp)


@dataclass(frozen=True, slots=True)
class CompactionRequest:
    revision: int = number(1)
    physical: bool = flag(2)


@dataclass(frozen=True, slots=True)
class CompactionResponse:
    header: Header | None = one(1, Header)


@dataclass(frozen=True, slots=True)
class WatchCreateRequest:
    key: bytes = raw(1)
    range_end: bytes = raw(2)
    start_revision: int = number(3)
    progress_notify: bool = flag(4)
    watch_id: int = number(7)
    fragment: bool = flag(8)


@dataclass(frozen=True, slots=True)
class WatchCancelRequest:
    watch_id: int = number(1)


@dataclass(frozen=True, slots=True)
class WatchProgressRequest:
    pass


@dataclass(frozen=True, slots=True)
class WatchRequest:
    create: WatchCreateRequest | None = one(1, WatchCreateRequest)
    cancel: WatchCancelRequest | None = one(2, WatchCancelRequest)
    progress: WatchProgressRequest | None = one(3, WatchProgressRequest)


@dataclass(frozen=True, slots=True)
class WatchResponse:
    header: Header | None = one(1, Header)
    watch_id: int = number(2)
    created: bool = flag(3)
    canceled: bool = flag(4)
    compact_revision: int = number(5)
    cancel_reason: str = text(6)
    fragment: bool = flag(7)
    events: tuple[Event, ...] = many(11, Event)


@dataclass(frozen=True, slots=True)
class LeaseGrantRequest:
    ttl: int = number(1)
    id: int = number(2)


@dataclass(frozen=True, slots=True)
class LeaseGrantResponse:
    header: Header | None = one(1, Header)
    id: int = number(2)
    ttl: int = number(3)
    error: str = text(4)


@dataclass(frozen=True, slots=True)
class LeaseRevokeRequest:
    id: int = number(1)


@dataclass(frozen=True, slots=True)
class LeaseRevokeResponse:
    header: Header | None = one(1, Header)


@dataclass(frozen=True, slots=True)
class LeaseKeepAliveRequest:
    id: int = number(1)


@dataclass(frozen=True, slots=True)
class LeaseKeepAliveResponse:
    header: Header | None = one(1, Header)
    id: int = number(2)
    ttl: int = number(3)


@dataclass(frozen=True, slots=True)
class LeaseTimeToLiveRequest:
    id: int = number(1)
    keys: bool = flag(2)


@dataclass(frozen=True, slots=True)
class LeaseTimeToLiveResponse:
    header: Header | None = one(1, Header)
    id: int = number(2)
    ttl: int = number(3)
    granted_ttl: int = number(4)
    keys: tuple[bytes, ...] = many_raw(5)


@dataclass(frozen=True, slots=True)
class AuthenticateRequest:
    name: str = text(1)
    password: str = text(2)

    def __repr__(self) -> str:
        return f"AuthenticateRequest(name={self.name!r}, password=...)"


@dataclass(frozen=True, slots=True)
class AuthenticateResponse:
    header: Header | None = one(1, Header)
    token: str = text(2)

    def __repr__(self) -> str:
        return "AuthenticateResponse(token=...)"


@dataclass(frozen=True, slots=True)
class StatusRequest:
    pass


@dataclass(frozen=True, slots=True)
class StatusResponse:
    header: Header | None = one(1, Header)
    version: str = text(2)
    leader: int = number(4)
    errors: tuple[str, ...] = many_text(8)


@dataclass(frozen=True, slots=True)
class Member:
    id: int = number(1)
    name: str = text(2)
    peer_urls: tuple[str, ...] = many_text(3)
    client_urls: tuple[str, ...] = many_text(4)


@dataclass(frozen=True, slots=True)
class MemberListRequest:
    pass


@dataclass(frozen=True, slots=True)
class MemberListResponse:
    header: Header | None = one(1, Header)
    members: tuple[Member, ...] = many(2, Member)
