"""Whether a call that failed is tried again, and after what pause."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from budao.guard.core import Core
from budao.guard.events import Retried
from budao.guard.pauses import pause_s
from budao.model import Mono, Refusal, Why, context


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
            name = f"{type(problem).__name__}: {problem}" if isinstance(problem, Exception) else "a bad result"
            home.note(Retried(home.name, core.label, now, attempt + 1, pause, name[:200]))
        home.tell()
        return pause

    def _wait_asked(self, problem: object) -> float | None:
        if self._asked is None:
            return None
        try:
            asked = self._asked(problem)
        except Exception:  # noqa: BLE001 - a hook's mistake must not fail the call
            return None
        return inf if asked == -inf else asked
