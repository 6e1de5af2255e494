"""Who must renew by when, and which keys go if they do not."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace

from budao.model import Mono
from budao.store.errors import LeaseGone
from budao.store.values import Lease, LeaseView


@dataclass(slots=True)
class Life:
    """One lease."""

    lease: Lease
    until: Mono
    keys: set[str] = field(default_factory=set)


class Leases:
    """The leases alive. One that is overdue stays until it is dropped, since only a command may end it."""

    def __init__(self) -> None:
        self._lives: dict[int, Life] = {}
        # One entry a lease. A renewal leaves it as it is; it is moved when it comes up, too early by then.
        self._line: list[tuple[Mono, int]] = []

    def __len__(self) -> int:
        return len(self._lives)

    def __contains__(self, lease: int) -> bool:
        return lease in self._lives

    def add(self, lease: Lease, now: Mono) -> None:
        """Begins a lease."""
        assert lease.id not in self._lives, "an id is in use once"
        life = self._lives[lease.id] = Life(lease, Mono(now + lease.ttl_s))
        heappush(self._line, (life.until, lease.id))

    def drop(self, lease: int) -> None:
        """Ends a lease whose keys are gone."""
        del self._lives[lease]
        if len(self._line) > 64 and len(self._line) > 2 * len(self._lives):
            self._line = [(life.until, number) for number, life in self._lives.items()]
            heapify(self._line)

    def renew(self, lease: int, now: Mono) -> Lease:
        """Gives it its whole span again.

        Raises:  LeaseGone, also if it is overdue: from then on it is a matter of moments.
        """
        life = self._find(lease)
        if life.until <= now:
            raise LeaseGone(lease)
        life.until = Mono(max(life.until, now + life.lease.ttl_s))
        return life.lease

    def renew_all(self, now: Mono) -> None:
        """Gives every lease its whole span again."""
        for life in self._lives.values():
            life.until = Mono(max(life.until, now + life.lease.ttl_s))

    def view(self, lease: int, now: Mono) -> LeaseView:
        life = self._find(lease)
        return LeaseView(lease, life.lease.ttl_s, max(0.0, life.until - now), tuple(sorted(life.keys)))

    def keys_of(self, lease: int) -> tuple[str, ...]:
        """In order."""
        return tuple(sorted(self._find(lease).keys))

    def move(self, key: str, before: int, after: int) -> None:
        """A key lived by one lease and now lives by another; 0 is none."""
        if before == after:
            return
        if before:
            self._lives[before].keys.discard(key)
        if after:
            self._lives[after].keys.add(key)

    def all(self) -> tuple[Lease, ...]:
        """Every lease, by id."""
        return tuple(self._lives[number].lease for number in sorted(self._lives))

    def next_end(self) -> Mono | None:
        """When the first lease runs out."""
        while self._line:
            until, number = self._line[0]
            life = self._lives.get(number)
            if life is None:
                heappop(self._line)
            elif life.until > until:
                heapreplace(self._line, (life.until, number))
            else:
                return until
        return None

    def overdue(self, now: Mono, limit: int) -> tuple[int, ...]:
        """The leases that have run out, the earliest first, and no more than so many."""
        found: list[tuple[Mono, int]] = []
        while len(found) < limit and (end := self.next_end()) is not None and end <= now:
            found.append(heappop(self._line))
        for each in found:  # still alive: they are named again until they are dropped
            heappush(self._line, each)
        return tuple(dict.fromkeys(number for _, number in found))

    def _find(self, lease: int) -> Life:
        life = self._lives.get(lease)
        if life is None:
            raise LeaseGone(lease)
        return life
