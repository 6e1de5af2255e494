"""How a client keeps its session: when it gives a connection up, where it goes then, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from budao.model import Checks
from budao.push.backoff import BackoffPolicy
from budao.push.pool_size import PoolSizePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPolicy:
    """What one client does.

    Raises:  BadSettings with every problem.
    """

    beat_s: float | None = None
    """How often it wishes to hear something. None: every 50 ms with a standby, otherwise every 2 s. The gateway decides."""
    missed_max: int = 3
    """So many beats in a row that do not come, and the connection is dead."""
    look_s: float = 0.005
    """Before it is taken for dead, it is looked at again after this long, so that our own stall is not taken for its death."""
    stretch_max: float = 3.0
    """A gateway that beats slower than it promised is waited for up to this many times longer."""
    welcome_s: float = 2.0
    """How long a new connection may take until it is welcomed."""
    promote_s: float = 0.5
    """How long a standby may take until it delivers."""
    standby_silent_s: float = 10.0
    """A standby that is silent for so long is replaced. It is quiet on purpose, so this is long."""
    standby_spread_s: float = 1.0
    """A new standby is opened after a random pause of up to this, so that those of many clients do not come at once."""
    again_spread_s: float = 0.02
    """The same for a connection that was lost and has no standby."""
    backoff: BackoffPolicy = field(default_factory=BackoffPolicy)
    """How long a gateway that failed is left alone. Others are tried meanwhile."""
    is_shuffled: bool = True
    """Gateways are tried in random order, which spreads clients over them; False keeps the order that was given."""
    peers_max: int = 8
    """Gateways that may be learned from other gateways. Only those that are as safe count: TLS leads to TLS. 0 trusts none."""
    queue_count_max: int = 1_000
    """Messages that wait for one reader. When it is full the channel rests at the gateway, and goes on once half is read."""
    queue_bytes_max: int = 4 * 1024 * 1024
    """The same, in bytes of data."""
    publish_s: float = 10.0
    """How long a publish may take, reconnects and further tries included."""
    publishing_max: int = 50
    """Publishes under way over one connection. More wait for a place."""
    frame_bytes_max: int = 17 * 1024 * 1024
    """A gateway that sends a longer frame is given up."""
    pool: PoolSizePolicy = field(default_factory=PoolSizePolicy)
    """Connections for publishing."""

    def __post_init__(self) -> None:
        check = Checks("client")
        if self.beat_s is not None:
            check.number("beat_s", self.beat_s, 0.01, 3_600.0)
        check.count("missed_max", self.missed_max, 1, 100)
        check.number("look_s", self.look_s, 0.0, 1.0, open_low=True)
        check.number("stretch_max", self.stretch_max, 1.0, 100.0)
        check.number("welcome_s", self.welcome_s, 0.01, 600.0)
        check.number("promote_s", self.promote_s, 0.01, 60.0)
        check.number("standby_silent_s", self.standby_silent_s, 0.01, 3_600.0)
        check.number("standby_spread_s", self.standby_spread_s, 0.0, 600.0)
        check.number("again_spread_s", self.again_spread_s, 0.0, 600.0)
        check.count("peers_max", self.peers_max, 0, 1_000)
        check.count("queue_count_max", self.queue_count_max, 1, 1_000_000)
        check.count("queue_bytes_max", self.queue_bytes_max, 1_024, 1024**3)
        check.number("publish_s", self.publish_s, 0.01, 3_600.0)
        check.count("publishing_max", self.publishing_max, 1, 10_000)
        check.count("frame_bytes_max", self.frame_bytes_max, 1_024, 256 * 1024 * 1024)
        check.done()
