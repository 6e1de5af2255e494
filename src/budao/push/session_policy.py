"""What one session may ask of a gateway."""

from __future__ import annotations

from dataclasses import dataclass

from budao.model import Checks


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPolicy:
    """Bounds of one session.

    Raises:  BadSettings with every problem.
    """

    subscriptions_max: int = 128
    """Channels it may read at once."""
    frames_per_s: float = 100.0
    """Frames it may send, over time. Beyond, its connection ends."""
    frames_burst: int = 300
    """Frames it may send at once after a quiet spell."""
    publishes_per_s: float = 50.0
    """Messages it may publish, over time. Beyond, they are refused one by one."""
    publishes_burst: int = 100
    """Messages it may publish at once after a quiet spell."""
    publishing_max: int = 64
    """Messages that may wait for the log at once."""
    frame_bytes_max: int = 256 * 1024
    """A longer frame ends its connection."""
    held_max: int = 64
    """Frames that may come while its hello is still being worked on."""
    beat_s: float = 25.0
    """How often it hears something, if it has no wish."""
    beat_min_s: float = 0.05
    """No wish makes it more often. Clients with a standby wish for 50 ms: so soon do they notice that their home has frozen."""
    beat_max_s: float = 60.0
    """No wish makes it rarer: middle boxes forget a silent connection after a minute or so."""

    def __post_init__(self) -> None:
        check = Checks("session")
        check.count("subscriptions_max", self.subscriptions_max, 1, 100_000)
        check.number("frames_per_s", self.frames_per_s, 0.1, 1e6)
        check.count("frames_burst", self.frames_burst, 1, 1_000_000)
        check.number("publishes_per_s", self.publishes_per_s, 0.001, 1e6)
        check.count("publishes_burst", self.publishes_burst, 1, 1_000_000)
        check.count("publishing_max", self.publishing_max, 1, 100_000)
        check.count("frame_bytes_max", self.frame_bytes_max, 1024, 64 * 1024 * 1024)
        check.count("held_max", self.held_max, 1, 10_000)
        check.number("beat_min_s", self.beat_min_s, 0.05, 3_600.0)
        check.number("beat_max_s", self.beat_max_s, 0.05, 3_600.0)
        check.number("beat_s", self.beat_s, 0.05, 3_600.0)
        if not check.problems:
            check.need(
                self.beat_min_s <= self.beat_s <= self.beat_max_s,
                "beat_s",
                f"{self.beat_s:g} s is not between beat_min_s {self.beat_min_s:g} and beat_max_s {self.beat_max_s:g}",
            )
        check.done()
