"""A store in this process: the machine, and a timer for its leases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from budao.model import Clock, Mono
from budao.store import (
    Batch,
    Commit,
    Committed,
    Compact,
    Grant,
    Keeper,
    Lease,
    LeaseView,
    Page,
    Revoke,
    Span,
    StoreAway,
    StorePolicy,
    StoreRefused,
    Txn,
)

BATCHES_MAX = 128
"""Batches a watcher takes at a time."""

WAIT_MAX_S = 3_600.0
"""A timer further away is set again on the way: an event loop refuses spans that no clock can hold."""


def monotonic() -> Mono:
    """The machine's monotonic clock."""
    return Mono(time.monotonic())


class MemoryStore:
    """A `Store` that lives and dies with this process. Any number of tasks on one event loop may share it."""

    def __init__(self, *, clock: Clock = monotonic, policy: StorePolicy | None = None, name: str = "memory") -> None:
        self.name = name
        self.keeper = Keeper(policy)
        self._clock = clock
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._watching = 0
        self._away: str | None = None
        self._told = self.keeper.revision

    async def read(self, span: Span, *, revision: int = 0, limit: int = 0) -> Page:
        self._begin()
        return self.keeper.read(span, revision, limit)

    async def commit(self, txn: Txn) -> Committed:
        committed = self.keeper.apply(Commit(txn), self._begin())
        self._settle()
        return committed

    async def watch(self, span: Span, *, after: int) -> AsyncIterator[Batch]:
        if self._watching >= self.keeper.policy.watchers_max:
            raise StoreRefused("watch", f"{self._watching} watches are open, and that is the bound")
        self._watching += 1
        try:
            while True:
                # Taken before the changes are: what changes meanwhile is then not missed.
                changed = self._changed
                self._begin()
                revision = self.keeper.revision
                batches = self.keeper.changes(span, after, BATCHES_MAX)
                for batch in batches:
                    yield batch
                if len(batches) == BATCHES_MAX:
                    after = batches[-1].revision
                else:
                    after = max(after, revision)
                    await changed.wait()
        finally:
            self._watching -= 1

    async def grant(self, ttl_s: float, *, lease: int = 0) -> Lease:
        granted = self.keeper.apply(Grant(lease, ttl_s), self._begin())
        self._settle()
        return granted

    async def keep_alive(self, lease: int) -> Lease:
        return self.keeper.renew(lease, self._begin())

    async def revoke(self, lease: int) -> None:
        self.keeper.apply(Revoke(lease), self._begin())
        self._settle()

    async def look_up(self, lease: int) -> LeaseView:
        return self.keeper.look_up(lease, self._begin())

    async def compact(self, revision: int) -> None:
        self.keeper.apply(Compact(revision), self._begin())

    async def aclose(self) -> None:
        """Ends the watches and the timer. What comes later is answered with `StoreAway`."""
        self.go_away("it is closed")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def go_away(self, happened: str) -> None:
        """From now on answers with `StoreAway`, as a store that cannot be reached does. Leases go on running out."""
        self._away = happened
        self._tell()

    def come_back(self) -> None:
        """Answers again."""
        self._away = None

    def wake(self) -> None:
        """Ends the leases that have run out. A timer does so by itself; with a pretend clock, do it where it moves."""
        now = self._clock()
        due = self.keeper.wake(now)
        for revoke in due:
            self.keeper.apply(revoke, now)
        if due:
            self._settle()

    def _begin(self) -> Mono:
        """Time passes before news is read."""
        if self._away is not None:
            raise StoreAway(self.name, self._away)
        self.wake()
        return self._clock()

    def _settle(self) -> None:
        """What changed is told, and the timer set to the next end of a lease."""
        if self.keeper.revision != self._told:
            self._told = self.keeper.revision
            self._tell()
        wake_at = self.keeper.wake_at()
        if wake_at is None:
            return  # a timer that is still set rings for nothing, once
        loop = asyncio.get_running_loop()
        ring_at = loop.time() + min(max(0.0, wake_at - self._clock()), WAIT_MAX_S)
        if self._timer is not None:
            if self._timer.when() <= ring_at:
                return  # it rings too early, and is set again then
            self._timer.cancel()
        self._timer = loop.call_at(ring_at, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.wake()
        self._settle()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
