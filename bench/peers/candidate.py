"""What one row of a table is made of: a name, the features it has on, and how to wrap a function."""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import NamedTuple

SyncCall = Callable[[int], int]
AsyncCall = Callable[[int], Awaitable[int]]


class Feature(Enum):
    """Something a row does on every call; the value is its letter in the tables."""

    FAILED_RATE = "F"
    CONSECUTIVE = "C"
    SLOW_RATE = "S"
    QUANTILES = "Q"
    DEADLINE = "D"
    KEYED = "K"
    GENERATIONS = "G"
    PROBE_CAP = "P"
    RETRY = "R"
    BULKHEAD = "B"
    TIMEOUT = "T"


MEANINGS = {
    Feature.FAILED_RATE: "failed rate over a window",
    Feature.CONSECUTIVE: "failures in a row",
    Feature.SLOW_RATE: "slow rate",
    Feature.QUANTILES: "quantile sampling",
    Feature.DEADLINE: "deadline",
    Feature.KEYED: "keyed",
    Feature.GENERATIONS: "generations",
    Feature.PROBE_CAP: "probe cap",
    Feature.RETRY: "retry",
    Feature.BULKHEAD: "bulkhead",
    Feature.TIMEOUT: "timeout",
}


class Candidate(NamedTuple):
    """One row: `make_sync` and `make_async` wrap a plain function; None means the library has no such form.

    Each round of a measurement calls them anew, so every wrapped function must own its state.
    """

    name: str
    features: frozenset[Feature]
    make_sync: Callable[[SyncCall], SyncCall] | None
    make_async: Callable[[AsyncCall], AsyncCall] | None
    modules: tuple[str, ...] = ()
    """Modules that must be installed for this row."""
    refuse_sync: SyncCall | None = None
    """For a row with no breaker: the call that stands in its refused columns."""
    refuse_async: AsyncCall | None = None

    @property
    def has_breaker(self) -> bool:
        """Whether this row can refuse a call at all."""
        return not self.features.isdisjoint({Feature.FAILED_RATE, Feature.CONSECUTIVE})

    @property
    def is_baseline(self) -> bool:
        """Whether this row protects nothing and is only there to be compared with."""
        return not self.features

    @property
    def missing_modules(self) -> tuple[str, ...]:
        """Modules this row needs that are not installed here."""
        return tuple(name for name in self.modules if importlib.util.find_spec(name) is None)


class Failed(Exception):
    """The protected function failed; no row is told to retry this."""


class Unmeasurable(Exception):
    """A row cannot be measured as asked; the message says why."""
