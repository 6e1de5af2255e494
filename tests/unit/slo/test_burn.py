from __future__ import annotations

import pytest

from budao.model import BadSettings, Wall
from budao.slo import WORKBOOK, Availability, BurnRates, BurnRule, Counts, Standing, Urgency, burn_rate, rules_for

HOUR_S = 3_600.0
RULE = BurnRule(burn_limit=14.4, long_s=HOUR_S, short_s=300.0)


def hours(rates: BurnRates, good: int, bad: int, start_s: float, span_s: float, every_s: float = 60.0) -> Wall:
    """Add these counts once a minute for so long; answers with the last instant."""
    now = start_s
    while now < start_s + span_s:
        rates.add(good, bad, Wall(now))
        now += every_s
    return Wall(now - every_s)


def test_the_table_of_the_workbook() -> None:
    found = [(rule.burn_limit, rule.long_s, rule.short_s, rule.urgency) for rule in WORKBOOK]
    assert found == [
        (14.4, HOUR_S, 300.0, Urgency.PAGE),
        (6.0, 6 * HOUR_S, 1_800.0, Urgency.PAGE),
        (3.0, 24 * HOUR_S, 2 * HOUR_S, Urgency.TICKET),
        (1.0, 72 * HOUR_S, 6 * HOUR_S, Urgency.TICKET),
    ]


def test_burn_is_how_many_times_faster_than_allowed() -> None:
    assert burn_rate(Counts(990, 10), Availability(0.999)) == 10.0
    assert burn_rate(Counts(0, 0), Availability(0.999)) is None


def test_no_data_is_unknown_and_never_a_pass() -> None:
    verdict = BurnRates(Availability(0.999)).judge(Wall(0.0))
    assert verdict.standing is Standing.UNKNOWN
    assert verdict.urgency is None
    assert "too few to judge" in verdict.sentence
    assert all(each.burn_long is None and each.burn_sure is None for each in verdict.rules)


def test_a_quiet_hour_is_unknown_again() -> None:
    rates = BurnRates(Availability(0.999), [RULE])
    now = hours(rates, 100, 0, 0.0, HOUR_S)
    assert rates.judge(now).standing is Standing.OK
    assert rates.judge(Wall(now + 2 * HOUR_S)).standing is Standing.UNKNOWN


def test_a_fast_burn_pages_with_its_numbers() -> None:
    rates = BurnRates(Availability(0.999))
    now = hours(rates, 95, 5, 0.0, HOUR_S)
    verdict = rates.judge(now)
    assert (verdict.standing, verdict.urgency) == (Standing.FIRING, Urgency.PAGE)
    first = verdict.rules[0]
    assert (first.burn_long, first.burn_short, first.long) == (50.0, 50.0, Counts(5700, 300))
    assert first.burn_sure is not None
    assert 14.4 < first.burn_sure < 50.0
    assert "limit 14.4" in verdict.sentence
    assert "300 bad of 6000 calls" in verdict.sentence


def test_a_burn_that_is_over_no_longer_fires() -> None:
    rates = BurnRates(Availability(0.999), [RULE])
    hours(rates, 0, 100, 0.0, 600.0)
    now = hours(rates, 100, 0, 600.0, 1_200.0)
    verdict = rates.judge(now)
    assert verdict.standing is Standing.OK
    assert "is over" in verdict.sentence


def test_a_burn_followed_by_silence_is_unknown() -> None:
    rates = BurnRates(Availability(0.999), [RULE])
    now = hours(rates, 50, 50, 0.0, 600.0)
    verdict = rates.judge(Wall(now + 900.0))
    assert verdict.standing is Standing.UNKNOWN
    assert "nobody knows whether it goes on" in verdict.sentence


def test_a_burn_that_may_be_chance_does_not_fire() -> None:
    rates = BurnRates(Availability(0.999), [BurnRule(burn_limit=14.4, long_s=HOUR_S, short_s=300.0, bad_min=1)])
    rates.add(58, 2, Wall(0.0))
    verdict = rates.judge(Wall(0.0))
    assert verdict.rules[0].burn_long is not None
    assert verdict.rules[0].burn_long > 30
    assert verdict.standing is Standing.UNKNOWN
    assert "it may be chance" in verdict.sentence


def test_fewer_bad_calls_than_the_minimum_never_fire_however_strict_the_objective() -> None:
    rates = BurnRates(Availability(0.99999), [RULE])
    rates.add(96, 4, Wall(0.0))
    assert rates.judge(Wall(0.0)).standing is Standing.UNKNOWN
    rates.add(0, 1, Wall(0.0))
    assert rates.judge(Wall(0.0)).standing is Standing.FIRING


def test_the_most_urgent_of_the_firing_rules_is_named() -> None:
    slow = BurnRule(burn_limit=1.0, long_s=72 * HOUR_S, short_s=6 * HOUR_S, urgency=Urgency.TICKET)
    rates = BurnRates(Availability(0.99), [RULE, slow])
    now = hours(rates, 970, 30, 0.0, HOUR_S)
    assert rates.judge(now).urgency is Urgency.TICKET
    assert rates.judge(now).standing is Standing.FIRING


def test_an_alert_that_can_never_fire_is_refused_with_the_reason() -> None:
    with pytest.raises(BadSettings) as found:
        BurnRates(Availability(0.9), [RULE, BurnRule(burn_limit=10.0, long_s=HOUR_S, short_s=60.0)])
    assert [path for path, _ in found.value.problems] == ["rules[0].burn_limit", "rules[1].burn_limit"]
    assert "all calls bad burn at 10" in str(found.value)


def test_rules_must_exist_and_look_back_no_further_than_the_objective() -> None:
    with pytest.raises(BadSettings, match="no rule at all"):
        BurnRates(Availability(0.99), [])
    with pytest.raises(BadSettings, match="looks back further"):
        BurnRates(Availability(0.99, window_s=HOUR_S / 2), [RULE])


def test_a_lenient_objective_gets_limits_it_can_reach() -> None:
    assert [rule.burn_limit for rule in rules_for(Availability(0.9))] == [5.0, 5.0, 3.0, 1.0]
    assert [rule.burn_limit for rule in rules_for(Availability(0.2))] == [1.0, 1.0, 1.0, 1.0]


def test_a_short_objective_gets_windows_that_fit() -> None:
    assert [rule.long_s for rule in rules_for(Availability(0.999, window_s=86_400.0))] == [HOUR_S, 6 * HOUR_S, 86_400.0]
    (only,) = rules_for(Availability(0.999, window_s=600.0))
    assert (only.long_s, only.short_s) == (600.0, 50.0)


def test_a_rule_tells_every_problem() -> None:
    with pytest.raises(BadSettings) as found:
        BurnRule(burn_limit=0.0, long_s=1.0, short_s=0.0, calls_min=0, bad_min=0, confidence=2.0, urgency="now")  # type: ignore[arg-type]
    assert len(found.value.problems) == 7
    with pytest.raises(BadSettings, match="not shorter than long_s"):
        BurnRule(burn_limit=1.0, long_s=60.0, short_s=60.0)


def test_judging_changes_nothing() -> None:
    rates = BurnRates(Availability(0.999))
    now = hours(rates, 95, 5, 0.0, HOUR_S)
    assert rates.judge(now) == rates.judge(now)
