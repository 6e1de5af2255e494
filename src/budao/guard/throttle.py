"""Client-side throttling: refuse here what the other side would refuse anyway."""

from __future__ import annotations

from random import Random

from budao.measure import Window
from budao.model import Mono, Refusal, ThrottlePolicy, Why

BUCKETS = 10
"""The window forgets a tenth at a time."""

_ASKED, _ACCEPTED = 0, 1


class Throttle:
    """Refuses a share of the calls, the larger the less the other side accepts of what it is asked.

    Each side keeps only counts: calls asked for, whether sent or refused here, and calls the other side accepted. A
    call that failed for a reason of its own was accepted; one refused, dropped or timed out was not. Since accepted
    calls are a share of all those asked for, more pressure here makes the refused share grow, not the sent load.

    Units:  shares from 0 to 1; the window in seconds.
    Source: Google's SRE book, chapter 21, "Client-Side Throttling": max(0, (requests - K * accepts) / (requests + 1)).
    """

    __slots__ = ("_window", "policy")

    def __init__(self, policy: ThrottlePolicy) -> None:
        self.policy = policy
        self._window = _window(policy)

    def count(self, asked: int, accepted: int, now: Mono) -> None:
        """Counts calls that were sent, and those of them that were accepted; many at once if that is cheaper."""
        if asked:
            self._window.add(_ASKED, asked, now)
        if accepted:
            self._window.add(_ACCEPTED, accepted, now)

    def counts_at(self, now: Mono) -> tuple[int, int]:
        """Calls asked for and accepted in the window that ends at `now`."""
        asked, accepted = self._window.totals(now)
        return asked, accepted

    def share_at(self, now: Mono) -> float:
        """The share of calls that is refused here at `now`, from 0 to `refused_share_max`."""
        asked, accepted = self._window.totals(now)
        excess = asked - self.policy.multiplier * accepted
        return min(self.policy.refused_share_max, excess / (asked + 1)) if excess > 0 else 0.0

    def refuses(self, now: Mono, rng: Random) -> Refusal | None:
        """Whether this call is refused here; if so it counts as asked. The die is rolled only if there is a choice."""
        share = self.share_at(now)
        if share == 0.0 or rng.random() >= share:
            return None
        self._window.add(_ASKED, 1, now)
        # Nothing is forgotten, and so nothing much better, before the oldest bucket ends.
        return Refusal(Why.THROTTLED, self.policy.window_s / BUCKETS)

    def obey(self, policy: ThrottlePolicy, now: Mono) -> None:
        """Takes new settings while calls run; what was counted stays."""
        if policy.window_s != self.policy.window_s:
            asked, accepted = self.counts_at(now)
            self._window = _window(policy)
            self.count(asked, accepted, now)
        self.policy = policy


def _window(policy: ThrottlePolicy) -> Window:
    return Window(("asked", "accepted"), window_s=policy.window_s, buckets=BUCKETS)
