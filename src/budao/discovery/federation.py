"""The instances that several clusters share: an observed-remove set, kept apart by who wrote what.

Each cluster writes only its own part: its claims ("this instance is mine, and so") and its removals of what it saw of
others. Every write has a dot, the writer's epoch and its next counter; a removal names the dot it saw, so a claim that is
renewed meanwhile, or later, wins. A part is the work of one writer, so its (epoch, counter) says exactly how much of it is
known: the position of all parts together is the version vector, merging is the later of the two for each part, and what
somebody misses is what lies behind the position they name. A removal inside a part leaves no tombstone in the set; a
bounded log remembers it for those who catch up, and whoever is further behind than the log gets that one part whole.

An epoch is one life of a writer. A later epoch of the same cluster replaces the earlier part, and a cluster that was
forgotten up to an epoch is heard again only under a later one, so that old gossip cannot bring it back.

Source:  Bieniusa et al., "An Optimized Conflict-free Replicated Set" (INRIA RR-8083, 2012), for dots and a vector in place
         of tombstones; Almeida, Shoker, Baquero, "Delta State Replicated Data Types" (2018), for causal delta-merging.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from budao.discovery.federation_policy import FederationPolicy
from budao.discovery.instance import Instance

Position: TypeAlias = tuple[int, int]
"""Epoch and counter: how far a part goes. Compared as a pair."""

Vector: TypeAlias = Mapping[str, Position]
"""How far each cluster's part goes."""

Key: TypeAlias = tuple[str, str]
"""Service and instance id."""

Slot: TypeAlias = tuple[str, str, str]
"""Service, instance id, and "" for a claim or the name of the cluster whose claim is removed."""


@dataclass(frozen=True, slots=True)
class Write:
    """What stands in a slot: an instance for a claim, the last position that is removed for a removal, None for gone."""

    counter: int
    slot: Slot
    value: Instance | Position | None


