"""The store as a server: one folder, any number of clients, over TCP or TLS."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from budao.aio.link import Link
from budao.aio.reception import Reception, listen
from budao.aio.security import check_exposure, check_token, is_token
from budao.aio.store_durable import MIB, DurableStore, JournalPolicy
from budao.model import Checks, LocalWireError, RemoteWireError
from budao.store import (
    KEY_BYTES_MAX,
    Batch,
    Compacted,
    Page,
    Span,
    StoreAway,
    StoreError,
    StorePolicy,
    StoreRefused,
)
from budao.store import Answer as Settled
from budao.wire import store_frames as wire

log = logging.getLogger("budao.store")

BATCHES_MAX: Final = 64
"""Batches told in one frame, at most."""
PIECE_BYTES: Final = MIB
"""A piece of a page is cut when it is this long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPolicy:
    """What one client, and all of them, may take.

    Raises:  BadSettings with every problem.
    """

    connections_max: int = 2_000
    """Further clients are told to come later."""
    requests_max: int = 1_024
    """Requests of one connection that may be unanswered."""
    watches_max: int = 1_024
    """Watches of one connection."""
    outbox_bytes_max: int = 80 * MIB
    """What may wait for one client to read. Answers alone fill it; watches stop long before, and go on from the past."""
    hello_s: float = 5.0
    """How long a newcomer may take to say who it is, TLS included."""
    stop_s: float = 5.0
    """How long stopping waits for what is in flight."""

    def __post_init__(self) -> None:
        check = Checks("server")
        check.count("connections_max", self.connections_max, 1, 100_000)
        check.count("requests_max", self.requests_max, 1, 100_000)
        check.count("watches_max", self.watches_max, 1, 100_000)
        check.count("outbox_bytes_max", self.outbox_bytes_max, MIB, 1024 * MIB)
        check.number("hello_s", self.hello_s, 0.0, 3_600.0, open_low=True)
        check.number("stop_s", self.stop_s, 0.0, 3_600.0)
        check.done()


class StoreServer:
    """Serves the store in a folder, as an async context manager. With port 0 the system chooses; see `port`.

    Raises:  BadSettings for a host beyond loopback without TLS and a token. On entering: StoreRefused if the folder is
             another's or the port is taken, Unreadable if the folder is damaged.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        policy: StorePolicy | None = None,
        server_policy: ServerPolicy | None = None,
        journal: JournalPolicy | None = None,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        check_exposure(host, tls=tls is not None, token=token is not None)
        self.host = host
        self.port = port
        self.token = None if token is None else check_token(token)
        self.tls = tls
        self.policy = ServerPolicy() if server_policy is None else server_policy
        self.store = DurableStore(folder, policy=policy, journal=journal)
        bounds = self.store.policy
        # A transaction of the longest keys and values, with what stands around them.
        parts = 3 * bounds.operations_max
        self.request_bytes_max = min(
            wire.FRAME_BYTES_MAX, bounds.txn_bytes_max + parts * (2 * KEY_BYTES_MAX + 64) + 1024
        )
        self.sessions: set[_Session] = set()
        self._reception: Reception[_Session] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._told = 0

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return f"{'budao' if self.tls is None else 'budaos'}://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        listener = listen(self.host, self.port, StoreRefused)
        try:
            await self.store.__aenter__()
        except BaseException:
            listener.close()
            raise
        self._reception = Reception(
            listener,
            connect=lambda: _Session(self),
            tls=self.tls,
            connections_max=self.policy.connections_max,
            hello_s=self.policy.hello_s,
            stop_s=self.policy.stop_s,
            log=log,
        )
        self.port, self.sessions = self._reception.port, self._reception.clients
        self.store.name = self.name
        self._told = self.store.keeper.revision
        self.store.on_change = self._changed
        self._reception.open(self.name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Takes nothing new, finishes and answers what is in flight, says goodbye, and lets go of the folder.

        It ends also if nobody waits for it any more.
        """
        if self._reception is not None:
            reception, self._reception = self._reception, None
            self._closing = asyncio.create_task(self._close(reception))
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _close(self, reception: Reception[_Session]) -> None:
        await reception.close()
        await self.store.aclose()

    def _changed(self) -> None:
        """Tells each watch that has something to say. The others have seen everything, too."""
        told, keeper = self._told, self.store.keeper
        self._told = keeper.revision
        try:
            keys = {change.key for batch in keeper.changes(EVERYTHING, told) for change in batch.changes}
        except Compacted:
            keys = None
        for session in tuple(self.sessions):
            if session.watches:
                session.changed(keys, keeper.revision)


