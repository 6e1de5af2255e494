"""The folder of a store: its lock, its journals and snapshots. Everything here blocks, and is called in a thread.

A folder holds generations. `journal-N` is what was done after `snapshot-N`; the generation before the newest snapshot is
kept as well, so that a damaged snapshot costs nothing, and watchers can resume from before it.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from errno import EACCES, EDQUOT, EFBIG, ENOSPC, EPERM, EROFS
from pathlib import Path
from random import SystemRandom
from typing import Final, Self

from budao.model import Mono, RemoteWireError
from budao.store import NUMBER_MAX, Keeper, Snapshot, StoreError, StorePolicy, StoreRefused
from budao.wire import journal as wire

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


class JournalFolder:
    """One open folder. Made by `open`, which recovers what is there; only one process has it open at a time."""

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
    def open(cls, folder: Path, policy: StorePolicy, now: Mono) -> tuple[Self, Keeper]:
        """The folder, and the store as it was acknowledged last, every lease with its whole span.

        Raises:  StoreRefused if another process has it, or the disk does not let us; Unreadable if it is damaged.
        """
        tried = f"open the store in {folder}"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            names = _held(folder, tried)
            try:
                lock = _locked(folder, tried)
            except BaseException:
                os.close(names)
                raise
        except (FileExistsError, NotADirectoryError) as problem:
            leads = "leads nowhere" if folder.is_symlink() and not folder.exists() else "is a file"
            raise StoreRefused(tried, f"{problem.filename} {leads}, and a folder is needed") from problem
        except OSError as problem:
            happened = problem.strerror or str(problem)
            if problem.errno in {EACCES, EPERM, EROFS}:
                happened += "; give a folder that this user may write to"
            raise StoreRefused(tried, happened) from problem
        opened = cls(folder, lock, names)
        try:
            return opened, opened._recover(policy, now)
        except OSError as problem:
            opened.close()
            raise StoreRefused(tried, f"{problem.filename or folder}: {problem.strerror or problem}") from problem
        except BaseException:
            opened.close()
            raise

    def close(self) -> None:
        """Lets go of the files and of the lock."""
        for file in (self._file, self._names, self._lock):
            if file >= 0:
                os.close(file)
        self._file = self._names = self._lock = -1

    def _recover(self, policy: StorePolicy, now: Mono) -> Keeper:
        found: dict[str, set[int]] = {"journal": set(), "snapshot": set()}
        for path in self.folder.iterdir():
            if ASIDE.fullmatch(path.name):
                path.unlink()
            elif match := NAME.fullmatch(path.name):
                found[match[1]].add(int(match[2]))
        journals, snapshots = found["journal"], found["snapshot"]
        if not snapshots and journals <= {FIRST} and self._is_unused(FIRST):
            return self._create(policy)
        keeper, last = self._replayed(sorted(snapshots), journals, now)
        path = self._path(wire.Kind.JOURNAL, max(journals))
        self._open_file(path)
        if last.torn_bytes:
            self.torn_bytes = last.torn_bytes
            self.notes.append(f"{path}: cut off {last.torn_bytes} bytes of a write that was never acknowledged")
            os.ftruncate(self._file, last.end)
        # What was just read may still be on its way to the disk, and so may its name.
        os.fsync(self._file)
        self._sync_names()
        self.store, self.generation = last.header.store, last.header.generation
        self._seed, self._index, self._end = wire.seed_of(last.header), len(last.payloads), last.end
        if keeper.policy != policy:
            # What was accepted yesterday is replayed by yesterday's bounds, so a journal knows one set of them.
            keeper = Keeper.restored(keeper.snapshot(), now, policy)
            if failure := self.rotate(keeper.revision, policy):
                raise StoreRefused(f"change the bounds of the store in {self.folder}", failure.problem)
        keeper.renew_all(now)
        return keeper

    def _is_unused(self, generation: int) -> bool:
        """Whether the journal is not there, or holds nothing: a store whose making was interrupted."""
        path = self._path(wire.Kind.JOURNAL, generation)
        if not path.exists():
            return True
        records = wire.parse_records(path.read_bytes(), str(path), wire.Kind.JOURNAL, may_be_torn=False)
        return len(records.payloads) <= 1

    def _create(self, policy: StorePolicy) -> Keeper:
        dice = SystemRandom()
        self.store = dice.randbytes(wire.STORE_ID_BYTES)
        # Ids that begin somewhere are not mistaken for those of the store that was here before.
        keeper = Keeper(policy, lease_next=dice.randrange(1, NUMBER_MAX // 2))
        self.generation = FIRST - 1
        if failure := self.rotate(keeper.revision, policy) or self.save(keeper.snapshot(), FIRST):
            raise StoreRefused(f"make a store in {self.folder}", failure.problem)
        return keeper

    def _replayed(self, snapshots: list[int], journals: set[int], now: Mono) -> tuple[Keeper, wire.Records]:
        """The store from the generation before the newest snapshot, or from that one, or from an older one."""
        newest = max(journals, default=0)
        if not snapshots or not journals or newest < snapshots[-1]:
            missing = wire.Kind.SNAPSHOT if not snapshots else wire.Kind.JOURNAL
            generation = snapshots[-1] if snapshots else min(journals)
            raise wire.Unreadable(str(self._path(missing, generation)), 0, "the file is missing", wire.BACKUP)
        bases = [*snapshots[-2:-1], snapshots[-1], *reversed(snapshots[:-2])]
        problems: list[wire.Unreadable] = []
        for base in bases:
            try:
                return self._replayed_from(base, newest, now)
            except wire.Unreadable as problem:
                problems.append(problem)
                self.notes.append(f"generation {base} is left out: {problem}")
        raise problems[-1]

    def _replayed_from(self, base: int, newest: int, now: Mono) -> tuple[Keeper, wire.Records]:
        path = self._path(wire.Kind.SNAPSHOT, base)
        records = self._read(wire.Kind.SNAPSHOT, base, may_be_torn=False)
        store = records.header.store
        try:
            snapshot = wire.parse_snapshot(records.payloads)
        except RemoteWireError as problem:
            raise wire.Unreadable(str(path), 0, str(problem), wire.BACKUP) from problem
        keeper: Keeper | None = None
        for generation in range(base, newest + 1):
            records = self._read(wire.Kind.JOURNAL, generation, may_be_torn=generation == newest)
            file = str(self._path(wire.Kind.JOURNAL, generation))
            if records.header.store != store:
                raise wire.Unreadable(file, 0, "it belongs to another store", wire.BACKUP)
            try:
                start = wire.parse_start(records.payloads[0] if records.payloads else b"")
                if keeper is None:
                    keeper = Keeper.restored(snapshot, now, start.policy)
                elif keeper.policy != start.policy:
                    keeper = Keeper.restored(keeper.snapshot(), now, start.policy)
                if start.revision != keeper.revision:
                    raise RemoteWireError(f"it begins at revision {start.revision}, and {keeper.revision} was reached")
                for index, payload in enumerate(records.payloads[1:], 1):
                    _play(keeper, payload, index, now)
            except (RemoteWireError, StoreError) as problem:
                raise wire.Unreadable(file, 0, str(problem), wire.BACKUP) from problem
        assert keeper is not None, "a base has a journal"
        return keeper, records

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
        advice = "it can be read, and takes writes again once there is space" if problem.errno in NO_SPACE else ""
        return Failure(f"its journal cannot be written: {problem.strerror}" + (advice and f"; {advice}"))

    def rotate(self, revision: int, policy: StorePolicy) -> Failure | None:
        """Begins the journal of the next generation."""
        header = wire.Header(wire.Kind.JOURNAL, self.store, self.generation + 1)
        seed = wire.seed_of(header)
        first = wire.format_record(seed, 0, wire.format_start(wire.Start(revision, policy)))
        path = self._path(wire.Kind.JOURNAL, header.generation)
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

    def save(self, snapshot: Snapshot, generation: int) -> Failure | None:
        """Writes what was there when the journal of this generation was begun, and lets go of what is older."""
        header = wire.Header(wire.Kind.SNAPSHOT, self.store, generation)
        seed = wire.seed_of(header)
        pieces = (
            wire.format_record(seed, index, payload) for index, payload in enumerate(wire.format_snapshot(snapshot))
        )
        if failure := self._put_in_place(
            self._path(wire.Kind.SNAPSHOT, generation), _joined(wire.format_header(header), pieces)
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
        for kind in wire.Kind:
            for generation in generations[kind.name.lower()]:
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
        return self.folder / f"{kind.name.lower()}-{generation:08}.budao"


def _play(keeper: Keeper, payload: memoryview, index: int, now: Mono) -> None:
    revision, commands = wire.parse_group(payload)
    if revision != keeper.revision:
        raise RemoteWireError(f"record {index} follows revision {revision}, and {keeper.revision} was reached")
    for command in commands:
        # What was refused when another command of its group came first is refused again.
        with suppress(StoreError):
            keeper.apply(command, now)


def _joined(header: bytes, pieces: Iterable[bytes]) -> Iterable[bytes]:
    yield header
    yield from pieces


def _write(file: int, raw: bytes) -> None:
    view = memoryview(raw)
    while view:
        view = view[os.write(file, view) :]


def _locked(folder: Path, tried: str) -> int:
    """The lock of the folder, which ends with the process, however it ends."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise _taken(folder, tried) from None
    except OSError:
        os.close(lock)
        raise
    with suppress(OSError):  # a full disk has no place for a number that is only for people
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _held(folder: Path, tried: str) -> int:
    """The folder, open and locked itself where that can be done: somebody may have removed the file that is locked."""
    names = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(names, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(names)
        raise _taken(folder, tried) from None
    except OSError:
        pass  # NFS locks no folder for writing
    return names


def _taken(folder: Path, tried: str) -> StoreRefused:
    holder = "?"
    with suppress(OSError):
        holder = (folder / LOCK).read_bytes()[:32].decode("ascii", "replace").strip() or "?"
    return StoreRefused(tried, f"process {holder} serves this folder already; stop it, or give this one another folder")
