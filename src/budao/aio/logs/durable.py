"""A log in this process that survives it: nobody is answered, or told of a message, before it is on the disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from budao.aio.generations import Failure
from budao.aio.logs.folder import LogFolder
from budao.aio.logs.local import MIB, LocalLog, WallClock, wall
from budao.model import Checks
from budao.push import Appended, Book, BookPolicy, ChannelRules, Draft, LogAway, NotPlaced, Placed, Prepared
from budao.wire import log_codec

log = logging.getLogger("budao.log")

DRAFT_BYTES: Final = 64
"""What a draft takes beside its data, roughly, where those that wait are bounded."""

Answers = tuple[Placed | NotPlaced, ...]
Told = Callable[[Sequence[Appended], Sequence[bytes]], object]
"""What was appended, and the same as `log_codec.format_run` packs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPolicy:
    """How much is written at once, and when old journals make room.

    Raises:  BadSettings with every problem.
    """

    rotate_bytes: int = 64 * MIB
    """A journal longer than this, and than all that is retained, is followed by a new one, and by a snapshot of what is
    retained. So the disk holds at most about four times the larger of the two."""
    group_bytes_max: int = 4 * MIB
    """What waits is made durable together, up to this."""
    waiting_bytes_max: int = 64 * MIB
    """What may wait for the disk. Who publishes beyond it is told to try again."""

    def __post_init__(self) -> None:
        check = Checks("log")
        check.count("rotate_bytes", self.rotate_bytes, 4096, 1024**4)
        check.count("group_bytes_max", self.group_bytes_max, 1, 16 * MIB)
        check.count("waiting_bytes_max", self.waiting_bytes_max, 1, 1024**4)
        check.done()


class _Waiting(NamedTuple):
    """Drafts that wait for the disk."""

    drafts: Sequence[Draft]
    bytes: int
    answered: asyncio.Future[Answers]


