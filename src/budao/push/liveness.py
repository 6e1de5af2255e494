"""Whether the other side of a connection still lives, from nothing but that it is heard.

The gateway promises a beat. A few that do not come mean death, and a gateway that beats late is waited for longer. A process
that stood still itself finds its silence full of what it did not read: so death is pronounced only after a second look, with a
turn of the event loop in between that reads what is there.
"""

from __future__ import annotations

from math import inf
from typing import Final

from budao.model import Mono
from budao.push.client_policy import ClientPolicy

LOOKS_MAX: Final = 5
"""Looks at most. A process that is late at each of them is told that it cannot hear."""
SMOOTHING: Final = 0.1
BEAT_SHARE: Final = 0.8
"""Of the promise: gateways beat a little more often than they say, and what is seen counts, down to this."""


class Liveness:
    """One connection's. `heard` is called for whatever is received; `wake` answers whether it is dead.

    Units:   seconds.
    Cost:    a comparison and two stores for each piece that is received.
    """

    __slots__ = ("_gap_s", "_heard", "_look_at", "_looks", "beat_s", "policy", "silence_min_s")

    def __init__(self, policy: ClientPolicy, beat_s: float, now: Mono, *, silence_min_s: float = 0.0) -> None:
        self.policy = policy
        self.beat_s = beat_s
        self.silence_min_s = silence_min_s
        self._gap_s = beat_s
        self._heard = now
        self._looks = 0
        self._look_at = Mono(-inf)

    def heard(self, now: Mono) -> None:
        """Something was received."""
        gap_s = now - self._heard
        if gap_s * 2.0 > self.beat_s:  # what comes sooner says nothing about beats
            self._gap_s += SMOOTHING * (gap_s - self._gap_s)
        self._heard = now
        self._looks = 0

    @property
    def heard_at(self) -> Mono:
        """When anything was heard last."""
        return self._heard

    @property
    def silence_max_s(self) -> float:
        """How long a silence means death; infinite where no beat was promised."""
        if self.beat_s <= 0.0:
            return inf
        gap_s = min(max(self._gap_s, self.beat_s * BEAT_SHARE), self.beat_s * self.policy.stretch_max)
        return max(self.silence_min_s, self.policy.missed_max * gap_s)

    def wake_at(self) -> Mono:
        """When to look."""
        return self._look_at if self._looks else Mono(self._heard + self.silence_max_s)

    def wake(self, now: Mono) -> bool:
        """Looks; whether it is dead."""
        if now < self.wake_at():
            return False
        is_late = self._looks == 0 or now - self._look_at > self.policy.look_s
        if is_late and self._looks < LOOKS_MAX:
            self._looks += 1
            self._look_at = Mono(now + self.policy.look_s)
            return False
        return True
