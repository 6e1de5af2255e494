"""Any number of watches on one stream, resumed by revision on another endpoint when the stream ends or falls silent."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any, Final

from grpc import StatusCode, aio
from grpc.aio import AioRpcError

from budao.adapters._etcd_leases import Outbox
from budao.adapters._etcd_links import Link, Links, Metadata
from budao.adapters._etcd_said import Lost, Turn, happened, of_sentence, understood
from budao.model import RemoteWireError
from budao.store import Batch, Change, Compacted, Entry, Span, StoreAway, StoreError, StoreRefused
from budao.wire import etcd, protobuf

WATCH: Final = "/etcdserverpb.Watch/Watch"
BEAT_S: Final = 1.0
"""How often the server is asked to say something on the stream (a progress request, since etcd 3.4)."""
LOOK_S: Final = 0.25
BACKLOG_BYTES_MAX: Final = 16 * 1024 * 1024
"""A watch whose reader is this far behind is taken off the stream, and resumed where the reader is."""


def span_of(span: Span) -> tuple[bytes, bytes]:
    """A span as etcd writes it: the key, and the end that is not in it; b"" for one key, a zero byte for no end."""
    if span.is_one:
        return span.start.encode(), b""
    return span.start.encode(), b"\0" if span.stop is None else span.stop.encode()


def entry_of(found: etcd.KeyValue) -> Entry:
    """An entry as etcd writes it. Bytes of a key that are no UTF-8, which we never put, are kept as lone surrogates."""
    key = found.key.decode(errors="surrogateescape")
    return Entry(key, found.value, found.create_revision, found.mod_revision, found.version, found.lease)


def batches_of(events: tuple[etcd.Event, ...], first: int) -> list[Batch]:
    """The events from revision `first` on, by revision.

    Raises:  RemoteWireError if they are not in order.
    """
    found: list[tuple[int, list[Change]]] = []
    for event in events:
        if event.kv is None:
            raise RemoteWireError("an event has no key")
        revision = event.kv.mod_revision
        if revision < first:
            continue
        if not found or found[-1][0] != revision:
            if found and found[-1][0] > revision:
                raise RemoteWireError(f"revision {revision} comes after {found[-1][0]}")
            found.append((revision, []))
        entry = entry_of(event.kv)
        found[-1][1].append(Change(entry.key, None if event.type == etcd.DELETE else entry))
    return [Batch(revision, tuple(changes)) for revision, changes in found]


class _Watch:
    """What one reader follows, and what waits for it."""

    def __init__(self, span: Span, after: int) -> None:
        self.span = span
        self.next = after + 1
        """The first revision that has not come yet."""
        self.id = 0
        self.fragments: list[etcd.Event] = []
        self.fragments_bytes = 0
        self.queue: deque[tuple[Batch, int]] = deque()
        self.queue_bytes = 0
        self.is_paused = False
        self.error: Exception | None = None
        self.news = asyncio.Event()

    def end(self, error: Exception) -> None:
        self.error = error
        self.news.set()


class Watches:
    """The stream, and who reads from it. It is open while somebody watches."""

    def __init__(
        self,
        links: Links,
        name: str,
        metadata: Callable[[Link], Awaitable[Metadata]],
        forget: Callable[[], None],
        *,
        away_max_s: float,
        reply_bytes_max: int,
    ) -> None:
        self._links = links
        self._name = name
        self._metadata = metadata
        self._forget = forget
        self._away_max_s = away_max_s
        self._reply_bytes_max = reply_bytes_max
        self._watches: set[_Watch] = set()
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._ids = count(1)
        # Of the stream that is open:
        self._outbox: Outbox | None = None
        self._by_id: dict[int, _Watch] = {}
        self._creating: deque[int] = deque()
        self._spoke_at = 0.0
        # Since when nothing has come at all, over all streams.
        self._heard_at = 0.0

    async def follow(self, span: Span, after: int) -> AsyncIterator[Batch]:
        """Every revision above `after` that changed the span, once and in order."""
        if self._links.is_closed:
            raise StoreAway(self._name, "it is closed")
        watch = _Watch(span, after)
        self._watches.add(watch)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        else:
            self._create(watch)
        try:
            while True:
                while watch.queue:
                    batch, size = watch.queue.popleft()
                    watch.queue_bytes -= size
                    yield batch
                if watch.error is not None:
                    raise watch.error
                if watch.is_paused:
                    watch.is_paused = False
                    self._create(watch)
                watch.news.clear()
                await watch.news.wait()
        finally:
            self._watches.discard(watch)
            self._cancel(watch)
            if not self._watches and self._task is not None:
                # Whoever watches next may come before this task has ended, and begins another.
                self._task.cancel()
                self._ending.add(self._task)
                self._task.add_done_callback(self._ending.discard)
                self._task = None

    async def aclose(self) -> None:
        self._end_all(StoreAway(self._name, "it is closed"))
        tasks = set(self._ending) if self._task is None else {*self._ending, self._task}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- the stream

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        tries = 0
        try:
            while self._watches:
                before = self._heard_at
                try:
                    happening = await self._once()
                except StoreError as error:  # it says no, and will say so again
                    self._end_all(error)
                    return
                except RemoteWireError as error:
                    happening = f"it answers with something else than etcd does: {error}"
                if loop.time() - self._heard_at > self._away_max_s:
                    self._end_all(
                        StoreAway(self._name, f"nothing heard for {loop.time() - self._heard_at:.1f} s ({happening})")
                    )
                    return
                tries = 0 if self._heard_at > before else tries + 1
                await self._links.pause(tries)
        except Exception as error:  # a mistake of ours must not leave readers waiting for ever
            self._end_all(error)
            raise

    async def _once(self) -> str:
        """One life of the stream. Answers why it ended.

        Raises:  StoreDenied, StoreRefused; RemoteWireError.
        """
        try:
            link = await self._links.reach(asyncio.get_running_loop().time())
            metadata = await self._metadata(link)
        except (Lost, StoreAway) as error:
            return str(error)
        try:
            await self._read_from(link, metadata)
        except Lost as lost:
            return str(lost)
        except AioRpcError as error:
            match understood(error, self._name, "watch"):
                case StoreError() as said if error.code() is not StatusCode.RESOURCE_EXHAUSTED:
                    raise said from error
                case Turn.TOKEN:
                    self._forget()
                case _:
                    self._links.skip(link, happened(error))
            return f"{link.address}: {happened(error)}"
        return f"{link.address}: it ended the stream"

    async def _read_from(self, link: Link, metadata: Metadata) -> None:
        loop = asyncio.get_running_loop()
        self._outbox = outbox = Outbox()
        self._by_id.clear()
        self._creating.clear()
        for watch in self._watches:
            self._create(watch)
        self._spoke_at = loop.time()
        call = link.stream(WATCH, outbox.__aiter__(), metadata)
        beating = loop.create_task(self._beat(link, outbox))
        try:
            while (message := await call.read()) is not aio.EOF:
                self._spoke_at = self._heard_at = loop.time()
                link.heard()
                reply = protobuf.decode(etcd.WatchResponse, message)
                if self._take(reply, len(message)) is Turn.TOKEN:
                    self._forget()
                    return
        except asyncio.CancelledError:
            link.lost()
            raise
        finally:
            if self._outbox is outbox:
                self._outbox = None
            beating.cancel()
            link.shut(call)
            with suppress(asyncio.CancelledError):
                await asyncio.wait([beating])

    async def _beat(self, link: Link, outbox: Outbox) -> None:
        """Notices a stream that has died without a word, which TCP may not say for minutes."""
        loop = asyncio.get_running_loop()
        asked_at = looked_at = loop.time()
        while True:
            await asyncio.sleep(LOOK_S)
            now = loop.time()
            slept_s, looked_at = now - looked_at, now
            if slept_s > 2 * LOOK_S:
                self._spoke_at += slept_s  # it was this process that stood still
            if now - self._spoke_at > self._links.silence_max_s:
                self._links.leave(link, f"its watch stream was silent for {now - self._spoke_at:.1f} s")
                return
            if now - asked_at >= BEAT_S:
                asked_at = now
                outbox.send(etcd.WatchRequest(progress=etcd.WatchProgressRequest()))

    def _take(self, reply: etcd.WatchResponse, size: int) -> Turn | None:
        """One message of the stream. Answers TOKEN if the stream must be opened with a new token."""
        if reply.created:
            asked = self._creating.popleft() if self._creating else 0
            if not reply.canceled:
                return None
            watch = self._by_id.pop(asked, None)
            return None if watch is None else self._ended(watch, reply)
        watch = self._by_id.get(reply.watch_id)
        if watch is None:
            return None  # an answer to a progress request, or to our own cancel
        if reply.canceled:
            del self._by_id[reply.watch_id]
            return self._ended(watch, reply)
        if not reply.events:
            if not reply.fragment and not watch.fragments and reply.header is not None:
                # Progress of this watch, said by the server on its own and in order with the events: nothing is missing
                # below. The answers to progress requests promise less before 3.4.25 and 3.5.8 (etcd#15220).
                watch.next = max(watch.next, reply.header.revision + 1)
            return None
        watch.fragments_bytes += size
        if reply.fragment:
            if watch.fragments_bytes > self._reply_bytes_max:
                del self._by_id[reply.watch_id]
                watch.end(StoreRefused("watch", f"one revision is larger than {self._reply_bytes_max} bytes"))
            else:
                watch.fragments.extend(reply.events)
            return None
        events = (*watch.fragments, *reply.events) if watch.fragments else reply.events
        size = watch.fragments_bytes
        watch.fragments, watch.fragments_bytes = [], 0
        self._queue(watch, batches_of(events, watch.next), size)
        return None

    def _queue(self, watch: _Watch, batches: list[Batch], size: int) -> None:
        if not batches:
            return
        share = size // len(batches)
        for batch in batches:
            watch.queue.append((batch, share))
        watch.next = batches[-1].revision + 1
        watch.queue_bytes += share * len(batches)
        watch.news.set()
        if watch.queue_bytes > BACKLOG_BYTES_MAX:
            watch.is_paused = True
            self._cancel(watch)

    def _ended(self, watch: _Watch, reply: etcd.WatchResponse) -> Turn | None:
        """The server ended one watch."""
        if reply.compact_revision:
            watch.end(Compacted(watch.next - 1, reply.compact_revision))
            return None
        said: Any = of_sentence(reply.cancel_reason.removeprefix("etcdserver: "), self._name)
        # etcd 3.4 puts the whole error into the reason: "rpc error: code = ... desc = etcdserver: permission denied".
        if said is Turn.TOKEN:
            return Turn.TOKEN
        if isinstance(said, StoreError):
            watch.end(said)
        elif reply.created:
            watch.end(StoreRefused("watch", reply.cancel_reason or "the server does not say why"))
        else:
            self._create(watch)
        return None

    def _create(self, watch: _Watch) -> None:
        """Puts a watch on the stream, if one is open; else the next one begins with it."""
        if self._outbox is None or watch.is_paused or watch.error is not None:
            return
        watch.id = next(self._ids)
        watch.fragments, watch.fragments_bytes = [], 0
        self._by_id[watch.id] = watch
        self._creating.append(watch.id)
        key, end = span_of(watch.span)
        asked = etcd.WatchCreateRequest(
            key, end, start_revision=watch.next, progress_notify=True, watch_id=watch.id, fragment=True
        )
        self._outbox.send(etcd.WatchRequest(create=asked))

    def _cancel(self, watch: _Watch) -> None:
        """Takes a watch off the stream."""
        if self._by_id.get(watch.id) is watch:
            del self._by_id[watch.id]
            if self._outbox is not None:
                self._outbox.send(etcd.WatchRequest(cancel=etcd.WatchCancelRequest(watch.id)))

    def _end_all(self, error: Exception) -> None:
        for watch in self._watches:
            watch.end(error)
