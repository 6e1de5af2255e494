"""Guards as a Prometheus scrape shows them: through a real registry and its real text."""

from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from budao.adapters.prometheus import GuardCollector
from budao.model import BadSettings, BreakerOpen, BreakerPolicy, BulkheadPolicy, GuardPolicy, RetryPolicy
from budao.protect import Guard


class Pretend:
    """A clock that goes where it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def a_guard(clock: Pretend, **parts: object) -> Guard:
    given = {
        "breaker": BreakerPolicy(calls_min=4, slow_s=0.5),
        "bulkhead": BulkheadPolicy(calls_max=7),
        "retry": None,
    }
    return Guard("stock", policy=GuardPolicy(**(given | parts)), clock=clock)  # type: ignore[arg-type]  # one for each part


def scraped(*guards: Guard) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    registry = CollectorRegistry()
    registry.register(GuardCollector(*guards))
    text = generate_latest(registry).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float | None:
    return samples.get((f"budao_guard_{name}", frozenset(labels.items())))


def use(guard: Guard, clock: Pretend, key: str, took_s: float, *, fails: bool = False) -> None:
    def work(_key: str) -> None:
        clock.now += took_s
        if fails:
            raise OSError("away")

    guarded = guard.protect(work, key=lambda key: key)
    if fails:
        with pytest.raises(OSError, match="away"):
            guarded(key)
    else:
        guarded(key)


def test_calls_are_counted_by_key_and_outcome() -> None:
    clock = Pretend()
    guard = a_guard(clock)
    for _ in range(5):
        use(guard, clock, "a", 0.02)
    use(guard, clock, "a", 0.7)
    use(guard, clock, "b", 0.02, fails=True)
    samples = scraped(guard)
    assert value(samples, "calls_total", guard="stock", key="a", outcome="ok") == 5
    assert value(samples, "calls_total", guard="stock", key="a", outcome="slow") == 1
    assert value(samples, "calls_total", guard="stock", key="b", outcome="failed") == 1
    assert value(samples, "calls_total", guard="stock", key="b", outcome="ok") == 0
    assert value(samples, "in_flight", guard="stock", key="a") == 0
    assert value(samples, "limit", guard="stock", key="a") == 7
    assert value(samples, "slow_seconds", guard="stock", key="a") == 0.5


def test_exactly_one_state_of_a_breaker_is_one_and_refusals_carry_their_reason() -> None:
    clock = Pretend()
    guard = a_guard(clock)
    for _ in range(4):
        use(guard, clock, "a", 0.02, fails=True)
    for _ in range(3):
        with pytest.raises(BreakerOpen):
            guard.protect(lambda _key: None, key=lambda key: key)("a")
    samples = scraped(guard)
    states = {
        dict(labels)["state"]: number for (name, labels), number in samples.items() if name == "budao_guard_state"
    }
    assert states == {"closed": 0, "open": 1, "probing": 0, "ramping": 0}
    assert value(samples, "refusals_total", guard="stock", key="a", why="breaker_open") == 3


def test_latency_is_a_histogram_whose_last_bucket_holds_every_call() -> None:
    clock = Pretend()
    guard = a_guard(clock)
    for took_s in (0.002, 0.02, 0.02, 0.2, 20.0):
        use(guard, clock, "a", took_s)
    samples = scraped(guard)
    counts = [
        (float(dict(labels)["le"]), number)
        for (name, labels), number in samples.items()
        if name == "budao_guard_latency_seconds_bucket"
    ]
    heights = dict(counts)
    assert heights[0.001] == 0
    assert heights[0.005] == 1
    assert heights[0.025] == 3
    assert heights[0.25] == 4
    assert heights[10.0] == 4
    assert heights[math.inf] == 5
    assert [number for _, number in sorted(counts)] == sorted(number for _, number in counts)
    assert value(samples, "latency_seconds_count", guard="stock", key="a") == 5
    assert value(samples, "latency_seconds_sum", guard="stock", key="a") == pytest.approx(20.242, rel=1e-3)


def test_retries_and_rungs_are_counted_by_guard() -> None:
    clock = Pretend()
    guard = a_guard(clock, retry=RetryPolicy(attempts_max=2, pause_first_s=0.0))
    tries = iter([OSError("away"), None])

    @guard.protect
    def fine() -> int:
        return 1

    def shaky() -> int:
        error = next(tries)
        if error is not None:
            raise error
        return 2

    assert fine() == 1
    assert guard.protect(shaky, safe=True)() == 2
    samples = scraped(guard)
    assert value(samples, "retries_total", guard="stock") == 1
    assert value(samples, "hedges_total", guard="stock") == 0


def test_registering_takes_no_snapshot_and_two_collectors_of_the_same_names_clash() -> None:
    class Untouchable:
        name = "untouchable"

    registry = CollectorRegistry()
    registry.register(GuardCollector(Untouchable()))  # type: ignore[arg-type]  # has no snapshot to take
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(GuardCollector())


def test_guards_share_the_families_and_label_values_stay_within_keys_max() -> None:
    clock = Pretend()
    one = a_guard(clock, keys_max=5)
    other = Guard("mail", clock=clock)
    for number in range(50):
        use(one, clock, f"key {number}", 0.01)
    use(other, clock, 'odd "key"\n', 0.01)
    samples = scraped(one, other)
    keys = {dict(labels)["key"] for (name, labels) in samples if name == "budao_guard_in_flight"}
    assert 'odd "key"\n' in keys
    # The guard's own calls without a key may have a series, too.
    assert len([key for key in keys if key.startswith("key ")]) <= 5


@pytest.mark.parametrize("bounds_s", [(0.1, 0.1), (0.2, 0.1), (0.0, 1.0), (-1.0,), (1.0, math.inf), (math.nan,)])
def test_bounds_that_make_no_histogram_are_bad_settings(bounds_s: tuple[float, ...]) -> None:
    with pytest.raises(BadSettings, match="bounds_s"):
        GuardCollector(bounds_s=bounds_s)
