"""How many connections a client publishes over: more while they are nearly full, fewer after a long quiet, no flapping."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from budao.model import Checks, Mono


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSizePolicy:
    """When to open another connection, and when to let one go.

    Raises:  BadSettings with every problem.
    """

    connections_max: int = 1
    """Connections at most."""
    cpu_grow_share: float = 0.8
    """How busy the other side may be before another connection is opened, which goes elsewhere if there is a choice."""
    use_grow_share: float = 0.9
    """How much of what may be under way can be under way before another connection is opened."""
    idle_s: float = 300.0
    """A connection is let go once the others would have been enough for this long."""
    turn_s: float = 30.0
    """After a change nothing is taken back for this long."""
    settle_s: float = 1.0
    """After one more connection, this long shows whether it was enough."""

    def __post_init__(self) -> None:
        check = Checks("pool")
        check.count("connections_max", self.connections_max, 1, 1_000)
        check.number("cpu_grow_share", self.cpu_grow_share, 0.0, 1.0, open_low=True)
        check.number("use_grow_share", self.use_grow_share, 0.0, 1.0, open_low=True)
        check.number("idle_s", self.idle_s, 0.0, 86_400.0, open_low=True)
        check.number("turn_s", self.turn_s, 0.0, 3_600.0)
        check.number("settle_s", self.settle_s, 0.0, 3_600.0)
        check.done()


class PoolSize:
    """The number of connections that is wanted, from what is seen of those there are.

    Fewer would have been enough while neither their CPU nor their use, spread over one connection less, came to half of what
    lets the pool grow. So a pool that has shrunk is far from growing again.
    """

    def __init__(self, policy: PoolSizePolicy | None = None) -> None:
        self.policy = PoolSizePolicy() if policy is None else policy
        self.wanted = 1
        self._grown_at = -inf
        self._shrunk_at = -inf
        self._quiet_since: float | None = None

    def look(self, cpu_share: float, use_share: float, now: Mono) -> int:
        """How many connections there should be.

        Units:  `cpu_share` is how busy the other side says it is, 0 if it says nothing; `use_share` is what is under way of
                what may be, over all connections there are.
        """
        policy = self.policy
        is_full = cpu_share >= policy.cpu_grow_share or use_share >= policy.use_grow_share
        if is_full or not self._is_quiet(cpu_share, use_share):
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        if is_full and self.wanted < policy.connections_max:
            if now - self._grown_at >= policy.settle_s and now - self._shrunk_at >= policy.turn_s:
                self.wanted += 1
                self._grown_at = now
        elif (
            self.wanted > 1
            and self._quiet_since is not None
            and now - self._quiet_since >= policy.idle_s
            and now - max(self._grown_at, self._shrunk_at) >= policy.turn_s
        ):
            self.wanted -= 1
            self._shrunk_at = now
        return self.wanted

    def _is_quiet(self, cpu_share: float, use_share: float) -> bool:
        spread = self.wanted / (self.wanted - 1) if self.wanted > 1 else 1.0
        policy = self.policy
        return cpu_share * spread < policy.cpu_grow_share / 2 and use_share * spread < policy.use_grow_share / 2
