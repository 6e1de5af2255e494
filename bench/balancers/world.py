"""A pretend service in pretend time: servers with queues, clients which each balance on their own.

The model, all of it:

- 20 servers with 4 workers each and one first-come queue without a bound. A call takes a worker for a lognormal time
  (mean 10 ms, sigma 0.7; "heavy": Pareto with exponent 2.2 cut at 1 s, scaled to the same mean). Two servers are three
  times slower.
- Antagonists: each server, on its own, is now and then disturbed (every 2.5 s on average, for 0.5 s on average); calls
  which start meanwhile take twice as long.
- Calls come as one Poisson stream, at a share of what the servers can do on average (slow ones and antagonists taken
  off), and each falls to a client drawn evenly. No retries, no timeouts.
- The network takes 0.25 ms each way. A reply carries the server's load as it stood when the call ended: calls at once
  without this one, and the time the last calls of that server took to work on (an average which gives the newest a tenth, as our adapters do). Nothing
  else is said: no probes.
- The failing server answers every call after 0.5 ms with a failure and with a load of nothing in flight.
- The oracle sees, at the instant of a pick, every server's true queue with the calls on their way there, and its speed
  at that instant, and takes the least expected time to the end of the call. It does not know about failures.

Latency is what the client sees, from pick to reply, of calls that did not fail, after the first `warm_s`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from math import exp
from random import Random

from budao.discovery import Balancer
from budao.model import Endpoint, Load, Mono

SERVERS, WORKERS, SLOW, SLOW_TIMES = 20, 4, (3, 11), 3.0
MEAN_S, SIGMA, NETWORK_S = 0.010, 0.7, 0.00025
CALM_S, DISTURBED_S, DISTURBED_TIMES = 2.0, 0.5, 2.0
FAILING, FAILS_AFTER_S = 7, 0.0005
PARETO, CUT_S = 2.2, 1.0

ARRIVAL, ARRIVED, DONE, REPLY, TOGGLE = range(5)


@dataclass(frozen=True, kw_only=True)
class Scene:
    load: float
    clients: int
    is_failing: bool = False
    is_heavy: bool = False
    says_load: bool = True
    flaky_share: float = 0.0


@dataclass(frozen=True)
class Result:
    """Milliseconds, and the share of calls that failed, of all that were made."""

    mean: float
    p99: float
    p999: float
    errors: float
    calls: int


class Server:
    __slots__ = ("disturbed", "free", "in_flight", "sent", "service_s", "slow")

    def __init__(self, slow: float) -> None:
        self.free = [0.0] * WORKERS
        self.in_flight = 0
        self.sent = 0  # in flight and on the way
        self.slow = slow
        self.disturbed = 1.0
        self.service_s = MEAN_S * slow


class World:
    def __init__(self, scene: Scene, seed: int) -> None:
        self.scene = scene
        # A stream of chance for each thing, and the work drawn when a call is made: every policy meets the same calls.
        self.rng = Random(seed)
        self.work = Random(seed + 1000)
        self.toggles = Random(seed + 2000)
        self.servers = [Server(SLOW_TIMES if each in SLOW else 1.0) for each in range(SERVERS)]
        self.endpoints = tuple(
            Endpoint(id=f"server-{each:02}", host="10.0.0.1", port=8000 + each) for each in range(SERVERS)
        )

    def calls_per_s(self) -> float:
        disturbed_share = DISTURBED_S / (CALM_S + DISTURBED_S)
        speed = (1.0 - disturbed_share) + disturbed_share / DISTURBED_TIMES
        return sum(WORKERS / MEAN_S / each.slow for each in self.servers) * speed * self.scene.load

    def run(self, make: Callable[[World, int, Random], Balancer], *, span_s: float, warm_s: float) -> Result:
        rng, work, toggles = self.rng, self.work, self.toggles
        servers, scene = self.servers, self.scene
        choosers = [make(self, each, Random(rng.random())) for each in range(scene.clients)]
        for chooser in choosers:
            chooser.renew(self.endpoints, Mono(0.0))
        number = {endpoint.id: index for index, endpoint in enumerate(self.endpoints)}
        spread = SIGMA
        centre = -spread * spread / 2
        # The mean of a Pareto cut at CUT_S, started at 1: only its scale is needed.
        pareto_mean = PARETO / (PARETO - 1)
        rate = self.calls_per_s()
        heap: list[tuple[float, int, int, tuple[object, ...]]] = []
        turn = 0
        heappush(heap, (rng.expovariate(rate), 0, ARRIVAL, ()))
        for each in range(SERVERS):
            turn += 1
            heappush(heap, (toggles.expovariate(1 / CALM_S), turn, TOGGLE, (each,)))
        latencies: list[float] = []
        failed = total = 0
        while heap:
            at, _, kind, what = heappop(heap)
            now = Mono(at)
            turn += 1
            if kind == ARRIVAL:
                if at > span_s:
                    break
                heappush(heap, (at + rng.expovariate(rate), turn, ARRIVAL, ()))
                client = int(rng.random() * scene.clients)
                if scene.is_heavy:
                    base = min(CUT_S, MEAN_S / pareto_mean * (1.0 - work.random()) ** (-1 / PARETO))
                else:
                    base = MEAN_S * exp(work.gauss(centre, spread))
                choice = choosers[client].pick(now)
                assert choice is not None
                total += 1
                index = number[choice.endpoint.id]
                servers[index].sent += 1
                heappush(heap, (at + NETWORK_S, turn, ARRIVED, (client, index, choice, at, base)))
            elif kind == ARRIVED:
                server = servers[what[1]]  # type: ignore[index]
                if scene.is_failing and what[1] == FAILING:
                    heappush(heap, (at + FAILS_AFTER_S, turn, DONE, (*what[:4], -1.0)))
                else:
                    took = what[4] * server.slow * server.disturbed
                    ends = max(at, server.free[0]) + took
                    heapreplace(server.free, ends)
                    heappush(heap, (ends, turn, DONE, (*what[:4], took)))
                server.in_flight += 1
            elif kind == DONE:
                client, index, choice, began, took = what  # type: ignore[misc, assignment]
                server = servers[index]
                server.in_flight -= 1
                server.sent -= 1
                if took < 0:  # type: ignore[has-type]
                    load = Load(0, FAILS_AFTER_S)
                else:
                    server.service_s += (took - server.service_s) * 0.1  # type: ignore[has-type]
                    load = Load(server.in_flight, server.service_s)
                heappush(
                    heap,
                    (
                        at + NETWORK_S,
                        turn,
                        REPLY,
                        (
                            client,
                            choice,
                            began,
                            took < 0 or (scene.flaky_share > 0 and work.random() < scene.flaky_share),
                            load,
                        ),
                    ),
                )  # type: ignore[has-type]
            elif kind == REPLY:
                client, choice, began, is_failed, load = what  # type: ignore[misc, assignment]
                said = load if scene.says_load else None
                choosers[client].settle(choice, at - began, is_failed, said, now)  # type: ignore[index, operator, arg-type]
                if is_failed:
                    failed += 1
                elif began >= warm_s:  # type: ignore[operator]
                    latencies.append(at - began)  # type: ignore[operator]
            else:
                server = servers[what[0]]  # type: ignore[index]
                is_calm = server.disturbed == 1.0
                server.disturbed = DISTURBED_TIMES if is_calm else 1.0
                heappush(heap, (at + toggles.expovariate(1 / (DISTURBED_S if is_calm else CALM_S)), turn, TOGGLE, what))
        latencies.sort()

        def rank(share: float) -> float:
            return latencies[int(len(latencies) * share)] * 1000

        mean = sum(latencies) / len(latencies) * 1000
        return Result(mean, rank(0.99), rank(0.999), failed / total, total)
