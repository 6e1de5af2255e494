"""Which endpoints one client keeps to, when there are more than it should know."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from budao.model import Endpoint


def subset(endpoints: Iterable[Endpoint], client: str, zone: str, *, most: int, near_share: float) -> list[Endpoint]:
    """At most `most` of the endpoints, the same for one client whatever their order, sorted by id.

    Each client ranks all endpoints by a hash of both names and keeps the first (rendezvous hashing). One endpoint that
    comes or goes changes one place of a subset at most, and `c` clients with subsets of `k` out of `n` give each endpoint
    c·k/n clients, plus or minus about the square root of that. Endpoints of the client's own zone are ranked first, up to
    `near_share` of the places; the rest is left to anyone, so that a zone that fails can be left.
    """
    found = sorted(endpoints, key=lambda each: each.id)
    if len(found) <= most:
        return found
    ranked = sorted(found, key=lambda each: _rank(client, each.id), reverse=True)
    near = [each for each in ranked if zone and each.zone == zone][: int(most * near_share)]
    taken = {each.id for each in near}
    rest = [each for each in ranked if each.id not in taken][: most - len(near)]
    return sorted(near + rest, key=lambda each: each.id)


def _rank(client: str, endpoint_id: str) -> bytes:
    # The length keeps ("a", "bc") apart from ("ab", "c").
    text = f"{len(client)}:{client}{endpoint_id}"
    return blake2b(text.encode(), digest_size=8).digest()
