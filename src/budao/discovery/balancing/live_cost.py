"""The default: whoever costs least now, by what the servers say about themselves."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from math import exp, exp2, inf, log
from random import Random

from budao.discovery.balancing.balancer import Choice
from budao.discovery.balancing.live_cost_policy import LiveCostPolicy
from budao.discovery.balancing.places import Pick, Place, close
from budao.discovery.balancing.subset import subset
from budao.model import Endpoint, Load, Mono

SERVICE_FIRST_S = 0.001
"""Taken for the service time before any reply. Any value does: all endpoints are equal then."""
MEANS_HALF_LIFE_S = 2.0
"""Of the number of clients there seem to be, and of the share of calls that fail anywhere."""
CLIENTS_MAX = 100.0
FAILING_SHARE = 0.9
"""The share of its calls a failing endpoint is taken to fail."""
USUAL_SHARE_MIN = 0.001
"""However healthy all is, no single failure counts for more than ln(0.9 / 0.001)."""
GOOD_EVIDENCE = log((1.0 - USUAL_SHARE_MIN) / (1.0 - FAILING_SHARE))
"""What a good reply takes away from the evidence of failing."""
STRIKES_MAX = 3
"""Failures in a row that make the evidence last longer; each adds one half-life to the half-life."""
USE = 0.1
"""What a pick adds to a place, in calls, only to take turns among equals; half of it is gone a round of picks later."""
USE_MAX = 0.3
"""So much counts at most: turns must not carry calls to a server that is really slower, or far away."""


class _Live(Place):
    """What is known of one endpoint."""

    __slots__ = (
        "base",
        "evidence",
        "fades_s",
        "index",
        "joined_at",
        "learned_at",
        "load_at",
        "penalty",
        "queue",
        "reports",
        "scale",
        "service_s",
        "step",
        "strikes",
        "use",
        "use_step",
        "wait",
        "wait_s",
    )

    def __init__(self, endpoint: Endpoint, joined_at: float) -> None:
        super().__init__(endpoint)
        self.index = -1  # in the list of scores; -1 once it has left
        self.joined_at = joined_at
        self.reports = False
        self.queue = 0.0  # as the server said last
        self.load_at = -inf
        self.service_s = 0.0
        self.wait_s = 0.0  # of a reply, beyond the service time
        self.learned_at = -inf
        self.evidence = 0.0  # of failing: log odds above the prior
        self.fades_s = 1.0  # half-life of the evidence; set by each failure
        self.strikes = 0
        self.penalty = 1.0
        self.use = 0.0
        # The score is wait + scale * base * base; a pick only moves base, by step.
        self.wait = 0.0
        self.scale = 1.0
        self.base = 1.0
        self.step = 1.0
        self.use_step = USE


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Why an endpoint stands where it stands, for people. The score is seconds times factors; the least is picked."""

    id: str
    score: float
    sees: str
    """ "reported", "observed" or "nothing yet"."""
    queue: float
    """Calls that seem to be there, those of other clients included, divided by its share."""
    service_s: float
    wait_s: float
    penalty: float
    """For failing; 1.0 for none."""
    is_ejected: bool
    share: float
    """Its part of the calls relative to the mean, by weight, capacity and slow start."""
    place_factor: float
    """For another zone, and for a doubted endpoint."""

    def __str__(self) -> str:
        notes = [f"queue {self.queue:.1f}", f"service {self.service_s * 1000:.1f} ms ({self.sees})"]
        notes += [f"wait {self.wait_s * 1000:.1f} ms"] if self.wait_s > 0.0 else []
        notes += [f"failing ×{self.penalty:.3g}{', ejected' if self.is_ejected else ''}"] if self.penalty > 1.0 else []
        notes += [f"share {self.share:.2f}"] if self.share != 1.0 else []
        notes += [f"zone or doubt ×{self.place_factor:g}"] if self.place_factor != 1.0 else []
        return f"{self.id}: {self.score * 1000:.3g} = " + ", ".join(notes)


