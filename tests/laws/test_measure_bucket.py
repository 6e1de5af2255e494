"""In any span a token bucket gives at most its burst and what its rate brought, and never a rounding error's worth more."""

from __future__ import annotations

from fractions import Fraction
from math import inf

from hypothesis import assume, given
from hypothesis import strategies as st

from budao.measure import TokenBucket
from budao.model import Mono

RATES = st.one_of(st.floats(1e-3, 1e6), st.sampled_from([1.0, 3.0, 10.0, 0.1]))
BURSTS = st.one_of(st.floats(0.1, 1e4), st.sampled_from([1.0, 5.0, 100.0]))
STARTS = st.sampled_from([0.0, -1000.0, 12_345.678, 1e8])
# Mostly small steps; sometimes the clock stands still, goes back, or jumps.
STEPS = st.one_of(st.floats(0.0, 0.5), st.floats(0.0, 1e-6), st.just(0.0), st.floats(-5.0, 0.0), st.floats(0.0, 1e4))
TAKES = st.lists(st.tuples(STEPS, st.one_of(st.sampled_from([0.0, 1.0, 0.1, 2.5]), st.floats(0.0, 200.0))), max_size=60)


class Twin:
    """The level carried from instant to instant in exact fractions."""

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self.rate_per_s, self.burst = Fraction(rate_per_s), Fraction(burst)
        self.level = self.burst
        self.now: Fraction | None = None

    def move(self, now: float) -> None:
        instant = Fraction(now)
        if self.now is not None and instant > self.now:
            self.level = min(self.burst, self.level + (instant - self.now) * self.rate_per_s)
        self.now = instant if self.now is None else max(self.now, instant)


def hair(burst: float) -> Fraction:
    """How far rounding may lead: a few last digits of the most tokens that are taken before the anchor moves."""
    return Fraction(2.0**-48 * (2.0**20 + 2.0 * burst))


@given(RATES, BURSTS, STARTS, TAKES)
def test_the_level_is_that_of_exact_arithmetic_and_decides_alike(
    rate_per_s: float, burst: float, start: float, takes: list[tuple[float, float]]
) -> None:
    bucket, twin = TokenBucket(rate_per_s=rate_per_s, burst=burst), Twin(rate_per_s, burst)
    slack = hair(burst)
    now = start
    for step_s, amount in takes:
        now += step_s
        twin.move(now)
        level = bucket.level_at(Mono(now))
        assert 0.0 <= level <= burst
        assert abs(Fraction(level) - twin.level) <= slack
        granted = bucket.take(amount, Mono(now))
        if abs(twin.level - Fraction(amount)) > slack:
            assert granted == (twin.level >= amount)
        if granted:
            twin.level -= Fraction(amount)


@given(RATES, BURSTS, STARTS, TAKES)
def test_no_span_of_any_history_gives_more_than_the_burst_and_the_rate(
    rate_per_s: float, burst: float, start: float, takes: list[tuple[float, float]]
) -> None:
    bucket = TokenBucket(rate_per_s=rate_per_s, burst=burst)
    slack = hair(burst)
    now, latest = start, -inf
    given_out: list[tuple[Fraction, Fraction]] = []
    for step_s, amount in takes:
        now += step_s
        latest = max(latest, now)
        if bucket.take(amount, Mono(now)):
            given_out.append((Fraction(latest), Fraction(amount)))
    for first, (since, _) in enumerate(given_out):
        total = Fraction(0)
        for at, given_then in given_out[first:]:
            total += given_then
            assert total <= Fraction(burst) + Fraction(rate_per_s) * (at - since) + slack


@given(RATES, BURSTS, STARTS, TAKES, st.floats(0.0, 300.0))
def test_who_waits_as_told_is_served_and_who_comes_clearly_earlier_is_not(
    rate_per_s: float, burst: float, start: float, takes: list[tuple[float, float]], amount: float
) -> None:
    bucket = TokenBucket(rate_per_s=rate_per_s, burst=burst)
    now = start
    for step_s, taken in takes:
        now = max(now, now + step_s)
        bucket.take(taken, Mono(now))
    wait_s = bucket.ready_in_s(amount, Mono(now))
    assert (wait_s == inf) == (amount > burst)
    assume(wait_s < inf)
    if wait_s > 0.0:
        assert bucket.level_at(Mono(now)) < amount
        early = now + wait_s * 0.999
        assume(early < now + wait_s - 1e-6)
        assert bucket.level_at(Mono(early)) < amount
    assert bucket.take(amount, Mono(now + wait_s))
