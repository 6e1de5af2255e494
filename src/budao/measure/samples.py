"""The last few values, as they were."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator

from budao.measure.rank import nearest_rank
from budao.model import Checks


class Samples:
    """The last `size` numbers, for exact quantiles of recent values.

    Shapes: iterating gives the numbers from the oldest to the newest, so `a.extend(b)` puts b's after a's.
    Units:  whatever is added; the values are finite.
    Raises: BadSettings if `size` is not a whole number from 1 to 1,000,000; TypeError for a value that is no number.
    Cost:   72 bytes until the first value, then 8 for each value held. A quantile sorts what is held.
    """

    __slots__ = ("_next", "_ring", "size")

    def __init__(self, size: int = 300) -> None:
        check = Checks("samples")
        check.count("size", size, 1, 1_000_000)
        check.done()
        self.size = size
        self._ring: array[float] | None = None
        self._next = 0  # where the oldest value is, once the ring is full

    def __len__(self) -> int:
        return 0 if self._ring is None else len(self._ring)

    def __iter__(self) -> Iterator[float]:
        ring = self._ring
        return iter(()) if ring is None else iter(ring[self._next :] + ring[: self._next])

    def add(self, value: float) -> None:
        """Keep one value; the oldest leaves if there is no room."""
        ring = self._ring
        if ring is None:
            self._ring = array("d", (value,))
        elif len(ring) < self.size:
            ring.append(value)
        else:
            ring[self._next] = value
            self._next = (self._next + 1) % self.size

    def extend(self, values: Iterable[float]) -> None:
        """Keep the last of these values, in their order; nothing changes if one of them is no number."""
        newest = array("d", deque(values, maxlen=self.size))
        if not newest:
            return
        if self._ring is None:
            self._ring = array("d")
        ring = self._ring
        grown = min(len(newest), self.size - len(ring))
        ring.extend(newest[:grown])
        # The rest overwrites the oldest: first up to the end of the ring, then from its start.
        rest = newest[grown:]
        straight = min(len(rest), self.size - self._next)
        ring[self._next : self._next + straight] = rest[:straight]
        ring[: len(rest) - straight] = rest[straight:]
        self._next = (self._next + len(rest)) % self.size

    def ordered(self) -> tuple[float, ...]:
        """The values from the least to the greatest, as a value that stays as it is."""
        return () if self._ring is None else tuple(sorted(self._ring))

    def quantile(self, share: float) -> float | None:
        """The value at the nearest rank, itself one of the values held; None without values.

        Units: `share` from 0 to 1; see `nearest_rank`.
        """
        return None if self._ring is None else sorted(self._ring)[nearest_rank(share, len(self._ring)) - 1]

    def clear(self) -> None:
        """Forget every value, and give the memory back."""
        self._ring = None
        self._next = 0
