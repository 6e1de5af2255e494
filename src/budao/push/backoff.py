"""How long a client waits before it connects again.

Full jitter: evenly drawn from 0 to a ceiling that doubles with each try that failed. What the server advises goes before: now is
a short jitter, a time that was said is kept and a little spread, never is never. A connection that lasted starts afresh.

Source: Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), full jitter.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from random import Random

from budao.model import Checks
from budao.push.closing import Advice


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffPolicy:
    """How a client's pauses grow.

    Units:   seconds.
    Raises:  BadSettings with every problem.
    """

    first_s: float = 0.5
    """Upper end of the first pause."""
    max_s: float = 30.0
    """Upper end of any pause that nobody asked for."""
    now_s: float = 0.05
    """Upper end of the pause when the server said to come back now, the first time: time for a thousand others."""
    asked_max_s: float = 600.0
    """A server that asks for more is taken to have asked for this much."""
    spread_share: float = 0.1
    """A pause that was asked for grows by up to this share of itself, so that those who were told the same drift apart."""
    lasted_s: float = 10.0
    """A connection that lived so long counts as good: the pauses start afresh."""

    def __post_init__(self) -> None:
        check = Checks("backoff")
        check.number("first_s", self.first_s, 0.0, 3_600.0, open_low=True)
        check.number("max_s", self.max_s, 0.0, 86_400.0, open_low=True)
        check.number("now_s", self.now_s, 0.0, 60.0)
        check.number("asked_max_s", self.asked_max_s, 0.0, 86_400.0)
        check.number("spread_share", self.spread_share, 0.0, 1.0)
        check.number("lasted_s", self.lasted_s, 0.0, 86_400.0)
        if not check.problems:
            check.need(
                self.max_s >= self.first_s, "max_s", f"{self.max_s:g} s is shorter than first_s, {self.first_s:g} s"
            )
        check.done()


class Backoff:
    """The pauses of one client."""

    __slots__ = ("_failed", "policy")

    def __init__(self, policy: BackoffPolicy | None = None) -> None:
        self.policy = policy or BackoffPolicy()
        self._failed = 0

    @property
    def failed(self) -> int:
        """Tries and short-lived connections in a row."""
        return self._failed

    def connected_for(self, lasted_s: float) -> None:
        """A connection ended, or is still there, after so long. One that lasted makes the pauses start afresh."""
        if lasted_s >= self.policy.lasted_s:
            self._failed = 0

    def pause_s(self, rng: Random, advice: Advice | None = None, after_s: float = 0.0) -> float | None:
        """The pause before the next try; None: do not try again. Each call counts as one more failure.

        Shapes:  `advice` is None where nobody said anything: nobody listens, the network is gone, a cut without a word.
        Units:   `after_s` is what the server asked for, in seconds; 0 if it named no time.
        """
        if advice is Advice.NEVER:
            return None
        policy = self.policy
        doublings = self._failed
        self._failed += 1
        # A float power of two overflows near 1024; no ceiling is that far away.
        ceiling_s = min(policy.max_s, policy.first_s * 2.0 ** min(doublings, 64))
        if advice is Advice.NOW and not doublings:
            ceiling_s = min(ceiling_s, policy.now_s)
        pause_s = rng.uniform(0.0, ceiling_s)
        if after_s > 0.0 and isfinite(after_s):
            asked_s = min(after_s, policy.asked_max_s)
            return asked_s + rng.uniform(0.0, asked_s * policy.spread_share)
        return pause_s
