"""The folder of a log: its journals and snapshots. Everything here blocks, and is called in a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final, Self

from budao.aio.generations import FIRST, LOCK, NAME, Failure, GenerationFolder
from budao.model import RemoteWireError, Wall
from budao.push import Book, Kept, KnownId, LogRefused
from budao.wire import log_journal as wire
from budao.wire import records

OURS: Final = frozenset({LOCK, "lost+found"})
SHOWN: Final = 3


class LogFolder(GenerationFolder):
    """One open folder of a log. Made by `open`, which recovers what is there."""

    journal: ClassVar = records.Kind.LOG_JOURNAL
    snapshot: ClassVar = records.Kind.LOG_SNAPSHOT
    owner: ClassVar = "log"
    refused: ClassVar = LogRefused

    groups = 0
    """How many were made durable, through all restarts."""

    @classmethod
    def open(
        cls, folder: Path, empty: Callable[[], Book], now: Wall, *, new_life: str | None = None
    ) -> tuple[Self, Book]:
        """The folder, and everything that was acknowledged and is not too old. `empty` makes a book with today's bounds.

        With `new_life` all channels begin one of that name, and that is durable: see `Book.begin_anew`.

        Raises:  LogRefused if another process has it, it is the folder of something else, or the disk does not let us;
                 Unreadable if it is damaged.
        """
        return cls._opened(folder, lambda opened: cls._recover(opened, empty, now, new_life))

    def _recover(self, empty: Callable[[], Book], now: Wall, new_life: str | None) -> Book:
        journals, snapshots = self._found()
        if not snapshots and not journals:
            self._check_empty()
        if not snapshots and journals <= {FIRST} and self._is_unused(FIRST):
            return self._create(empty())
        bases = sorted(snapshots, reverse=True)
        book, last = self._tried_from(
            journals, snapshots, bases, lambda base, newest: self._replayed(empty(), base, newest, now)
        )
        self._go_on(max(journals), last)
        if new_life is not None:
            book.begin_anew(new_life)
            kept, ids = book.kept(), book.known_ids()
            if failure := self.rotate() or self.save(self.groups, kept, ids, self.generation):
                raise LogRefused(f"begin anew the channels in {self.folder}", failure.problem)
        return book

    def _check_empty(self) -> None:
        found = sorted(path.name for path in self.folder.iterdir() if path.name not in OURS)
        strange = [name for name in found if not NAME.fullmatch(name)]
        if strange:
            shown = ", ".join(strange[:SHOWN]) + (", …" if len(strange) > SHOWN else "")
            happened = f"it holds no log, and other things: {shown}; give an empty folder, or one that is not there yet"
            raise LogRefused(f"make a log in {self.folder}", happened)

    def _create(self, book: Book) -> Book:
        self._name_anew()
        if failure := self.rotate() or self.save(0, (), (), FIRST):
            raise LogRefused(f"make a log in {self.folder}", failure.problem)
        return book

    def _replayed(self, book: Book, base: int, newest: int, now: Wall) -> tuple[Book, records.Records]:
        path = str(self._path(self.snapshot, base))
        read = self._read(self.snapshot, base, may_be_torn=False)
        log = read.header.store
        try:
            groups, kept, ids = wire.parse_snapshot(read.payloads)
            book.restore(kept, ids, now)
        except (RemoteWireError, LogRefused) as problem:
            raise records.Unreadable(path, 0, str(problem), records.BACKUP) from problem
        for generation in range(base, newest + 1):
            read = self._read(self.journal, generation, may_be_torn=generation == newest)
            path = str(self._path(self.journal, generation))
            if read.header.store != log:
                raise records.Unreadable(path, 0, "it belongs to another log", records.BACKUP)
            try:
                start = wire.parse_start(read.payloads[0] if read.payloads else b"")
                if start != groups:
                    raise RemoteWireError(f"it begins after {start} groups, and {groups} were read")
                for payload in read.payloads[1:]:
                    before, runs = wire.parse_group(payload)
                    if before != groups:
                        raise RemoteWireError(f"a group follows {before} others, and {groups} were read")
                    for run in runs:
                        book.replay(run)
                    groups += 1
            except (RemoteWireError, LogRefused) as problem:
                raise records.Unreadable(path, 0, str(problem), records.BACKUP) from problem
        self.groups = groups
        book.wake(now)
        return book, read

    def write(self, runs: Sequence[bytes]) -> Failure | None:
        """Makes one group durable; `runs` are what `format_run` packs."""
        failure = self.append(wire.format_group(self.groups, runs))
        if failure is None:
            self.groups += 1
        return failure

    def rotate(self) -> Failure | None:
        """Begins the journal of the next generation."""
        return self._begin(wire.format_start(self.groups))

    def save(self, groups: int, kept: Sequence[Kept], ids: Sequence[KnownId], generation: int) -> Failure | None:
        """Writes what was there when the journal of this generation was begun, and lets go of what is older."""
        return self._save(wire.format_snapshot(groups, kept, ids), generation)
