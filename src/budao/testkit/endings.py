"""The endings that a test may order for a call."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal

from budao.model import REFUSED_AS, CallFailed, CallRefused, Refusal, TimedOut, Why
from budao.testkit.clock import FakeClock


class Real(Enum):
    """A type of its own, since any value may be ordered as an answer."""

    CALL = "the real function is called"


REAL: Final[Literal[Real.CALL]] = Real.CALL
"""This try goes to the real function."""


@dataclass(frozen=True, slots=True)
class Slow:
    """The try takes `took_s` on `clock`, and then ends like `then`; by default as the real function does.

    An async try that would end after its deadline ends at the deadline, with TimedOut, as it would in life.
    """

    took_s: float
    clock: FakeClock
    then: Any = REAL


def refusal_of(ending: object) -> Refusal | None:
    """The refusal that is ordered, if it is one: a `Why`, a `Refusal`, a CallRefused or a kind of CallRefused."""
    if isinstance(ending, Refusal):
        return ending
    if isinstance(ending, CallRefused):
        return ending.refusal
    if isinstance(ending, Why):
        return Refusal(ending)
    if isinstance(ending, type) and issubclass(ending, CallRefused):
        return Refusal(next((why for why, kind in REFUSED_AS.items() if issubclass(kind, ending)), Why.BREAKER_OPEN))
    return None


def error_of(ending: object, target: str, call_s: float) -> BaseException | None:
    """The exception that is ordered, if it is one: an exception, or a kind of exception."""
    if isinstance(ending, BaseException):
        return ending
    if not (isinstance(ending, type) and issubclass(ending, BaseException)):
        return None
    if issubclass(ending, TimedOut):
        return ending(target, call_s)
    if issubclass(ending, CallFailed):
        return ending(target, "ordered by a test")
    return ending()
