"""How balancers compare: in a simulated service, and by what a pick costs.

    python -m bench.balancers [--seeds 1,2,3] [--span S] [--jobs N] [--only NAME] [--quick]

The simulation is in pretend time and wholly from the seeds: the same seeds print the same table on any machine. Each
figure is the median over the seeds. The model is described in bench/balancers/world.py. Only the nanoseconds are of this
machine.
"""

from __future__ import annotations

import argparse
import gc
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from random import Random
from statistics import median
from time import perf_counter_ns

from bench.balancers.peers import C3, Oracle
from bench.balancers.world import Result, Scene, World
from budao.discovery import BALANCERS, Balancer, balancer
from budao.discovery.balancing import BoundedLoad, Prequal, maglev_table
from budao.model import Endpoint, Load, Mono

SCENES = {
    "80 %, 10 clients": Scene(load=0.8, clients=10),
    "90 %, 50 clients": Scene(load=0.9, clients=50),
    "heavy tails, 80 %, 10": Scene(load=0.8, clients=10, is_heavy=True),
    "failing, 80 %, 10": Scene(load=0.8, clients=10, is_failing=True),
    "failing, 90 %, 50": Scene(load=0.9, clients=50, is_failing=True),
    "1 % fail anywhere, 80 %, 10": Scene(load=0.8, clients=10, flaky_share=0.01),
}
PLAIN = ("round-robin", "random", "least-request", "peak-ewma", "latency-feedback", "maglev", "bounded-load", "prequal")
ROWS = (*PLAIN, "prequal, pool 4", "C3", "live-cost, unreported", "live-cost", "oracle")


def make(name: str, world: World, client: int, rng: Random) -> Balancer:
    if name == "oracle":
        return Oracle(world)
    if name == "C3":
        return C3(world.scene.clients)
    if name == "prequal, pool 4":
        return Prequal(rng, pool_max=4)
    return balancer(name.partition(",")[0], rng, client=f"client-{client}")


def simulate(job: tuple[str, Scene, int, float]) -> Result:
    name, scene, seed, span_s = job
    if name == "live-cost, unreported":
        scene = replace(scene, says_load=False)
    return World(scene, seed).run(partial(make, name), span_s=span_s, warm_s=min(2.0, span_s / 4))


def middle(results: Sequence[Result]) -> Result:
    return Result(
        *(median(getattr(each, name) for each in results) for name in ("mean", "p99", "p999", "errors", "calls"))
    )


def table(names: Sequence[str], seeds: Sequence[int], span_s: float, jobs: int) -> dict[tuple[str, str], Result]:
    # The failing scenes count from the first call on, what a client pays to find out included, and so need a longer run.
    todo = [
        (name, scene, seed, span_s * 2 if SCENES[scene].is_failing else span_s)
        for name in names
        for scene in SCENES
        for seed in seeds
    ]
    with ProcessPoolExecutor(jobs) as pool:
        done = list(pool.map(simulate, [(name, SCENES[scene], seed, span) for name, scene, seed, span in todo]))
    found: dict[tuple[str, str], list[Result]] = {}
    for (name, scene, _, _), result in zip(todo, done, strict=True):
        found.setdefault((name, scene), []).append(result)
    return {each: middle(results) for each, results in found.items()}


def print_table(names: Sequence[str], results: dict[tuple[str, str], Result]) -> None:
    print("mean p99/p999 in ms, and the share of calls that failed")
    for scene in SCENES:
        print(f"\n{scene}")
        for name in names:
            each = results[name, scene]
            print(f"  {name:24} {each.mean:8.1f} {each.p99:8.0f}/{each.p999:<8.0f} {each.errors:8.3%}")


def pool_of(count: int) -> list[Endpoint]:
    return [Endpoint(id=f"server-{each:03}", host="10.0.0.1", port=8000 + each) for each in range(count)]


