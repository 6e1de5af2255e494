from __future__ import annotations

from dataclasses import replace

import pytest

from budao.model import BadSettings, BreakerPolicy, TimeoutPolicy, numbers_in
from budao.slo import CALLS_MIN, Availability, Latency, Observed, derive

LATENCY = Latency(0.99, under_s=0.200)
OBSERVED = Observed(
    calls=10_000,
    calls_per_s=50.0,
    p50_s=0.020,
    p95_s=0.060,
    p99_s=0.120,
    p999_s=0.200,
    failed_share=0.002,
    in_flight_max=7,
)


def test_a_latency_objective_alone_gives_a_whole_guard() -> None:
    policy = derive(LATENCY).policy
    assert policy.breaker is not None
    assert policy.timeout is not None
    assert policy.retry is not None
    assert policy.hedge is not None
    assert policy.threshold is not None
    assert (policy.breaker.slow_s, policy.breaker.failed_share, policy.breaker.calls_min) == (0.2, 0.5, 20)
    assert (policy.breaker.rest_s, policy.breaker.rest_max_s) == (10.0, 259.0)
    assert (policy.timeout.call_s, policy.timeout.total_s) == (1.0, 4.0)
    assert (policy.retry.attempts_max, policy.retry.pause_first_s, policy.retry.pause_max_s) == (3, 0.05, 0.5)
    assert (policy.hedge.quantile, policy.hedge.delay_min_s, policy.hedge.samples_min) == (0.95, 0.01, 100)
    assert (policy.budget.share, policy.budget.floor_per_s) == (0.1, 1.0)
    assert (policy.threshold.quantile, policy.threshold.samples) == (0.99, 300)
    assert policy.threshold.hardened


def test_parts_that_nothing_supports_are_off_and_say_why() -> None:
    derived = derive(LATENCY)
    for part in ("bulkhead", "limit", "rate", "throttle", "shed"):
        assert getattr(derived.policy, part) is None
        assert derived.reasons[part].startswith("off: ")


def test_an_availability_objective_says_nothing_about_slow() -> None:
    derived = derive(Availability(0.999))
    assert derived.policy.breaker is not None
    assert derived.policy.breaker.slow_s == BreakerPolicy().slow_s
    assert derived.policy.timeout is not None
    assert derived.policy.timeout.call_s == TimeoutPolicy().call_s
    assert derived.policy.hedge is None
    assert derived.policy.threshold is None
    assert derived.policy.retry is not None
    assert derived.policy.retry.pause_max_s == 2.0


def test_too_few_observed_calls_are_not_used_and_the_summary_says_so() -> None:
    few = replace(OBSERVED, calls=CALLS_MIN - 1)
    assert derive(LATENCY, few).policy == derive(LATENCY).policy
    assert "299 observed calls are fewer than the 300" in derive(LATENCY, few).summary
    assert "nothing has been observed" in derive(LATENCY).summary
    assert "from the objective and 10000 observed calls" in derive(LATENCY, OBSERVED).summary


def test_observed_calls_in_flight_give_a_bulkhead_with_four_times_the_room() -> None:
    derived = derive(LATENCY, replace(OBSERVED, calls_per_s=100.0))
    assert derived.policy.bulkhead is not None
    assert derived.policy.bulkhead.calls_max == 4 * 12
    assert "Little's law" in derived.reasons["bulkhead.calls_max"]
    assert derive(LATENCY, replace(OBSERVED, in_flight_max=0, calls_per_s=0.01)).policy.bulkhead is None


def test_a_timeout_leaves_room_for_the_slow_calls_that_succeed() -> None:
    slow = derive(LATENCY, replace(OBSERVED, p999_s=2.0))
    assert slow.policy.timeout is not None
    assert slow.policy.timeout.call_s == 4.0
    assert "2 times the observed P999" in slow.reasons["timeout.call_s"]
    shallow = derive(LATENCY, replace(OBSERVED, calls=1000, p99_s=1.0, p999_s=2.0))
    assert shallow.policy.timeout is not None
    assert shallow.policy.timeout.call_s == 3.0
    assert "3 times the observed P99," in shallow.reasons["timeout.call_s"]
    available = derive(Availability(0.999), replace(OBSERVED, p999_s=0.5))
    assert available.policy.timeout is not None
    assert available.policy.timeout.call_s == 5.0


