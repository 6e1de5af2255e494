"""A copy of a span, kept level with a store by a list and what came after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from budao.store.values import Batch, Change, Entry


class Mirror:
    """The entries of a span as they stood at a revision.

    A list that follows a gap is compared with what is known, so whoever acts on changes alone misses no delete.
    """

    def __init__(self) -> None:
        self.revision = 0
        """The copy is as the store was then; 0 before the first list."""
        self._entries: dict[str, Entry] = {}
        self.entries: Mapping[str, Entry] = MappingProxyType(self._entries)
        """By key, in no order; changes with the next list or batch."""

    def list(self, revision: int, entries: Iterable[Entry]) -> tuple[Change, ...]:
        """Takes the whole span as it stood at a revision. Answers what differs from what was known, by key.

        The revision may be lower than the last one: then the store has been replaced, or restored from a backup.
        """
        fresh = {entry.key: entry for entry in entries}
        changed = [key for key, entry in fresh.items() if self._entries.get(key) != entry]
        gone = [key for key in self._entries if key not in fresh]
        self._entries.clear()
        self._entries.update(fresh)
        self.revision = revision
        return tuple(Change(key, fresh.get(key)) for key in sorted(changed + gone))

    def take(self, batch: Batch) -> tuple[Change, ...]:
        """Takes what one revision changed. Answers nothing if that is known already."""
        if batch.revision <= self.revision:
            return ()
        for change in batch.changes:
            if change.entry is None:
                self._entries.pop(change.key, None)
            else:
                self._entries[change.key] = change.entry
        self.revision = batch.revision
        return batch.changes
