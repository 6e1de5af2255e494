"""How fast somebody may publish over HTTP, where no session remembers it: a bucket for each, of the most recent."""

from __future__ import annotations

from typing import Final

from budao.measure import TokenBucket
from budao.model import Mono

KEPT_MAX: Final = 10_000
"""Whoever was not heard of for longest is forgotten, and begins with a full bucket again."""


class Rates:
    """One bucket for each name.

    Cost:    some 300 bytes for each of the `kept_max` latest names; about a microsecond for each message.
    """

    def __init__(self, *, rate_per_s: float, burst: float, kept_max: int = KEPT_MAX) -> None:
        self.rate_per_s = rate_per_s
        self.burst = burst
        self.kept_max = kept_max
        self._buckets: dict[str, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, name: str, now: Mono) -> float:
        """One message of somebody: 0 if it may pass, else how many seconds later it might."""
        buckets = self._buckets
        bucket = buckets.pop(name, None)
        if bucket is None:
            bucket = TokenBucket(rate_per_s=self.rate_per_s, burst=self.burst)
            if len(buckets) >= self.kept_max:
                del buckets[next(iter(buckets))]
        buckets[name] = bucket
        return 0.0 if bucket.take(1.0, now) else bucket.ready_in_s(1.0, now)
