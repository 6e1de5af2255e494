"""A throttle refuses the share the book gives for the calls of the last window, whatever happened when."""

from __future__ import annotations

from math import floor
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from budao.guard.throttle import BUCKETS, Throttle
from budao.model import Mono, ThrottlePolicy

# Dyadic numbers, so that the twin's arithmetic is exact and both see the same bucket edges.
POLICIES = st.builds(
    ThrottlePolicy,
    multiplier=st.sampled_from([1.0, 1.5, 2.0, 4.0]),
    window_s=st.sampled_from([10.0, 20.0, 40.0]),
    refused_share_max=st.sampled_from([0.5, 0.95, 1.0]),
)
STEPS = st.one_of(st.just(0.0), st.integers(1, 40).map(lambda each: each / 8), st.sampled_from([60.0, 1e6]))
EVENTS = st.lists(
    st.tuples(STEPS, st.one_of(st.none(), st.tuples(st.integers(0, 30), st.integers(0, 30)))), min_size=1, max_size=80
)


class Twin:
    """Remembers every call there ever was, and counts those whose bucket is among the last ten."""

    def __init__(self, policy: ThrottlePolicy) -> None:
        self.policy = policy
        self.calls: list[tuple[int, int, int]] = []

    def bucket(self, now: float) -> int:
        return floor(now * BUCKETS / self.policy.window_s)

    def count(self, asked: int, accepted: int, now: float) -> None:
        self.calls.append((self.bucket(now), asked, accepted))

    def share_at(self, now: float) -> float:
        inside = [call for call in self.calls if self.bucket(now) - call[0] < BUCKETS]
        asked, accepted = sum(call[1] for call in inside), sum(call[2] for call in inside)
        share = max(0.0, (asked - self.policy.multiplier * accepted) / (asked + 1))
        return min(share, self.policy.refused_share_max)


@given(POLICIES, EVENTS, st.integers())
def test_a_throttle_is_its_slow_twin(
    policy: ThrottlePolicy, events: list[tuple[float, tuple[int, int] | None]], seed: int
) -> None:
    throttle, twin = Throttle(policy), Twin(policy)
    rng, same_rng = Random(seed), Random(seed)
    now = 0.0
    for step_s, counts in events:
        now += step_s
        share = twin.share_at(now)
        assert throttle.share_at(Mono(now)) == share
        assert 0.0 <= share < 1.0
        if counts is not None:
            throttle.count(*counts, Mono(now))
            twin.count(*counts, now)
            continue
        refused = throttle.refuses(Mono(now), rng) is not None
        assert refused == (share > 0.0 and same_rng.random() < share)
        if refused:
            twin.count(1, 0, now)
