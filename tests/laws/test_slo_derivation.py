"""Whatever the objective and the observation, what is derived is valid, explained, and no laxer for a stricter objective."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from budao.model import PARTS, numbers_in
from budao.slo import Availability, BurnRates, Derived, Latency, Objective, Observed, derive
from budao.slo.bounds import tail

shares = st.one_of(
    st.sampled_from([1e-9, 0.5, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 0.99999, 1 - 1e-9]),
    st.floats(min_value=1e-9, max_value=1 - 1e-9),
)
spans = st.one_of(st.sampled_from([1e-9, 0.001, 0.2, 3_600.0]), st.floats(min_value=1e-9, max_value=3_600.0))
windows = st.floats(min_value=60.0, max_value=366 * 86_400.0)


@st.composite
def objectives(draw: st.DrawFn) -> Objective:
    if draw(st.booleans()):
        return Availability(draw(shares), window_s=draw(windows))
    return Latency(draw(shares), under_s=draw(spans), window_s=draw(windows))


@st.composite
def observations(draw: st.DrawFn) -> Observed:
    p50_s, p95_s, p99_s, p999_s = sorted(
        draw(st.lists(st.floats(min_value=0.0, max_value=86_400.0), min_size=4, max_size=4))
    )
    return Observed(
        calls=draw(st.sampled_from([0, 299, 300, 3_000, 10**12])),
        calls_per_s=draw(st.floats(min_value=0.0, max_value=1e9)),
        p50_s=p50_s,
        p95_s=p95_s,
        p99_s=p99_s,
        p999_s=p999_s,
        failed_share=draw(st.floats(min_value=0.0, max_value=1.0)),
        in_flight_max=draw(st.integers(min_value=0, max_value=10_000_000)),
    )


maybe_observed = st.none() | observations()


def waits(derived: Derived) -> tuple[float, ...]:
    policy = derived.policy
    assert policy.timeout is not None
    assert policy.retry is not None
    assert policy.breaker is not None
    found = (policy.timeout.call_s, policy.timeout.total_s, policy.retry.pause_first_s, policy.retry.pause_max_s)
    return (*found, policy.retry.retry_after_max_s, policy.breaker.slow_s)


@given(objectives(), maybe_observed)
def test_every_number_in_force_has_a_sentence_with_that_number_in_it(
    objective: Objective, seen: Observed | None
) -> None:
    derived = derive(objective, seen)
    numbers = numbers_in(derived.policy)
    off = {name for name in PARTS if getattr(derived.policy, name) is None}
    assert set(derived.reasons) == set(numbers) | off
    for path, number in numbers.items():
        sentence = derived.reasons[path]
        shown = getattr(number, "value", number)
        shown = f"{shown:g}" if isinstance(shown, float) else str(shown)
        words = [word.rstrip(":,") for word in sentence.split()]
        assert shown in words, (path, number, sentence)
    for part in off:
        assert derived.reasons[part].startswith("off: ")


@given(objectives(), maybe_observed)
def test_what_is_derived_fits_together(objective: Objective, seen: Observed | None) -> None:
    policy = derive(objective, seen).policy
    assert policy.timeout is not None
    assert policy.retry is not None
    assert policy.breaker is not None
    tries_s = policy.retry.attempts_max * policy.timeout.call_s
    pauses_s = (policy.retry.attempts_max - 1) * policy.retry.pause_max_s
    assert tries_s + pauses_s <= policy.timeout.total_s * (1 + 1e-9)
    if isinstance(objective, Latency):
        assert policy.timeout.call_s > objective.under_s
    if policy.breaker.calls_min < 10_000:
        line = policy.breaker.failed_share
        for calls in range(policy.breaker.calls_min, policy.breaker.calls_min + 20):
            reached = next(bad for bad in range(calls + 1) if bad >= line * calls)
            assert tail(reached, calls, float(objective.allowed)) <= 1e-6


@given(objectives(), shares, spans, maybe_observed)
def test_a_stricter_objective_never_waits_longer(
    objective: Objective, share: float, under_s: float, seen: Observed | None
) -> None:
    low, high = sorted((objective.share, share))
    lenient, strict = replace(objective, share=low), replace(objective, share=high)
    if isinstance(lenient, Latency) and isinstance(strict, Latency):
        lenient = replace(lenient, under_s=max(lenient.under_s, under_s))
        strict = replace(strict, under_s=min(strict.under_s, under_s))
    assert all(a <= b for a, b in zip(waits(derive(strict, seen)), waits(derive(lenient, seen)), strict=True))
    strict_breaker, lenient_breaker = derive(strict).policy.breaker, derive(lenient).policy.breaker
    assert strict_breaker is not None
    assert lenient_breaker is not None
    assert strict_breaker.rest_s <= lenient_breaker.rest_s
    assert strict_breaker.rest_max_s <= lenient_breaker.rest_max_s
    assert strict_breaker.failed_share <= lenient_breaker.failed_share


@given(objectives(), maybe_observed)
def test_deriving_twice_gives_the_same(objective: Objective, seen: Observed | None) -> None:
    assert derive(objective, seen) == derive(objective, seen)


@given(objectives())
def test_any_objective_has_burn_rules_that_can_fire(objective: Objective) -> None:
    assert BurnRates(objective).rules
