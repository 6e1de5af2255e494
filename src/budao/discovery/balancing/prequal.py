"""Reports of servers in a small pool: the fastest of those that are not crowded."""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from random import Random

from budao.discovery.balancing.places import Place, Places
from budao.measure import nearest_rank
from budao.model import Checks, Endpoint, Load, Mono


class _Probe:
    __slots__ = ("at", "in_flight", "place", "response_s", "uses")

    def __init__(self, place: Place, in_flight: float, response_s: float, at: float) -> None:
        self.place = place
        self.in_flight = in_flight
        self.response_s = response_s
        self.at = at
        self.uses = 0


class Prequal(Places[Place]):
    """Of the reports at hand, the fastest that is not hot; if all are hot, the least in flight.

    A report is hot when its calls in flight are above the `hot_share` quantile of those seen lately. A report is used
    `uses_max` times, each use counting as one call more in flight, and is worth nothing after `age_max_s`. With fewer
    than two reports a pick is random.

    It sends no probes of its own: the pool is fed by what servers say in good replies (or by own calls in flight, if
    they say nothing), so a client hears mostly of whom it picks, and is weaker than with probes.

    Source:  Wydrowski et al., "Load is not what you should balance", NSDI '24, sections 4.1 to 4.3.
    """

    def __init__(
        self, rng: Random, *, pool_max: int = 16, hot_share: float = 0.84, age_max_s: float = 1.0, uses_max: int = 2
    ) -> None:
        super().__init__()
        check = Checks("prequal")
        check.count("pool_max", pool_max, 2, 10_000)
        check.number("hot_share", hot_share, 0.0, 1.0, open_low=True)
        check.number("age_max_s", age_max_s, 0.0, open_low=True)
        check.count("uses_max", uses_max, 1)
        check.done()
        self.hot_share = hot_share
        self.age_max_s = age_max_s
        self.uses_max = uses_max
        self._rng = rng
        self._pool: deque[_Probe] = deque(maxlen=pool_max)
        self._seen: deque[float] = deque(maxlen=128)
        self._hot_above = 0.0
        self._turn = 0

    def _made(self, endpoint: Endpoint, now: Mono) -> Place:  # noqa: ARG002 - a protocol's argument
        return Place(endpoint)

    def _renewed(self, now: Mono) -> None:  # noqa: ARG002
        here = set(map(id, self._places))
        self._pool = deque((each for each in self._pool if id(each.place) in here), maxlen=self._pool.maxlen)

    def _chosen(self, now: Mono, key: bytes | None, avoid: Container[str]) -> Place:  # noqa: ARG002
        pool = self._pool
        while pool and pool[0].at < now - self.age_max_s:
            pool.popleft()
        usable = [each for each in pool if each.place.endpoint.id not in avoid]
        if len(usable) < 2:
            allowed = self._allowed(avoid)
            return self._rng.choices(allowed, [each.endpoint.weight or 1.0 for each in allowed])[0]
        cold = [each for each in usable if _crowd(each) <= self._hot_above]
        best = min(cold, key=lambda each: each.response_s) if cold else min(usable, key=_crowd)
        best.uses += 1
        best.in_flight += 1
        if best.uses >= self.uses_max:
            pool.remove(best)
        self._turn += 1
        if self._turn % 2 and len(pool) > 2:
            # The worst goes as well as the oldest, or the pool fills up with those nobody wants.
            pool.remove(max(pool, key=lambda each: (_crowd(each) > self._hot_above, _crowd(each), each.response_s)))
        return best.place

    def _learn(self, place: Place, took_s: float, failed: bool, load: Load | None, now: Mono) -> None:
        if failed or self._by_id.get(place.endpoint.id) is not place:
            return
        in_flight = load.in_flight if load else place.in_flight
        self._pool.append(_Probe(place, in_flight, took_s, now))
        self._seen.append(in_flight / (place.endpoint.weight or 1.0))
        self._turn += 1
        if self._turn % 8 == 0 or len(self._seen) < 16:
            seen = sorted(self._seen)
            self._hot_above = seen[nearest_rank(self.hot_share, len(seen)) - 1]


def _crowd(probe: _Probe) -> float:
    return probe.in_flight / (probe.place.endpoint.weight or 1.0)
