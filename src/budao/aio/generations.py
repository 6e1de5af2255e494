"""A folder of journals and snapshots: what a store and a log have in common. Everything here blocks, and is called in a thread.

A folder holds generations. `journal-N` is what was done after `snapshot-N`; the generation before the newest snapshot is
kept as well, so that a damaged snapshot costs nothing, and watchers can resume from before it.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from errno import EACCES, EDQUOT, EFBIG, ENOSPC, EPERM, EROFS
from pathlib import Path
from random import SystemRandom
from typing import ClassVar, Final, Self, TypeVar

from budao.push import LogRefused
from budao.store import StoreRefused
from budao.wire import records as wire

T = TypeVar("T")

NO_SPACE: Final = frozenset({ENOSPC, EDQUOT, EFBIG})
NAME: Final = re.compile(r"(journal|snapshot)-([0-9]{8,})\.budao")
ASIDE: Final = re.compile(r"(journal|snapshot)-[0-9]{8,}\.tmp")
"""What was not finished. Nothing else that ends in .tmp is ours: the folder may be the wrong one."""
LOCK: Final = "lock"
FIRST: Final = 1


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something could not be made durable."""

    problem: str
    may_have_taken_effect: bool = False
    """Whether it may be found there after a restart all the same."""
    is_full: bool = False
    """Whether the disk has no space: it may have some later."""


