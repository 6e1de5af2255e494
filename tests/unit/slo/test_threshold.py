from __future__ import annotations

from math import inf, nan
from random import Random

import pytest

from budao.model import BadSettings, Mono, ThresholdPolicy
from budao.slo import Threshold

BARE = ThresholdPolicy(hardened=False)
HARD = ThresholdPolicy()


def minute(p99_s: float, count: int = 100) -> list[float]:
    """Calls of one minute with exactly this P99: one of a hundred takes a fifth longer, the others from half as long."""
    return [p99_s * 1.2 if index % 100 == 99 else p99_s * (0.5 + index % 100 / 196) for index in range(count)]


def fed(threshold: Threshold, p99_s: float, start: int, minutes: int) -> Threshold:
    for each in range(start, start + minutes):
        threshold.feed(minute(p99_s), Mono(60.0 * each))
    return threshold


@pytest.mark.parametrize("policy", [BARE, HARD])
def test_before_enough_samples_the_line_is_the_objective_or_nothing_is_slow(policy: ThresholdPolicy) -> None:
    for anchor_s, expected_s in ((0.2, 0.2), (None, inf)):
        threshold = Threshold(policy, anchor_s)
        assert threshold.slow_s == expected_s
        threshold.feed([9.0] * 29, Mono(0.0))
        view = threshold.view()
        assert (threshold.slow_s, view.slow_s, view.quantile_s, view.samples) == (expected_s, expected_s, None, 29)
        assert view.reason.startswith("29 of the 30 samples needed")


@pytest.mark.parametrize("policy", [BARE, HARD])
def test_what_is_no_duration_is_left_out(policy: ThresholdPolicy) -> None:
    threshold = Threshold(policy, None)
    threshold.feed([nan, -1.0, inf] * 100, Mono(0.0))
    assert threshold.view().samples == 0


@pytest.mark.parametrize("policy", [BARE, HARD])
def test_an_idle_threshold_holds_next_to_nothing(policy: ThresholdPolicy) -> None:
    assert Threshold(policy, 0.2)._rule is None


@pytest.mark.parametrize("anchor_s", [0.0, -1.0, nan, "1"])
def test_an_anchor_is_a_span(anchor_s: float) -> None:
    with pytest.raises(BadSettings, match=r"threshold\.anchor_s"):
        Threshold(HARD, anchor_s)


# -- the bare rule


def test_bare_smooths_the_quantile_of_the_window() -> None:
    threshold = Threshold(BARE, None)
    threshold.feed([1.0] * 300, Mono(0.0))
    assert threshold.slow_s == 1.0
    threshold.feed([2.0] * 300, Mono(60.0))
    assert threshold.slow_s == pytest.approx(1.0 + 0.2 * (2.0 - 1.0))


def test_bare_moves_at_most_every_ten_seconds_however_small_the_feeds() -> None:
    threshold = Threshold(BARE, None)
    threshold.feed([1.0] * 300, Mono(0.0))
    for each in range(300):
        threshold.feed([2.0], Mono(each / 100))
    assert threshold.slow_s == 1.0
    threshold.feed([2.0], Mono(10.0))
    assert threshold.slow_s == pytest.approx(1.2)


def test_bare_is_never_below_the_objective() -> None:
    threshold = Threshold(BARE, 0.2)
    threshold.feed([0.01] * 300, Mono(0.0))
    assert threshold.slow_s == 0.2
    assert "never below the objective" in threshold.view().reason


def test_bare_is_never_above_one_and_a_half_times_the_largest_sample() -> None:
    threshold = Threshold(BARE, None)
    threshold.feed([1.0] * 300, Mono(0.0))
    threshold.feed([0.1] * 300, Mono(60.0))
    assert threshold.slow_s == pytest.approx(0.15)
    assert "1.5 times the largest sample, 100 ms" in threshold.view().reason


def test_bare_calls_a_quantile_that_moves_more_than_fifteen_percent_in_a_minute_drift() -> None:
    threshold = Threshold(BARE, 0.5)
    threshold.feed([0.100] * 300, Mono(0.0))
    threshold.feed([0.114] * 300, Mono(60.0))
    assert not threshold.view().is_drifting
    threshold.feed([0.096] * 300, Mono(120.0))
    assert threshold.view().is_drifting
    assert "moving" in threshold.view().reason