def test_a_timeout_stays_above_a_tenth_of_a_second() -> None:
    timeout = derive(Latency(0.99, under_s=0.001)).policy.timeout
    assert timeout is not None
    assert timeout.call_s == 0.1


def test_a_breaker_of_a_lenient_objective_does_not_open_on_what_is_allowed() -> None:
    policy = derive(Availability(0.6)).policy
    assert policy.breaker is not None
    assert policy.breaker.failed_share == 0.8
    assert policy.breaker.calls_min == 42
    hopeless = derive(Availability(1e-9)).policy
    assert hopeless.breaker is not None
    assert (hopeless.breaker.failed_share, hopeless.breaker.calls_min) == (1.0, 10_000)


def test_failures_that_are_normal_raise_the_line_and_an_outage_does_not() -> None:
    usual = derive(LATENCY, replace(OBSERVED, failed_share=0.3)).policy
    assert usual.breaker is not None
    assert usual.breaker.failed_share == 0.6
    outage = derive(LATENCY, replace(OBSERVED, failed_share=0.9)).policy
    assert outage.breaker is not None
    assert outage.breaker.failed_share == 0.5


def test_a_quiet_target_gets_a_longer_window_and_is_told_if_that_is_not_enough() -> None:
    quiet = derive(LATENCY, replace(OBSERVED, calls_per_s=1.0))
    assert quiet.policy.breaker is not None
    assert quiet.policy.breaker.window_s == 40.0
    assert quiet.policy.budget.floor_per_s == 0.1
    for rate in (0.05, 0.0):
        nearly_idle = derive(LATENCY, replace(OBSERVED, calls_per_s=rate, in_flight_max=1))
        assert nearly_idle.policy.breaker is not None
        assert nearly_idle.policy.breaker.window_s == 120.0
    assert "hardly ever open" in derive(LATENCY, replace(OBSERVED, calls_per_s=0.05)).reasons["breaker.window_s"]


def test_a_target_that_seldom_fails_needs_two_tries() -> None:
    two = derive(LATENCY, OBSERVED)
    assert two.policy.retry is not None
    assert two.policy.retry.attempts_max == 2
    three = derive(LATENCY, replace(OBSERVED, failed_share=0.1)).policy.retry
    assert three is not None
    assert three.attempts_max == 3


def test_there_is_no_hedging_where_a_second_call_would_not_be_sooner() -> None:
    derived = derive(LATENCY, replace(OBSERVED, p50_s=0.1, p95_s=0.11))
    assert derived.policy.hedge is None
    assert "less than twice the median" in derived.reasons["hedge"]


def test_a_strict_objective_learns_from_a_deeper_quantile_and_more_samples() -> None:
    threshold = derive(Latency(0.9999, under_s=0.1)).policy.threshold
    assert threshold is not None
    assert (threshold.quantile, threshold.samples, threshold.samples_min) == (0.999, 3000, 300)


def test_reasons_stand_in_the_order_of_the_numbers_and_cannot_be_changed() -> None:
    derived = derive(LATENCY, OBSERVED)
    numbers = list(numbers_in(derived.policy))
    assert list(derived.reasons)[: len(numbers)] == numbers
    with pytest.raises(TypeError):
        derived.reasons["keys_max"] = "because"  # type: ignore[index]


def test_an_impossible_observation_tells_every_problem() -> None:
    with pytest.raises(BadSettings) as found:
        Observed(calls=-1, calls_per_s=-1.0, p50_s=-1.0, p95_s=0.1, p99_s=0.1, p999_s=0.1, failed_share=2.0)
    assert [path for path, _ in found.value.problems] == [
        "observed.calls",
        "observed.calls_per_s",
        "observed.p50_s",
        "observed.failed_share",
    ]
    with pytest.raises(BadSettings, match="must not fall"):
        replace(OBSERVED, p95_s=1.0)