@dataclass(frozen=True, slots=True)
class Span:
    """What a cluster wrote behind `base` and up to `counter`; `base` is None if this is the whole part."""

    cluster: str
    epoch: int
    base: int | None
    counter: int
    writes: tuple[Write, ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """What somebody misses."""

    spans: tuple[Span, ...]
    forgotten: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Absorbed:
    """What a delta did: keys that may look different now, and whether something before it was missing."""

    keys: frozenset[Key]
    has_gap: bool = False
    refused: tuple[str, ...] = ()
    """Clusters whose part was not taken in, since it or their number is beyond the policy's bounds."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An instance as the set shows it."""

    instance: Instance
    cluster: str
    """Whose claim was chosen: the first by name, so that all clusters choose alike."""
    conflicts: int = 0
    """Other clusters that claim the same id."""


class _Part:
    """One cluster's writes. `gone` is the log of what it took away, newest last; complete behind `floor`."""

    __slots__ = ("counter", "epoch", "floor", "gone", "order", "slots")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.counter = 0
        self.floor = 0
        self.slots: dict[Slot, Write] = {}
        self.gone: dict[Slot, int] = {}
        self.order: list[tuple[int, Slot]] = []
        """Every write by counter, outdated ones among them until they are half of it."""

    @property
    def position(self) -> Position:
        return self.epoch, self.counter

    def put(self, write: Write) -> None:
        self.gone.pop(write.slot, None)
        if write.value is None:
            self.slots.pop(write.slot, None)
            self.gone[write.slot] = write.counter
        else:
            self.slots[write.slot] = write
        self.counter = max(self.counter, write.counter)
        self.order.append((write.counter, write.slot))
        if len(self.order) > 64 + 2 * (len(self.slots) + len(self.gone)):
            self.tidy()

    def prune(self, seen: int, keep_max: int) -> int:
        """Forgets removals up to `seen`, and the oldest beyond `keep_max`; how many it forgot."""
        pruned = 0
        while self.gone:
            slot, counter = next(iter(self.gone.items()))
            if counter > seen and len(self.gone) <= keep_max:
                break
            del self.gone[slot]
            self.floor = max(self.floor, counter)
            pruned += 1
        return pruned

    def behind(self, base: int) -> tuple[Write, ...]:
        """What was written behind `base` and still counts, in order."""
        found = []
        for counter, slot in self.order[bisect_right(self.order, (base, ("\U0010ffff", "", ""))) :]:
            write = self.slots.get(slot)
            if write is not None and write.counter == counter:
                found.append(write)
            elif self.gone.get(slot) == counter:
                found.append(Write(counter, slot, None))
        return tuple(found)

    def tidy(self) -> None:
        known = [(write.counter, slot) for slot, write in self.slots.items()]
        self.order = sorted(known + [(counter, slot) for slot, counter in self.gone.items()])

    def copy(self) -> _Part:
        made = _Part(self.epoch)
        made.counter, made.floor = self.counter, self.floor
        made.slots, made.gone, made.order = dict(self.slots), dict(self.gone), list(self.order)
        return made


class FederatedSet:
    """One cluster's copy of the set, and the only writer of its own part.

    `epoch` must be later than any this cluster had before; the calendar in milliseconds does. If others know a later one
    all the same, the part is written anew under an epoch behind theirs. That happens once when a calendar went back. Two
    processes of one name do it to each other by turns, so whoever was outbid more than `renewals_max` times gives in and says
    no more of itself. Of two that start one after the other this is the earlier one.
    """

    def __init__(self, cluster: str, epoch: int, policy: FederationPolicy | None = None) -> None:
        self.cluster = cluster
        self.policy = FederationPolicy() if policy is None else policy
        self.left_out = 0
        """Local writes and parts of others that were not taken in, for lack of room."""
        self.renewals = 0
        """Times others knew a later epoch of ours."""
        self.is_contested = False
        """Whether another process lives under our name, and this one has given in, for good."""
        self._outbid = 0
        self.pruned = 0
        """Removals the log no longer remembers."""
        self.is_held = False
        """Whether nothing is told of our own part yet, since it is not known whole: others go by our last life meanwhile."""
        self._parts: dict[str, _Part] = {cluster: _Part(epoch)}
        self._forgotten: dict[str, int] = {}
        self._acknowledged: dict[str, dict[str, Position]] = {}
        self._shelved: tuple[Instance, ...] = ()

    # ------------------------------------------------------------------------------------------------------ reading

    @property
    def epoch(self) -> int:
        """Of our own part."""
        return self._own.epoch

    @property
    def is_forgotten(self) -> bool:
        """Whether others forgot this cluster; `renew` makes it a new one."""
        return self._forgotten.get(self.cluster, -1) >= self._own.epoch

    @property
    def problem(self) -> str | None:
        """Why others do not go by what we say, or may not for long."""
        if self.is_contested:
            return f"another process lives as {self.cluster!r}; give each cluster its own name, and start this one anew"
        if self._outbid > 1:
            return f"{self._outbid} times others knew a later life of {self.cluster!r}; does another process have its name?"
        return f"{self.cluster!r} was forgotten; start it anew to join" if self.is_forgotten else None

    @property
    def forgotten(self) -> Mapping[str, int]:
        """The last epoch of each forgotten cluster."""
        return dict(self._forgotten)

    @property
    def clusters(self) -> tuple[str, ...]:
        """Those with a part, by name."""
        return tuple(sorted(self._parts))

    @property
    def removals(self) -> int:
        """Removals the log remembers."""
        return sum(len(part.gone) for part in self._parts.values())

    def __len__(self) -> int:
        """Slots in all parts."""
        return sum(len(part.slots) for part in self._parts.values())

    def digest(self) -> dict[str, Position]:
        """The version vector."""
        return {cluster: part.position for cluster, part in self._told()}

    def seen(self, key: Key, *, besides: str = "") -> Seen | None:
        """The instance of that key, if any claim to it stands, that of `besides` left out."""
        names = [cluster for cluster in self.clusters if cluster != besides]
        claims = [(cluster, instance) for cluster in names if (instance := self._claim(key, cluster))]
        if not claims:
            return None
        return Seen(claims[0][1], claims[0][0], len(claims) - 1)

    def visible(self) -> dict[Key, Seen]:
        """Everything that is there."""
        keys = {slot[:2] for part in self._parts.values() for slot in part.slots if not slot[2]}
        return {key: found for key in sorted(keys) if (found := self.seen(key)) is not None}

    def own_ids(self, service: str) -> list[str]:
        """The instances of a service that this cluster claims."""
        return [slot[1] for slot in self._own.slots if slot[0] == service and not slot[2]]

    def contents(self) -> dict[str, tuple[Position, dict[Slot, Write]]]:
        """All parts as they stand; equal in two copies that know the same."""
        return {cluster: (part.position, dict(part.slots)) for cluster, part in self._told()}

    # ------------------------------------------------------------------------------------------------------ writing

    def put(self, instance: Instance) -> bool:
        """Claims an instance for this cluster, or says how it is now. False if nothing changed or there is no room."""
        slot = (instance.service, instance.id, "")
        own = self._own
        standing = own.slots.get(slot)
        if self.is_forgotten or (standing and standing.value == instance and self.seen(slot[:2])):
            return False
        return self._write(slot, instance)

    def remove(self, key: Key) -> bool:
        """Takes away what is seen of it here, whoever claimed it. A claim not seen yet, or renewed later, stays."""
        if self.is_forgotten:
            return False
        removed = self.withdraw(key)
        for cluster in self.clusters:
            if cluster != self.cluster and self._claim(key, cluster) is not None:
                removed |= self._write((*key, cluster), self._dot(key, cluster))
        return removed

    def withdraw(self, key: Key) -> bool:
        """Takes away our own claim only."""
        return not self.is_forgotten and (*key, "") in self._own.slots and self._write((*key, ""), None)

    def forget(self, cluster: str) -> frozenset[Key]:
        """Drops a cluster, for all who will hear of it, until it comes with a later epoch. The keys that look different.

        Raises:  ValueError for our own name, or when more are forgotten than the policy allows.
        """
        if cluster == self.cluster:
            raise ValueError(f"{cluster} cannot forget itself; forget it at another cluster")
        if cluster not in self._forgotten and len(self._forgotten) >= self.policy.forgotten_max:
            raise ValueError(f"{self.policy.forgotten_max} clusters are forgotten already, forgotten_max")
        part = self._parts.get(cluster)
        if part is None:
            return frozenset()
        return self._forget({cluster: part.epoch})

    def renew(self, epoch: int) -> None:
        """Starts a new life under a later epoch, with the same claims."""
        assert epoch > self._own.epoch, "an epoch is later than the one before"
        claims, self._shelved = self._shelved + _claims(self._own), ()
        self._parts[self.cluster] = _Part(epoch)
        for instance in claims:
            self._write((instance.service, instance.id, ""), instance)

    # -------------------------------------------------------------------------------------------------- exchanging

    def delta_since(self, vector: Vector, forgotten: Mapping[str, int] | None = None) -> Delta:
        """What whoever is at `vector` misses; a part whole where its log does not reach back that far."""
        spans = []
        for cluster, part in self._told():
            epoch, counter = vector.get(cluster, (-1, 0))
            is_silent = part is self._own and (self.is_held or self.is_contested)
            if is_silent or (epoch, counter) >= part.position:
                continue
            base = counter if epoch == part.epoch and counter >= part.floor else None
            spans.append(Span(cluster, part.epoch, base, part.counter, part.behind(0 if base is None else base)))
        known = {} if forgotten is None else forgotten
        news = {cluster: epoch for cluster, epoch in self._forgotten.items() if known.get(cluster, -1) < epoch}
        return Delta(tuple(spans), news)

    def absorb(self, delta: Delta) -> Absorbed:
        """Takes in what somebody sent. Taking it in twice, or late, does no harm."""
        keys = set(self._forget(delta.forgotten))
        has_gap, refused = False, []
        for span in delta.spans:
            if span.epoch <= self._forgotten.get(span.cluster, -1):
                continue
            if span.cluster == self.cluster:
                if (span.epoch, span.counter) > self._own.position and not self.is_contested:
                    self._outdo(span.epoch)
                continue
            part = self._parts.get(span.cluster)
            if part is not None and (span.epoch, span.counter) <= part.position:
                continue
            if span.base is not None and (part is None or part.epoch != span.epoch or part.counter < span.base):
                has_gap = True
            elif not self._has_room(part, span):
                self.left_out += 1
                refused.append(span.cluster)
            else:
                keys |= self._absorb(part, span)
        return Absorbed(frozenset(keys), has_gap, tuple(refused))

    def merge(self, other: FederatedSet) -> Absorbed:
        """Takes in everything another copy knows."""
        return self.absorb(Delta(tuple(_whole(name, part) for name, part in other._told()), other._forgotten))

    def copy(self) -> FederatedSet:
        """The same, to be changed apart."""
        made = FederatedSet(self.cluster, self.epoch, self.policy)
        made._parts = {cluster: part.copy() for cluster, part in self._parts.items()}
        made.is_held, made.is_contested, made._outbid = self.is_held, self.is_contested, self._outbid
        made._forgotten, made._shelved = dict(self._forgotten), self._shelved
        made._acknowledged = {cluster: dict(vector) for cluster, vector in self._acknowledged.items()}
        return made

    def acknowledge(self, cluster: str, vector: Vector) -> None:
        """A cluster is at `vector`: the log forgets removals that every known cluster has seen."""
        if cluster not in self._parts:
            return
        self._acknowledged[cluster] = dict(vector)
        for name, part in self._parts.items():
            others = [each for each in self._parts if each not in {self.cluster, name}]
            positions = [self._acknowledged.get(each, {}).get(name, (-1, 0)) for each in others]
            seen = min((counter if epoch == part.epoch else -1 for epoch, counter in positions), default=part.counter)
            self.pruned += part.prune(seen, self.policy.removals_max)

    def settle(self, keys: Iterable[Key]) -> bool:
        """After taking in `keys`: gives up claims of ours that others removed, and removals nothing is left to remove for.

        Apart from `absorb`, since these are writes of our own, and taking in alone must not write. Whether it wrote.
        """
        if self.is_forgotten:
            return False
        own, wrote = self._own, False
        for key in keys:
            if (*key, "") in own.slots and self._claim(key, self.cluster) is None:
                wrote |= self._write((*key, ""), None)
            for cluster in self._removed_from(key):
                part, removal = self._parts.get(cluster), own.slots[*key, cluster].value
                claim = None if part is None else part.slots.get((*key, ""))
                if (
                    part is None
                    or claim is None
                    or (isinstance(removal, tuple) and removal < (part.epoch, claim.counter))
                ):
                    wrote |= self._write((*key, cluster), None)
        return wrote

    def calm(self) -> None:
        """Nobody outbid us for long; what comes later counts anew."""
        self._outbid = 0

    # ------------------------------------------------------------------------------------------------------ helpers

    def _outdo(self, epoch: int) -> None:
        self.renewals += 1
        self._outbid += 1
        self.is_contested = self._outbid > self.policy.renewals_max
        if not self.is_contested:
            self.renew(epoch + 1)

    @property
    def _own(self) -> _Part:
        return self._parts[self.cluster]

    def _told(self) -> list[tuple[str, _Part]]:
        parts = sorted(self._parts.items())
        return [each for each in parts if each[0] != self.cluster or not self.is_forgotten]

    def _dot(self, key: Key, cluster: str) -> Position:
        part = self._parts[cluster]
        return part.epoch, part.slots[*key, ""].counter

    def _removed_from(self, key: Key) -> list[str]:
        return [each for each in {*self._parts, *self._forgotten} if (*key, each) in self._own.slots]

    def _claim(self, key: Key, cluster: str) -> Instance | None:
        write = self._parts[cluster].slots.get((*key, ""))
        if write is None or not isinstance(write.value, Instance):
            return None
        slot, dot = (*key, cluster), (self._parts[cluster].epoch, write.counter)
        for part in self._parts.values():
            removal = part.slots.get(slot)
            if removal is not None and isinstance(removal.value, tuple) and removal.value >= dot:
                return None
        return write.value

    def _write(self, slot: Slot, value: Instance | Position | None) -> bool:
        own = self._own
        if value is not None and slot not in own.slots and len(own.slots) >= self.policy.elements_max:
            self.left_out += 1
            return False
        own.put(Write(own.counter + 1, slot, value))
        self.pruned += own.prune(0, self.policy.removals_max)
        return True

    def _has_room(self, part: _Part | None, span: Span) -> bool:
        if part is None and len(self._parts) >= self.policy.clusters_max:
            return False
        added = sum(write.value is not None and (part is None or write.slot not in part.slots) for write in span.writes)
        standing = 0 if part is None or span.base is None else len(part.slots)
        return standing + added <= self.policy.elements_max

    def _absorb(self, part: _Part | None, span: Span) -> set[Key]:
        keys: set[Key] = set()
        if span.base is None or part is None:
            if part is not None:
                keys = {slot[:2] for slot in part.slots}
            part = self._parts[span.cluster] = _Part(span.epoch)
            part.floor = span.counter
        for write in span.writes:
            if write.counter > part.counter:
                part.put(write)
                keys.add(write.slot[:2])
        part.counter = span.counter
        self.pruned += part.prune(0, self.policy.removals_max)
        return keys

    def _forget(self, forgotten: Mapping[str, int]) -> frozenset[Key]:
        keys: set[Key] = set()
        for cluster, epoch in forgotten.items():
            if cluster not in self._forgotten and len(self._forgotten) >= self.policy.forgotten_max:
                self.left_out += 1
                continue
            self._forgotten[cluster] = max(epoch, self._forgotten.get(cluster, -1))
            part = self._parts.get(cluster)
            if part is None or part.epoch > epoch:
                continue
            keys |= {slot[:2] for slot in part.slots}
            if cluster == self.cluster:
                # What we claim is kept for `renew`; until then nobody would listen to it.
                self._shelved = _claims(part)
                self._parts[cluster] = _Part(part.epoch)
                continue
            del self._parts[cluster]
            self._acknowledged.pop(cluster, None)
        return frozenset(keys)


def _whole(cluster: str, part: _Part) -> Span:
    return Span(cluster, part.epoch, None, part.counter, part.behind(0))


def _claims(part: _Part) -> tuple[Instance, ...]:
    return tuple(write.value for write in part.slots.values() if isinstance(write.value, Instance))
