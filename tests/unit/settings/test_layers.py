"""What a file says, laid over what the code says."""

from __future__ import annotations

import pytest

from budao.model import (
    BadSettings,
    BreakerPolicy,
    BulkheadPolicy,
    GuardPolicy,
    HedgePolicy,
    Mode,
    RatePolicy,
    TimeoutPolicy,
)
from budao.settings import Settings, parse
from budao.slo import Availability, Latency

BASE = GuardPolicy(breaker=BreakerPolicy(rest_s=100.0, rest_max_s=1_000.0), hedge=HedgePolicy(quantile=0.9))


def test_an_empty_file_changes_nothing() -> None:
    for settings in (Settings(), parse("")):
        assert settings.policy_for("inventory", BASE) is not None
        assert settings.policy_for("inventory", BASE) == BASE
        assert settings.objective_for("inventory") is None
        assert settings.reasons_for("inventory") == {}


def test_a_guards_own_table_beats_defaults_and_defaults_beat_the_code() -> None:
    settings = parse(
        "[guard.defaults]\nkeys_max = 5\n[guard.defaults.breaker]\nrest_s = 10\nprobes_max = 7\n"
        '[guard.inventory.breaker]\nrest_s = 20\nmode = "shadow"\n'
    )
    inventory, other = settings.policy_for("inventory", BASE), settings.policy_for("other", BASE)
    assert inventory.breaker == BreakerPolicy(rest_s=20.0, probes_max=7, rest_max_s=1_000.0, mode=Mode.SHADOW)
    assert other.breaker == BreakerPolicy(rest_s=10.0, probes_max=7, rest_max_s=1_000.0)
    assert (inventory.keys_max, other.keys_max) == (5, 5)
    assert inventory.hedge == BASE.hedge


def test_a_part_is_switched_off_by_false_and_on_by_true_or_by_its_table() -> None:
    settings = parse(
        "[guard.defaults]\nhedge = false\nbulkhead = true\n[guard.a.hedge]\n[guard.b]\nbreaker = true\nbulkhead = false\n"
    )
    assert settings.policy_for("other", BASE).hedge is None
    assert settings.policy_for("other", BASE).bulkhead == BulkheadPolicy()
    assert settings.policy_for("a", BASE).hedge == BASE.hedge, "what the code says is back, not the written default"
    assert settings.policy_for("a", GuardPolicy()).hedge == HedgePolicy()
    assert settings.policy_for("b", BASE).breaker == BASE.breaker
    assert settings.policy_for("b", BASE).bulkhead is None


def test_numbers_of_a_part_that_a_guard_switches_off_are_of_no_account() -> None:
    settings = parse("[guard.defaults.hedge]\nquantile = 0.7\n[guard.a]\nhedge = false\n")
    assert settings.policy_for("a", BASE).hedge is None
    assert settings.reasons_for("a") == {"hedge": "switched off in budao.toml, line 4"}
    assert settings.policy_for("b", BASE).hedge == HedgePolicy(quantile=0.7)


def test_a_part_without_defaults_says_what_it_needs() -> None:
    settings = parse("[guard.a.rate]\nburst = 5\n")
    assert settings.policy_for("a", GuardPolicy(rate=RatePolicy(calls_per_s=9))).rate == RatePolicy(
        calls_per_s=9, burst=5
    )
    with pytest.raises(BadSettings) as caught:
        settings.policy_for("a", GuardPolicy())
    assert caught.value.problems == (
        ("guard.a.rate.calls_per_s", "is needed to switch this part on (budao.toml, line 1)"),
    )


def test_the_objective_nearest_to_the_guard_counts() -> None:
    settings = parse(
        "[guard.defaults]\nobjective = { availability = 0.999, window_s = 3600 }\n"
        "[guard.a]\nobjective = { latency = 0.99, under_s = 0.2 }\n"
    )
    assert settings.objective_for("a") == Latency(0.99, under_s=0.2)
    assert settings.objective_for("b") == Availability(0.999, window_s=3_600.0)
    assert settings.reasons_for("a") == {"objective": "set in budao.toml, line 4"}


def test_each_number_the_file_decides_has_a_sentence_with_its_line() -> None:
    settings = parse(
        "[guard.defaults]\nbreaker = { rest_s = 1 }\nhedge = false\n\n[guard.a]\nkeys_max = 3\nhedge = true\n"
        "[guard.a.breaker]\nrest_s = 2\n",
        source="shop.toml",
    )
    assert settings.reasons_for("a") == {
        "breaker": "switched on in shop.toml, line 8",
        "breaker.rest_s": "set in shop.toml, line 9",
        "keys_max": "set in shop.toml, line 6",
        "hedge": "switched on in shop.toml, line 7",
    }
    assert settings.reasons_for("b") == {
        "breaker": "switched on in shop.toml, line 2",
        "breaker.rest_s": "set in shop.toml, line 2",
        "hedge": "switched off in shop.toml, line 3",
    }


def test_every_number_that_does_not_fit_the_code_is_named_at_once() -> None:
    settings = parse("[guard.defaults.timeout]\ncall_s = 60\n[guard.a.breaker]\nrest_s = 2000\n")
    base = GuardPolicy(breaker=BASE.breaker, timeout=TimeoutPolicy())
    with pytest.raises(BadSettings) as caught:
        settings.policy_for("a", base)
    assert caught.value.problems == (
        ("guard.a.breaker.rest_max_s", "1000 s is shorter than rest_s, 2000 s (budao.toml, line 3)"),
        ("guard.defaults.timeout.total_s", "30 s is shorter than one try, call_s 60 s (budao.toml, line 1)"),
    )
    settings.policy_for("a", GuardPolicy(timeout=TimeoutPolicy(total_s=90), breaker=BreakerPolicy(rest_max_s=3_000)))


def test_a_conflict_is_held_against_a_file_only_if_the_file_made_it() -> None:
    base = GuardPolicy(retry=None, rate=RatePolicy(calls_per_s=0.5))
    assert parse("[guard.a]\nkeys_max = 3\n").policy_for("a", base).keys_max == 3
    with pytest.raises(BadSettings) as caught:
        parse("[guard.a.breaker]\ncalls_min = 50\n").policy_for("a", base)
    assert caught.value.problems[0][0] == "guard.a.rate.calls_per_s"
    assert caught.value.problems[0][1].endswith("it asks for calls_min = 50 (budao.toml, line 1)")


def test_shortening_a_timeout_is_never_refused_for_another_lines_sake() -> None:
    base = GuardPolicy(breaker=BreakerPolicy(slow_s=1.0), hedge=HedgePolicy(delay_min_s=0.5))
    timeout = parse("[guard.a.timeout]\ncall_s = 0.1\n").policy_for("a", base).timeout
    assert timeout == TimeoutPolicy(call_s=0.1)


def test_a_table_for_a_guard_nobody_has_is_pointed_out() -> None:
    settings = parse("[guard.defaults]\n[guard.inventory]\n[guard.inventry]\n[guard.zzz]\n")
    assert settings.unclaimed(["inventory", "payments"]) == (
        "budao.toml, line 3: no guard is named 'inventry'; did you mean inventory?",
        "budao.toml, line 4: no guard is named 'zzz'",
    )
    assert settings.unclaimed(["inventory", "inventry", "zzz"]) == ()
