"""Whether a call that failed is tried again, and after what pause."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any

from budao.guard.core import Core
from budao.guard.events import Retried, words_of
from budao.guard.pauses import pause_s
from budao.model import CallRefused, Mono, Refusal, Why, context


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for so many seconds."""

    pause_s: float


@dataclass(frozen=True, slots=True)
class Discard:
    """Let go of a bad result before the next try."""

    result: Any


class Again(Enum):
    """Make the call again, and come back with its result or its exception."""

    NOW = "now"


class Repeats:
    """What one protected function says about being repeated.

    `asked` finds in an exception or a bad result how many seconds the other side asked to wait; -inf means that it
    asked not to be tried again.
    """

    __slots__ = ("_asked", "_is_bad", "_safe", "can_repeat")

    def __init__(
        self,
        safe: bool | Callable[..., bool],
        is_bad: Callable[[Any], bool] | None,
        asked: Callable[[Any], float | None] | None,
    ) -> None:
        self._safe = safe
        self._is_bad = is_bad
        self._asked = asked
        self.can_repeat = safe is not False

    def is_safe(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether this very call may be made twice; a predicate that raises says no."""
        if isinstance(self._safe, bool):
            return self._safe
        try:
            return bool(self._safe(*args, **kwargs))
        except Exception:  # noqa: BLE001 - a hook's mistake must not fail the call
            return False

    def is_bad(self, result: object) -> bool:
        """Whether a returned value counts as a failure; a predicate that raises says no."""
        if self._is_bad is None:
            return False
        try:
            return bool(self._is_bad(result))
        except Exception:  # noqa: BLE001 - a hook's mistake must not fail the call
            return False

    def tries(
        self,
        core: Core,
        error: Exception | None,
        result: Any,
        first: float,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        clock: Callable[[], float],
    ) -> Generator[Pause | Discard | Again, Any, Any]:
        """What to do about a call that failed, step by step; returns what the caller gets, or raises it.

        A shell carries out each step, sends back what `Again` brought, and throws in what it raised.
        """
        attempt = 1
        is_safe = self.is_safe(args, kwargs)
        while is_safe:
            pause_s = self.pause(core, attempt, first, clock(), result if error is None else error)
            if pause_s is None:
                break
            if error is None:
                yield Discard(result)
            yield Pause(pause_s)
            attempt += 1
            try:
                result, error = (yield Again.NOW), None
            except CallRefused:
                if error is None:
                    raise
                break  # the failure says more than the refusal of its repeat
            except Exception as again:
                if not core.home.is_failure(again):
                    raise
                error = again
            else:
                if not self.is_bad(result):
                    return result
        if error is not None:
            raise error
        return result

    def pause(self, core: Core, attempt: int, first: float, now: float, problem: object) -> float | None:
        """How many seconds to wait before the next try; None for no further try.

        Spends from the budget that all repeats of the guard share, so ask only if the answer is acted upon.
        """
        home = core.home
        policy, timeout = home.policy.retry, home.policy.timeout
        if policy is None or attempt >= policy.attempts_max:
            return None
        pause = pause_s(attempt, policy, home.rng, self._wait_asked(problem))
        if pause is None:
            return None
        latest = min(context.deadline.get(), first + timeout.total_s if timeout else inf)
        if now + pause >= latest:
            return None
        core.fold(now)  # the budget is paid by calls that may not be counted yet
        with home.lock:
            if not home.budget.spend(Mono(now)):
                core.note_refusal(Refusal(Why.BUDGET_SPENT), now)
                return None
            home.retries += 1
            words = words_of(problem) if isinstance(problem, Exception) else "a bad result"
            home.note(Retried(home.name, core.label, now, attempt + 1, pause, words))
        home.tell()
        return pause

    def _wait_asked(self, problem: object) -> float | None:
        if self._asked is None:
            return None
        try:
            asked = self._asked(problem)
            asked = None if asked is None else float(asked)
        except Exception:  # noqa: BLE001 - a hook's mistake must not fail the call
            return None
        return inf if asked == -inf else asked
