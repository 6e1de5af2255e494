"""What all resources of one guard share: its settings, its lock, its dice, its budget, and who listens."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from random import Random
from typing import Protocol

from budao.guard.events import Event
from budao.guard.shedder import Shedder
from budao.measure import Budget
from budao.model import GuardPolicy, Mono, Refusal

EVENTS_MAX = 256
"""Events remembered for whoever looks later."""


class Follower(Protocol):
    """Moves the line between fast and slow after what is measured; `budao.slo.Threshold` is one."""

    @property
    def slow_s(self) -> float: ...

    def feed(self, samples: list[float], now: Mono, *, alert_stands: bool = False) -> None: ...


class Home:
    """What all resources of one guard share: its settings, its lock, its dice, its budget and its listeners."""

    __slots__ = (
        "alert",
        "budget",
        "crashes",
        "events",
        "failed_if",
        "follower",
        "gate",
        "hedges",
        "hedges_won",
        "inner_errors",
        "listeners",
        "lock",
        "name",
        "news",
        "on_fold",
        "policy",
        "retries",
        "rng",
        "rungs",
        "shedder",
    )

    def __init__(
        self,
        name: str,
        policy: GuardPolicy,
        *,
        lock: AbstractContextManager[object],
        rng: Random,
        failed_if: Callable[[Exception], bool],
        follower: Callable[[], Follower | None] = lambda: None,
        alert: Callable[[Event], object] = lambda _: None,
        on_fold: Callable[[Mono], object] = lambda _: None,
    ) -> None:
        self.name = name
        self.policy = policy
        self.lock = lock
        self.rng = rng
        self.failed_if = failed_if
        self.follower = follower
        self.alert = alert
        self.on_fold = on_fold
        self.listeners: tuple[Callable[[Event], object], ...] = ()
        self.events: deque[Event] = deque(maxlen=EVENTS_MAX)
        self.news: deque[Event] = deque(maxlen=EVENTS_MAX)
        self.inner_errors = 0
        """What raised inside the guard's own hooks (listeners, keys, predicates) and was kept away from the call."""
        self.retries = self.hedges = self.hedges_won = self.crashes = 0
        self.rungs: dict[str, int] = {}
        self.budget = _budget(policy)
        self.shedder = Shedder(policy.shed) if policy.shed else None
        self.gate: Callable[[], Refusal | None] | None = None
        """Refuses by hand, in rehearsals; None outside of them."""

    def adopt(self, policy: GuardPolicy) -> None:
        """Takes new settings; the budget and the shedder keep what they have counted where they can."""
        before, self.policy = self.policy, policy
        if before.budget.window_s == policy.budget.window_s:
            self.budget.retune(share=policy.budget.share, floor_per_s=policy.budget.floor_per_s)
        else:
            self.budget = _budget(policy)
        if policy.shed is None or self.shedder is None or before.shed != policy.shed:
            self.shedder = Shedder(policy.shed) if policy.shed else None

    def note(self, event: Event) -> None:
        """Remembers an event; alert and listeners hear of it at the next `tell`, outside the lock."""
        self.events.append(event)
        self.news.append(event)

    def tell(self) -> None:
        """Lets the listeners hear the news. Whatever they raise is counted and goes no further."""
        while self.news:
            try:
                event = self.news.popleft()
            except IndexError:  # another thread told it meanwhile
                return
            for listener in (self.alert, *self.listeners):
                try:
                    listener(event)
                except Exception:  # noqa: BLE001 - a listener must never fail the call that caused the news
                    self.inner_errors += 1

    def is_failure(self, error: Exception) -> bool:
        """Whether an exception is the other side's failure; a predicate that raises itself says yes."""
        try:
            return self.failed_if(error)
        except Exception:  # noqa: BLE001 - the guard's own hooks must not replace the caller's exception
            self.inner_errors += 1
            return True


def _budget(policy: GuardPolicy) -> Budget:
    budget = policy.budget
    return Budget(share=budget.share, window_s=budget.window_s, floor_per_s=budget.floor_per_s)
