"""The events of a guard, kept for a test to look at."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self, TypeVar

from budao.guard import Event
from budao.protect import Guard

E = TypeVar("E")


class Events:
    """Every event of a guard since this was made, in order, until it is closed."""

    def __init__(self, guard: Guard) -> None:
        self.all: list[Event] = []
        self._stop = guard.listen(self.all.append)

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind: `events.of(Refused)`."""
        return [event for event in self.all if isinstance(event, kind)]

    def clear(self) -> None:
        """Forgets what was heard so far."""
        self.all.clear()

    def close(self) -> None:
        """Stops listening; what was heard stays."""
        self._stop()

    def __len__(self) -> int:
        return len(self.all)

    def __iter__(self) -> Iterator[Event]:
        return iter(tuple(self.all))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def events_of(guard: Guard) -> Events:
    """Listens to a guard from now on. As a context manager it stops at the end of the block."""
    return Events(guard)
