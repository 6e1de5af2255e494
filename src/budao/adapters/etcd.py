"""A `Store` kept by an etcd cluster, version 3.4 or newer: `pip install budao[etcd]`.

    async with EtcdStore(["10.0.0.1:2379", "10.0.0.2:2379", "10.0.0.3:2379"]) as store:
        await store.commit(Txn(then=(Put("greeting", b"hello"),)))

The messages are written by a codec of our own, so no version of the protobuf package is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from math import ceil
from random import Random
from types import TracebackType
from typing import Final, Self, TypeVar

import grpc
from grpc.aio import AioRpcError

from budao.adapters._etcd_leases import Renewals
from budao.adapters._etcd_links import Link, Links, Metadata
from budao.adapters._etcd_said import Lost, Turn, happened, understood
from budao.adapters._etcd_watches import Watches, entry_of, span_of
from budao.aio import is_loopback
from budao.model import Checks, RemoteWireError
from budao.store import (
    NUMBER_MAX,
    Batch,
    Committed,
    Compacted,
    Condition,
    Delete,
    Field,
    Lease,
    LeaseGone,
    LeaseView,
    Operation,
    Page,
    Put,
    Relation,
    Result,
    Span,
    StoreAway,
    StoreDenied,
    StoreError,
    StorePolicy,
    StoreRefused,
    Txn,
    check_span,
    check_ttl,
    check_txn,
)
from budao.wire import etcd, protobuf

__all__ = ["EtcdStore", "Tls"]

ReplyT = TypeVar("ReplyT")

RANGE: Final = "/etcdserverpb.KV/Range"
TXN: Final = "/etcdserverpb.KV/Txn"
COMPACT: Final = "/etcdserverpb.KV/Compact"
GRANT: Final = "/etcdserverpb.Lease/LeaseGrant"
REVOKE: Final = "/etcdserverpb.Lease/LeaseRevoke"
TIME_TO_LIVE: Final = "/etcdserverpb.Lease/LeaseTimeToLive"
AUTHENTICATE: Final = "/etcdserverpb.Auth/Authenticate"

LEADER: Final[Metadata] = (("hasleader", "true"),)
"""A member without a leader then says so at once, and ends a stream, where it would wait, or be silent for ever."""
OLDEST_S: Final = 1.0
"""How long to look for the oldest revision, which etcd does not say where it refuses an older one."""
TOKENS_MAX: Final = 3
"""Tokens tried for one request."""

TARGETS: Final = {
    Field.VERSION: (etcd.VERSION, "version"),
    Field.CREATED: (etcd.CREATE, "create_revision"),
    Field.MODIFIED: (etcd.MOD, "mod_revision"),
    Field.VALUE: (etcd.VALUE, "value"),
    Field.LEASE: (etcd.LEASE, "lease"),
}
RELATIONS: Final = {
    Relation.EQUAL: etcd.EQUAL,
    Relation.NOT_EQUAL: etcd.NOT_EQUAL,
    Relation.GREATER: etcd.GREATER,
    Relation.LESS: etcd.LESS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How to speak TLS with etcd, each part as PEM."""

    authority: bytes | None = None
    """Who signs the servers' certificates; None for the authorities gRPC knows."""
    certificate: bytes | None = None
    """Our own certificate, with those between it and the authority, if the servers ask for one."""
    key: bytes | None = field(default=None, repr=False)
    """The key of it."""
    server_name: str | None = None
    """The name in the servers' certificates, if it is not in the endpoint."""

    def __post_init__(self) -> None:
        check = Checks("tls")
        check.need((self.certificate is None) == (self.key is None), "key", "a certificate and its key come together")
        check.done()


