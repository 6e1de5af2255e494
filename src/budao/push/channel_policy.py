"""How channels are kept and delivered, by pattern of their names."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from budao.model import Checks


class Slow(Enum):
    """What happens to a reader that cannot keep up."""

    LATEST = "latest"
    """It skips to the latest message, and a gap says what it skipped."""
    CLOSE = "close"
    """Its connection ends, with the advice to come back and resume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPolicy:
    """One kind of channel.

    Raises:  BadSettings with every problem.
    """

    history_count: int = 1_000
    """Messages kept for those who come back. 1 makes a last-value channel: its readers may begin with that one."""
    history_age_s: float = 3_600.0
    """Older ones are forgotten."""
    history_bytes: int = 8 * 1024 * 1024
    """Data kept."""
    message_bytes_max: int = 64 * 1024
    """Longer data is refused when it is published."""
    slow: Slow = Slow.LATEST
    """What happens to a reader that cannot keep up."""
    behind_bytes_max: int = 1024 * 1024
    """A reader is too slow once it is this far behind. What the kernel already took for it is not counted."""
    begins_with: int = 0
    """How many of the latest messages a new reader begins with if it does not say."""
    is_presence: bool = False
    """Whether readers may ask who else is there."""

    def __post_init__(self) -> None:
        check = Checks("channel")
        check.count("history_count", self.history_count, 0, 1_000_000)
        check.number("history_age_s", self.history_age_s, 0.0, 90 * 86_400.0, open_low=True)
        check.count("history_bytes", self.history_bytes, 0, 1024**3)
        check.count("message_bytes_max", self.message_bytes_max, 1, 16 * 1024 * 1024)
        check.need(isinstance(self.slow, Slow), "slow", f"{self.slow!r} is not one of {[each.value for each in Slow]}")
        check.count("behind_bytes_max", self.behind_bytes_max, 1024, 1024**3)
        check.count("begins_with", self.begins_with, 0, 10_000)
        check.done()
