"""Balancers by name, for settings and command lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from budao.discovery.balancing.balancer import Balancer
from budao.discovery.balancing.bounded_load import BoundedLoad
from budao.discovery.balancing.chance import LeastRequest, PeakEwma, RandomChoice
from budao.discovery.balancing.latency_feedback import LatencyFeedback
from budao.discovery.balancing.live_cost import LiveCost
from budao.discovery.balancing.maglev import Maglev
from budao.discovery.balancing.prequal import Prequal
from budao.discovery.balancing.turns import RoundRobin
from budao.model import BadSettings

BALANCERS: Mapping[str, Callable[[Random, str, str], Balancer]] = {
    "live-cost": lambda rng, zone, client: LiveCost(rng=rng, zone=zone, client=client),
    "round-robin": lambda rng, zone, client: RoundRobin(),  # noqa: ARG005 - one shape for all
    "random": lambda rng, zone, client: RandomChoice(rng),  # noqa: ARG005
    "least-request": lambda rng, zone, client: LeastRequest(rng),  # noqa: ARG005
    "peak-ewma": lambda rng, zone, client: PeakEwma(rng),  # noqa: ARG005
    "latency-feedback": lambda rng, zone, client: LatencyFeedback(),  # noqa: ARG005
    "maglev": lambda rng, zone, client: Maglev(rng),  # noqa: ARG005
    "bounded-load": lambda rng, zone, client: BoundedLoad(rng),  # noqa: ARG005
    "prequal": lambda rng, zone, client: Prequal(rng),  # noqa: ARG005
}
"""What makes each, from a source of chance, the client's zone and the client's id."""


def balancer(name: str, rng: Random, *, zone: str = "", client: str = "") -> Balancer:
    """The balancer of that name with its written defaults.

    Raises:  BadSettings if there is none.
    """
    make = BALANCERS.get(name)
    if make is None:
        raise BadSettings([("balancer", f"{name!r} is not one of {', '.join(BALANCERS)}")])
    return make(rng, zone, client)
