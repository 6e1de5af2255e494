"""A gateway's connections are looked after: what the watch orders is done to them, and what happens to them is told to the watch."""

from __future__ import annotations

from random import SystemRandom
from typing import TYPE_CHECKING, Final

from budao.aio.gateway.connection import Connection
from budao.aio.gateway.sampler import Watch, WatchPolicy
from budao.push import BadEnd, PacePolicy, Pacer, Problem, Slot

if TYPE_CHECKING:
    from budao.aio.gateway.gateway import Gateway

MUTE: Final = frozenset({"sse", "h2"})
"""Transports that cannot answer a ping."""


class LookingAfter:
    """The health of a gateway's connections, as a `Watcher` of it, and the pace at which new ones come."""

    def __init__(self, gateway: Gateway, policy: WatchPolicy | None = None, pace: PacePolicy | None = None) -> None:
        self.gateway = gateway
        rng = SystemRandom()
        self.watch = Watch(policy, rng=rng, scores=gateway.metrics.health)
        self.pacer = Pacer(pace or PacePolicy(), rng)

    def start(self) -> None:
        """Become part of the gateway, which is open."""
        self.gateway.watchers.append(self)
        self.gateway.pace = self.pace
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

    def bad_handshake(self, peer: str, kind: BadEnd) -> None:
        """A connection that came to nothing before it began."""
        self.watch.bad_end(peer, kind)

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