class EtcdStore:
    """A `Store` on etcd. Any number of tasks on one event loop may share it.

    Needs a running event loop from its first request on. What the cluster may hold is bounded by the cluster; `policy`
    refuses what other stores would refuse too, before it is sent.

    Units:   `timeout_s` is for one request, all endpoints tried; an endpoint that says nothing for `silence_max_s` is
             left; a watch raises `StoreAway` once nothing has come from any endpoint for `away_max_s`.
    Raises:  BadSettings with every problem.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        username: str | None = None,
        password: str | None = None,
        tls: Tls | None = None,
        timeout_s: float = 5.0,
        silence_max_s: float = 2.0,
        away_max_s: float = 10.0,
        reply_bytes_max: int = 256 * 1024 * 1024,
        policy: StorePolicy | None = None,
        rng: Random | None = None,
    ) -> None:
        check = Checks("etcd")
        check.need(bool(endpoints) and not isinstance(endpoints, str), "endpoints", "at least one host:port is needed")
        check.need((username is None) == (password is None), "password", "a user name and a password come together")
        check.number("timeout_s", timeout_s, 0.1, 3_600.0)
        check.number("silence_max_s", silence_max_s, 1.25, 3_600.0)
        check.number("away_max_s", away_max_s, 0.1, 86_400.0)
        check.count("reply_bytes_max", reply_bytes_max, 4 * 1024 * 1024, 2**31 - 1)
        if password is not None and tls is None:
            for endpoint in endpoints:
                host = endpoint.rpartition(":")[0].strip("[]")
                check.need(
                    is_loopback(host), "tls", f"the password would travel to {host!r} in the clear; give Tls(...)"
                )
        check.done()
        self.name = f"etcd {','.join(endpoints)}"
        self._username = username
        self._password = password
        self._token: str | None = None
        self._authenticating: asyncio.Task[str] | None = None
        self._timeout_s = timeout_s
        self._policy = policy or StorePolicy()
        self._links = Links(
            endpoints,
            credentials=None if tls is None else grpc.ssl_channel_credentials(tls.authority, tls.key, tls.certificate),
            reply_bytes_max=reply_bytes_max,
            server_name=None if tls is None else tls.server_name,
            silence_max_s=silence_max_s,
            rng=rng or Random(),
        )
        self._watches = Watches(
            self._links,
            self.name,
            self._metadata,
            self._forget,
            away_max_s=away_max_s,
            reply_bytes_max=reply_bytes_max,
        )
        self._renewals = Renewals(self._link_for_renewals)

    def __repr__(self) -> str:
        return f"<EtcdStore {self.name}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- the contract

    async def read(self, span: Span, *, revision: int = 0, limit: int = 0) -> Page:
        check_span(span, "read")
        _check_numbers("read", revision=revision, limit=limit)
        request = _range_request(span, limit, revision)
        try:
            reply = await self._ask(RANGE, request, etcd.RangeResponse, "read", is_safe=True)
        except _Turned:
            raise Compacted(revision, await self._oldest(span, revision)) from None
        return _page(reply)

    async def commit(self, txn: Txn) -> Committed:
        check_txn(txn, self._policy)
        reads_only = all(isinstance(each, Put | Delete) is False for each in (*txn.then, *txn.otherwise))
        request = etcd.TxnRequest(
            tuple(map(_compare, txn.when)),
            tuple(map(_operation, txn.then)),
            tuple(map(_operation, txn.otherwise)),
        )
        try:
            reply = await self._ask(TXN, request, etcd.TxnResponse, "commit", is_safe=reads_only)
        except _Turned as turned:
            raise await self._lease_gone(txn) from turned
        done = txn.then if reply.succeeded else txn.otherwise
        if reply.header is None or len(reply.responses) != len(done):
            raise StoreAway(self.name, "it answered with half a transaction", may_have_taken_effect=not reads_only)
        return Committed(reply.header.revision, reply.succeeded, tuple(map(_result, reply.responses)))

    def watch(self, span: Span, *, after: int) -> AsyncIterator[Batch]:
        check_span(span, "watch")
        _check_numbers("watch", revision=after)
        return self._watches.follow(span, after)

    async def grant(self, ttl_s: float, *, lease: int = 0) -> Lease:
        check_ttl(ttl_s, self._policy)
        _check_numbers("grant a lease", lease=lease)
        request = etcd.LeaseGrantRequest(ceil(ttl_s), lease)
        # Asked for twice, a lease without an id that was given is granted twice, and one of the two runs out unused.
        reply = await self._ask(GRANT, request, etcd.LeaseGrantResponse, "grant a lease", is_safe=not lease)
        if reply.error:
            raise StoreRefused("grant a lease", reply.error)
        return Lease(reply.id, float(reply.ttl))

    async def keep_alive(self, lease: int) -> Lease:
        _check_numbers("renew a lease", lease=lease)
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout_s
        tries, said = 0, ""
        while (left_s := until - loop.time()) > 0:
            try:
                async with asyncio.timeout(left_s):
                    _, ttl = await self._renewals.renew(lease)
            except TimeoutError:
                await self._renewals.drop()
                said = said or f"no renewal within {self._timeout_s:g} s"
                break
            except Lost as lost:
                said = str(lost)
            except (AioRpcError, RemoteWireError) as error:
                said = await self._turn_renewals(error)
            else:
                if ttl <= 0:
                    raise LeaseGone(lease)
                return Lease(lease, float(ttl))
            tries += 1
            await self._links.pause(tries)
        raise StoreAway(self.name, said, may_have_taken_effect=True)

    async def revoke(self, lease: int) -> None:
        _check_numbers("revoke a lease", lease=lease)
        try:
            await self._ask(
                REVOKE, etcd.LeaseRevokeRequest(lease), etcd.LeaseRevokeResponse, "revoke a lease", is_safe=True
            )
        except _Turned as turned:
            if not turned.asked_before:
                raise LeaseGone(lease) from None
            # An earlier try that was not answered has done it.

    async def look_up(self, lease: int) -> LeaseView:
        _check_numbers("look up a lease", lease=lease)
        request = etcd.LeaseTimeToLiveRequest(lease, keys=True)
        try:
            reply = await self._ask(
                TIME_TO_LIVE, request, etcd.LeaseTimeToLiveResponse, "look up a lease", is_safe=True
            )
        except _Turned:
            raise LeaseGone(lease) from None
        if reply.ttl <= 0:
            raise LeaseGone(lease)
        keys = tuple(sorted(key.decode(errors="surrogateescape") for key in reply.keys))
        return LeaseView(lease, float(reply.granted_ttl), float(reply.ttl), keys)

    async def compact(self, revision: int) -> None:
        _check_numbers("compact", revision=revision)
        try:
            await self._ask(
                COMPACT, etcd.CompactionRequest(revision), etcd.CompactionResponse, "compact", is_safe=False
            )
        except _Turned:
            raise Compacted(revision, await self._oldest(Span.prefix(""), revision)) from None

    async def aclose(self) -> None:
        await self._watches.aclose()
        await self._renewals.drop()
        if self._authenticating is not None:
            self._authenticating.cancel()
        await self._links.aclose()

    # -- asking

    async def _ask(self, method: str, request: object, reply: type[ReplyT], tried: str, *, is_safe: bool) -> ReplyT:
        """Asks one endpoint after the other. What may not be repeated is sent again only if it cannot have been done.

        Raises:  StoreError; _Turned for a lease that is gone, or a revision that is forgotten.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout_s
        message = protobuf.encode(request)
        asked_before = False
        tries, tokens, said = 0, 0, ""
        while True:
            try:
                link = await self._links.reach(until)
            except Lost as lost:
                raise StoreAway(
                    self.name, said or str(lost), may_have_taken_effect=asked_before and not is_safe
                ) from lost
            metadata = await self._metadata(link)
            answer = await self._try(link, method, message, metadata, max(0.001, until - loop.time()), tried, reply)
            if not isinstance(answer, tuple):
                return answer
            turn, said = answer
            if turn in {Turn.GONE, Turn.COMPACTED}:
                raise _Turned(turn, asked_before=asked_before)
            if turn is Turn.TOKEN:
                tokens += 1
                if tokens == TOKENS_MAX:
                    raise StoreDenied(self.name, "it does not take the tokens it gives")
                self._forget(metadata)
                continue
            if turn is Turn.UNKNOWN:
                asked_before = True
            may_have = asked_before and not is_safe
            if may_have or loop.time() >= until:
                raise StoreAway(self.name, said, may_have_taken_effect=may_have)
            tries += 1
            await self._links.pause(tries // len(self._links.addresses))

    async def _try(
        self,
        link: Link,
        method: str,
        message: bytes,
        metadata: Metadata,
        timeout_s: float,
        tried: str,
        reply: type[ReplyT],
    ) -> ReplyT | tuple[Turn, str]:
        """Asks once. Answers what came, or what to do next and what happened."""
        try:
            return protobuf.decode(reply, await link.ask(method, message, metadata, timeout_s))
        except Lost as lost:
            return Turn.UNKNOWN, str(lost)
        except AioRpcError as error:
            turn = understood(error, self.name, tried)
            if isinstance(turn, StoreError):
                raise turn from error
            if turn in {Turn.UNDONE, Turn.UNKNOWN}:
                self._links.skip(link, happened(error))
            return turn, f"{link.address}: {happened(error)}"
        except RemoteWireError as error:
            self._links.skip(link, "it answers with something else than etcd does")
            return Turn.UNKNOWN, f"{link.address}: it answers with something else than etcd does: {error}"

    async def _turn_renewals(self, error: AioRpcError | RemoteWireError) -> str:
        """What to do after the stream of renewals ended with an error; answers what happened."""
        if isinstance(error, RemoteWireError):
            return f"it answers with something else than etcd does: {error}"
        turn = understood(error, self.name, "renew a lease")
        if isinstance(turn, StoreError):
            raise turn from error
        if turn is Turn.TOKEN:
            self._forget()
        else:
            with suppress(Lost):
                self._links.skip(await self._links.reach(0.0), happened(error))
        return happened(error)

    async def _link_for_renewals(self) -> tuple[Link, Metadata]:
        link = await self._links.reach(asyncio.get_running_loop().time() + self._timeout_s)
        return link, await self._metadata(link)

    async def _oldest(self, span: Span, asked: int) -> int:
        """The oldest revision that is kept, which etcd says to a watch that asks for an older one."""
        with suppress(TimeoutError, StoreAway, StoreDenied, StoreRefused):
            try:
                async with asyncio.timeout(OLDEST_S), aclosing(self._watches.follow(span, 0)) as batches:  # type: ignore[type-var]
                    async for _ in batches:
                        break
            except Compacted as compacted:
                return compacted.oldest
        return asked + 1  # at least

    async def _lease_gone(self, txn: Txn) -> LeaseGone:
        """Which lease of a transaction it is that is gone."""
        leases = sorted({each.lease for each in (*txn.then, *txn.otherwise) if isinstance(each, Put) and each.lease})
        if len(leases) > 1:
            for lease in leases:
                try:
                    await self.look_up(lease)
                except LeaseGone as gone:
                    return gone
        return LeaseGone(leases[0] if leases else 0)

    # -- who we are

    async def _metadata(self, link: Link) -> Metadata:
        """What goes with every request.

        Raises:  StoreDenied, StoreAway.
        """
        if self._username is None:
            return LEADER
        if self._token is None:
            if self._authenticating is None or self._authenticating.done():
                self._authenticating = asyncio.get_running_loop().create_task(self._authenticate(link))
            try:
                self._token = await asyncio.shield(self._authenticating)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if self._links.is_closed and (task is None or not task.cancelling()):
                    raise StoreAway(self.name, "it is closed") from None
                raise
        return (*LEADER, ("token", self._token)) if self._token else LEADER

    async def _authenticate(self, link: Link) -> str:
        """A token; "" if this cluster asks nobody who they are."""
        assert self._username is not None
        assert self._password is not None
        asked = protobuf.encode(etcd.AuthenticateRequest(self._username, self._password))
        try:
            answer = await link.ask(AUTHENTICATE, asked, LEADER, self._timeout_s)
            return protobuf.decode(etcd.AuthenticateResponse, answer).token
        except Lost as lost:
            raise StoreAway(self.name, str(lost)) from lost
        except AioRpcError as error:
            if "authentication is not enabled" in (error.details() or ""):
                return ""
            turn = understood(error, self.name, "authenticate")
            if isinstance(turn, StoreError):
                raise turn from None
            self._links.skip(link, happened(error))
            raise StoreAway(self.name, f"{link.address}: {happened(error)}") from None
        except RemoteWireError as error:
            raise StoreAway(self.name, f"{link.address}: it answers with something else than etcd does") from error

    def _forget(self, metadata: Metadata | None = None) -> None:
        """Lets go of the token, unless it is a newer one than that of the request that was turned away."""
        if metadata is None or ("token", self._token) in metadata:
            self._token = None


class _Turned(Exception):
    """The answer was a turn that the caller of `_ask` understands."""

    def __init__(self, turn: Turn, *, asked_before: bool) -> None:
        super().__init__(turn)
        self.turn = turn
        self.asked_before = asked_before
        """Whether an earlier try may have been carried out."""


def _check_numbers(tried: str, **numbers: int) -> None:
    for name, number in numbers.items():
        if not 0 <= number <= NUMBER_MAX:
            raise StoreRefused(tried, f"{name} {number} is not from 0 to {NUMBER_MAX}")


def _range_request(span: Span, limit: int, revision: int = 0) -> etcd.RangeRequest:
    key, end = span_of(span)
    return etcd.RangeRequest(key, end, limit=limit, revision=revision)


def _compare(condition: Condition) -> etcd.Compare:
    target, name = TARGETS[condition.field]
    against: dict[str, int | bytes] = {name: condition.against}
    return etcd.Compare(RELATIONS[condition.relation], target, condition.key.encode(), **against)  # type: ignore[arg-type]


def _operation(operation: Operation) -> etcd.RequestOp:
    match operation:
        case Put(key, value, lease):
            return etcd.RequestOp(put=etcd.PutRequest(key.encode(), value, lease))
        case Delete(span):
            return etcd.RequestOp(delete_range=etcd.DeleteRangeRequest(*span_of(span)))
        case _:
            return etcd.RequestOp(range=_range_request(operation.span, operation.limit))


def _page(reply: etcd.RangeResponse) -> Page:
    revision = 0 if reply.header is None else reply.header.revision
    return Page(revision, tuple(map(entry_of, reply.kvs)), reply.more)


def _result(response: etcd.ResponseOp) -> Result:
    if response.range is not None:
        return _page(response.range)
    return None if response.delete_range is None else response.delete_range.deleted