def test_bare_calls_three_rising_minutes_drift_only_while_compliance_falls_short() -> None:
    for anchor_s, drifts in ((0.2, False), (0.1, True)):
        threshold = Threshold(BARE, anchor_s)
        for each, took_s in enumerate((0.100, 0.105, 0.110, 0.115)):
            assert not threshold.view().is_drifting
            threshold.feed([took_s] * 300, Mono(60.0 * each))
        assert threshold.view().is_drifting is drifts


def test_bare_follows_a_slow_doubling_upward() -> None:
    threshold = Threshold(BARE, 0.2)
    for day in range(100):
        fed(threshold, 0.2 * 2 ** (day / 100), 20 * day, 20)
    assert threshold.slow_s > 1.9 * 0.2
    assert not threshold.view().is_creeping


# -- the hardened rule


def test_the_line_is_the_objective_while_the_service_keeps_well_within_it() -> None:
    threshold = fed(Threshold(HARD, 0.2), 0.1, 0, 60)
    assert threshold.slow_s == 0.2
    view = threshold.view()
    assert view.reason == "the objective, 200 ms: 1.25 times the learned P99, 100 ms, is not above it"
    assert (view.is_drifting, view.is_creeping, view.is_learning, view.evidence_share) == (False, False, True, 0.0)


def test_the_line_keeps_a_margin_above_what_is_normal() -> None:
    threshold = fed(Threshold(HARD, 0.2), 0.19, 0, 60)
    assert threshold.slow_s == pytest.approx(1.25 * 0.19)
    assert threshold.view().reason == "1.25 times the learned P99, 190 ms"


def test_the_line_never_passes_the_cap_above_the_objective() -> None:
    threshold = fed(Threshold(HARD, 0.2), 0.28, 0, 10)
    assert threshold.slow_s == pytest.approx(1.5 * 0.2)
    assert "held at 1.5 times the objective, 200 ms" in threshold.view().reason


def test_five_clearly_bad_minutes_are_an_alarm_and_four_are_not() -> None:
    threshold = fed(Threshold(HARD, 0.2), 0.1, 0, 60)
    fed(threshold, 0.5, 60, 4)
    assert not threshold.view().is_drifting
    fed(threshold, 0.5, 64, 1)
    view = threshold.view()
    assert (view.is_drifting, view.evidence_share, view.is_learning) == (True, 1.0, False)
    assert view.reason.endswith("too many calls have been slow for minutes; not learning meanwhile")


def test_an_alarm_ends_after_as_many_good_minutes() -> None:
    threshold = fed(Threshold(HARD, 0.2), 0.1, 0, 60)
    fed(threshold, 0.5, 60, 20)
    fed(threshold, 0.1, 80, 4)
    assert threshold.view().is_drifting
    fed(threshold, 0.1, 84, 1)
    assert not threshold.view().is_drifting


def test_one_dreadful_minute_now_and_then_is_no_alarm() -> None:
    threshold = fed(Threshold(HARD, 0.2), 0.1, 0, 60)
    for each in range(60, 300, 10):
        fed(threshold, 5.0, each, 3)
        assert not threshold.view().is_drifting
        fed(threshold, 0.1, each + 3, 7)


def test_nothing_is_learned_during_an_incident() -> None:
    threshold = fed(Threshold(HARD, 0.2), 0.15, 0, 60)
    before = threshold.view().quantile_s
    fed(threshold, 0.6, 60, 600)
    assert threshold.view().quantile_s == before
    assert threshold.slow_s == 0.2


def test_nothing_is_learned_while_an_alert_stands_elsewhere() -> None:
    threshold = fed(Threshold(HARD, 0.2), 0.1, 0, 60)
    for each in range(60, 200):
        threshold.feed(minute(0.19), Mono(60.0 * each), alert_stands=True)
    view = threshold.view()
    assert view.quantile_s == pytest.approx(0.1)
    assert (view.is_drifting, view.is_learning) == (False, False)
    fed(threshold, 0.19, 200, 200)
    assert threshold.view().quantile_s == pytest.approx(0.19, rel=0.1)


