"""A published value: one writer, any number of watchers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """The latest state of something. A slow watcher skips to the newest; an equal value wakes nobody."""

    def __init__(self, value: T) -> None:
        self.value = value
        self._changed = asyncio.Event()

    def publish(self, value: T) -> None:
        """Replaces the value."""
        if value != self.value:
            self.value = value
            self._changed.set()
            self._changed = asyncio.Event()

    async def watch(self) -> AsyncIterator[T]:
        """The value as it is, and then each time it has changed, for ever."""
        while True:
            # Taken before the value is handed out: what is published meanwhile is then not missed.
            changed, seen = self._changed, self.value
            yield seen
            await changed.wait()

    async def changed(self, seen: T) -> T:
        """The value, as soon as it is not `seen`."""
        while self.value == seen:
            await self._changed.wait()
        return self.value