class GenerationFolder:
    """One open folder, which only one process has open at a time. What its records hold is known to who inherits."""

    journal: ClassVar[wire.Kind]
    snapshot: ClassVar[wire.Kind]
    owner: ClassVar[str]
    """What it is a folder of."""
    refused: ClassVar[type[StoreRefused | LogRefused]]
    """What to raise: what was tried, what happened."""

    def __init__(self, folder: Path, lock: int, names: int) -> None:
        self.folder = folder
        self.notes: list[str] = []
        """What a person should know about the recovery."""
        self.broken: str | None = None
        """Why nothing is written any more. After a failed fsync nobody knows what the file holds."""
        self.store = b""
        self.generation = 0
        self.torn_bytes = 0
        """What was cut off the newest journal: a write that nobody had been told of."""
        self._lock = lock
        self._names = names
        """The folder itself, open, so that making a name durable needs no descriptor when there are none left."""
        self._file = -1
        self._seed = 0
        self._index = 0
        self._end = 0

    @property
    def journal_bytes(self) -> int:
        """How long the newest journal is."""
        return self._end

    # --------------------------------------------------------------------------------------------- opening

    @classmethod
    def _opened(cls, folder: Path, recover: Callable[[Self], T]) -> tuple[Self, T]:
        """The folder, locked, and what `recover` found in it.

        Raises:  what `refused` makes, if another process has it or the disk does not let us; Unreadable if it is damaged.
        """
        tried = f"open the {cls.owner} in {folder}"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            names = cls._held(folder, tried)
            try:
                lock = cls._locked(folder, tried)
            except BaseException:
                os.close(names)
                raise
        except (FileExistsError, NotADirectoryError) as problem:
            leads = "leads nowhere" if folder.is_symlink() and not folder.exists() else "is a file"
            raise cls.refused(tried, f"{problem.filename} {leads}, and a folder is needed") from problem
        except OSError as problem:
            happened = problem.strerror or str(problem)
            if problem.errno in {EACCES, EPERM, EROFS}:
                happened += "; give a folder that this user may write to"
            raise cls.refused(tried, happened) from problem
        opened = cls(folder, lock, names)
        try:
            return opened, recover(opened)
        except OSError as problem:
            opened.close()
            raise cls.refused(tried, f"{problem.filename or folder}: {problem.strerror or problem}") from problem
        except BaseException:
            opened.close()
            raise

    def close(self) -> None:
        """Lets go of the files and of the lock."""
        for file in (self._file, self._names, self._lock):
            if file >= 0:
                os.close(file)
        self._file = self._names = self._lock = -1

    def _found(self) -> tuple[set[int], set[int]]:
        """The generations there are, of journals and of snapshots. What was not finished is let go of."""
        found: dict[str, set[int]] = {"journal": set(), "snapshot": set()}
        for path in self.folder.iterdir():
            if ASIDE.fullmatch(path.name):
                path.unlink()
            elif match := NAME.fullmatch(path.name):
                found[match[1]].add(int(match[2]))
        return found["journal"], found["snapshot"]

    def _is_unused(self, generation: int) -> bool:
        """Whether the journal is not there, or holds nothing: one whose making was interrupted."""
        path = self._path(self.journal, generation)
        if not path.exists():
            return True
        records = wire.parse_records(path.read_bytes(), str(path), self.journal, may_be_torn=False)
        return len(records.payloads) <= 1

    def _tried_from(
        self, journals: set[int], snapshots: set[int], bases: Iterable[int], replay: Callable[[int, int], T]
    ) -> T:
        """What was replayed from the first generation of `bases` that can be read, up to the newest journal.

        Raises:  Unreadable if there is none.
        """
        newest = max(journals, default=0)
        if not snapshots or not journals or newest < max(snapshots):
            missing = self.snapshot if not snapshots else self.journal
            generation = max(snapshots) if snapshots else min(journals)
            raise wire.Unreadable(str(self._path(missing, generation)), 0, "the file is missing", wire.BACKUP)
        problems: list[wire.Unreadable] = []
        for base in bases:
            try:
                return replay(base, newest)
            except wire.Unreadable as problem:
                problems.append(problem)
                self.notes.append(f"generation {base} is left out: {problem}")
        raise problems[-1]

    def _go_on(self, generation: int, last: wire.Records) -> None:
        """Opens the newest journal to go on with it, without what is torn."""
        path = self._path(self.journal, generation)
        self._open_file(path)
        if last.torn_bytes:
            self.torn_bytes = last.torn_bytes
            self.notes.append(
                f"{path}: cut off {last.torn_bytes} bytes at its end, a write that did not finish (unless the file was shortened)"
            )
            os.ftruncate(self._file, last.end)
        # What was just read may still be on its way to the disk, and so may its name.
        os.fsync(self._file)
        self._sync_names()
        self.store, self.generation = last.header.store, last.header.generation
        self._seed, self._index, self._end = wire.seed_of(last.header), len(last.payloads), last.end

    def _name_anew(self) -> None:
        """A folder that holds nothing yet."""
        self.store = SystemRandom().randbytes(wire.STORE_ID_BYTES)
        self.generation = FIRST - 1

    def _read(self, kind: wire.Kind, generation: int, *, may_be_torn: bool) -> wire.Records:
        path = self._path(kind, generation)
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            raise wire.Unreadable(str(path), 0, "the file is missing", wire.BACKUP) from None
        records = wire.parse_records(raw, str(path), kind, may_be_torn=may_be_torn)
        if records.header.generation != generation:
            said = records.header.generation
            raise wire.Unreadable(str(path), 0, f"it is of generation {said}, somebody has renamed it", wire.BACKUP)
        return records

    # --------------------------------------------------------------------------------------------- writing

    def append(self, payload: bytes) -> Failure | None:
        """Adds one record; without a failure it is durable."""
        if self.broken is not None:
            return Failure(self.broken)
        if len(payload) > wire.RECORD_BYTES_MAX:  # written, it would be taken for torn
            return Failure(f"{len(payload)} bytes at once, and its journal takes {wire.RECORD_BYTES_MAX}")
        record = wire.format_record(self._seed, self._index, payload)
        try:
            _write(self._file, record)
        except OSError as problem:
            return self._take_back(problem)
        try:
            self._sync()
        except OSError as problem:
            if problem.errno in NO_SPACE:
                return self._take_back(problem)
            self.broken = f"its journal cannot be trusted since fsync failed ({problem.strerror}); restart it"
            return Failure(self.broken, may_have_taken_effect=True)
        if not os.fstat(self._file).st_nlink:
            self.broken = f"somebody has removed its journal from {self.folder}; put the folder back, and restart it"
            return Failure(self.broken)
        self._end += len(record)
        self._index += 1
        return None

    def _sync(self) -> None:
        os.fdatasync(self._file)

    def _sync_names(self) -> None:
        os.fsync(self._names)

    def _take_back(self, problem: OSError) -> Failure:
        """Cuts the journal back to its last good record, for good, so that a refused command never comes back."""
        try:
            os.ftruncate(self._file, self._end)
            os.fsync(self._file)
        except OSError as worse:
            self.broken = f"its journal cannot be cut back after a failed write ({worse.strerror}); restart it"
            return Failure(self.broken, may_have_taken_effect=True)
        is_full = problem.errno in NO_SPACE
        advice = "; it can be read, and takes writes again once there is space" if is_full else ""
        return Failure(f"its journal cannot be written: {problem.strerror}{advice}", is_full=is_full)

    def _begin(self, start: bytes) -> Failure | None:
        """Begins the journal of the next generation; `start` is the payload of its first record."""
        header = wire.Header(self.journal, self.store, self.generation + 1)
        seed = wire.seed_of(header)
        first = wire.format_record(seed, 0, start)
        path = self._path(self.journal, header.generation)
        raw = wire.format_header(header) + first
        if failure := self._put_in_place(path, [raw]):
            return failure
        try:
            self._open_file(path)
        except OSError as problem:
            self.broken = f"its new journal {path} cannot be opened ({problem.strerror}); restart it"
            return Failure(self.broken)
        self.generation, self._seed, self._index, self._end = header.generation, seed, 1, len(raw)
        return None

    def _save(self, payloads: Iterable[bytes], generation: int) -> Failure | None:
        """Writes what was there when the journal of this generation was begun, and lets go of what is older."""
        header = wire.Header(self.snapshot, self.store, generation)
        seed = wire.seed_of(header)
        pieces = (wire.format_record(seed, index, payload) for index, payload in enumerate(payloads))
        if failure := self._put_in_place(
            self._path(self.snapshot, generation), _joined(wire.format_header(header), pieces)
        ):
            return failure
        self._prune(generation)
        return None

    def _prune(self, newest: int) -> None:
        """Of the generations before the newest snapshot, one stays."""
        generations: dict[str, list[int]] = {"journal": [], "snapshot": []}
        for path in self.folder.iterdir():
            if match := NAME.fullmatch(path.name):
                generations[match[1]].append(int(match[2]))
        kept = max((each for each in generations["snapshot"] if each < newest), default=newest)
        for kind in (self.journal, self.snapshot):
            for generation in generations[kind.stem]:
                if generation < kept:
                    with suppress(OSError):
                        self._path(kind, generation).unlink()

    def _put_in_place(self, path: Path, pieces: Iterable[bytes]) -> Failure | None:
        """A file that is whole and durable as soon as it has its name."""
        aside = path.with_suffix(".tmp")
        try:
            if not os.path.samestat(self.folder.stat(), os.fstat(self._names)):
                return Failure(f"{path} cannot be written: the folder has been moved away, and another is in its place")
            file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                for piece in pieces:
                    _write(file, piece)
                os.fsync(file)
            finally:
                os.close(file)
            aside.rename(path)
        except OSError as problem:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            return Failure(f"{path} cannot be written: {problem.strerror}")
        try:
            self._sync_names()
        except OSError as problem:
            # It has its name, and may have lost it after a crash. A journal that goes on beside the next one could not
            # be told from one that was cut.
            self.broken = f"its folder cannot be trusted since fsync failed ({problem.strerror}); restart it"
            return Failure(self.broken)
        return None

    def _open_file(self, path: Path) -> None:
        opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        if self._file >= 0:
            os.close(self._file)
        self._file = opened

    def _path(self, kind: wire.Kind, generation: int) -> Path:
        return self.folder / f"{kind.stem}-{generation:08}.budao"

    @classmethod
    def _locked(cls, folder: Path, tried: str) -> int:
        """The lock of the folder, which ends with the process, however it ends."""
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise cls._taken(folder, tried) from None
        except OSError:
            os.close(lock)
            raise
        with suppress(OSError):  # a full disk has no place for a number that is only for people
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return lock

    @classmethod
    def _held(cls, folder: Path, tried: str) -> int:
        """The folder, open and locked itself where that can be done: somebody may have removed the file that is locked."""
        names = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(names, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(names)
            raise cls._taken(folder, tried) from None
        except OSError:
            pass  # NFS locks no folder for writing
        return names

    @classmethod
    def _taken(cls, folder: Path, tried: str) -> StoreRefused | LogRefused:
        holder = "?"
        with suppress(OSError):
            holder = (folder / LOCK).read_bytes()[:32].decode("ascii", "replace").strip() or "?"
        return cls.refused(
            tried, f"process {holder} serves this folder already; stop it, or give this one another folder"
        )


def _joined(header: bytes, pieces: Iterable[bytes]) -> Iterable[bytes]:
    yield header
    yield from pieces


def _write(file: int, raw: bytes) -> None:
    view = memoryview(raw)
    while view:
        view = view[os.write(file, view) :]
