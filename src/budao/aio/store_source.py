"""Services as they stand in a store: who is there, and who acts on what of it.

What stands there was put by others. A value that cannot be read counts as no instance, is counted, and is logged once;
the rest of the service is not touched by it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from random import Random
from typing import Final, TypeVar

from budao.aio.follow import Followed, follow
from budao.aio.memory_store import monotonic
from budao.aio.store import Store
from budao.discovery import Changed, Instance, Listed, Sighting, WentAway
from budao.model import RemoteWireError, Wall
from budao.store import (
    Delete,
    Entry,
    LeaseGone,
    Operation,
    Patience,
    Put,
    Span,
    StoreAway,
    StoreError,
    Txn,
)
from budao.wire import (
    Watcher,
    format_watcher,
    instances_span,
    parse_instance,
    parse_key,
    parse_watcher,
    watcher_key,
    watchers_span,
)

logger = logging.getLogger("budao.discovery")

T = TypeVar("T")

TTL_S: Final = 10.0
"""How long a watcher that died is still waited for, at most. Short, since whoever drains waits for it."""
RENEW_EVERY_S: Final = 3.0
COALESCE_S: Final = 0.02
"""Acknowledgements this near to each other are one commit; a rolling restart changes much at once."""
OPERATIONS_MAX: Final = 64
"""Acknowledgements in one commit."""
ANSWER_MAX_S: Final = 5.0
LOGGED_MAX: Final = 1_000
"""Keys that cannot be read are logged once each, up to this many."""


def wall() -> Wall:
    """The machine's calendar clock."""
    return Wall(time.time())


async def answered(store: str, asked: Awaitable[T], within_s: float) -> T:
    """What a store answers.

    Raises:  what it raises; StoreAway if it has not answered within `within_s` seconds.
    """
    try:
        async with asyncio.timeout(within_s):
            return await asked
    except TimeoutError as error:
        raise StoreAway(store, f"no answer within {within_s:.3g} s", may_have_taken_effect=True) from error


