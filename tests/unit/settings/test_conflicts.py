"""Numbers that can never have an effect."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budao.model import (
    BreakerPolicy,
    BulkheadPolicy,
    GuardPolicy,
    HedgePolicy,
    LimitPolicy,
    RatePolicy,
    TimeoutPolicy,
)
from budao.settings import conflicts, dump, parse
from budao.slo import Availability, Latency, Objective, derive

CONFLICTS = {
    "rate.calls_per_s": GuardPolicy(rate=RatePolicy(calls_per_s=0.5), retry=None),
    "breaker.slow_s": GuardPolicy(breaker=BreakerPolicy(slow_s=1.0), timeout=TimeoutPolicy(call_s=1.0)),
    "hedge.delay_min_s": GuardPolicy(hedge=HedgePolicy(delay_min_s=1.0), timeout=TimeoutPolicy(call_s=1.0)),
    "limit.calls_min": GuardPolicy(limit=LimitPolicy(calls_min=20), bulkhead=BulkheadPolicy(calls_max=20)),
    "bulkhead.waiting_max": GuardPolicy(bulkhead=BulkheadPolicy(waiting_max=5, wait_max_s=0.0)),
}
CLEAR = {
    "nothing is on": GuardPolicy(breaker=None, retry=None),
    "the written defaults": GuardPolicy(),
    "just enough calls": GuardPolicy(rate=RatePolicy(calls_per_s=1.9), retry=None),
    "enough calls with repeats": GuardPolicy(rate=RatePolicy(calls_per_s=0.6)),
    "no breaker to trip": GuardPolicy(rate=RatePolicy(calls_per_s=0.1), breaker=None),
    "slow before the end": GuardPolicy(breaker=BreakerPolicy(slow_s=0.9), timeout=TimeoutPolicy(call_s=1.0)),
    "nothing is slow": GuardPolicy(timeout=TimeoutPolicy(call_s=1.0)),
    "a hedge before the end": GuardPolicy(hedge=HedgePolicy(delay_min_s=0.9), timeout=TimeoutPolicy(call_s=1.0)),
    "a limit that can go lower": GuardPolicy(limit=LimitPolicy(calls_min=19), bulkhead=BulkheadPolicy(calls_max=20)),
    "nobody waits": GuardPolicy(bulkhead=BulkheadPolicy(wait_max_s=0.0)),
}


@pytest.mark.parametrize(("path", "policy"), CONFLICTS.items(), ids=CONFLICTS)
def test_a_number_that_can_never_have_an_effect_is_named(path: str, policy: GuardPolicy) -> None:
    found = conflicts(policy)
    assert [each.path for each in found] == [path]
    assert path in found[0].between


@pytest.mark.parametrize("policy", CLEAR.values(), ids=CLEAR)
def test_what_may_have_an_effect_is_left_alone(policy: GuardPolicy) -> None:
    assert conflicts(policy) == ()


@given(
    objective=st.one_of(
        st.builds(Availability, st.sampled_from([0.5, 0.9, 0.99, 0.999, 0.99999])),
        st.builds(Latency, st.sampled_from([0.5, 0.9, 0.99, 0.9999]), under_s=st.floats(1e-4, 60.0)),
    )
)
def test_what_an_objective_gives_holds_no_conflict_and_survives_the_file(objective: Objective) -> None:
    policy = derive(objective).policy
    assert conflicts(policy) == ()
    assert parse(dump(policy, name="a")).policy_for("a", GuardPolicy()) == policy


def test_a_breaker_that_can_never_open_says_why_in_numbers() -> None:
    policy = GuardPolicy(rate=RatePolicy(calls_per_s=0.5), hedge=HedgePolicy())
    assert conflicts(policy) == ()
    policy = GuardPolicy(rate=RatePolicy(calls_per_s=0.3), hedge=HedgePolicy())
    assert conflicts(policy)[0].problem == (
        "the breaker can never open: 0.3 calls a second are at most 4 in its window of 10 s, sent 4 times each, "
        "and it asks for calls_min = 20"
    )
