from __future__ import annotations

from math import inf, nan

import pytest

from budao.measure import TokenBucket
from budao.model import BadSettings, Mono

YEAR_S = 365.25 * 86_400.0


def taken(bucket: TokenBucket, now: float, amount: float = 1.0) -> int:
    """Take until refused."""
    count = 0
    while bucket.take(amount, Mono(now)):
        count += 1
    return count


def test_a_bucket_starts_full_and_fills_at_its_rate() -> None:
    bucket = TokenBucket(rate_per_s=2.0, burst=5.0)
    assert bucket.level_at(Mono(-7.0)) == 5.0
    assert taken(bucket, 100.0) == 5
    assert [bucket.level_at(Mono(now)) for now in (100.0, 100.25, 101.0, 1e9)] == [0.0, 0.5, 2.0, 5.0]
    assert taken(bucket, 101.0) == 2
    assert taken(bucket, 200.0) == 5


def test_a_refused_take_takes_nothing() -> None:
    bucket = TokenBucket(rate_per_s=1.0, burst=5.0)
    assert not bucket.take(5.1, Mono(0.0))
    assert bucket.take(5.0, Mono(0.0))
    assert not bucket.take(1.5, Mono(1.0))
    assert bucket.level_at(Mono(1.0)) == 1.0


def test_looking_ahead_changes_nothing() -> None:
    bucket = TokenBucket(rate_per_s=1.0, burst=5.0)
    assert taken(bucket, 0.0) == 5
    assert bucket.level_at(Mono(1e6)) == 5.0
    assert bucket.ready_in_s(1.0, Mono(1e6)) == 0.0
    assert bucket.level_at(Mono(1.0)) == 1.0


def test_a_clock_that_stands_still_or_goes_back_fills_nothing_and_takes_nothing_away() -> None:
    bucket = TokenBucket(rate_per_s=1.0, burst=5.0)
    assert taken(bucket, 100.0) == 5
    assert bucket.take(1.0, Mono(103.0))
    assert bucket.level_at(Mono(-1e9)) == 2.0
    assert bucket.ready_in_s(3.0, Mono(-1e9)) == 1.0
    assert bucket.take(1.0, Mono(-1e9))
    assert bucket.level_at(Mono(103.0)) == 1.0
    assert bucket.level_at(Mono(104.0)) == 2.0


def test_a_caller_is_told_how_long_to_wait() -> None:
    bucket = TokenBucket(rate_per_s=4.0, burst=8.0)
    assert bucket.ready_in_s(8.0, Mono(0.0)) == 0.0
    assert bucket.take(8.0, Mono(0.0))
    assert bucket.ready_in_s(1.0, Mono(0.0)) == 0.25
    assert bucket.ready_in_s(8.0, Mono(1.0)) == 1.0
    assert bucket.ready_in_s(8.5, Mono(0.0)) == inf


def test_who_waits_as_told_is_neither_a_rounding_error_too_early_nor_late() -> None:
    bucket = TokenBucket(rate_per_s=3.0, burst=0.7)
    now, too_early = 0.1, 0
    for _ in range(1000):
        assert bucket.take(0.7, Mono(now))
        assert not bucket.take(0.7, Mono(now))
        bare_s = (0.7 - bucket.level_at(Mono(now))) / 3.0
        too_early += bucket.level_at(Mono(now + bare_s)) < 0.7
        wait_s = bucket.ready_in_s(0.7, Mono(now))
        assert wait_s == pytest.approx(bare_s, abs=1e-9)
        now += wait_s
    assert too_early > 0  # a bare division would have been, now and then


def test_a_rate_so_small_that_the_wait_overflows_is_a_wait_for_ever() -> None:
    bucket = TokenBucket(rate_per_s=1e-320, burst=1.0)
    assert bucket.take(1.0, Mono(0.0))
    assert bucket.ready_in_s(1.0, Mono(0.0)) == inf


def test_years_of_small_steps_do_not_drift() -> None:
    # Late on a clock a microsecond is a handful of its last digits, and a level carried from step to step goes astray.
    start, step_s = 10 * YEAR_S, 1e-6
    bucket = TokenBucket(rate_per_s=1e3, burst=1e6)
    assert bucket.take(1e6, Mono(start))
    count = 0
    for step in range(1, 200_001):
        count += bucket.take(0.001, Mono(start + step * step_s))
    last_s = (start + 200_000 * step_s) - start
    assert count * 0.001 + bucket.level_at(Mono(start + last_s)) == pytest.approx(1e3 * last_s, rel=1e-6)
    assert count >= 0.999 * 1e3 * last_s / 0.001


def test_the_anchor_moves_before_the_sum_of_what_was_taken_grows_coarse() -> None:
    bucket = TokenBucket(rate_per_s=1e6, burst=4e6)
    assert bucket.take(4e6, Mono(0.0))
    for second in range(1, 31):
        assert bucket.take(999_999.9, Mono(second))
        assert bucket._level > -3e6
    assert bucket.level_at(Mono(30.0)) == pytest.approx(3.0, abs=1e-6)


def test_a_bucket_can_be_retuned_and_keeps_its_level() -> None:
    bucket = TokenBucket(rate_per_s=1.0, burst=10.0)
    assert bucket.take(4.0, Mono(5.0))
    bucket.retune(Mono(7.0), rate_per_s=2.0, burst=20.0)
    assert [bucket.level_at(Mono(now)) for now in (0.0, 7.0, 8.0, 100.0)] == [8.0, 8.0, 10.0, 20.0]
    bucket.retune(Mono(8.0), rate_per_s=1.0, burst=3.0)
    assert bucket.level_at(Mono(8.0)) == 3.0
    assert (bucket.rate_per_s, bucket.burst) == (1.0, 3.0)


@pytest.mark.parametrize(
    ("rate_per_s", "burst"), [(0.0, 1.0), (-1.0, 1.0), (inf, 1.0), (nan, 1.0), (1.0, 0.0), (1.0, inf), (1.0, nan)]
)
def test_impossible_numbers_are_refused_and_leave_the_bucket_as_it_was(rate_per_s: float, burst: float) -> None:
    with pytest.raises(BadSettings, match=r"token_bucket\."):
        TokenBucket(rate_per_s=rate_per_s, burst=burst)
    bucket = TokenBucket(rate_per_s=2.0, burst=3.0)
    with pytest.raises(BadSettings, match=r"token_bucket\."):
        bucket.retune(Mono(0.0), rate_per_s=rate_per_s, burst=burst)
    assert (bucket.rate_per_s, bucket.burst) == (2.0, 3.0)


@pytest.mark.parametrize("amount", [-1.0, nan])
def test_putting_tokens_is_our_own_mistake(amount: float) -> None:
    with pytest.raises(AssertionError):
        TokenBucket(rate_per_s=1.0, burst=1.0).take(amount, Mono(0.0))
