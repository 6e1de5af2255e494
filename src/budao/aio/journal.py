"""The folder of a store: its journals and snapshots. Everything here blocks, and is called in a thread."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from typing import ClassVar, Self

from budao.aio.generations import FIRST, Failure, GenerationFolder
from budao.model import Mono, RemoteWireError
from budao.store import NUMBER_MAX, Keeper, Snapshot, StoreError, StorePolicy, StoreRefused
from budao.wire import journal as wire

__all__ = ["Failure", "JournalFolder"]


class JournalFolder(GenerationFolder):
    """One open folder of a store. Made by `open`, which recovers what is there."""

    journal: ClassVar = wire.Kind.JOURNAL
    snapshot: ClassVar = wire.Kind.SNAPSHOT
    owner: ClassVar = "store"
    refused: ClassVar = StoreRefused

    @classmethod
    def open(cls, folder: Path, policy: StorePolicy, now: Mono) -> tuple[Self, Keeper]:
        """The folder, and the store as it was acknowledged last, every lease with its whole span.

        Raises:  StoreRefused if another process has it, or the disk does not let us; Unreadable if it is damaged.
        """
        return cls._opened(folder, lambda opened: cls._recover(opened, policy, now))

    def _recover(self, policy: StorePolicy, now: Mono) -> Keeper:
        journals, snapshots = self._found()
        if not snapshots and journals <= {FIRST} and self._is_unused(FIRST):
            return self._create(policy)
        ordered = sorted(snapshots)
        # From the generation before the newest snapshot, so that watchers can resume from before it.
        bases = [*ordered[-2:-1], *ordered[-1:], *reversed(ordered[:-2])]
        keeper, last = self._tried_from(
            journals, snapshots, bases, lambda base, newest: self._replayed_from(base, newest, now)
        )
        self._go_on(max(journals), last)
        if keeper.policy != policy:
            # What was accepted yesterday is replayed by yesterday's bounds, so a journal knows one set of them.
            keeper = Keeper.restored(keeper.snapshot(), now, policy)
            if failure := self.rotate(keeper.revision, policy):
                raise StoreRefused(f"change the bounds of the store in {self.folder}", failure.problem)
        keeper.renew_all(now)
        return keeper

    def _create(self, policy: StorePolicy) -> Keeper:
        self._name_anew()
        # Ids that begin somewhere are not mistaken for those of the store that was here before.
        keeper = Keeper(policy, lease_next=SystemRandom().randrange(1, NUMBER_MAX // 2))
        if failure := self.rotate(keeper.revision, policy) or self.save(keeper.snapshot(), FIRST):
            raise StoreRefused(f"make a store in {self.folder}", failure.problem)
        return keeper

    def _replayed_from(self, base: int, newest: int, now: Mono) -> tuple[Keeper, wire.Records]:
        path = self._path(self.snapshot, base)
        records = self._read(self.snapshot, base, may_be_torn=False)
        store = records.header.store
        try:
            snapshot = wire.parse_snapshot(records.payloads)
        except RemoteWireError as problem:
            raise wire.Unreadable(str(path), 0, str(problem), wire.BACKUP) from problem
        keeper: Keeper | None = None
        for generation in range(base, newest + 1):
            records = self._read(self.journal, generation, may_be_torn=generation == newest)
            file = str(self._path(self.journal, generation))
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

    def rotate(self, revision: int, policy: StorePolicy) -> Failure | None:
        """Begins the journal of the next generation."""
        return self._begin(wire.format_start(wire.Start(revision, policy)))

    def save(self, snapshot: Snapshot, generation: int) -> Failure | None:
        """Writes what was there when the journal of this generation was begun, and lets go of what is older."""
        return self._save(wire.format_snapshot(snapshot), generation)


def _play(keeper: Keeper, payload: memoryview, index: int, now: Mono) -> None:
    revision, commands = wire.parse_group(payload)
    if revision != keeper.revision:
        raise RemoteWireError(f"record {index} follows revision {revision}, and {keeper.revision} was reached")
    for command in commands:
        # What was refused when another command of its group came first is refused again.
        with suppress(StoreError):
            keeper.apply(command, now)
