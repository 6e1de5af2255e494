"""What a guard writes to the log of its own accord: what a person would want to know although nobody listens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf

from budao.guard import Descended, Event, State, Turned

LOG = logging.getLogger("budao.guard")

EVERY_S = 1.0
"""Calls that are answered with nothing come in floods: at most so often is one of them told."""


class Alerts:
    """Breakers that open and close, and calls that were answered with nothing.

    Crashes are logged by the guard itself, which has their traceback.
    """

    __slots__ = ("_empties", "_told_at")

    def __init__(self) -> None:
        self._empties = 0
        self._told_at = -inf

    def hear(self, event: Event) -> None:
        """Logs the event if it is one to be alarmed by."""
        match event:
            case Turned(guard=guard, key=key, moved=moved):
                log: Callable[..., None] = LOG.warning if moved.after is State.OPEN else LOG.info
                where = f"{guard}[{key}]" if key else guard
                log("%s: breaker went from %s to %s: %s", where, moved.before.value, moved.after.value, moved.reason)
            case Descended(guard=guard, rung="empty", at=at, error=error, trace_id=trace_id):
                self._empties += 1
                if at - self._told_at >= EVERY_S:
                    LOG.warning(
                        "%s: %d calls answered with nothing, the last%s after %s",
                        guard, self._empties, _trace(trace_id), error,
                    )  # fmt: skip
                    self._empties, self._told_at = 0, at
            case _:
                pass


def _trace(trace_id: str) -> str:
    return f" (trace {trace_id})" if trace_id else ""
