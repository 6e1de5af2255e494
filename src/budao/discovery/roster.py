"""Who is there, as one directory sees it at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from budao.discovery.instance import Instance
from budao.model import Endpoint, Mono, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """The instances of one service, sorted by id. Published whole, never changed."""

    service: str
    revision: int = 0
    """Of the store, when it last said something about this service; 0 before it said anything."""
    instances: tuple[Instance, ...] = ()
    doubted: frozenset[str] = frozenset()
    """Ids whose lease ran out in a mass expiry, and that are kept for the moment."""
    stale_since: Mono | None = None
    """Since when the store, or one of several, has been away; None while all are there."""

    def endpoints(self, protocol: str = "") -> tuple[Endpoint, ...]:
        """Where calls may go: the ready instances that speak the protocol, by default each one's first."""
        found = (
            instance.endpoint(protocol, is_doubted=instance.id in self.doubted)
            for instance in self.instances
            if instance.stage is Stage.READY
        )
        return tuple(endpoint for endpoint in found if endpoint is not None)
