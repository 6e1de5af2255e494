"""How late an event loop is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class LagProbe:
    """Rings every `every_s` and tells how late it rang, in seconds. A loop that is busy rings late.

    It keeps no task and no reference that would keep a loop alive: a loop that closes takes its handle along.
    """

    __slots__ = ("_due", "_every_s", "_handle", "_is_over", "_loop", "_on_lag")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_lag: Callable[[float], bool], *, every_s: float = 0.1
    ) -> None:
        self._loop = loop
        self._on_lag = on_lag
        self._every_s = every_s
        self._is_over = False
        self._due = loop.time() + every_s
        self._handle = loop.call_at(self._due, self._ring)

    @property
    def is_dead(self) -> bool:
        """Whether it rings no more: it was told to stop, or its loop is closed."""
        return self._is_over or self._loop.is_closed()

    def close(self) -> None:
        """Stops ringing."""
        self._is_over = True
        self._handle.cancel()

    def _ring(self) -> None:
        now = self._loop.time()
        if not self._on_lag(max(0.0, now - self._due)):
            self._is_over = True
        elif not self._is_over:
            self._due = now + self._every_s
            self._handle = self._loop.call_at(self._due, self._ring)
