"""What one gateway takes upon itself, and what it grants its clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from budao.model import Checks

KIB: Final = 1024
MIB: Final = 1024 * KIB
BEATS_S: Final = (0.05, 0.25, 1.0, 5.0, 25.0)
"""The beats that can be had. A client gets the slowest one that is not slower than it wished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayPolicy:
    """The bounds of a gateway.

    Raises:  BadSettings with every problem.
    """

    connections_max: int = 50_000
    """Further ones are answered 503, or closed with 4200. Fewer where the system allows fewer open files."""
    backlog: int = 4_096
    """Connections that may wait to be accepted: storms come all at once. The system may cut it (`net.core.somaxconn`)."""
    head_s: float = 10.0
    """How long the head of a request, or the first frame, may take."""
    body_s: float = 30.0
    """How long a body may take."""
    idle_s: float = 75.0
    """How long a kept-alive connection may be silent between requests."""
    head_bytes_max: int = 16 * KIB
    """The request line and all headers."""
    body_bytes_max: int = 4 * MIB
    """A body, which is a publish or a batch of them."""
    batch_max: int = 1_000
    """Messages of one publish."""
    write_high_bytes: int = 64 * KIB
    """A connection with more than this unsent is a slow reader, of which only the place is kept."""
    write_low_bytes: int = 16 * KIB
    """It goes on once there is no more than this."""
    catch_up_bytes: int = 64 * KIB
    """What one reader is sent of the past at a time."""
    step_bytes_max: int = 16 * MIB
    """What is handed to all readers of a channel in one turn of the loop; news beyond it waits for the next turn."""
    channels_max: int = 10_000
    """Channels that are followed at a time."""
    linger_s: float = 10.0
    """How long a channel that nobody reads is still followed."""
    recent_count: int = 256
    """Messages of a channel kept here for those who catch up. What is older is read from the log."""
    recent_bytes: int = 256 * KIB
    """The same in bytes. The last message is kept whatever its size."""
    reads_max: int = 32
    """Reads of the log that may be under way at once."""
    publishing_max: int = 10_000
    """Messages that may wait to be durable; further ones are refused."""
    publishes_max: int = 4
    """Calls of `publish` that the log may have in hand at once. Others wait, and so make larger batches."""
    publishes_per_s: float = 10_000.0
    """Messages one subject may publish over HTTP, over time; without a token, one peer prefix. Beyond, they are refused one by one."""
    publishes_burst: int = 20_000
    """Messages it may publish over HTTP at once after a quiet spell."""
    sends_directly: bool = True
    """Whether messages for many readers go straight to the kernel where their transport holds nothing back."""
    deflates: bool = False
    """Whether WebSockets may compress. Each message is compressed once for all; what clients send is bounded as it is inflated."""
    close_s: float = 2.0
    """How long a connection that is told to end may take to read why."""
    stop_s: float = 5.0
    """How long stopping may take."""
    allows_control: bool = True
    """Whether `/v1/control/…` answers at all; it needs a grant to operate."""

    def __post_init__(self) -> None:
        check = Checks("gateway")
        check.count("connections_max", self.connections_max, 1, 1_000_000)
        check.count("backlog", self.backlog, 1, 65_535)
        for name in ("head_s", "body_s", "idle_s", "close_s", "stop_s", "linger_s"):
            check.number(name, getattr(self, name), 0.0, 3_600.0, open_low=True)
        check.count("head_bytes_max", self.head_bytes_max, KIB, MIB)
        check.count("body_bytes_max", self.body_bytes_max, KIB, 1024 * MIB)
        check.count("batch_max", self.batch_max, 1, 100_000)
        check.count("write_high_bytes", self.write_high_bytes, KIB, 64 * MIB)
        check.count("write_low_bytes", self.write_low_bytes, 0, 64 * MIB)
        check.count("catch_up_bytes", self.catch_up_bytes, KIB, 64 * MIB)
        check.count("step_bytes_max", self.step_bytes_max, 64 * KIB, 4096 * MIB)
        check.count("channels_max", self.channels_max, 1, 1_000_000)
        check.count("recent_count", self.recent_count, 1, 100_000)
        check.count("recent_bytes", self.recent_bytes, KIB, 1024 * MIB)
        check.count("reads_max", self.reads_max, 1, 10_000)
        check.count("publishing_max", self.publishing_max, 1, 10_000_000)
        check.count("publishes_max", self.publishes_max, 1, 1_000)
        check.number("publishes_per_s", self.publishes_per_s, 0.001, 1e9)
        check.count("publishes_burst", self.publishes_burst, 1, 1_000_000_000)
        if not check.problems:
            check.need(
                self.write_low_bytes < self.write_high_bytes,
                "write_low_bytes",
                f"{self.write_low_bytes} is not below write_high_bytes, {self.write_high_bytes}",
            )
        check.done()
