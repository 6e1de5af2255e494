"""Something that takes calls, and what it says about itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Stage(Enum):
    """Where an instance stands between its start and its end. The value is the word on the wire."""

    STARTING = "starting"
    """It is there, but not ready: no calls yet."""
    READY = "ready"
    DRAINING = "draining"
    """It finishes what it has, and wants nothing new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address that takes calls.

    Units:   `weight` is a share relative to the others of its pool, 1.0 by default; `capacity` is in calls at once, 0 if
             the endpoint does not say.
    """

    id: str
    """The id of its instance; two endpoints of one pool never share it."""
    host: str
    port: int
    zone: str = ""
    weight: float = 1.0
    capacity: int = 0
    stage: Stage = Stage.READY
    is_doubted: bool = False
    """Its lease ran out together with many others', and a guard against mass expiry still keeps it."""

    @property
    def authority(self) -> str:
        """The "host:port" of a URL, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Load:
    """What a server says about itself in a reply.

    Units:   `in_flight` is calls at once, queued ones included, this one left out; `service_s` is the time it works on
             one call, in seconds, waiting left out.
    """

    in_flight: int
    service_s: float
