"""Balancers against the pretend service of bench/balancers: the same seeds give the same calls on any machine."""

from __future__ import annotations

from functools import partial

from bench.balancers.__main__ import make
from bench.balancers.world import Result, Scene, World


def run(name: str, scene: Scene, span_s: float = 4.0) -> Result:
    return World(scene, 7).run(partial(make, name), span_s=span_s, warm_s=1.0)


def test_live_cost_is_near_the_oracle_and_far_from_the_round() -> None:
    scene = Scene(load=0.8, clients=10)
    ours, oracle, turns, two = (run(name, scene) for name in ("live-cost", "oracle", "round-robin", "least-request"))
    assert ours.p99 <= 1.4 * oracle.p99
    assert ours.p99 < two.p99 < turns.p99
    assert ours.mean < turns.mean


def test_fifty_clients_do_not_herd() -> None:
    scene = Scene(load=0.9, clients=50)
    ours, oracle, peak = (run(name, scene) for name in ("live-cost", "oracle", "peak-ewma"))
    assert ours.p99 <= 1.6 * oracle.p99
    assert ours.p99 < peak.p99


def test_a_server_that_fails_fast_causes_less_than_a_thousandth_of_failures() -> None:
    scene = Scene(load=0.8, clients=10, is_failing=True)
    ours, turns = run("live-cost", scene, 12.0), run("round-robin", scene, 2.0)
    assert ours.errors <= 0.001
    assert turns.errors >= 0.04


def test_without_reports_it_still_beats_the_better_of_two() -> None:
    scene = Scene(load=0.8, clients=10, says_load=False)
    assert run("live-cost", scene).p99 < run("peak-ewma", scene).p99


def test_failures_everywhere_eject_nobody() -> None:
    calm, flaky = (run("live-cost", Scene(load=0.8, clients=10, flaky_share=share)) for share in (0.0, 0.01))
    assert flaky.errors <= 0.015
    assert flaky.p99 <= 1.25 * calm.p99
