"""The time limits of suspended calls, behind one handle of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any

SLACK_S = 0.0005
"""A limit this near is over: a clock that runs a hair behind the loop's must not make the loop spin."""

DEAD_MIN = 256
"""So many entries of calls that came back are not worth a clean-up."""


class Flight:
    """One suspended call with a time limit. `is_over` once it was cancelled for being late."""

    __slots__ = ("cancelling", "is_back", "is_over", "task", "until")

    def __init__(self, task: asyncio.Task[Any], until: float) -> None:
        self.task: asyncio.Task[Any] | None = task
        self.until = until
        self.cancelling = task.cancelling()
        self.is_over = self.is_back = False


class Timers:
    """A heap of time limits, and one handle on the loop for the nearest of them.

    Nearly every call comes back in time, so coming back costs nothing: the entry stays until its instant passes, or
    until the dead are the most. For the same reason the handle is left as it is when the last call comes back; it rings
    once for nothing, and arming one for each call would cost as much as all the rest.
    """

    __slots__ = ("_clock", "_count", "_due", "_handle", "_heap", "_live", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._clock = clock
        self._heap: list[tuple[float, int, Flight]] = []
        self._count = self._live = 0
        self._handle: asyncio.TimerHandle | None = None
        self._due = inf

    def __len__(self) -> int:
        return self._live

    def add(self, flight: Flight) -> None:
        """Watches a flight until it is back."""
        self._count += 1
        self._live += 1
        heappush(self._heap, (flight.until, self._count, flight))
        if flight.until < self._due:
            self._arm(flight.until)

    def back(self, flight: Flight) -> None:
        """The call came back, in whatever way."""
        flight.is_back = True
        flight.task = None  # the entry may stay for a while; the task need not
        self._live -= 1
        if len(self._heap) > DEAD_MIN and len(self._heap) > 4 * self._live:
            self._heap = [entry for entry in self._heap if not entry[2].is_back]
            heapify(self._heap)

    def _arm(self, due: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._due = due
        self._handle = self._loop.call_later(max(0.0, due - self._clock()), self._ring)

    def _ring(self) -> None:
        self._handle, self._due = None, inf
        line = self._clock() + SLACK_S
        # Looked up anew each time: the collector may close a forgotten call here, and `back` then changes the heap.
        while self._heap and (self._heap[0][2].is_back or self._heap[0][0] <= line):
            flight = heappop(self._heap)[2]
            if flight.task is not None:
                flight.is_over = True
                flight.task.cancel()
        if self._heap:
            self._arm(self._heap[0][0])