class LiveCost:
    """Picks the endpoint of least cost, from a subset that depends on the client alone.

        score = (wait + service · (1 + queue / share)²) · failing · zone · doubt

    - `service` and `queue` are what the server says in its replies; where it says nothing, they are the response time
      and this client's own calls in flight, and `sees` says so. Queues add this client's calls in flight, once for each
      client there seems to be, because others decide alike. `wait` is response time less service time.
    - What is old fades: queues towards the mean of all, service times towards the best, since who is thought slow is
      not asked, and only hope finds out that it is fast again.
    - `failing` is 1 + prior odds · exp(evidence): each failure adds the logarithm of how much likelier it is from a
      failing endpoint than from any; a good reply takes some away. When all fail, a failure says nothing. Failed replies
      teach nothing else: a server that fails fast does not look fast. From `eject_penalty` on it counts as ejected, and
      when too many are, the factor is 1 for all.
    - `share` holds weight, capacity if all say theirs, and the ramp of newcomers, which are those that appear after the
      first non-empty roster.

    The scores are kept, and one pick takes the least of a list: no sampling, which would cost more than it saves.

    Source: Suresh et al., "C3", NSDI '15, section 3.1, with the square in place of the cube.
    """

    def __init__(self, policy: LiveCostPolicy | None = None, *, rng: Random, zone: str = "", client: str = "") -> None:
        self.policy = policy or LiveCostPolicy()
        self.zone = zone
        self.client = client or f"{rng.getrandbits(64):016x}"
        self.clients = 1.0
        """How many clients there seem to be on these endpoints."""
        self.is_panicking = False
        """So many are ejected that ejection counts for nothing."""
        self._evidence_max = log(self.policy.penalty_max / self.policy.failing_prior)
        self._rng = rng
        self._by_id: dict[str, _Live] = {}
        self._places: list[_Live] = []
        self._scores: list[float] = []
        self._has_begun = False
        self._sweep_at = -inf
        self._swept_at = -inf
        self._mean_queue = 0.0
        self._best_service_s = SERVICE_FIRST_S
        self._mean_weight = 1.0
        self._mean_capacity = 0.0
        self._own_level = 0.0
        self._said_level = 0.0
        self._picks = 0
        self._ended = 0.0
        self._bad = 0.0

    def renew(self, endpoints: Sequence[Endpoint], now: Mono) -> None:
        policy = self.policy
        wanted = [each for each in endpoints if each.weight > 0.0] or endpoints
        kept = subset(wanted, self.client, self.zone, most=policy.subset_max, near_share=policy.subset_near_share)
        known = self._by_id
        for live in known.values():
            live.index = -1
        joined_at = now if self._has_begun else -inf
        self._by_id = {}
        for endpoint in kept:
            live = known.get(endpoint.id) or _Live(endpoint, joined_at)
            live.endpoint = endpoint
            self._by_id[endpoint.id] = live
        self._has_begun = self._has_begun or bool(kept)
        self._places = list(self._by_id.values())
        self._rng.shuffle(self._places)  # equal scores go to the first: it should not be the same for all clients
        for index, live in enumerate(self._places):
            live.index = index
        count = max(1, len(kept))
        self._mean_weight = sum(each.weight for each in kept) / count or 1.0
        says_all = all(each.capacity > 0 for each in kept)
        self._mean_capacity = sum(each.capacity for each in kept) / count if says_all else 0.0
        self._scores = [0.0] * len(kept)
        self._sweep(now)

    def pick(self, now: Mono, *, key: bytes | None = None, avoid: Container[str] = ()) -> Pick[_Live] | None:  # noqa: ARG002 - a protocol's argument
        if now >= self._sweep_at:
            self._sweep(now)
        scores = self._scores
        if not scores:
            return None
        live = self._places[scores.index(min(scores))]
        if avoid != () and live.endpoint.id in avoid:
            live = min(self._places, key=lambda each: (each.endpoint.id in avoid, scores[each.index]))
        live.in_flight += 1
        live.use += live.use_step
        live.base = base = live.base + live.step
        scores[live.index] = live.wait + live.scale * base * base
        self._picks += 1
        return Pick(live)

    def settle(self, choice: Choice, took_s: float, failed: bool, load: Load | None, now: Mono) -> None:
        live: _Live = close(choice)
        self._ended += 1.0
        if failed:
            if live.learned_at == -inf and not live.strikes:
                # One that never answered well has no credit: as likely to be failing as not.
                live.evidence += log(1.0 / self.policy.failing_prior)
                live.strikes = 1
            live.strikes = min(STRIKES_MAX, live.strikes + 1)
            # Clients that met the same failure together do not all come back together.
            live.fades_s = self.policy.failure_half_life_s * live.strikes * (0.75 + self._rng.random() / 2)
            live.evidence = min(self._evidence_max, live.evidence + self._surprise())
            self._bad += 1.0  # after that: this failure is no reason to find it usual
            live.penalty = self._penalty_of(live)
        else:
            if live.evidence > 0.0:
                live.strikes = 0
                live.evidence = max(0.0, live.evidence - GOOD_EVIDENCE)
                live.penalty = self._penalty_of(live)
            live.reports = load is not None
            service_s = took_s
            if load is not None:
                live.queue, live.load_at, service_s = load.in_flight, now, load.service_s
            # From what is still believed, not from what was learned last: one good reply after a long silence is enough.
            believed_s, wait_s = self._believed(live, now)
            alpha = self.policy.service_alpha if live.learned_at > -inf else 1.0
            live.service_s = believed_s + alpha * (service_s - believed_s)
            live.wait_s = wait_s + alpha * (max(0.0, took_s - service_s) - wait_s)
            live.learned_at = now
        if live.index >= 0:
            self._score(live, now)

    def drop(self, choice: Choice, now: Mono) -> None:
        live: _Live = close(choice)
        if live.index >= 0:
            self._score(live, now)

    @property
    def sees(self) -> str:
        """What the scores rest on: "reported", "observed", "both", or "nothing yet"."""
        found = {_sees(each) for each in self._places} - {"nothing yet"}
        return "both" if len(found) > 1 else next(iter(found), "nothing yet")

    def explain(self, now: Mono) -> tuple[Cost, ...]:
        """Every endpoint of the subset with the terms of its score, the cheapest first. Changes nothing."""
        costs = []
        for live in self._places:
            share, factor = self._share(live, now), self._factor(live)
            total = live.penalty * factor if not self.is_panicking else factor
            cost = Cost(
                id=live.endpoint.id,
                score=self._scores[live.index],
                sees=_sees(live),
                queue=live.base - 1.0,
                service_s=live.scale / total,
                wait_s=live.wait / total,
                penalty=live.penalty,
                is_ejected=live.penalty >= self.policy.eject_penalty and not self.is_panicking,
                share=share,
                place_factor=factor,
            )
            costs.append(cost)
        return tuple(sorted(costs, key=lambda each: (each.score, each.id)))

    def _surprise(self) -> float:
        """How much a failure says against an endpoint, given how many calls fail anyway."""
        usual = max(USUAL_SHARE_MIN, (self._bad + 0.1) / (self._ended + 100.0))
        return log(FAILING_SHARE / min(FAILING_SHARE, usual))

    def _penalty_of(self, live: _Live) -> float:
        return 1.0 + self.policy.failing_prior * exp(live.evidence) if live.evidence > 0.0 else 1.0

    def _share(self, live: _Live, now: float) -> float:
        endpoint, policy = live.endpoint, self.policy
        share = (endpoint.weight or 1.0) / self._mean_weight
        if self._mean_capacity > 0.0:
            share *= endpoint.capacity / self._mean_capacity
        age_s = now - live.joined_at
        if age_s < policy.slow_start_s:
            share *= policy.slow_start_share + (1.0 - policy.slow_start_share) * max(0.0, age_s) / policy.slow_start_s
        return share

    def _factor(self, live: _Live) -> float:
        is_far = bool(self.zone) and live.endpoint.zone != self.zone
        return (self.policy.far_factor if is_far else 1.0) * (
            self.policy.doubted_factor if live.endpoint.is_doubted else 1.0
        )

    def _believed(self, live: _Live, now: float) -> tuple[float, float]:
        """Its service time and its wait, faded since it last said something."""
        fades = exp2((live.learned_at - now) / self.policy.service_half_life_s)
        best_s = self._best_service_s
        return best_s + (live.service_s - best_s) * fades, live.wait_s * fades

    def _score(self, live: _Live, now: float) -> None:
        policy = self.policy
        mean = self._mean_queue
        queue = mean + (live.queue - mean) * exp2((live.load_at - now) / policy.load_half_life_s)
        service_s, wait_s = self._believed(live, now)
        share = self._share(live, now)
        factor = self._factor(live)
        if not self.is_panicking:
            factor *= live.penalty
        live.use_step = USE / share
        live.step = (self.clients + USE) / share
        live.base = base = 1.0 + (queue + live.in_flight * self.clients) / share + min(USE_MAX, live.use)
        live.wait = wait_s * factor
        live.scale = service_s * factor
        self._scores[live.index] = live.wait + live.scale * base * base

    def _sweep(self, now: float) -> None:
        """Make all scores anew, for what fades by itself and for what depends on all."""
        policy, places = self.policy, self._places
        span_s = max(0.0, now - self._swept_at)
        self._swept_at, self._sweep_at = now, now + policy.sweep_s
        if not places:
            return
        self._take_means(places, span_s)
        turns = exp2(-self._picks / len(places))
        self._picks = 0
        ejected = 0
        for live in places:
            live.use *= turns
            if live.evidence > 0.0:
                live.evidence *= exp2(-span_s / live.fades_s)
                live.penalty = self._penalty_of(live)
                ejected += live.penalty >= policy.eject_penalty
        self.is_panicking = ejected > policy.panic_share * len(places)
        for live in places:
            self._score(live, now)

    def _take_means(self, places: Iterable[_Live], span_s: float) -> None:
        own = said = 0.0
        best_s = inf
        reporting = 0
        for live in places:
            own += live.in_flight
            if live.reports:
                said += live.queue
                reporting += 1
            if live.learned_at > -inf and live.service_s < best_s:
                best_s = live.service_s
        self._mean_queue = said / reporting if reporting else 0.0
        self._best_service_s = best_s if best_s < inf else SERVICE_FIRST_S
        kept = exp2(-span_s / MEANS_HALF_LIFE_S)
        self._own_level = own + (self._own_level - own) * kept
        self._said_level = said + (self._said_level - said) * kept
        self.clients = min(CLIENTS_MAX, max(1.0, self._said_level / max(self._own_level, 0.01)))
        self._ended *= kept
        self._bad *= kept


def _sees(live: _Live) -> str:
    if live.learned_at == -inf:
        return "nothing yet"
    return "reported" if live.reports else "observed"
