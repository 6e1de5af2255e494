"""A gateway's connections are looked after: what the watch orders is done to them, and what happens to them is told to the watch."""

from __future__ import annotations

from collections.abc import Mapping
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Final

from budao.aio.gateway.connection import Connection
from budao.aio.gateway.roll import call_roll
from budao.aio.gateway.sampler import Watch, WatchPolicy
from budao.push import PacePolicy, Pacer, Problem, Slot

if TYPE_CHECKING:
    from budao.aio.gateway.gateway import Gateway

PREFIXES_TOLD: Final = 20
MUTE: Final = frozenset({"sse", "h2"})
"""Transports that cannot answer a ping."""


class LookingAfter:
    """The health of a gateway's connections, as a `Watcher` of it, and the pace at which new ones come."""

    def __init__(self, gateway: Gateway, policy: WatchPolicy | None = None, pace: PacePolicy | None = None) -> None:
        self.gateway = gateway
        rng = SystemRandom()
        if policy is None:
            policy = WatchPolicy(outbox_bytes_max=gateway.policy.write_high_bytes)
        self.watch = Watch(policy, rng=rng, scores=gateway.metrics.health)
        self.pacer = Pacer(pace or PacePolicy(), rng)

    def start(self) -> None:
        """Become part of the gateway, which is open."""
        self.gateway.watchers.append(self)
        self.gateway.pace = self.pace
        self.gateway.bad_end = self.watch.bad_end
        self.gateway.controls["health"] = self.control_health
        self.gateway.controls["sessions"] = self.control_sessions
        self.watch.start()

    def stop(self) -> None:
        self.watch.stop()

    def pace(self) -> Problem | None:
        """Whether a newcomer has to come later."""
        answer = self.pacer.admit(self.gateway.now())
        if not isinstance(answer, Slot):
            return None
        self.gateway.metrics.slots_given += 1
        return Problem(why="paced", happened="many come at once; come back when you are told", after_s=answer.after_s)

    def control_health(self, _: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        """How the connections are, and where those come from that ended badly."""
        beats, prefixes = self.watch.heartbeats, self.watch.prefixes
        quantiles = {f"p{share:02.0f}": self.watch.score_at(share / 100) for share in (1, 10, 50)}
        return 200, {
            "connections": len(self.watch),
            **self.watch.counts(),
            "score": quantiles,
            "pings": {"sent": beats.pings, "late": beats.late, "degraded": beats.degraded, "restored": beats.restored},
            "ordered": {each.value: count for each, count in self.watch.joint.ordered.items()},
            "bad_ends": {kind.value: count for kind, count in prefixes.totals.items() if count},
            "prefixes": [
                {
                    "prefix": each.prefix,
                    "ends_per_min": round(each.ends_per_min, 2),
                    "total": each.total,
                    "kinds": {kind.value: count for kind, count in each.kinds},
                }
                for each in prefixes.worst(PREFIXES_TOLD, self.gateway.now())
            ],
        }

    def control_sessions(self, said: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        """How each connection is, those in worst health first; see `call_roll`."""
        return call_roll(self.gateway, said)

    # ------------------------------------------------------------------------------------- as a Watcher

    def opened(self, connection: Connection) -> None:
        connection.pulse = self.watch.join(connection, is_mute=connection.encoding.transport in MUTE)

    def ended(self, connection: Connection) -> None:
        connection.pulse = None
        self.watch.leave(connection)

    def welcomed(self, connection: Connection) -> None: ...
    def joined(self, connection: Connection, channel: str, *, presence: bool) -> None: ...
    def left(self, connection: Connection, channel: str) -> None: ...
    def heard(self, connection: Connection, number: int) -> None: ...
    def promoted(self, connection: Connection) -> None: ...
