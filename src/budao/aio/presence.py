"""Presence of a gateway: what happens to its connections into who is there, told to readers and shared through a store.

With a store, each gateway has one key for each channel it has readers of, under its lease: when a gateway is gone, so are its
keys, and its readers have left. A channel is watched while somebody asks who is there. Without a store, each gateway knows of
its own readers only.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Iterable
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

from budao.aio.follow import Followed, follow, list_span
from budao.aio.gateway.connection import FROZEN, FULL, Connection
from budao.aio.store import Store
from budao.model import Mono
from budao.push import Attendance, Members, PresencePart, PresencePolicy, Present, ShareMembers
from budao.store import Delete, LeaseGone, Put, Span, StoreError, Txn

if TYPE_CHECKING:
    from budao.aio.gateway.encoding import Encoding
    from budao.aio.gateway.gateway import Gateway

log = logging.getLogger("budao.presence")

NOBODY: Final = frozenset({"", "anonymous"})
"""Subjects that are no names: they are only counted."""
NAME_CHARACTERS_MAX: Final = 200
RETRY_S: Final = 0.5
BEHIND_S: Final = 0.25
WATCHED_MAX: Final = 1_000
"""Channels watched at the same time. Of those beyond, only readers of this gateway are told."""
PUTS_MAX: Final = 64
"""Operations in one transaction."""


class Presence:
    """A `Watcher` of a gateway, as an async context manager around the time it serves."""

    def __init__(
        self,
        gateway: Gateway,
        store: Store | None = None,
        *,
        policy: PresencePolicy | None = None,
        namespace: str = "budao",
    ) -> None:
        self.gateway = gateway
        self.store = store
        self.policy = PresencePolicy() if policy is None else policy
        self.attendance = Attendance(self.policy)
        self._namespace = namespace
        self._inside: dict[Connection, dict[str, str]] = {}
        """By connection: the channels it reads, each with its name there."""
        self._readers: dict[str, dict[Connection, frozenset[str] | None]] = {}
        """Who is told of a channel; with a set, somebody who does not read, and what it was told last."""
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._known: set[str] = set()
        """Channels whose other parts are known."""
        self._idle: dict[str, float] = {}
        self._waking: asyncio.TimerHandle | None = None
        self._behind: asyncio.TimerHandle | None = None
        self._greeting: asyncio.TimerHandle | None = None
        self._to_share: dict[str, PresencePart | None] = {}
        self._share: asyncio.Event = asyncio.Event()
        self._lease = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self.gateway.watchers.append(self)
        self.gateway.presence = self.ask
        if self.store is not None:
            self._own(self._keep_lease(self.store))
            self._own(self._sweep())
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(ValueError):
            self.gateway.watchers.remove(self)
        for timer in (self._waking, self._behind, self._greeting):
            if timer is not None:
                timer.cancel()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.store is not None and self._lease:
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(RETRY_S * 2):
                    await self.store.revoke(self._lease)

    def _own(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _now(self) -> Mono:
        return Mono(self._loop.time())

    # ------------------------------------------------------------------------------------------- as a Watcher

    def opened(self, connection: Connection) -> None: ...
    def heard(self, connection: Connection, number: int) -> None: ...

    def welcomed(self, connection: Connection) -> None:
        """It reads whatever it began with."""
        for channel, lag in connection.places.items():
            if channel.policy.is_presence and not (lag is not None and lag.is_standing):
                self._enter(connection, channel.name)

    def promoted(self, connection: Connection) -> None:
        """It was a standby, which is nobody."""
        self.welcomed(connection)

    def joined(self, connection: Connection, channel: str, *, presence: bool) -> None:
        """It reads another channel, and perhaps wants to know who does."""
        if connection.is_over or not self.gateway.rules.of(channel).is_presence:
            return
        self._enter(connection, channel)
        if presence:
            self._tell_everybody(connection, channel)

    def left(self, connection: Connection, channel: str) -> None:
        """It does not read it any more."""
        inside = self._inside.get(connection)
        name = None if inside is None else inside.pop(channel, None)
        if name is not None:
            self.attendance.depart(channel, name, self._now())
            if not inside:
                self._inside.pop(connection, None)
        self._forget_reader(connection, channel)
        self._look()

    def ended(self, connection: Connection) -> None:
        """It is gone."""
        inside = self._inside.pop(connection, None)
        if inside is not None:
            for channel, name in inside.items():
                self.attendance.depart(channel, name, self._now())
                self._forget_reader(connection, channel)
            self._look()

    def _enter(self, connection: Connection, channel: str) -> None:
        inside = self._inside.setdefault(connection, {})
        if channel not in inside:
            name = inside[channel] = _name_of(connection)
            self.attendance.enter(channel, name, self._now())
            self._look()

    def _forget_reader(self, connection: Connection, channel: str) -> None:
        readers = self._readers.get(channel)
        if readers is not None and connection in readers:
            del readers[connection]
            if not readers:
                del self._readers[channel]
                self._idle[channel] = self._loop.time()

    # --------------------------------------------------------------------------------------------- who is told

    def _tell_everybody(self, connection: Connection, channel: str) -> None:
        """The first thing a reader hears is everybody, itself included: in a moment, so that a crowd is told in one go."""
        self._readers.setdefault(channel, {})[connection] = _NOT_GREETED
        self._watch(channel)
        self._greet_soon()

    def _greet_soon(self) -> None:
        if self._greeting is None:
            self._greeting = self._loop.call_later(self.policy.tell_s + 0.01, self._greet)

    def _greet(self) -> None:
        self._greeting = None
        self._wake()
        for channel, readers in self._readers.items():
            if not self._is_known(channel):
                continue  # as soon as other gateways' parts are
            new = [each for each, seen in readers.items() if seen is _NOT_GREETED]
            told = self.attendance.told(channel) if new else Members()
            for connection in new:
                readers[connection] = None
            self._send(new, Present(channel=channel, joined=told.names, count=told.count))

    def _send(self, connections: Iterable[Connection], present: Present) -> None:
        frames: dict[Encoding, bytes] = {}
        for connection in connections:
            if connection.is_over:
                continue
            data = frames.get(connection.encoding)
            if data is None:
                data = frames[connection.encoding] = connection.encoding.frame(present)
            connection.write(data)

    def _tell(self, channel: str, present: Present) -> None:
        readers = self._readers.get(channel, {})
        telling = []
        for connection, seen in readers.items():
            if connection.is_over or seen is not None:
                continue
            if connection.holds & (FROZEN | FULL):
                before = (set(self.attendance.told(channel).names) | set(present.left)) - set(present.joined)
                readers[connection] = frozenset(before)
                if self._behind is None:
                    self._behind = self._loop.call_later(BEHIND_S, self._catch_up)
            else:
                telling.append(connection)
        self._send(telling, present)

    def _catch_up(self) -> None:
        """Those who read again hear what changed meanwhile."""
        self._behind = None
        is_any = False
        for channel, readers in self._readers.items():
            for connection, seen in readers.items():
                if seen is None or seen is _NOT_GREETED:
                    continue
                if connection.holds & (FROZEN | FULL):
                    is_any = True
                    continue
                told = self.attendance.told(channel)
                joined = tuple(name for name in told.names if name not in seen)
                left = tuple(sorted(seen.difference(told.names)))
                readers[connection] = None
                connection.send(Present(channel=channel, joined=joined, left=left, count=told.count))
        if is_any:
            self._behind = self._loop.call_later(BEHIND_S, self._catch_up)

    def ask(self, channel: str, done: Callable[[Members | None], object]) -> None:
        """Who is there, now or as soon as other gateways were asked; None for a channel that does not tell."""
        if not self.gateway.rules.of(channel).is_presence:
            done(None)
        elif self.store is None or channel in self._known:
            done(self.attendance.members(channel))
        else:
            self._own(self._ask(self.store, channel, done))

    async def _ask(self, store: Store, channel: str, done: Callable[[Members | None], object]) -> None:
        asked = Attendance(self.policy)
        own, now = self.attendance.part(channel), self._now()
        if own is not None:
            asked.heard(channel, self.gateway.name, own, now)
        try:
            async with asyncio.timeout(RETRY_S * 4):
                _, entries = await list_span(store, self._span(channel))
            for entry in entries:
                gateway = entry.key.rpartition("/")[2]
                if gateway != self._own_word() and (part := parse_part(entry.value, self.policy)) is not None:
                    asked.heard(channel, gateway, part, now)
        except (StoreError, TimeoutError) as problem:
            log.info("who reads %r elsewhere is not known: %s", channel, problem)
        done(asked.members(channel))

    # ---------------------------------------------------------------------------------------------------- time

    def _look(self) -> None:
        """Sets the clock for what is due next."""
        at = self.attendance.wake_at()
        if self._waking is not None:
            if at is not None and self._waking.when() <= at:
                return
            self._waking.cancel()
            self._waking = None
        if at is not None:
            self._waking = self._loop.call_at(at, self._wake)

    def _wake(self) -> None:
        self._waking = None
        for effect in self.attendance.wake(Mono(self._loop.time() + 0.001)):
            if isinstance(effect, ShareMembers):
                if self.store is not None:
                    self._to_share[effect.channel] = effect.part
                    self._share.set()
            elif effect.channel in self._readers:
                told = Present(channel=effect.channel, joined=effect.joined, left=effect.left, count=effect.count)
                self._tell(effect.channel, told)
        self._look()

    # --------------------------------------------------------------------------------------------------- store

    def _own_word(self) -> str:
        return quote(self.gateway.name, safe="")

    def _key(self, channel: str) -> str:
        return f"{self._namespace}/presence/{quote(channel, safe='')}/{self._own_word()}"

    def _span(self, channel: str) -> Span:
        return Span.prefix(f"{self._namespace}/presence/{quote(channel, safe='')}/")

    def _watch(self, channel: str) -> None:
        """Watches what other gateways say of a channel."""
        self._idle.pop(channel, None)
        if self.store is not None and channel not in self._watches and len(self._watches) < WATCHED_MAX:
            self._watches[channel] = self._own(self._follow(self.store, channel))

    def _is_known(self, channel: str) -> bool:
        """Whether other gateways' parts are, as far as they ever will be."""
        return channel in self._known or channel not in self._watches

    async def _follow(self, store: Store, channel: str) -> None:
        while True:
            try:
                async with aclosing(follow(store, self._span(channel))) as told:
                    async for each in told:
                        if isinstance(each, Followed):
                            self._followed(channel, each)
                        else:
                            log.info("who reads %r elsewhere may be old: %s", channel, each.problem)
                        if channel not in self._known:  # what the store says, or that it says nothing
                            self._known.add(channel)
                            self._greet_soon()
            except StoreError as problem:
                log.warning("who reads %r elsewhere is not known: %s", channel, problem)
            await asyncio.sleep(RETRY_S)

    def _followed(self, channel: str, each: Followed) -> None:
        now = self._now()
        parts: dict[str, PresencePart] = {}
        for key, entry in each.entries.items():
            gateway = key.rpartition("/")[2]
            if gateway != self._own_word() and (part := parse_part(entry.value, self.policy)) is not None:
                parts[gateway] = part
        for gateway, part in parts.items():
            self.attendance.heard(channel, gateway, part, now)
        self.attendance.forget_others(channel, now, keep=parts)
        self._look()

    async def _sweep(self) -> None:
        """Lets go of watches that nobody needs any more."""
        while True:
            await asyncio.sleep(max(0.5, self.policy.linger_s / 2))
            for channel, since in tuple(self._idle.items()):
                if self._loop.time() - since >= self.policy.linger_s:
                    del self._idle[channel]
                    self._known.discard(channel)
                    task = self._watches.pop(channel, None)
                    if task is not None:
                        task.cancel()
                    self.attendance.forget_others(channel, self._now())
                    self._look()

    async def _keep_lease(self, store: Store) -> None:
        """Keeps a lease, and our parts under it; another one when it is gone."""
        while True:
            try:
                lease = await store.grant(self.policy.lease_s)
                self._lease = lease.id
                self._to_share.clear()
                self.attendance.share_again(self._now())
                self._look()
                await self._keep(store, lease.id)
            except LeaseGone:
                log.info("the lease of %s is gone; its readers are shared anew", self.gateway.name)
            except StoreError as problem:
                log.info("presence is not shared: %s", problem)
                await asyncio.sleep(RETRY_S)
            except TimeoutError:
                await asyncio.sleep(RETRY_S)

    async def _keep(self, store: Store, lease: int) -> None:
        renew_s = self.policy.lease_s / 3
        due = self._loop.time() + renew_s
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - self._loop.time())):
                    await self._share.wait()
            if self._loop.time() >= due:
                async with asyncio.timeout(self.policy.lease_s / 2):
                    await store.keep_alive(lease)
                due = self._loop.time() + renew_s
            while self._to_share:
                batch = [(channel, self._to_share.pop(channel)) for channel in tuple(self._to_share)[:PUTS_MAX]]
                operations = tuple(
                    Delete(Span.one(self._key(channel)))
                    if part is None
                    else Put(self._key(channel), format_part(part), lease)
                    for channel, part in batch
                )
                async with asyncio.timeout(self.policy.lease_s / 2):
                    await store.commit(Txn(then=operations))
            self._share.clear()


_NOT_GREETED: Final = frozenset({"\0"})
"""Stands for a reader that was not told anything yet."""


def _name_of(connection: Connection) -> str:
    session = getattr(connection, "session", None)
    grant = session.grant if session is not None else getattr(connection, "grant", None)
    subject = "" if grant is None else str(grant.subject)
    return "" if subject in NOBODY else subject[:NAME_CHARACTERS_MAX]


def format_part(part: PresencePart) -> bytes:
    """As it is put into a store."""
    return json.dumps({"names": part.names, "others": part.others}, separators=(",", ":")).encode()


def parse_part(raw: bytes, policy: PresencePolicy) -> PresencePart | None:
    """What another gateway has put; None for what is something else."""
    try:
        said = json.loads(raw)
        names = tuple(str(name)[:NAME_CHARACTERS_MAX] for name in said["names"])
        others = int(said["others"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    bound = policy.members_max
    return PresencePart(names[:bound], max(0, others) + max(0, len(names) - bound))
