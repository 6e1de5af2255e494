"""What a guard tells its listeners: transitions, refusals, repeats, rungs, crashes and new settings. Never plain calls.

Every event is a frozen value with the guard's name, the key of the resource, and the instant on the guard's clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from budao.guard.breaker import Moved
from budao.model import GuardPolicy, Refusal


@dataclass(frozen=True, slots=True)
class Turned:
    """A breaker went from one state to another."""

    guard: str
    key: str
    at: float
    moved: Moved


@dataclass(frozen=True, slots=True)
class Refused:
    """A call was not made. `shadow` means that it would not have been, had the breaker been enforcing."""

    guard: str
    key: str
    at: float
    refusal: Refusal
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Retried:
    """A call is tried again after a pause. `attempt` counts from 2."""

    guard: str
    key: str
    at: float
    attempt: int
    pause_s: float
    error: str


@dataclass(frozen=True, slots=True)
class Hedged:
    """A second, identical call went out, since the first took longer than most do."""

    guard: str
    key: str
    at: float
    after_s: float


@dataclass(frozen=True, slots=True)
class Descended:
    """A call was answered from a rung of the ladder below the direct one."""

    guard: str
    key: str
    at: float
    rung: str
    error: str
    trace_id: str


@dataclass(frozen=True, slots=True)
class Crashed:
    """Something in the background raised, and nobody was waiting for it."""

    guard: str
    key: str
    at: float
    where: str
    error: str
    trace_id: str


@dataclass(frozen=True, slots=True)
class Adjusted:
    """New settings are in force."""

    guard: str
    key: str
    at: float
    before: GuardPolicy
    after: GuardPolicy


Event = Turned | Refused | Retried | Hedged | Descended | Crashed | Adjusted


def words_of(error: BaseException, characters_max: int = 200) -> str:
    """An exception in a line of text, whatever its own `__str__` does."""
    kind = type(error).__name__
    try:
        return f"{kind}: {error}"[:characters_max]
    except Exception:  # noqa: BLE001 - an exception that cannot say what it is must not fail the call
        return kind[:characters_max]