def pick_ns(name: str, count: int, rounds: int) -> tuple[float, float]:
    """One pick, and one settle, in nanoseconds, as the best round saw them; the empty loop is taken off."""
    chooser = balancer(name, Random(1), client="bench")
    chooser.renew(pool_of(count), Mono(0.0))
    picks = settles = empty = float("inf")
    batch, load, key = range(200), Load(3, 0.01), b"user-17"
    gc.collect()
    gc.disable()
    for turn in range(rounds):
        # 200 picks in 20 ms of pretend time: 10,000 a second, and what fades is brought up to date as it would be.
        now = Mono(turn * 0.02)
        began = perf_counter_ns()
        for _ in batch:
            pass
        empty = min(empty, (perf_counter_ns() - began) / len(batch))
        pick = chooser.pick
        began = perf_counter_ns()
        taken = [pick(now, key=key) for _ in batch]
        picks = min(picks, (perf_counter_ns() - began) / len(batch))
        settle = chooser.settle
        began = perf_counter_ns()
        for each in taken:
            assert each is not None
            settle(each, 0.012, False, load, now)
        settles = min(settles, (perf_counter_ns() - began) / len(batch))
    gc.enable()
    return picks - empty, settles - empty


def maglev_figures(count: int) -> tuple[float, float]:
    """The largest difference of a share from the fair one, and keys moved by a removal over those that had to, at worst."""
    endpoints = pool_of(count)
    table = maglev_table(endpoints)
    shares = Counter(table)
    fair = len(table) / count
    error = max(max(shares.values()) / fair - 1.0, 1.0 - min(shares.values()) / fair)
    worst = 0.0
    for gone in range(0, count, max(1, count // 5)):
        after = maglev_table(endpoints[:gone] + endpoints[gone + 1 :])
        moved = sum(was != (now if now < gone else now + 1) for was, now in zip(table, after, strict=True))
        worst = max(worst, moved / shares[gone])
    return error, worst


def bounded_figure(count: int, calls: int) -> float:
    """The most calls at one endpoint over the mean, when `calls` with skewed keys are in flight."""
    chooser, rng = BoundedLoad(Random(1)), Random(2)
    chooser.renew(pool_of(count), Mono(0.0))
    crowd = Counter(
        chosen.endpoint.id
        for _ in range(calls)
        if (chosen := chooser.pick(Mono(0.0), key=f"{int(rng.paretovariate(1.0))}".encode())) is not None
    )
    return max(crowd.values()) * count / calls


def say(claim: str, value: float, most: float, unit: str = "") -> None:
    print(f"  {'met   ' if value <= most else 'MISSED'} {claim}: {value:.3g}{unit}, at most {most:g}{unit}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.balancers", description=__doc__)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--span", type=float, default=8.0, help="pretend seconds of a run")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", action="append", choices=ROWS)
    parser.add_argument("--quick", action="store_true", help="one seed and one second: shows that it runs")
    asked = parser.parse_args()
    seeds = [int(each) for each in asked.seeds.split(",")][: 1 if asked.quick else None]
    span_s = 1.0 if asked.quick else asked.span
    names = [each for each in ROWS if not asked.only or each in asked.only or each in {"live-cost", "oracle"}]
    print(f"seeds {seeds}, {span_s:g} s each (twice that with a failing server), medians over the seeds\n")
    results = table(names, seeds, span_s, asked.jobs)
    print_table(names, results)

    print("\nns for a pick and a settle, at 20 and at 200 endpoints (live-cost: a subset of 24)")
    cost: dict[tuple[str, int], tuple[float, float]] = {}
    for name in BALANCERS:
        for count in (20, 200):
            cost[name, count] = pick_ns(name, count, 5 if asked.quick else 60)
        small, large = cost[name, 20], cost[name, 200]
        print(f"  {name:24} {small[0]:7.0f} {small[1]:7.0f}   {large[0]:7.0f} {large[1]:7.0f}")
    error, moved = maglev_figures(20)
    bounded = bounded_figure(20, 2000)

    print("\nbars")
    for scene, times in (("80 %, 10 clients", 1.3), ("90 %, 50 clients", 1.5)):
        say(f"p99 over the oracle's, {scene}", results["live-cost", scene].p99 / results["oracle", scene].p99, times)
    for scene in ("failing, 80 %, 10", "failing, 90 %, 50"):
        say(f"errors, {scene}", results["live-cost", scene].errors * 100, 0.1, " %")
    say("a pick at 20 endpoints", cost["live-cost", 20][0], 2000, " ns")
    say("Maglev, error of balance at 20", error * 100, 1.0, " %")
    say("Maglev, keys moved on a removal over the ideal, at worst", moved, 1.2)
    say("bounded load, most over mean with skewed keys", bounded, 1.26)


if __name__ == "__main__":
    main()
