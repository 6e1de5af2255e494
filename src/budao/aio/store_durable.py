"""A store in this process that survives it: nobody is answered, or sees a change, before it is on the disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from budao.aio.journal import JournalFolder
from budao.aio.memory_store import BATCHES_MAX, monotonic
from budao.model import Checks, Clock, LocalWireError, Mono
from budao.store import (
    Answer,
    Batch,
    Command,
    Commit,
    Committed,
    Compact,
    Grant,
    Keeper,
    Lease,
    LeaseGone,
    LeaseView,
    Page,
    Revoke,
    Span,
    StoreAway,
    StoreError,
    StorePolicy,
    StoreRefused,
    Txn,
)
from budao.wire import journal as wire

log = logging.getLogger("budao.store")

TICK_S: Final = 0.5
STALLED_S: Final = 1.5
"""So late a tick means that nobody could renew a lease for that long, through our own fault."""
COMMAND_BYTES_MAX: Final = wire.RECORD_BYTES_MAX - 64
"""A longer one fits no record."""
MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalPolicy:
    """How much is written at once, and when old journals make room for a snapshot.

    Raises:  BadSettings with every problem.
    """

    rotate_bytes: int = 32 * MIB
    """A longer journal is followed by a new one, and by a snapshot. Recovery reads up to two of them."""
    group_bytes_max: int = 4 * MIB
    """What waits is made durable together, up to this."""
    waiting_bytes_max: int = 64 * MIB
    """Beyond this, commands are refused until the disk has caught up."""

    def __post_init__(self) -> None:
        check = Checks("journal")
        check.count("rotate_bytes", self.rotate_bytes, 4096, 1024 * MIB)
        check.count("group_bytes_max", self.group_bytes_max, 1, 64 * MIB)
        check.count("waiting_bytes_max", self.waiting_bytes_max, 1, 1024 * MIB)
        check.done()


class DurableStore:
    """A `Store` on one folder, as an async context manager.

    Commands that arrive while the disk is busy wait, and are written and synced together. They are carried out once
    they are durable, so a read shows what a crash cannot take back, and a failed write has nothing to undo.

    Raises:  on entering, StoreRefused if another process has the folder, or `wire.journal.Unreadable` if it is damaged.
    """

    def __init__(
        self,
        folder: Path,
        *,
        policy: StorePolicy | None = None,
        journal: JournalPolicy | None = None,
        clock: Clock = monotonic,
        name: str | None = None,
    ) -> None:
        self.name = name or f"file:{folder}"
        self.folder = folder
        self.policy = StorePolicy() if policy is None else policy
        self.journal_policy = JournalPolicy() if journal is None else journal
        self.keeper = Keeper(self.policy)
        """What is durable. Only to be asked."""
        self.on_change: Callable[[], object] | None = None
        """Told each time the revision has grown."""
        self.crashed = asyncio.Event()
        """Set once it has stopped for a mistake of its own: whoever runs it should start it anew."""
        self._clock = clock
        self._files: JournalFolder | None = None
        self._queue: list[tuple[Command, bytes, asyncio.Future[Answer] | None]] = []
        self._writing: list[tuple[Command, bytes, asyncio.Future[Answer] | None]] = []
        """The group that is being made durable."""
        self._waiting_bytes = 0
        self._ending: set[int] = set()
        self._arrived = asyncio.Event()
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._saving: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._away: str | None = "it is not open"
        self._watching = 0
        self._problem: str | None = None
        self._rotate_at = self.journal_policy.rotate_bytes

    # ------------------------------------------------------------------------------------------ its life

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._writer = ThreadPoolExecutor(1, "budao-journal")
        self._saver = ThreadPoolExecutor(1, "budao-snapshot")
        opening = loop.run_in_executor(self._writer, JournalFolder.open, self.folder, self.policy, self._clock())
        try:
            files, self.keeper = await asyncio.shield(opening)
        except BaseException:
            opening.add_done_callback(_let_go)
            self._writer.shutdown(wait=False)
            self._saver.shutdown(wait=False)
            raise
        self._files = files
        for note in files.notes:
            log.warning("%s", note)
        self._away = None
        self._tasks = [asyncio.create_task(self._write(files)), asyncio.create_task(self._keep_time())]
        for task in self._tasks:
            task.add_done_callback(self._crashed)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Makes durable what waits, answers it, and lets go of the folder, also if nobody waits for that any more."""
        if self._files is not None:
            files, self._files = self._files, None
            self._closing = asyncio.create_task(self._close(files))
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _close(self, files: JournalFolder) -> None:
        self._away = "it is closed"
        self._arrived.set()
        writer, ticker = self._tasks
        ticker.cancel()
        await asyncio.wait([writer, ticker, *([self._saving] if self._saving is not None else [])])
        self._tell()
        self._writer.shutdown()
        self._saver.shutdown()
        files.close()

    @property
    def store_id(self) -> bytes:
        """Which store this is, through all its restarts."""
        assert self._files is not None, "it is open"
        return self._files.store

    @property
    def problem(self) -> str | None:
        """Why the latest write failed; None if it did not."""
        return self._problem

    # ----------------------------------------------------------------------------------------- questions

    async def read(self, span: Span, *, revision: int = 0, limit: int = 0) -> Page:
        self._check_open()
        return self.keeper.read(span, revision, limit)

    async def watch(self, span: Span, *, after: int) -> AsyncIterator[Batch]:
        self.begin_watch()
        try:
            while True:
                # Taken before the changes are: what changes meanwhile is then not missed.
                changed = self._changed
                self._check_open()
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
            self.end_watch()

    def begin_watch(self) -> None:
        """Counts a watch, until `end_watch`.

        Raises:  StoreRefused if there are too many.
        """
        if self._watching >= self.policy.watchers_max:
            raise StoreRefused("watch", f"{self._watching} watches are open, and that is the bound")
        self._watching += 1

    def end_watch(self) -> None:
        """One less."""
        self._watching -= 1

    async def keep_alive(self, lease: int) -> Lease:
        return self.renew(lease)

    async def look_up(self, lease: int) -> LeaseView:
        self._check_open()
        return self.keeper.look_up(lease, self._clock())

    def now(self) -> Mono:
        """What its clock says."""
        return self._clock()

    def renew(self, lease: int) -> Lease:
        """Renewals are not kept: a lease has its whole span after a restart anyway."""
        self._check_open()
        if lease in self._ending:
            raise LeaseGone(lease)  # its end is on its way to the disk, and nothing takes it back
        return self.keeper.renew(lease, self._clock())

    # ------------------------------------------------------------------------------------------ commands

    async def commit(self, txn: Txn) -> Committed:
        committed = await self.submit(Commit(txn))
        assert isinstance(committed, Committed), "what a commit is answered with"
        return committed

    async def grant(self, ttl_s: float, *, lease: int = 0) -> Lease:
        granted = await self.submit(Grant(lease, ttl_s))
        assert isinstance(granted, Lease), "what a grant is answered with"
        return granted

    async def revoke(self, lease: int) -> None:
        await self.submit(Revoke(lease))

    async def compact(self, revision: int) -> None:
        await self.submit(Compact(revision))

    def submit(self, command: Command) -> asyncio.Future[Answer]:
        """Takes a command; the answer comes once it is durable. Nobody needs to wait for it.

        Raises:  StoreError at once, if it can be refused as things stand.
        """
        self._check_open()
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        prepared = self.keeper.prepare(command)
        if not prepared.is_change:
            # What changes nothing is answered by what is durable, before everything that still waits.
            answered.set_result(prepared.answer)
            return answered
        try:
            packed = wire.format_command(command)
        except LocalWireError as problem:
            raise StoreRefused(type(command).__name__.lower(), str(problem)) from problem
        if len(packed) > COMMAND_BYTES_MAX:
            bound = f"{len(packed)} bytes packed, and a journal takes {COMMAND_BYTES_MAX}"
            raise StoreRefused(type(command).__name__.lower(), bound)
        if self._waiting_bytes + len(packed) > self.journal_policy.waiting_bytes_max:
            raise StoreAway(self.name, f"{self._waiting_bytes} bytes wait for its disk, and that is the bound")
        self._put(command, packed, answered)
        return answered

    def _put(self, command: Command, packed: bytes, answered: asyncio.Future[Answer] | None) -> None:
        self._queue.append((command, packed, answered))
        self._waiting_bytes += len(packed)
        self._arrived.set()

    # ------------------------------------------------------------------------------------- what runs here

    async def _write(self, files: JournalFolder) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._queue:
                if self._away is not None:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                continue
            group = self._writing = self._take()
            payload = wire.format_group(self.keeper.revision, [packed for _, packed, _ in group])
            failure = await loop.run_in_executor(self._writer, files.append, payload)
            self._waiting_bytes -= sum(len(packed) for _, packed, _ in group)
            if failure is not None:
                self._fail(group, failure.problem, failure.may_have_taken_effect)
                continue
            if self._problem is not None:
                log.warning("%s: its journal can be written again", self.name)
                self._problem = None
            self._carry_out(group)
            if files.journal_bytes >= self._rotate_at and self._saving is None and self._away is None:
                await self._rotate(files)

    def _take(self) -> list[tuple[Command, bytes, asyncio.Future[Answer] | None]]:
        count = size = 0
        for _, packed, _ in self._queue:
            size += len(packed)
            if count and size > self.journal_policy.group_bytes_max:
                break
            count += 1
        group = self._queue[:count]
        del self._queue[:count]
        return group

    def _carry_out(self, group: list[tuple[Command, bytes, asyncio.Future[Answer] | None]]) -> None:
        now, before = self._clock(), self.keeper.revision
        for command, _, answered in group:
            try:
                answer = self.keeper.apply(command, now)
            except StoreError as refused:
                if answered is not None and not answered.done():
                    answered.set_exception(refused)
            else:
                if answered is not None and not answered.done():
                    answered.set_result(answer)
            if answered is None and isinstance(command, Revoke):
                self._ending.discard(command.lease)
        if self.keeper.revision != before:
            self._tell()

    def _fail(
        self, group: list[tuple[Command, bytes, asyncio.Future[Answer] | None]], problem: str, may_have: bool
    ) -> None:
        if self._problem != problem:
            log.error("%s: %s", self.name, problem)
        self._problem = problem
        for command, _, answered in group:
            if answered is None:
                if isinstance(command, Revoke):
                    self._ending.discard(command.lease)
            elif not answered.done():
                answered.set_exception(StoreAway(self.name, problem, may_have_taken_effect=may_have))

    def _crashed(self, task: asyncio.Task[None]) -> None:
        """A mistake of ours must not leave anybody waiting."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.critical("%s: stops for a mistake of its own", self.name, exc_info=error)
        self._away = f"it has stopped for a mistake of its own: {error!r}"
        self.crashed.set()
        group, self._queue = self._queue, []
        self._fail(self._writing, self._away, True)
        self._fail(group, self._away, False)
        self._tell()

    async def _rotate(self, files: JournalFolder) -> None:
        loop = asyncio.get_running_loop()
        failure = await loop.run_in_executor(self._writer, files.rotate, self.keeper.revision, self.policy)
        if failure is not None:
            self._rotate_at = files.journal_bytes + self.journal_policy.rotate_bytes
            log.error("%s: %s; the journal grows on", self.name, failure.problem)
            return
        self._rotate_at = self.journal_policy.rotate_bytes
        # Nothing is carried out between the new journal and this: it is what was there when the journal began.
        snapshot, generation = self.keeper.snapshot(), files.generation

        async def save() -> None:
            try:
                failed = await loop.run_in_executor(self._saver, files.save, snapshot, generation)
                said = None if failed is None else failed.problem
            except Exception as error:  # noqa: BLE001 -- said; without another try the journal would grow without end
                said = f"its snapshot failed: {error!r}"
            finally:
                self._saving = None
            if said is not None:
                log.error("%s: %s; older journals are kept until the next one", self.name, said)

        self._saving = asyncio.create_task(save())

    async def _keep_time(self) -> None:
        """Ends leases that have run out, unless it is we who were away."""
        while True:
            now = self._clock()
            wake_at = self.keeper.wake_at()
            pause_s = TICK_S if wake_at is None else min(TICK_S, max(0.0, wake_at - now))
            # A lease that cannot be ended for want of space is tried again, though not without end.
            await asyncio.sleep(max(pause_s, 0.01 if self._problem is None else TICK_S))
            woken = self._clock()
            if woken - now > pause_s + STALLED_S:
                log.warning("%s: stood still for %.1f s; every lease has its whole span again", self.name, woken - now)
                self.keeper.renew_all(woken)
            for revoke in self.keeper.wake(woken):
                if revoke.lease not in self._ending:
                    self._ending.add(revoke.lease)
                    self._put(revoke, wire.format_command(revoke), None)

    def _check_open(self) -> None:
        if self._away is not None:
            raise StoreAway(self.name, self._away)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        if self.on_change is not None:
            self.on_change()


def _let_go(opening: asyncio.Future[tuple[JournalFolder, Keeper]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()
