"""The store as seen from another process: one connection for everything, made again whenever it breaks."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from math import inf
from random import Random
from types import TracebackType
from typing import Final, Self, TypeVar

from budao.aio.link import BEAT_S, Link
from budao.aio.security import check_sending, check_token, explain_tls
from budao.guard import pause_s
from budao.model import Checks, LocalWireError, RemoteWireError, RetryPolicy, context
from budao.store import (
    Batch,
    Commit,
    Committed,
    Compact,
    Compacted,
    Delete,
    Grant,
    Lease,
    LeaseView,
    Page,
    Put,
    Revoke,
    Span,
    StoreAway,
    StoreDenied,
    StoreError,
    StoreRefused,
    Txn,
)
from budao.wire import store_frames as wire

CONNECT_S: Final = 2.5
"""How long one address may take to say welcome."""
PAUSES: Final = RetryPolicy(pause_first_s=0.02, pause_max_s=1.0)
"""Between two tries to connect, with full jitter."""
FEED_BATCHES_MAX: Final = 1_024
"""So many batches that nobody takes, and a watch lets go of its place; it goes on from there once somebody does."""
FEED_BYTES_MAX: Final = 8 * 1024 * 1024
READS_MAX: Final = 5

T = TypeVar("T")


class RemoteStore:
    """A `Store` behind a `StoreServer`. Any number of tasks on one event loop may share it.

    It connects when it is first needed. A request that never left is sent as soon as there is a connection, within its
    time; one that was under way when the connection broke is sent again only if that changes nothing.

    Units:   `timeout_s` is for each request, the deadline of the caller's context cuts it shorter; `away_max_s` is how
             long a watch bears a store that is away.
    Raises:  BadSettings if the token would travel in the clear to another machine.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 5.0,
        away_max_s: float = 5.0,
        more: Sequence[tuple[str, int]] = (),
        rng: Random | None = None,
    ) -> None:
        self.addresses = ((host, port), *more)
        """The next one is tried when one does not answer."""
        check = Checks("store")
        check.number("timeout_s", timeout_s, 0.0, 86_400.0, open_low=True)
        check.number("away_max_s", away_max_s, 0.0)
        for _, each in self.addresses:
            check.count("port", each, 1, 65_535)
        check.done()
        check_sending([each for each, _ in self.addresses], tls=tls is not None, token=token is not None)
        self.timeout_s = timeout_s
        self.away_max_s = away_max_s
        self.reconnects = 0
        """How often a connection was made."""
        self._token = "" if token is None else check_token(token)
        self._tls = tls
        self._rng = Random() if rng is None else rng
        self._number = 0
        self._calls: dict[int, _Call] = {}
        self._feeds: dict[int, _Feed] = {}
        self._session: _Session | None = None
        self._store = b""
        self._stores = 0
        """How often another store answered than before, or one put back to an earlier state."""
        self._revision = 0
        self._problem = "not connected yet"
        self._wanted = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return ("budao://" if self._tls is None else "budaos://") + ",".join(
            f"{host}:{port}" for host, port in self.addresses
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Hangs up. What waits is answered with `StoreAway`."""
        self._is_closed = True
        self._let_down("it is closed")
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    def _let_down(self, happened: str) -> None:
        """Nobody waits any longer."""
        for call in tuple(self._calls.values()):
            call.fail(StoreAway(self.name, happened, may_have_taken_effect=call.may_be_done))
        for feed in self._feeds.values():
            feed.fail(StoreAway(self.name, happened))

    # ------------------------------------------------------------------------------------------------- requests

    async def read(self, span: Span, *, revision: int = 0, limit: int = 0) -> Page:
        tries = 1 if revision else READS_MAX
        while True:
            tries -= 1
            try:
                return await self._read_once(span, revision, limit)
            except Compacted:
                # It moves on so fast that the revision of the first piece is forgotten before the last is read.
                if not tries:
                    raise

    async def _read_once(self, span: Span, revision: int, limit: int) -> Page:
        piece = await self._search(span, revision, limit)
        first, entries, stores = piece.page.revision, list(piece.page.entries), self._stores
        while piece.is_cut:
            rest = Span(entries[-1].key + "\0", span.stop)
            piece = await self._search(rest, revision or first, limit and limit - len(entries))
            if stores != self._stores:
                raise Compacted(revision or first, self._revision)  # these pieces do not belong together
            entries += piece.page.entries
        return Page(first, tuple(entries), piece.page.more)

    async def _search(self, span: Span, revision: int, limit: int) -> wire.Piece:
        return self._is(wire.Piece, await self._ask(wire.Search(span, revision, limit), "read", is_safe=True))

    async def commit(self, txn: Txn) -> Committed:
        changes = any(isinstance(each, Put | Delete) for each in (*txn.then, *txn.otherwise))
        return self._is(Committed, await self._ask(Commit(txn), "commit", is_safe=not changes), may_have=changes)

    async def grant(self, ttl_s: float, *, lease: int = 0) -> Lease:
        return self._is(Lease, await self._ask(Grant(lease, ttl_s), "grant a lease", is_safe=False), may_have=True)

    async def keep_alive(self, lease: int) -> Lease:
        return self._is(Lease, await self._ask(wire.Renew(lease), "keep a lease alive", is_safe=True))

    async def revoke(self, lease: int) -> None:
        await self._ask(Revoke(lease), "revoke a lease", is_safe=False)

    async def look_up(self, lease: int) -> LeaseView:
        return self._is(LeaseView, await self._ask(wire.LookUp(lease), "look a lease up", is_safe=True))

    async def compact(self, revision: int) -> None:
        await self._ask(Compact(revision), "compact", is_safe=False)

    def _is(self, kind: type[T], answer: object, *, may_have: bool = False) -> T:
        if not isinstance(answer, kind):
            happened = f"the server answered with {type(answer).__name__} where {kind.__name__} was due"
            raise StoreAway(self.name, happened, may_have_taken_effect=may_have)
        return answer

    async def _ask(self, request: wire.Request, tried: str, *, is_safe: bool) -> wire.Answer:
        left_s = context.deadline.get() - time.monotonic()
        if left_s <= 0.0:
            raise StoreAway(self.name, "the deadline had passed before it was asked")
        timeout_s = min(self.timeout_s, left_s)
        number = self._start()
        try:
            frame = wire.format_message(wire.Ask(number, request))
        except (LocalWireError, KeyError) as problem:
            raise StoreRefused(tried, str(problem)) from problem
        call = self._calls[number] = _Call(tried, frame, is_safe, asyncio.get_running_loop().create_future())
        self._wanted.set()
        if self._session is not None:
            self._session.send_call(call)
        try:
            async with asyncio.timeout(timeout_s):
                return await call.answered
        except TimeoutError:
            happened = f"no answer within {timeout_s:.3g} s"
            if self._session is None:
                happened += f": {self._problem}"
            raise StoreAway(self.name, happened, may_have_taken_effect=call.may_be_done) from None
        finally:
            del self._calls[number]

    # -------------------------------------------------------------------------------------------------- watches

    async def watch(self, span: Span, *, after: int) -> AsyncIterator[Batch]:
        feed = _Feed(span, after)
        try:
            while True:
                if feed.number is None and feed.error is None:
                    self._open_feed(feed)
                while feed.batches:
                    yield feed.take()
                if feed.number is not None or feed.error is not None:
                    if feed.error is not None:
                        raise feed.error
                    feed.arrived.clear()
                    await feed.arrived.wait()
        finally:
            self._close_feed(feed)

    def _open_feed(self, feed: _Feed) -> None:
        feed.number = self._start()
        feed.is_heard = False
        self._feeds[feed.number] = feed
        self._wanted.set()
        if self._session is not None:
            self._session.send_feed(feed.number, feed)

    def _close_feed(self, feed: _Feed) -> None:
        if feed.number is not None and self._feeds.pop(feed.number, None) is not None and self._session is not None:
            self._session.send(wire.Unwatch(feed.number))
        feed.number = None

    def _start(self) -> int:
        if self._is_closed:
            raise StoreAway(self.name, "it is closed")
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().create_task(self._run(), name=f"connection to {self.name}")
        self._number += 1
        return self._number

    # ----------------------------------------------------------------------------------------------- connection

    async def _run(self) -> None:
        try:
            await self._keep_connected()
        except Exception as mistake:  # of ours; it must not leave anybody waiting, and the next request begins anew
            self._session = None
            self._let_down(f"its connection has stopped for a mistake of its own: {mistake!r}")
            raise

    async def _keep_connected(self) -> None:
        turn = attempt = 0
        away_since = time.monotonic()
        while True:
            if not (self._calls or self._feeds):
                self._wanted.clear()
                await self._wanted.wait()
                away_since = time.monotonic()
            host, port = self.addresses[turn % len(self.addresses)]
            session = _Session(self, host, port)
            try:
                welcome = await session.open(self._tls, self._token)
            except StoreDenied as denied:
                self._problem = denied.problem
                self._fail_all(denied)
            except StoreAway as away:
                self._problem = away.happened
            else:
                attempt = 0
                self._begin(session, welcome)
                self._problem = await session.ended()
                self._session = None
                self._break(session)
                away_since = time.monotonic()
                if session.was_welcome_s() < 1.0:
                    attempt = 1
            if time.monotonic() - away_since >= self.away_max_s:
                for feed in tuple(self._feeds.values()):
                    feed.fail(StoreAway(self.name, f"away for {self.away_max_s:g} s: {self._problem}"))
            turn += 1
            attempt += 1
            await asyncio.sleep(pause_s(attempt, PAUSES, self._rng) or 0.0)

    def _begin(self, session: _Session, welcome: wire.Welcome) -> None:
        is_other = bool(self._store) and self._store != welcome.store
        if is_other or welcome.revision < self._revision:
            # Another store, or one put back from a backup: what was seen of the old one says nothing about it.
            for number, feed in tuple(self._feeds.items()):
                feed.fail(Compacted(feed.after, welcome.revision))
                del self._feeds[number]
            self._revision = 0
            self._stores += 1
        self._store = welcome.store
        self._see(welcome.revision)
        self._session = session
        self.reconnects += 1
        for call in tuple(self._calls.values()):
            session.send_call(call)
        for number, feed in self._feeds.items():
            feed.is_heard = False
            session.send_feed(number, feed)

    def _break(self, session: _Session) -> None:
        for call in tuple(self._calls.values()):
            if not call.is_sent:
                continue
            call.is_sent = False
            if session.said_goodbye:
                call.was_sent = False
            elif not call.is_safe:
                call.fail(StoreAway(self.name, self._problem, may_have_taken_effect=True))

    def _fail_all(self, error: StoreError) -> None:
        for call in tuple(self._calls.values()):
            call.fail(error)
        for feed in self._feeds.values():
            feed.fail(error)

    def _see(self, revision: int) -> None:
        self._revision = max(self._revision, revision)

    def received(self, session: _Session, message: wire.Message) -> None:
        """What the server said; for its own connection only."""
        match message:
            case wire.Answered(number, answer):
                if (call := self._calls.get(number)) is not None and not call.answered.done():
                    call.answered.set_result(answer)
            case wire.Told(number, batches):
                self._told(number, batches)
            case wire.Failed(number, error):
                if (call := self._calls.get(number)) is not None:
                    call.fail(error)
                elif (feed := self._feeds.pop(number, None)) is not None:
                    feed.fail(error)
            case wire.Beat(revision):
                self._see(revision)
                for feed in self._feeds.values():
                    if feed.is_heard:
                        feed.after = max(feed.after, revision)
            case wire.Goodbye():
                session.said_goodbye = True
                session.link.close("the server stops")
            case _:
                session.link.close(f"a server does not say {type(message).__name__}")

    def _told(self, number: int, batches: tuple[Batch, ...]) -> None:
        feed = self._feeds.get(number)
        if feed is None:
            return
        feed.is_heard = True
        for batch in batches:
            feed.add(batch)
        if batches:
            self._see(batches[-1].revision)
        if len(feed.batches) > FEED_BATCHES_MAX or feed.bytes > FEED_BYTES_MAX:
            self._close_feed(feed)


class _Call:
    """A request that waits for its answer."""

    def __init__(self, tried: str, frame: bytes, is_safe: bool, answered: asyncio.Future[wire.Answer]) -> None:
        self.tried = tried
        self.frame = frame
        self.is_safe = is_safe
        self.answered = answered
        self.is_sent = False
        """On the connection there is."""
        self.was_sent = False

    @property
    def may_be_done(self) -> bool:
        return self.was_sent and not self.is_safe

    def fail(self, error: StoreError) -> None:
        if not self.answered.done():
            self.answered.set_exception(error)
            self.answered.exception()  # whoever asked may have left


class _Feed:
    """What a watch has received and nobody has taken."""

    def __init__(self, span: Span, after: int) -> None:
        self.span = span
        self.after = after
        self.number: int | None = None
        self.is_heard = False
        """Whether the server has answered it on this connection."""
        self.batches: deque[Batch] = deque()
        self.bytes = 0
        self.error: StoreError | None = None
        self.arrived = asyncio.Event()

    def add(self, batch: Batch) -> None:
        if batch.revision <= self.after:
            return
        self.after = batch.revision
        self.bytes += _size(batch)
        self.batches.append(batch)
        self.arrived.set()

    def take(self) -> Batch:
        batch = self.batches.popleft()
        self.bytes -= _size(batch)
        return batch

    def fail(self, error: StoreError) -> None:
        self.error = error
        self.arrived.set()


class _Session:
    """One connection, from the first byte to the last."""

    def __init__(self, store: RemoteStore, host: str, port: int) -> None:
        self.store = store
        self.host, self.port = host, port
        self.said_goodbye = False
        self._request_bytes_max = 0
        self._greeted: asyncio.Future[wire.Welcome] = asyncio.get_running_loop().create_future()
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._welcome_at = inf
        self.link = Link(
            decoder=wire.Decoder(),
            outbox_bytes_max=2 * wire.FRAME_BYTES_MAX,
            received=self._receive,
            lost=self._lost,
            has_room=lambda: None,
            garbage=self._garbage,
        )

    async def open(self, tls: ssl.SSLContext | None, token: str) -> wire.Welcome:
        """Connects and says hello.

        Raises:  StoreAway, StoreDenied.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                await loop.create_connection(
                    lambda: self.link, self.host, self.port, ssl=tls, server_hostname=self.host if tls else None
                )
                self.send(wire.Hello(token))
                welcome = await self._greeted
        except TimeoutError:
            self.link.cut("it did not answer")
            happened = f"{self.host}:{self.port} did not say welcome within {CONNECT_S:g} s"
            raise StoreAway(self.store.name, happened) from None
        except (OSError, UnicodeError) as problem:  # the second for a name that no name server could be asked for
            self.link.cut("it did not answer")
            raise StoreAway(self.store.name, f"{self.host}:{self.port}: {explain_tls(problem)}") from problem
        except BaseException:
            self.link.cut("it is closed")
            raise
        self._request_bytes_max = welcome.request_bytes_max
        self._welcome_at = time.monotonic()
        return welcome

    async def ended(self) -> str:
        """Waits until the connection is over, and sees to it that a dead one is."""
        beat = wire.format_message(wire.Beat())
        try:
            while not self._over.done():
                await asyncio.wait([self._over], timeout=BEAT_S)
                if not self._over.done():
                    self.link.beat(lambda: beat)
        finally:
            self.link.cut("it is closed")
        return f"{self.host}:{self.port}: {self._over.result()}"

    def was_welcome_s(self) -> float:
        return time.monotonic() - self._welcome_at

    def send(self, message: wire.Message) -> None:
        self.link.send(wire.format_message(message))

    def send_call(self, call: _Call) -> None:
        size = len(call.frame) - wire.LENGTH_BYTES
        if size > self._request_bytes_max:
            bound = self._request_bytes_max
            call.fail(StoreRefused(call.tried, f"the request has {size} bytes, the bound of the server is {bound}"))
        elif not call.answered.done() and self.link.send(call.frame):
            call.is_sent = call.was_sent = True

    def send_feed(self, number: int, feed: _Feed) -> None:
        try:
            self.send(wire.Watch(number, feed.span, feed.after))
        except LocalWireError as problem:
            feed.fail(StoreRefused("watch", str(problem)))

    def _receive(self, message: wire.Message) -> None:
        if self._greeted.done():
            self.store.received(self, message)
        elif isinstance(message, wire.Welcome):
            self._greeted.set_result(message)
        elif isinstance(message, wire.Denied):
            kind = StoreDenied if message.is_for_good else StoreAway
            self._refuse(kind(self.store.name, message.problem))
        elif isinstance(message, wire.Versions):
            ours = f"{wire.VERSION_LOW} to {wire.VERSION_HIGH}"
            problem = f"it speaks versions {message.low} to {message.high} of the protocol, this client {ours}"
            self._refuse(StoreDenied(self.store.name, f"{problem}; bring both to versions that fit"))
        else:
            self._refuse(StoreAway(self.store.name, f"it says {type(message).__name__} before it says welcome"))

    def _garbage(self, problem: RemoteWireError) -> None:
        self._refuse(StoreAway(self.store.name, f"{self.host}:{self.port} is no store: {problem}"))

    def _refuse(self, error: StoreError) -> None:
        if not self._greeted.done():
            self._greeted.set_exception(error)
            self._greeted.exception()

    def _lost(self, why: str) -> None:
        hint = "" if self._greeted.done() else " before it said welcome; is this the right port, with or without TLS?"
        self._refuse(StoreAway(self.store.name, f"{self.host}:{self.port}: {why}{hint}"))
        if not self._over.done():
            self._over.set_result(why)


def _size(batch: Batch) -> int:
    return sum(64 + len(each.key) + (len(each.entry.value) if each.entry else 0) for each in batch.changes)
