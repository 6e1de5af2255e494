"""How the default balancer weighs what it knows."""

from __future__ import annotations

from dataclasses import dataclass

from budao.model import Checks


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveCostPolicy:
    """How the default balancer weighs what it knows.

    Units:  spans in seconds, shares from 0 to 1.
    Raises: BadSettings with every problem at once.
    """

    subset_max: int = 24
    """Endpoints one client balances over; which ones depends on its id alone."""
    subset_near_share: float = 0.75
    """The part of the subset kept for the client's own zone, if that has so many."""
    service_alpha: float = 0.5
    """The share of the way to the newest service time that is gone with each reply."""
    load_half_life_s: float = 1.0
    """What a server said of its queue counts half as much, against the mean of all, after this span."""
    service_half_life_s: float = 5.0
    """What is known of an endpoint's service time fades towards the best of all in this way while it is not tried."""
    failure_half_life_s: float = 10.0
    """Evidence of failing fades in this way while an endpoint is not tried."""
    failing_prior: float = 0.03
    """The odds that an endpoint is failing before anything is known."""
    penalty_max: float = 1e6
    """No penalty is larger. It bounds how long an endpoint is kept away after its last failure."""
    eject_penalty: float = 10.0
    """From this penalty an endpoint counts as ejected: gets calls only when the others cost as much more."""
    panic_share: float = 0.5
    """When more of the subset than this is ejected, penalties count for nothing."""
    slow_start_s: float = 10.0
    """A newcomer's share of calls grows to the full one over this span; 0.0 for at once."""
    slow_start_share: float = 0.1
    """The share it starts with."""
    far_factor: float = 12.0
    """A call to another zone costs this many times one within the own; 1.0 for no preference.

    The queue counts squared, so calls begin to leave an own zone where each endpoint has three in flight, while one elsewhere has none.
    """
    doubted_factor: float = 100.0
    """An endpoint that may be gone costs this many times more."""
    sweep_s: float = 0.02
    """How often, at most, all scores are made anew for what fades by itself."""

    def __post_init__(self) -> None:
        check = Checks("live_cost")
        check.count("subset_max", self.subset_max, 1, 10_000)
        check.number("subset_near_share", self.subset_near_share, 0.0, 1.0)
        check.number("service_alpha", self.service_alpha, 0.0, 1.0, open_low=True)
        for name in ("load_half_life_s", "service_half_life_s", "failure_half_life_s"):
            check.number(name, getattr(self, name), 0.0, 86_400.0, open_low=True)
        check.number("failing_prior", self.failing_prior, 0.0, 1.0, open_low=True)
        check.number("penalty_max", self.penalty_max, 1.0, 1e12)
        check.number("eject_penalty", self.eject_penalty, 1.0, 1e12, open_low=True)
        check.number("panic_share", self.panic_share, 0.0, 1.0)
        check.number("slow_start_s", self.slow_start_s, 0.0, 86_400.0)
        check.number("slow_start_share", self.slow_start_share, 0.0, 1.0, open_low=True)
        check.number("far_factor", self.far_factor, 1.0, 1e6)
        check.number("doubted_factor", self.doubted_factor, 1.0, 1e6)
        check.number("sweep_s", self.sweep_s, 0.0, 60.0)
        check.done()