def heard(task: asyncio.Task[None]) -> None:
    """Logs how a task of ours crashed; nobody waits for it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("%s crashed", task.get_name(), exc_info=error)


class StoreSource:
    """A `Source` on a store. Any number of directories on one event loop may share it; the store stays the caller's."""

    def __init__(
        self,
        store: Store,
        *,
        namespace: str = "budao",
        ttl_s: float = TTL_S,
        wall_clock: Callable[[], Wall] = wall,
        rng: Random | None = None,
    ) -> None:
        self.store = store
        self.namespace = namespace
        self.unreadable = 0
        """Values met that could not be read."""
        self._ttl_s = ttl_s
        self._wall = wall_clock
        self._rng = Random() if rng is None else rng
        self._logged: set[str] = set()
        self._acknowledging: asyncio.Task[None] | None = None
        self._lease = 0
        self._standing: dict[tuple[str, str], int] = {}
        """The revision each watcher acts on, as it shall stand in the store; 0 for one that shall stand there no more."""
        self._unsaid: dict[tuple[str, str], list[asyncio.Future[None]]] = {}
        """Watchers whose revision does not stand there yet, and who waits for that."""
        self._news = asyncio.Event()

    @property
    def name(self) -> str:
        return self.store.name

    async def follow(self, service: str) -> AsyncGenerator[Sighting, None]:
        readable: dict[str, Instance] = {}
        span = instances_span(self.namespace, service)
        async with aclosing(follow(self.store, span, rng=self._rng)) as news:
            async for fact in news:
                if not isinstance(fact, Followed):
                    yield WentAway(fact.problem)
                    continue
                put, gone = [], []
                for change in fact.changes:
                    instance = None if change.entry is None else self._read_instance(service, change.entry)
                    if instance is not None:
                        readable[change.key] = instance
                        put.append(instance)
                    elif (known := readable.pop(change.key, None)) is not None:
                        gone.append(known.id)
                if fact.is_list:
                    yield Listed(fact.revision, tuple(readable.values()))
                else:
                    yield Changed(fact.revision, tuple(put), tuple(gone))

    async def watchers(self, service: str) -> AsyncGenerator[tuple[Watcher, ...], None]:
        """Who follows a service and up to where, now and each time that has changed, for ever.

        While the store is away it says nothing. Close the iterator (`aclosing`) when done.
        """
        known: dict[str, Watcher] = {}
        span = watchers_span(self.namespace, service)
        async with aclosing(follow(self.store, span, rng=self._rng)) as news:
            async for fact in news:
                if not isinstance(fact, Followed):
                    continue
                for change in fact.changes:
                    watcher = None if change.entry is None else self._read_watcher(change.entry)
                    if watcher is None:
                        known.pop(change.key, None)
                    else:
                        known[change.key] = watcher
                yield tuple(known[key] for key in sorted(known))

    async def acknowledge(self, service: str, watcher: str, revision: int) -> bool:
        """Says up to where `watcher` acts on what it has seen; revision 0 says that it watches no more.

        Raises:  StoreError if that does not stand in the store; say it again. LocalWireError for a name too long.
        """
        watcher_key(self.namespace, service, watcher)  # a name that cannot be a key fails here, and alone
        key = (service, watcher)
        if revision == 0 and key not in self._standing:
            return True
        self._standing[key] = revision
        said: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unsaid.setdefault(key, []).append(said)
        self._news.set()
        if self._acknowledging is None or self._acknowledging.done():
            self._acknowledging = asyncio.create_task(self._keep_acknowledged(), name="budao acknowledgements")
            self._acknowledging.add_done_callback(heard)
        await said
        return True

    async def aclose(self) -> None:
        """Ends the lease of its watchers. The store stays open."""
        if self._acknowledging is not None:
            self._acknowledging.cancel()
            await asyncio.gather(self._acknowledging, return_exceptions=True)
            self._acknowledging = None
        self._fail(StoreAway(self.name, "the source is closed"))
        lease, self._lease = self._lease, 0
        if lease:
            try:
                await answered(self.name, self.store.revoke(lease), ANSWER_MAX_S)
            except StoreError as error:
                logger.info("the lease of our watchers is left to run out: %s", error)

    # --------------------------------------------------------------------------------------------------- reading

    def _read_instance(self, service: str, entry: Entry) -> Instance | None:
        try:
            instance = parse_instance(entry.value)
            if (instance.service, instance.id) != parse_key(entry.key):
                raise RemoteWireError(f"it says it is {instance.id!r} of {instance.service!r}")
        except RemoteWireError as error:
            self._cannot_read(entry.key, error)
            return None
        assert instance.service == service, "the span holds one service"
        return instance

    def _read_watcher(self, entry: Entry) -> Watcher | None:
        try:
            return parse_watcher(parse_key(entry.key)[1], entry.value)
        except RemoteWireError as error:
            self._cannot_read(entry.key, error)
            return None

    def _cannot_read(self, key: str, error: RemoteWireError) -> None:
        self.unreadable += 1
        if key not in self._logged and len(self._logged) < LOGGED_MAX:
            self._logged.add(key)
            logger.warning("%s: %r is left out, it cannot be read: %s", self.name, key, error)

    # --------------------------------------------------------------------------------------------- acknowledging

    async def _keep_acknowledged(self) -> None:
        patience = Patience()
        try:
            while self._standing:
                try:
                    await self._acknowledge_once()
                    patience.went_well(monotonic())
                except LeaseGone:
                    self._lease = 0
                    self._unsaid = {key: self._unsaid.get(key, []) for key in self._standing}
                except StoreError as error:
                    self._fail(error)
                    await asyncio.sleep(patience.pause_s(monotonic(), self._rng))
        except BaseException as error:
            self._fail(StoreAway(self.name, f"acknowledging ended: {type(error).__name__}"))
            raise

    async def _acknowledge_once(self) -> None:
        """Says what is to be said, or renews the lease when nothing is for a while."""
        if not self._unsaid:
            self._news.clear()
            try:
                async with asyncio.timeout(min(RENEW_EVERY_S, self._ttl_s / 3)):
                    await self._news.wait()
            except TimeoutError:
                if self._lease:
                    await answered(self.name, self.store.keep_alive(self._lease), ANSWER_MAX_S)
                return
        if not self._lease:
            self._lease = (await answered(self.name, self.store.grant(self._ttl_s), ANSWER_MAX_S)).id
        await asyncio.sleep(COALESCE_S)
        keys = list(self._unsaid)[:OPERATIONS_MAX]
        saying = {key: self._standing[key] for key in keys}
        operations = tuple(self._operation(key, revision) for key, revision in saying.items())
        await answered(self.name, self.store.commit(Txn(then=operations)), ANSWER_MAX_S)
        for key, revision in saying.items():
            if self._standing[key] != revision:
                continue  # it changed meanwhile, and stays to be said
            if revision == 0:
                del self._standing[key]
            for each in self._unsaid.pop(key):
                if not each.done():
                    each.set_result(None)

    def _operation(self, key: tuple[str, str], revision: int) -> Operation:
        place = watcher_key(self.namespace, *key)
        if revision == 0:
            return Delete(Span.one(place))
        return Put(place, format_watcher(Watcher(key[1], revision, self._wall())), self._lease)

    def _fail(self, error: StoreError) -> None:
        for waiting in self._unsaid.values():
            for each in waiting:
                if not each.done():
                    each.set_exception(error)
            waiting.clear()
