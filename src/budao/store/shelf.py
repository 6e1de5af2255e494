"""The entries as they stand, findable by key and by span."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from budao.store.values import Change, Entry, Span

MANY = 64
"""So many deletes at once, and going through all keys costs less than finding each."""


class Shelf:
    """Entries by key, and the keys in order.

    Cost:    a new key moves the keys behind it in one list of pointers: about 5 µs at 10,000 keys, 50 µs at 200,000.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = {entry.key: entry for entry in entries}
        self._keys = sorted(self._entries)
        self.bytes = sum(map(size_of, self._entries.values()))
        """Of keys and values."""

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def keys(self, span: Span) -> list[str]:
        """The keys within a span, in order."""
        if span.is_one:
            return [span.start] if span.start in self._entries else []
        low = bisect_left(self._keys, span.start)
        high = len(self._keys) if span.stop is None else bisect_left(self._keys, span.stop)
        return self._keys[low:high]

    def entries(self, span: Span, limit: int = 0) -> tuple[tuple[Entry, ...], bool]:
        """The entries within a span by key, and whether the limit left some out."""
        keys = self.keys(span)
        more = 0 < limit < len(keys)
        return tuple(map(self._entries.__getitem__, keys[:limit] if more else keys)), more

    def all(self) -> tuple[Entry, ...]:
        """Every entry, by key."""
        return tuple(map(self._entries.__getitem__, self._keys))

    def place(self, changes: Iterable[Change]) -> None:
        """Puts entries where their keys belong, and takes away what is deleted."""
        gone: list[str] = []
        for change in changes:
            key, entry = change.key, change.entry
            before = self._entries.get(key)
            if before is not None:
                self.bytes -= size_of(before)
            if entry is not None:
                self._entries[key] = entry
                self.bytes += size_of(entry)
                if before is None:
                    self._keys.insert(bisect_left(self._keys, key), key)
            elif before is not None:
                del self._entries[key]
                gone.append(key)
        if len(gone) > MANY:
            self._keys = [key for key in self._keys if key in self._entries]
        else:
            for key in gone:
                del self._keys[bisect_left(self._keys, key)]


def size_of(entry: Entry) -> int:
    """Bytes of its key and its value."""
    key = entry.key
    return (len(key) if key.isascii() else len(key.encode())) + len(entry.value)