def test_without_an_anchor_the_cap_is_tied_to_what_the_first_week_was_like() -> None:
    threshold = Threshold(HARD, None)
    for day in range(9):
        for each in range(0, 1440, 10):
            slower = 1.2 if each > 720 else 1.0
            threshold.feed(minute(0.1 * slower), Mono(86_400.0 * day + 60.0 * each))
    baseline_s = threshold.view().anchor_s
    assert baseline_s is not None
    assert baseline_s == pytest.approx(0.12, rel=0.05)
    fed(threshold, 1.0, 9 * 1440, 100)
    view = threshold.view()
    assert view.anchor_s == baseline_s
    assert view.slow_s <= 1.5 * baseline_s
    assert view.is_drifting


def test_a_line_that_creeps_up_is_noticed_and_stays_where_it_is_until_it_falls_again() -> None:
    threshold = Threshold(HARD, 0.2)
    instant = 0.0
    while not threshold.view().is_creeping and instant < 10 * 86_400.0:
        instant += 600.0
        threshold.feed(minute(0.15 * 1.06 ** (instant // 86_400.0)), Mono(instant))
    view = threshold.view()
    assert (view.is_creeping, view.is_drifting, view.is_learning) == (True, False, False)
    assert "the line itself has crept up from a daily mean of 200 ms" in view.reason
    held_s = threshold.slow_s
    assert held_s > 1.2 * 0.2
    for _ in range(288):
        instant += 600.0
        threshold.feed(minute(0.21), Mono(instant))
    assert threshold.slow_s == held_s
    for _ in range(3 * 144):
        instant += 600.0
        threshold.feed(minute(0.12), Mono(instant))
    assert not threshold.view().is_creeping
    assert threshold.slow_s == 0.2


def test_a_person_can_accept_the_new_normal() -> None:
    threshold = fed(Threshold(HARD, None), 0.1, 0, 60)
    fed(threshold, 1.0, 60, 20)
    assert threshold.view().is_drifting
    threshold.accept()
    assert threshold.slow_s == inf
    fed(threshold, 1.0, 80, 20)
    assert not threshold.view().is_drifting
    assert threshold.slow_s == pytest.approx(1.25)


def test_a_quiet_service_is_weighed_when_it_has_enough_samples_not_every_minute() -> None:
    threshold = fed(Threshold(HARD, 0.2), 0.1, 0, 10)
    for each in range(10, 39):
        threshold.feed([1.0], Mono(60.0 * each))
    assert threshold.view().evidence_share == 0.0
    threshold.feed([1.0], Mono(60.0 * 39))
    assert threshold.view().evidence_share > 0.0


def test_two_thresholds_share_nothing() -> None:
    first, second = Threshold(HARD, 0.2), Threshold(HARD, 0.2)
    fed(first, 0.5, 0, 60)
    assert second.view() == Threshold(HARD, 0.2).view()


def test_the_same_samples_give_the_same_views_however_they_are_cut_into_feeds_within_a_minute() -> None:
    rng = Random(7)
    whole, cut = Threshold(HARD, 0.2), Threshold(HARD, 0.2)
    for each in range(200):
        took = [rng.lognormvariate(-2.5, 0.5) for _ in range(60)]
        whole.feed(took, Mono(60.0 * each))
        if each == 0:
            cut.feed(took, Mono(0.0))
        else:
            for index, took_s in enumerate(took):
                cut.feed([took_s], Mono(60.0 * each - 59.0 + index))
        assert whole.view() == cut.view()


def test_a_deeper_quantile_is_named_as_people_say_it() -> None:
    threshold = Threshold(ThresholdPolicy(quantile=0.999, samples=3000, samples_min=300), 0.2)
    threshold.feed(minute(0.1, 1000), Mono(0.0))
    assert "P999" in threshold.view().reason
    half = Threshold(ThresholdPolicy(quantile=0.5), 0.2)
    half.feed(minute(0.1, 1000), Mono(0.0))
    assert "P50" in half.view().reason
