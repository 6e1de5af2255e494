"""How busy a gateway is: the share of one core that its event loop used over the last seconds.

The loop is one thread, so a share near 1 means that more connections here will wait, whatever the machine has left.
"""

from __future__ import annotations

from math import exp2
from typing import Final

HALF_LIFE_S: Final = 1.0
"""What is older counts half as much, and so on: a burst of a moment is no load, and five seconds are."""


class Load:
    """Told now and then how much CPU was used in all.

    Units:   seconds of CPU, seconds; the share is 0 to 1.
    """

    __slots__ = ("_at", "_cpu_s", "share")

    def __init__(self, cpu_s: float, now: float) -> None:
        self._cpu_s = cpu_s
        self._at = now
        self.share = 0.0

    def look(self, cpu_s: float, now: float) -> None:
        """So much was used until now."""
        elapsed_s = now - self._at
        if elapsed_s <= 0.0:
            return
        used_share = min(1.0, max(0.0, (cpu_s - self._cpu_s) / elapsed_s))
        self.share += (used_share - self.share) * (1.0 - exp2(-elapsed_s / HALF_LIFE_S))
        self._cpu_s, self._at = cpu_s, now