class DurableLog(LocalLog):
    """A `ChannelLog` on one folder, as an async context manager.

    A folder that was put back from a backup gives places again that it had given before. With `is_restored` all channels begin a
    new life where they are, so that whoever read what is not there any more hears of a gap, and not of other messages in its place.

    What is published while the disk is busy waits, and is written and synced together. It is carried out once it is
    durable, so a reader sees only what a crash cannot take back, and a failed write has nothing to undo.

    Raises:  on entering, LogRefused if another process has the folder or it holds something else, or
             `wire.records.Unreadable` if it is damaged.
    Cost:    one write and one fdatasync for all that waited; some 15 µs of a processor for each message.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rules: ChannelRules | None = None,
        policy: BookPolicy | None = None,
        log_policy: LogPolicy | None = None,
        clock: WallClock = wall,
        epochs: Callable[[], str] | None = None,
        name: str | None = None,
        is_restored: bool = False,
    ) -> None:
        super().__init__(rules=rules, policy=policy, clock=clock, epochs=epochs, name=name or f"file:{folder}")
        self.folder = folder
        self.is_restored = is_restored
        self.log_policy = LogPolicy() if log_policy is None else log_policy
        self.on_appended: Told | None = None
        """Told once something is durable, after the feeds."""
        self.crashed = asyncio.Event()
        """Set once it has stopped for a mistake of its own: whoever runs it should start it anew."""
        self._files: LogFolder | None = None
        self._queue: list[_Waiting] = []
        self._writing: list[_Waiting] = []
        """The group that is being made durable."""
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._saving: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self._rotate_at = 0
        self._away = "it is not open"

    # ------------------------------------------------------------------------------------------ its life

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._writer = ThreadPoolExecutor(1, "budao-log")
        self._saver = ThreadPoolExecutor(1, "budao-log-snapshot")
        rules, policy = self.book.rules, self.book.policy
        new_life = self._epochs() if self.is_restored else None
        opening = loop.run_in_executor(
            self._writer,
            lambda: LogFolder.open(self.folder, lambda: Book(rules, policy), self._clock(), new_life=new_life),
        )
        try:
            files, self.book = await asyncio.shield(opening)
        except BaseException:
            opening.add_done_callback(_let_go)
            self._writer.shutdown(wait=False)
            self._saver.shutdown(wait=False)
            raise
        self._files = files
        for note in files.notes:
            log.warning("%s", note)
        self._begin()
        self._plan_rotation(0)
        self._task = asyncio.create_task(self._write(files), name=f"writer of {self.name}")
        self._task.add_done_callback(self._crashed)
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

    async def _close(self, files: LogFolder) -> None:
        assert self._task is not None, "it was opened"
        self._away = "it is closed"
        self._arrived.set()
        await asyncio.wait([self._task, *([self._saving] if self._saving is not None else [])])
        await self._end("it is closed")
        self._writer.shutdown()
        self._saver.shutdown()
        files.close()

    @property
    def log_id(self) -> bytes:
        """Which log this is, through all its restarts."""
        assert self._files is not None, "it is open"
        return self._files.store

    @property
    def problem(self) -> str | None:
        """Why the latest write failed; None if it did not."""
        return self._problem

    # ---------------------------------------------------------------------------------------- publishing

    async def publish(self, drafts: Sequence[Draft]) -> Answers:
        return await self.submit(drafts)

    def submit(self, drafts: Sequence[Draft]) -> asyncio.Future[Answers]:
        """Takes drafts; the answer comes once they are durable. Nobody needs to wait for it.

        Raises:  LogAway.
        """
        self.check_open()
        size = sum(len(draft.data) + DRAFT_BYTES for draft in drafts)
        if self._waiting_bytes + size > self.log_policy.waiting_bytes_max and self._waiting_bytes:
            raise LogAway(self.name, f"{self._waiting_bytes} bytes wait for its disk, and that is the bound")
        answered: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(drafts, size, answered))
        self._waiting_bytes += size
        self._arrived.set()
        return answered

    async def _write(self, files: LogFolder) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._queue:
                if self._away is not None:
                    return
                self._arrived.clear()
                await self._arrived.wait()
                continue
            group = self._writing = self._take()
            prepared = self.book.prepare(
                [draft for waiting in group for draft in waiting.drafts], self._clock(), self._epochs()
            )
            packed = [log_codec.format_run(run) for run in prepared.appended]
            # What changes nothing is answered by what is durable.
            failure = await loop.run_in_executor(self._writer, files.write, packed) if packed else None
            self._waiting_bytes -= sum(waiting.bytes for waiting in group)
            if failure is not None:
                self._fail(group, prepared, failure)
                continue
            if packed and self._problem is not None:
                log.warning("%s: its journal can be written again", self.name)
                self._problem = None
            self._carry_out(group, prepared, packed)
            if files.journal_bytes >= self._rotate_at and self._saving is None and self._away is None:
                await self._rotate(files)

    def _take(self) -> list[_Waiting]:
        count = size = 0
        for waiting in self._queue:
            size += waiting.bytes
            if count and size > self.log_policy.group_bytes_max:
                break
            count += 1
        group = self._queue[:count]
        del self._queue[:count]
        return group

    def _carry_out(self, group: list[_Waiting], prepared: Prepared, packed: list[bytes]) -> None:
        _answer(group, self.book.carry_out(prepared))
        if packed:
            self._tell(prepared.appended)
            if self.on_appended is not None:
                self.on_appended(prepared.appended, packed)

    def _fail(self, group: list[_Waiting], prepared: Prepared, failure: Failure) -> None:
        if self._problem != failure.problem:
            log.error("%s: %s", self.name, failure.problem)
        self._problem = failure.problem
        if not failure.is_full:
            _refuse(
                group, lambda: LogAway(self.name, failure.problem, may_have_taken_effect=failure.may_have_taken_effect)
            )
            return
        lost = {(channel, name) for channel, name, _ in prepared.ids}
        none = NotPlaced("no-space", failure.problem)
        drafts = (draft for waiting in group for draft in waiting.drafts)
        # What was refused stays refused, and a repeat of what is durable is one.
        stands = (
            isinstance(answer, NotPlaced) or (answer.is_repeat and (draft.channel, draft.id) not in lost)
            for draft, answer in zip(drafts, prepared.answers, strict=True)
        )
        _answer(group, tuple(each if stand else none for each, stand in zip(prepared.answers, stands, strict=True)))

    def _crashed(self, task: asyncio.Task[None]) -> None:
        """A mistake of ours must not leave anybody waiting."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.critical("%s: stops for a mistake of its own", self.name, exc_info=error)
        self._away = why = f"it has stopped for a mistake of its own: {error!r}"
        self._problem = why
        self.crashed.set()
        _refuse(self._writing, lambda: LogAway(self.name, why, may_have_taken_effect=True))
        group, self._queue = self._queue, []
        _refuse(group, lambda: LogAway(self.name, why))
        for feed in tuple(self.feeds):
            feed.end(why)

    # ------------------------------------------------------------------------------------------ rotation

    def _plan_rotation(self, journal_bytes: int) -> None:
        """The next one comes once a journal is as long as what a snapshot would hold: writing twice is then the most."""
        self._rotate_at = journal_bytes + max(self.log_policy.rotate_bytes, self.book.bytes)

    async def _rotate(self, files: LogFolder) -> None:
        loop = asyncio.get_running_loop()
        failure = await loop.run_in_executor(self._writer, files.rotate)
        if failure is not None:
            self._plan_rotation(files.journal_bytes)
            log.error("%s: %s; the journal grows on", self.name, failure.problem)
            return
        self._plan_rotation(0)
        # Nothing is carried out between the new journal and this: it is what was there when the journal began.
        kept, ids, groups, generation = self.book.kept(), self.book.known_ids(), files.groups, files.generation

        async def save() -> None:
            try:
                failed = await loop.run_in_executor(self._saver, files.save, groups, kept, ids, generation)
                said = None if failed is None else failed.problem
            except Exception as error:  # noqa: BLE001 -- said; without another try the journal would grow without end
                said = f"its snapshot failed: {error!r}"
            finally:
                self._saving = None
            if said is not None:
                log.error("%s: %s; older journals are kept until the next one", self.name, said)

        self._saving = asyncio.create_task(save())


def _answer(group: Sequence[_Waiting], answers: Answers) -> None:
    at = 0
    for waiting in group:
        count = len(waiting.drafts)
        if not waiting.answered.done():
            waiting.answered.set_result(answers[at : at + count])
        at += count


def _refuse(group: Sequence[_Waiting], away: Callable[[], LogAway]) -> None:
    for waiting in group:
        if not waiting.answered.done():
            waiting.answered.set_exception(away())


def _let_go(opening: asyncio.Future[tuple[LogFolder, Book]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()
