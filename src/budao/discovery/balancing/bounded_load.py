"""Equal keys to equal endpoints, unless that one has more than its share."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container
from hashlib import blake2b
from math import ceil
from random import Random

from budao.discovery.balancing.maglev import key_hash
from budao.discovery.balancing.places import Place, Places
from budao.model import Checks, Endpoint, Mono

POINTS = 100
"""On the ring for each endpoint of mean weight."""
POINTS_ALL = 30_000
"""On the whole ring, about: with more than 300 endpoints each has fewer, or a change of members would take seconds."""
POINTS_MAX = 10_000
"""For one endpoint, however heavy."""


class BoundedLoad(Places[Place]):
    """A ring where no endpoint has more than (1 + `over_share`) of its fair part of this client's calls in flight.

    A key goes to the first endpoint clockwise that has room. A call without a key falls anywhere.

    Raises:  BadSettings if `over_share` is not above 0.
    Source:  Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded loads", SODA '18.
    """

    def __init__(self, rng: Random, *, over_share: float = 0.25) -> None:
        super().__init__()
        check = Checks("bounded_load")
        check.number("over_share", over_share, 0.0, 1000.0, open_low=True)
        check.done()
        self.over_share = over_share
        self._rng = rng
        self._points: list[int] = []
        self._owners: list[Place] = []
        self._weight = 0.0
        self._made_of: list[tuple[str, float]] = []

    def _made(self, endpoint: Endpoint, now: Mono) -> Place:  # noqa: ARG002 - a protocol's argument
        return Place(endpoint)

    def _renewed(self, now: Mono) -> None:  # noqa: ARG002
        made_of = [(each.endpoint.id, each.endpoint.weight) for each in self._places]
        if made_of == self._made_of:
            return
        self._made_of = made_of
        self._weight = sum(each.endpoint.weight or 1.0 for each in self._places)
        points = min(POINTS, POINTS_ALL / max(1, len(self._places)))
        ring: list[tuple[int, str, Place]] = []
        for place in self._places:
            relative = (place.endpoint.weight or 1.0) * len(self._places) / self._weight
            for number in range(min(POINTS_MAX, max(1, round(points * relative)))):
                point = blake2b(f"{number}:{place.endpoint.id}".encode(), digest_size=8).digest()
                ring.append((int.from_bytes(point, "big"), place.endpoint.id, place))
        ring.sort(key=lambda each: each[:2])
        self._points = [each[0] for each in ring]
        self._owners = [each[2] for each in ring]

    def bound(self, place: Place) -> int:
        """The most calls in flight it may have when one more is placed."""
        calls = sum(each.in_flight for each in self._places) + 1
        return ceil((1.0 + self.over_share) * calls * (place.endpoint.weight or 1.0) / self._weight)

    def _chosen(self, now: Mono, key: bytes | None, avoid: Container[str]) -> Place:  # noqa: ARG002
        start = bisect_right(self._points, self._rng.getrandbits(64) if key is None else key_hash(key))
        calls = (1.0 + self.over_share) * (sum(each.in_flight for each in self._places) + 1) / self._weight
        count = len(self._owners)
        second: Place | None = None
        for step in range(count):
            place = self._owners[(start + step) % count]
            if place.endpoint.id in avoid:
                continue
            if place.in_flight < ceil(calls * (place.endpoint.weight or 1.0)):
                return place
            second = second or place
        # Only those to be avoided have room, or all are to be avoided.
        return second or self._owners[start % count]
