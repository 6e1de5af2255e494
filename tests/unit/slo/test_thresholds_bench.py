"""The bench that compares thresholds is itself held to its words: see `bench/thresholds.py`."""

from __future__ import annotations

from bench.thresholds import OBJECTIVE_S, Score, Slowdown, World, compare, judge, starts_of


def test_the_same_seed_gives_the_same_calls() -> None:
    assert World(5, 2).calls() == World(5, 2).calls()
    assert World(5, 2).calls()[0] != World(6, 2).calls()[0]


def test_every_regression_breaks_the_objective_all_the_time_once_it_has_built_up() -> None:
    for seed in range(20):
        world = World(seed, 14)
        for each in world.regressions:
            assert each.end - each.start - each.ramp >= 20
            full = range(each.start + each.ramp, each.end)
            assert min(world.normal(minute) * each.at(minute) for minute in full) >= 1.2 * (1 - 1e-9)


def test_nothing_else_lasts_longer_than_three_minutes() -> None:
    assert all(each.end - each.start <= 3 for each in World(3, 14).benign)


def test_alarming_minutes_are_one_incident_until_it_has_been_silent_for_ten() -> None:
    assert starts_of([]) == []
    assert starts_of([5, 6, 16, 27]) == [5, 27]


def test_an_alarm_must_begin_in_a_regression_to_catch_it() -> None:
    world = World(1, 2)
    world.regressions = [Slowdown(100, 130, 2.0), Slowdown(300, 330, 2.0), Slowdown(500, 530, 2.0)]
    score = Score()
    judge(score, [90, 100, 110, 304, 335, 700], world)  # stood before the first; caught the second; missed the third
    assert (score.alarms, score.false, score.regressions, score.caught, score.times) == (4, 2, 3, 1, [5])


def test_the_hardened_rule_raises_fewer_false_alarms_than_a_line_alone() -> None:
    scores = compare([11], 3, 1.0)
    assert scores["hardened"].false < scores["static: P99 of 5 min above the objective"].false
    assert OBJECTIVE_S == 0.2