EVERYTHING: Final = Span.prefix("")


@dataclass(slots=True, eq=False)
class _Watch:
    span: Span
    after: int
    is_behind: bool = True


class _Session:
    """One client."""

    def __init__(self, server: StoreServer) -> None:
        self.server = server
        self.link = Link(
            decoder=wire.Decoder(wire.HELLO_BYTES_MAX),
            outbox_bytes_max=server.policy.outbox_bytes_max,
            received=self.received,
            lost=self.lost,
            has_room=self.resume,
            garbage=self._garbage,
        )
        self.known = asyncio.Event()
        """Set once it has said who it is, or has gone."""
        self.gone = asyncio.Event()
        self.is_known = False
        self.is_stopping = False
        self.watches: dict[int, _Watch] = {}
        self.waiting: set[asyncio.Future[Any]] = set()
        self.searches: deque[tuple[int, wire.Search]] = deque()
        """What waits until the client has read what it asked for before."""

    def send(self, message: wire.Message) -> None:
        self.link.send(wire.format_message(message))

    def deny(self, problem: str, *, is_for_good: bool = True) -> None:
        self.send(wire.Denied(problem, is_for_good))
        self.link.close(problem)
        self.known.set()

    def say_goodbye(self) -> None:
        self.send(wire.Goodbye("it stops"))

    def beat(self) -> bytes:
        behind = any(watch.is_behind for watch in self.watches.values())
        return wire.format_message(wire.Beat(0 if behind else self.server.store.keeper.revision))

    def lost(self, why: str) -> None:
        for _ in self.watches:
            self.server.store.end_watch()
        self.watches.clear()
        self.searches.clear()
        self.server.sessions.discard(self)
        self.known.set()
        self.gone.set()
        if why and self.is_known:
            log.debug("%s: a client is gone: %s", self.server.name, why)

    def received(self, message: wire.Message) -> None:
        if not self.is_known:
            self._meet(message)
        elif isinstance(message, wire.Ask):
            self._answer(message)
        elif isinstance(message, wire.Watch):
            self._watch(message)
        elif isinstance(message, wire.Unwatch):
            if self.watches.pop(message.number, None) is not None:
                self.server.store.end_watch()
        elif not isinstance(message, wire.Beat):
            self.link.close(f"a client does not say {type(message).__name__}")

    def _garbage(self, problem: RemoteWireError) -> None:
        self.send(wire.Denied(str(problem)[:500]))
        self.known.set()

    def _meet(self, message: wire.Message) -> None:
        server = self.server
        if not isinstance(message, wire.Hello):
            self.deny("a client says hello first")
            return
        if not (message.low <= wire.VERSION_HIGH and message.high >= wire.VERSION_LOW):
            self.send(wire.Versions(wire.VERSION_LOW, wire.VERSION_HIGH))
            self.link.close("its version is not spoken here")
            self.known.set()
            return
        if server.token is not None and not is_token(message.token, server.token):
            self.deny("the token is wrong" if message.token else "it wants a token")
            return
        self.is_known = True
        self.link.decoder.frame_bytes_max = server.request_bytes_max
        version = min(message.high, wire.VERSION_HIGH)
        self.send(wire.Welcome(version, server.store.store_id, server.store.keeper.revision, server.request_bytes_max))
        self.known.set()

    # -------------------------------------------------------------------------------------------------- requests

    def _answer(self, ask: wire.Ask) -> None:
        if self.is_stopping:
            return  # the goodbye that follows says that it was not done
        store, request = self.server.store, ask.request
        try:
            waiting = len(self.waiting) + len(self.searches)
            if waiting >= self.server.policy.requests_max:
                raise StoreRefused("ask", f"{waiting} requests wait for their answers, and that is the bound")
            if isinstance(request, wire.Search):
                self.searches.append((ask.number, request))
                self._search()
            elif isinstance(request, wire.Renew):
                self._say(ask.number, store.renew(request.lease))
            elif isinstance(request, wire.LookUp):
                self._say(ask.number, store.keeper.look_up(request.lease, store.now()))
            else:
                self._promise(ask.number, store.submit(request))
        except StoreError as refused:
            self.send(wire.Failed(ask.number, refused))

    def _search(self) -> None:
        """Pages are read while there is room: a hundred at once would fill the outbox, and cut their own client off."""
        while self.searches and self.link.has_room and self.link.is_open:
            number, request = self.searches.popleft()
            try:
                self._say(number, _piece(self.server.store.keeper.read, request))
            except StoreError as refused:
                self.send(wire.Failed(number, refused))

    def _promise(self, number: int, answer: asyncio.Future[Settled]) -> None:
        if answer.done():
            self._say(number, answer.result())
            return
        self.waiting.add(answer)
        answer.add_done_callback(lambda done: self._settled(number, done))

    def _settled(self, number: int, answer: asyncio.Future[Settled]) -> None:
        self.waiting.discard(answer)
        if answer.cancelled():
            return
        error = answer.exception()
        if error is None:
            self._say(number, answer.result(), has_taken_effect=True)
        elif isinstance(error, StoreError):
            self.send(wire.Failed(number, error))
        else:
            raise error

    def _say(self, number: int, answer: wire.Answer, *, has_taken_effect: bool = False) -> None:
        try:
            frame = wire.format_message(wire.Answered(number, answer))
        except LocalWireError as problem:
            away = StoreAway(self.server.name, f"its answer: {problem}", may_have_taken_effect=has_taken_effect)
            frame = wire.format_message(wire.Failed(number, away))
        self.link.send(frame)

    # --------------------------------------------------------------------------------------------------- watches

    def _watch(self, asked: wire.Watch) -> None:
        store = self.server.store
        try:
            if asked.number in self.watches or len(self.watches) >= self.server.policy.watches_max:
                raise StoreRefused("watch", f"{len(self.watches)} watches are open, or the number is taken")
            if asked.after > store.keeper.revision:
                # Only a store that was put back to an earlier state since can have told of it: all that is
                # between would be left out without a word.
                raise Compacted(asked.after, store.keeper.revision)
            store.keeper.changes(asked.span, asked.after, 1)
            store.begin_watch()
        except StoreError as refused:
            self.send(wire.Failed(asked.number, refused))
            return
        self.watches[asked.number] = _Watch(asked.span, asked.after)
        # Only now a beat speaks for this watch, too.
        self.send(wire.Told(asked.number, ()))
        self.pump()

    def changed(self, keys: set[str] | None, revision: int) -> None:
        """The store is at `revision` now; since what was told last, these keys have changed; None is "who knows"."""
        has_news = False
        for watch in self.watches.values():
            if not watch.is_behind:
                if keys is None or any(key in watch.span for key in keys):
                    watch.is_behind = True
                else:
                    watch.after = max(watch.after, revision)
            has_news |= watch.is_behind
        if has_news:
            self.pump()

    def resume(self) -> None:
        """There is room again."""
        self._search()
        self.pump()

    def pump(self) -> None:
        """Tells the watches what they have not told yet, while there is room. Who does not read, is told later."""
        keeper = self.server.store.keeper
        for number, watch in tuple(self.watches.items()):
            while watch.is_behind and self.link.has_room and self.link.is_open:
                batches: tuple[Batch, ...] = ()
                try:
                    batches = keeper.changes(watch.span, watch.after, BATCHES_MAX)
                    taken = _fitting(batches)
                    if taken:
                        self.send(wire.Told(number, taken))
                except StoreError as ended:
                    self._end_watch(number, ended)
                    break
                except LocalWireError:  # one revision too large for a frame: it can still be read
                    self._end_watch(number, Compacted(watch.after, batches[0].revision))
                    break
                watch.after = taken[-1].revision if taken else max(watch.after, keeper.revision)
                if len(taken) == len(batches) < BATCHES_MAX:
                    watch.after = max(watch.after, keeper.revision)
                    watch.is_behind = False

    def _end_watch(self, number: int, why: StoreError) -> None:
        del self.watches[number]
        self.server.store.end_watch()
        self.send(wire.Failed(number, why))


def _piece(read: Callable[[Span, int, int], Page], request: wire.Search) -> wire.Piece:
    page = read(request.span, request.revision, request.limit)
    size = 0
    for index, entry in enumerate(page.entries):
        size += len(entry.key) + len(entry.value) + 40
        if size > PIECE_BYTES and index:
            return wire.Piece(Page(page.revision, page.entries[:index], page.more), is_cut=True)
    return wire.Piece(page)


def _fitting(batches: tuple[Batch, ...]) -> tuple[Batch, ...]:
    """As many of the first as make a frame of ordinary size."""
    size = 0
    for index, batch in enumerate(batches):
        size += sum(len(each.key) + 40 + (len(each.entry.value) if each.entry else 0) for each in batch.changes)
        if size > PIECE_BYTES and index:
            return batches[:index]
    return batches
