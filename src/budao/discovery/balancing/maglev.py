"""Equal keys to equal endpoints, evenly, by a table."""

from __future__ import annotations

from array import array
from collections.abc import Container, Sequence
from hashlib import blake2b
from random import Random

from budao.discovery.balancing.places import Place, Places
from budao.model import Checks, Endpoint, Mono

SLOTS = 65_537
"""A prime. A hundred times as many as endpoints keep the shares within 1 %, so this does for about 650."""


def maglev_table(endpoints: Sequence[Endpoint], slots: int = SLOTS) -> array[int]:
    """For each slot, the index of an endpoint; `slots` must be prime, and larger than their number.

    Each endpoint goes through the slots in an order of its own and takes the next free one when it is its turn; turns
    come in proportion to weights.

    Cost:    about slots · ln(slots) steps: some 30 ms for 65,537, at each change of members.
    Source:  Eisenbud et al., "Maglev", NSDI '16, section 3.4.
    """
    table = array("i", [-1]) * slots
    if not endpoints:
        return table
    at: list[int] = []
    skip: list[int] = []
    for endpoint in endpoints:
        digest = blake2b(endpoint.id.encode(), digest_size=16).digest()
        at.append(int.from_bytes(digest[:8], "big") % slots)
        skip.append(int.from_bytes(digest[8:], "big") % (slots - 1) + 1)
    top = max(endpoint.weight for endpoint in endpoints)
    steps = [endpoint.weight / top if top > 0.0 else 1.0 for endpoint in endpoints]
    credit = [0.0] * len(endpoints)
    free = slots
    while True:
        for index, step in enumerate(steps):
            credit[index] += step
            if credit[index] < 1.0 - 1e-9:
                continue
            credit[index] -= 1.0
            slot, stride = at[index], skip[index]
            while table[slot] >= 0:
                slot += stride
                if slot >= slots:
                    slot -= slots
            table[slot] = index
            at[index] = slot
            free -= 1
            if not free:
                return table


def key_hash(key: bytes) -> int:
    """Where a key falls: 64 bits that are the same in every process."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


class Maglev(Places[Place]):
    """Equal keys to equal endpoints; a call without a key falls anywhere. One endpoint less moves few other keys.

    Raises:  BadSettings if `slots` is not a prime above 2.
    """

    def __init__(self, rng: Random, *, slots: int = SLOTS) -> None:
        super().__init__()
        check = Checks("maglev")
        check.count("slots", slots, 3, 10_000_000)
        if not check.problems:
            is_prime = slots % 2 == 1 and all(slots % each for each in range(3, int(slots**0.5) + 1, 2))
            check.need(is_prime, "slots", f"{slots} is not a prime")
        check.done()
        self.slots = slots
        self._rng = rng
        self._table = array("i")
        self._made_of: list[tuple[str, float]] = []

    def _made(self, endpoint: Endpoint, now: Mono) -> Place:  # noqa: ARG002 - a protocol's argument
        return Place(endpoint)

    def _renewed(self, now: Mono) -> None:  # noqa: ARG002
        # More endpoints than slots: those beyond get nothing, which the table could not express anyway.
        self._places = self._places[: self.slots - 1]
        made_of = [(each.endpoint.id, each.endpoint.weight) for each in self._places]
        if made_of != self._made_of:
            self._made_of = made_of
            self._table = maglev_table([each.endpoint for each in self._places], self.slots)

    def _chosen(self, now: Mono, key: bytes | None, avoid: Container[str]) -> Place:  # noqa: ARG002
        slot = (self._rng.getrandbits(64) if key is None else key_hash(key)) % self.slots
        place = self._places[self._table[slot]]
        if avoid == () or place.endpoint.id not in avoid:
            return place
        # The next slots' owners: the same second choice for the same key, and for different keys different ones.
        for step in range(1, self.slots):
            other = self._places[self._table[(slot + step) % self.slots]]
            if other.endpoint.id not in avoid:
                return other
        return place
