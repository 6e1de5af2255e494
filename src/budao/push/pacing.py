"""A storm of clients that come back at once, admitted at the rate a gateway can take.

Who comes while there is room is admitted. Everybody else is told when to come: slots are given out one after another at the same
rate, so that those who keep theirs find room. It is done before the upgrade (503 with Retry-After) or right after it (4201
`paced`), and nothing is remembered of anybody: a slot is only a number of seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from random import Random

from budao.measure import TokenBucket
from budao.model import Checks, Mono


@dataclass(frozen=True, slots=True, kw_only=True)
class PacePolicy:
    """How many clients may come at once.

    Units:   connections, seconds.
    Raises:  BadSettings with every problem.
    """

    rate_per_s: float = 4_000.0
    """New connections per second that this process can take beside its other work."""
    burst: int = 3_000
    """So many at once are taken without a word."""
    slot_min_s: float = 0.2
    """No slot is nearer: whoever is sent away needs a round trip and a new connection."""
    slot_max_s: float = 30.0
    """No slot is further away. Where more are waiting, the last ones share the last part of it, and may be told again."""

    def __post_init__(self) -> None:
        check = Checks("pace")
        check.number("rate_per_s", self.rate_per_s, 0.001, 1e6)
        check.count("burst", self.burst, 1, 1_000_000)
        check.number("slot_min_s", self.slot_min_s, 0.0, 60.0)
        check.number("slot_max_s", self.slot_max_s, 0.1, 3_600.0)
        if not check.problems:
            check.need(
                self.slot_max_s >= 2 * self.slot_min_s,
                "slot_max_s",
                f"{self.slot_max_s:g} s is less than twice slot_min_s, {self.slot_min_s:g} s",
            )
        check.done()


@dataclass(frozen=True, slots=True)
class Admitted:
    """Come in."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Come back then."""

    after_s: float

    @property
    def retry_after_s(self) -> int:
        """The same in whole seconds, as a `Retry-After` header needs it: never earlier, and never 0."""
        return max(1, ceil(self.after_s))


ADMITTED = Admitted()


class Pacer:
    """Admits connections at a rate, and tells the others when.

    Cost: a few floats; under 1 us for one that is admitted.
    """

    def __init__(self, policy: PacePolicy, rng: Random) -> None:
        self.policy = policy
        self._rng = rng
        self._bucket = TokenBucket(rate_per_s=policy.rate_per_s, burst=float(policy.burst))
        self._last_slot = Mono(0.0)
        self._has_slots = False
        self.admitted = 0
        self.paced = 0

    def admit(self, now: Mono) -> Admitted | Slot:
        """Whether one more may come in now."""
        if self._bucket.take(1.0, now):
            self.admitted += 1
            return ADMITTED
        self.paced += 1
        policy = self.policy
        earliest = now + policy.slot_min_s
        at = earliest
        if self._has_slots:
            at = max(earliest, self._last_slot + 1.0 / policy.rate_per_s)
        self._has_slots = True
        if at > now + policy.slot_max_s:
            # No queue grows without a bound: these spread over the last half, and the tail does not move.
            return Slot(policy.slot_max_s * self._rng.uniform(0.5, 1.0))
        self._last_slot = Mono(at)
        return Slot(at - now)

    def waiting_s(self, now: Mono) -> float:
        """How far away the last slot is that was given out; 0 if it has passed."""
        return max(0.0, self._last_slot - now) if self._has_slots else 0.0
