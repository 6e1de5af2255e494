"""Whom to pick: the default by live cost, and others by name."""

from budao.discovery.balancing.balancer import Balancer, Choice
from budao.discovery.balancing.bounded_load import BoundedLoad
from budao.discovery.balancing.chance import LeastRequest, PeakEwma, RandomChoice
from budao.discovery.balancing.latency_feedback import LatencyFeedback
from budao.discovery.balancing.live_cost import Cost, LiveCost
from budao.discovery.balancing.live_cost_policy import LiveCostPolicy
from budao.discovery.balancing.maglev import Maglev, maglev_table
from budao.discovery.balancing.names import BALANCERS, balancer
from budao.discovery.balancing.prequal import Prequal
from budao.discovery.balancing.subset import subset
from budao.discovery.balancing.turns import RoundRobin

__all__ = [
    "BALANCERS",
    "Balancer",
    "BoundedLoad",
    "Choice",
    "Cost",
    "LatencyFeedback",
    "LeastRequest",
    "LiveCost",
    "LiveCostPolicy",
    "Maglev",
    "PeakEwma",
    "Prequal",
    "RandomChoice",
    "RoundRobin",
    "balancer",
    "maglev_table",
    "subset",
]
