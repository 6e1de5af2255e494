"""Settings of a federation, checked when built."""

from __future__ import annotations

from dataclasses import dataclass, field

from budao.model import Checks
from budao.store import PatiencePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationPolicy:
    """How much clusters share, and how they notice that one is away.

    Units:   spans in seconds.
    Raises:  BadSettings with every problem at once.
    """

    clusters_max: int = 64
    """Clusters known at once, our own included."""
    elements_max: int = 50_000
    """Instances, and removals of others' instances, in the part of one cluster."""
    removals_max: int = 10_000
    """Removals remembered for each cluster. Whoever missed more gets that cluster's part whole."""
    forgotten_max: int = 1_000
    """Names of clusters that stay forgotten."""
    stale_max_s: float = 60.0
    """How long instances of a cluster nobody hears of are still picked. After that they stay listed, but as not ready."""
    ping_s: float = 0.5
    """Pause between signs of life on a quiet connection."""
    silence_max_s: float = 2.0
    """A peer that says nothing for this long is cut off."""
    first_list_max_s: float = 5.0
    """How long to wait for what the local source says first, so that a restart does not look like an empty cluster."""
    renewals_max: int = 3
    """When others know a later life of this cluster more often than this, another process has its name, and this one stops."""
    writes_max: int = 500
    """Writes in one frame."""
    pause: PatiencePolicy = field(default_factory=lambda: PatiencePolicy(pause_first_s=0.1, pause_max_s=5.0))
    """Pauses between tries to connect."""

    def __post_init__(self) -> None:
        check = Checks("federation")
        check.count("clusters_max", self.clusters_max, 1, 1_000)
        check.count("elements_max", self.elements_max, 1, 1_000_000)
        check.count("removals_max", self.removals_max, 0, 1_000_000)
        check.count("forgotten_max", self.forgotten_max, 1, 10_000)
        check.number("stale_max_s", self.stale_max_s, 0.0)
        check.number("ping_s", self.ping_s, 0.01, 60.0)
        check.number("silence_max_s", self.silence_max_s, 0.02, 3_600.0)
        check.number("first_list_max_s", self.first_list_max_s, 0.0, 3_600.0)
        check.count("renewals_max", self.renewals_max, 1, 1_000)
        check.count("writes_max", self.writes_max, 1, 500)
        if not check.problems:
            check.need(self.silence_max_s >= 2 * self.ping_s, "silence_max_s", "must be at least twice ping_s")
        check.done()
