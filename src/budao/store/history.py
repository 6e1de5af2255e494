"""What each of the last revisions changed: enough to watch from a revision, and to read at it."""

from __future__ import annotations

from dataclasses import dataclass

from budao.store.errors import Compacted
from budao.store.policy import StorePolicy
from budao.store.shelf import size_of
from budao.store.values import Batch, Change, Entry, Span

CHANGE_BYTES = 64
"""What a change in the history counts for beside the bytes of the entry it replaced."""


@dataclass(frozen=True, slots=True)
class Step:
    """One revision, and what stood there before each of its changes."""

    batch: Batch
    before: tuple[Entry | None, ...]
    bytes: int


class History:
    """The steps since the last compaction, one a revision, without gaps.

    A past state is today's with the steps since undone, so the past costs nothing until it is asked for, and what is
    forgotten is cut off one end.
    """

    def __init__(self, revision: int, compacted: int, policy: StorePolicy) -> None:
        self.policy = policy
        self.compacted = compacted
        """Nothing before this revision is known."""
        self._next = revision + 1
        self._steps: list[Step] = []
        self._bytes = 0

    def add(self, batch: Batch, before: tuple[Entry | None, ...]) -> None:
        """Remembers the next revision, and forgets the oldest where the bounds ask for it."""
        assert batch.revision == self._next, "history has no gaps"
        size = sum(CHANGE_BYTES + (0 if entry is None else size_of(entry)) for entry in before)
        self._steps.append(Step(batch, before, size))
        self._next += 1
        self._bytes += size
        if len(self._steps) > self.policy.history_revisions_max or self._bytes > self.policy.history_bytes_max:
            self._shrink()

    def forget(self, revision: int) -> None:
        """Drops what leads up to `revision`."""
        dropped = self._steps[: max(0, revision + 1 - self._first)]
        del self._steps[: len(dropped)]
        self._bytes -= sum(step.bytes for step in dropped)
        self.compacted = revision

    def since(self, span: Span, after: int, limit: int = 0) -> tuple[Batch, ...]:
        """What changed within the span above revision `after`, oldest first; at most `limit` batches, unless it is 0.

        Cost:    grows with the revisions since `after`, not with the history.
        Raises:  Compacted.
        """
        if after < self.compacted:
            raise Compacted(after, self.compacted)
        found: list[Batch] = []
        for index in range(max(0, after + 1 - self._first), len(self._steps)):
            batch = _within(span, self._steps[index].batch)
            if batch is not None:
                found.append(batch)
                if len(found) == limit:
                    break
        return tuple(found)

    def undone(self, span: Span, revision: int) -> dict[str, Entry | None]:
        """What stood at `revision` under the keys of the span that have changed since.

        Raises:  Compacted.
        """
        if revision < self.compacted:
            raise Compacted(revision, self.compacted)
        found: dict[str, Entry | None] = {}
        for index in range(len(self._steps) - 1, max(0, revision + 1 - self._first) - 1, -1):
            step = self._steps[index]
            for change, before in zip(step.batch.changes, step.before, strict=True):
                if change.key in span:
                    found[change.key] = before
        return found

    @property
    def _first(self) -> int:
        """The revision of the oldest step."""
        return self._next - len(self._steps)

    def _shrink(self) -> None:
        # Down to seven eighths: cutting one step off a long list for each commit would cost more than the commit.
        steps_max, bytes_max = self.policy.history_revisions_max * 7 // 8, self.policy.history_bytes_max * 7 // 8
        dropped, left = 0, self._bytes
        while dropped < len(self._steps) and (len(self._steps) - dropped > steps_max or left > bytes_max):
            left -= self._steps[dropped].bytes
            dropped += 1
        self.forget(self._first + dropped - 1)


def _within(span: Span, batch: Batch) -> Batch | None:
    changes = batch.changes
    if len(changes) == 1:  # nearly always
        return batch if changes[0].key in span else None
    inside: tuple[Change, ...] = tuple(change for change in changes if change.key in span)
    if len(inside) == len(changes):
        return batch
    return Batch(batch.revision, inside) if inside else None
