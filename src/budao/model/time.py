"""Two kinds of instant that must never be mixed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NewType

Mono = NewType("Mono", float)
"""Seconds on a clock that never goes back. For timeouts and windows; means nothing outside this process."""

Wall = NewType("Wall", float)
"""Unix seconds. For calendars, error budgets and whatever must outlive a restart."""

Clock = Callable[[], Mono]
"""Asked for the instant, by shells only. Everything that decides is told the time instead."""
