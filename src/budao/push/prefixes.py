"""Connections that ended badly, counted by where their peers are: a bad cell tower, a broken office line, an attacker.

A peer is told by its prefix, /24 for IPv4 and /48 for IPv6: as much as one site usually has. The table is bounded; when it is
full, a prefix with little to tell makes room.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import AddressValueError, IPv6Address
from itertools import islice
from math import log
from typing import Final

from budao.measure import Fading
from budao.model import Checks, Mono


class BadEnd(Enum):
    """How a connection ended that should not have ended so."""

    RESET = "reset"
    """The peer, or something on the way, sent an RST."""
    SILENT = "silent"
    """No sign of life: our heartbeats gave up."""
    TIMED_OUT = "timed-out"
    """The kernel gave up: keepalive, or data that was never acknowledged."""
    UNREACHABLE = "unreachable"
    """A router said that there is no way to the peer."""
    BLOCKED = "blocked"
    """It was lost and full, and was cut."""
    SLOW = "slow"
    """It could not keep up, and its channel ends such readers."""
    PROTOCOL = "protocol"
    """It broke a rule of the protocol."""
    HANDSHAKE_EXPIRED = "handshake-expired"
    HANDSHAKE_UNKNOWN_AUTHORITY = "handshake-unknown-authority"
    HANDSHAKE_WRONG_KEY = "handshake-wrong-key"
    HANDSHAKE_PROTOCOL = "handshake-protocol"
    HANDSHAKE_TIMEOUT = "handshake-timeout"
    HANDSHAKE_OTHER = "handshake-other"


IPV4_BITS: Final = 24
IPV6_BITS: Final = 48
NOWHERE: Final = "-"
"""The prefix of what has no address: a unix socket, or text that is none."""


def prefix_of(address: str) -> str:
    """The prefix a peer's address lies in, as text: `192.0.2.0/24`, `2001:db8:7::/48`.

    An IPv4 address that is written as an IPv6 one is the IPv4 address.

    Cost: under 1 us for IPv4, some for IPv6; asked once per connection that ends badly, or is looked at.
    """
    parts = address.split(".")
    if len(parts) == 4 and ":" not in address and all(part.isascii() and part.isdigit() for part in parts):
        return f"{parts[0]}.{parts[1]}.{parts[2]}.0/{IPV4_BITS}"
    try:
        whole = IPv6Address(address.partition("%")[0])
    except AddressValueError:
        return NOWHERE
    if whole.ipv4_mapped is not None:
        return prefix_of(str(whole.ipv4_mapped))
    kept = int(whole) >> (128 - IPV6_BITS) << (128 - IPV6_BITS)
    return f"{IPv6Address(kept)}/{IPV6_BITS}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixPolicy:
    """How bad ends are counted.

    Raises:  BadSettings with every problem.
    """

    prefixes_max: int = 4_096
    """Prefixes that are remembered."""
    span_s: float = 60.0
    """How long an end counts: a steady rate of r per second shows as r * span_s."""

    def __post_init__(self) -> None:
        check = Checks("prefixes")
        check.count("prefixes_max", self.prefixes_max, 1, 1_000_000)
        check.number("span_s", self.span_s, 1.0, 86_400.0)
        check.done()


@dataclass(frozen=True, slots=True)
class Troubled:
    """A prefix and its bad ends."""

    prefix: str
    ends_per_min: float
    total: int
    """Since it came into the table."""
    kinds: tuple[tuple[BadEnd, int], ...]
    """Of the total, the commonest first."""


class _Place:
    __slots__ = ("kinds", "level", "total")

    def __init__(self, half_life_s: float) -> None:
        self.level = Fading(half_life_s=half_life_s)
        self.total = 0
        self.kinds: dict[BadEnd, int] = {}


class Prefixes:
    """The bad ends of a gateway's connections.

    Cost: under 1 KiB per prefix; an end costs a few microseconds.
    """

    LOOKED_AT: Final = 8
    """When the table is full, the one with the least to tell among so many that had the longest quiet goes."""

    def __init__(self, policy: PrefixPolicy | None = None) -> None:
        self.policy = policy = policy or PrefixPolicy()
        self._half_life_s = policy.span_s * log(2)
        self._places: dict[str, _Place] = {}  # the one that was quiet longest first
        self.totals = dict.fromkeys(BadEnd, 0)
        """Of all prefixes, since the beginning; they only grow."""
        self.forgotten = 0
        """Prefixes that made room."""

    def __len__(self) -> int:
        return len(self._places)

    def count(self, prefix: str, kind: BadEnd, now: Mono) -> None:
        """One more connection from there ended so."""
        self.totals[kind] += 1
        place = self._places.pop(prefix, None)
        if place is None:
            if len(self._places) >= self.policy.prefixes_max:
                self._make_room(now)
            place = _Place(self._half_life_s)
        self._places[prefix] = place
        place.level.add(1.0, now)
        place.total += 1
        place.kinds[kind] = place.kinds.get(kind, 0) + 1

    def ends_per_min(self, prefix: str, now: Mono) -> float:
        """How many connections from there end badly in a minute, as of late."""
        place = self._places.get(prefix)
        return 0.0 if place is None else place.level.at(now) * 60.0 / self.policy.span_s

    def worst(self, count: int, now: Mono) -> tuple[Troubled, ...]:
        """The prefixes with the most bad ends as of late, the worst first. Those that were quiet for long are left out."""
        levels = [(place.level.at(now), prefix) for prefix, place in self._places.items()]
        found = sorted((-level, prefix) for level, prefix in levels if level >= 0.01)[:count]
        return tuple(self._troubled(prefix, now) for _, prefix in found)

    def _troubled(self, prefix: str, now: Mono) -> Troubled:
        place = self._places[prefix]
        kinds = sorted(place.kinds.items(), key=lambda each: (-each[1], each[0].value))
        return Troubled(prefix, self.ends_per_min(prefix, now), place.total, tuple(kinds))

    def _make_room(self, now: Mono) -> None:
        quiet = islice(self._places.items(), self.LOOKED_AT)
        least = min(quiet, key=lambda each: each[1].level.at(now))[0]
        del self._places[least]
        self.forgotten += 1
