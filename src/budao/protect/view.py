"""What a person or an exporter sees of a guard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from budao.guard import Event, KeyView
from budao.model import GuardPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardView:
    """A guard at one instant. All counts are totals since the guard was made.

    `rungs` counts the calls of ladders by the rung that answered. `inner_errors` counts what the guard's own hooks
    raised (listeners, key functions, predicates) and what was kept away from the calls.
    """

    name: str
    at: float
    policy: GuardPolicy
    keys: tuple[KeyView, ...]
    rungs: Mapping[str, int]
    retries: int
    hedges: int
    hedges_won: int
    crashes: int
    inner_errors: int
    evicted: int
    budget_left: int
    shed_level: float
    events: tuple[Event, ...]
