"""Who is there, worked out from what a source says: the machine behind a directory.

A source can be wrong in two ways that hurt. It can be away: then the last roster is served on, as long as the policy
bears; a source that has several to ask says which part of its list is old, and the rest goes on. And it can say that many instances are gone which are not, because they could not renew their leases, or because
the store lost its memory: then those are kept for a while as doubted, still pickable, and let go one hold after their
expiry unless they register again. An instance that was draining when it went has left on purpose and is never kept.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from operator import attrgetter

from budao.discovery.facts import Changed, Listed, Sighting, WentAway
from budao.discovery.instance import Instance
from budao.discovery.roster import Roster
from budao.model import Checks, Mono, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryPolicy:
    """What to believe of a source that may be wrong or away.

    Units:   spans in seconds, shares from 0 to 1.
    Raises:  BadSettings with every problem at once.
    """

    doubt_share: float = 0.3
    """When more than this share of the ready instances expire together, they are kept as doubted; 1.0 for never."""
    doubt_min: int = 2
    """Fewer than this are never a mass: a single instance that expires is dead."""
    doubt_window_s: float = 15.0
    """Expiries this near to each other happen together. Instances renew every 10 s, so one cause shows within that."""
    doubt_hold_s: float = 60.0
    """How long a doubted instance is kept after it expired, the time the source is away left out."""
    stale_max_s: float = inf
    """How long what the source cannot be asked about is served on; then it is left out. inf for as long as it takes."""
    ready_max_s: float = 10.0
    """How long to wait for the first listing."""
    instances_max: int = 10_000
    """Instances beyond this are left out and counted; when there is room again, the source is followed anew."""

    def __post_init__(self) -> None:
        check = Checks("directory")
        check.number("doubt_share", self.doubt_share, 0.0, 1.0)
        check.count("doubt_min", self.doubt_min, 1)
        check.number("doubt_window_s", self.doubt_window_s, 0.0, 3_600.0)
        check.number("doubt_hold_s", self.doubt_hold_s, 0.0, 86_400.0)
        check.number("stale_max_s", self.stale_max_s, 0.0)
        check.number("ready_max_s", self.ready_max_s, 0.0, 86_400.0)
        check.count("instances_max", self.instances_max, 1, 1_000_000)
        check.done()


@dataclass(frozen=True, slots=True)
class Publish:
    """Effect: this is the roster from now on."""

    roster: Roster


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Effect: tell the source that everything up to this revision is acted on."""

    revision: int


@dataclass(frozen=True, slots=True)
class FollowAnew:
    """Effect: there is room again for instances that were left out; follow the source from the beginning."""


Effect = Publish | Acknowledge | FollowAnew


@dataclass(slots=True)
class Counts:
    """What has happened so far."""

    expired: int = 0
    """Instances let go that had not been draining, doubted ones at the end of their hold included."""
    doubted: int = 0
    """Instances kept although they expired."""
    cleared: int = 0
    """Doubted instances that registered again."""
    away: int = 0
    """Times the source went away."""
    left_out: int = 0
    """Instances not taken in, for lack of room."""


@dataclass(frozen=True, slots=True)
class _Expiry:
    instance: Instance
    at: Mono


_id = attrgetter("id")


class DirectoryMachine:
    """Follows the instances of one service. The roster it published last is in `roster`."""

    def __init__(self, service: str, policy: DirectoryPolicy) -> None:
        self.service = service
        self.policy = policy
        self.roster = Roster(service=service)
        self.is_known = False
        """Whether the source has said the whole truth at least once."""
        self.problem: str | None = None
        """Why the source is away, or a part of it, while it is."""
        self.counts = Counts()
        self._revision = 0
        self._instances: list[Instance] = []
        self._stale_since: Mono | None = None
        self._is_blind = False
        """Whether the source has been away for longer than what is old is believed."""
        self._stale_ids: frozenset[str] | None = None
        """What is old while the source is away; None for all."""
        self._waiting: frozenset[str] = frozenset()
        """Who was doubted already when it went away, and is kept until it is back."""
        self._expiries: dict[str, _Expiry] = {}
        """Instances that expired within the window and have not come back, doubted or not, oldest first."""
        self._doubts: dict[str, Mono] = {}
        """Doubted instances, and until when each is kept."""
        self._is_short = False
        """Whether instances were left out since the last listing."""

    # ------------------------------------------------------------------------------------------------ the machine

    def handle(self, fact: Sighting, now: Mono) -> tuple[Effect, ...]:
        """The source said something."""
        effects = self.wake(now)
        if isinstance(fact, Listed):
            return effects + self._listed(fact, now)
        if isinstance(fact, Changed):
            return effects + self._changed(fact, now)
        if isinstance(fact, WentAway):
            return effects + self._went(fact, now)
        return effects + self._came(now)

    def wake_at(self) -> Mono | None:
        """When the next doubted instance is let go, or what is old is no longer believed."""
        due = [until for each, until in self._doubts.items() if each not in self._waiting]
        if self._stale_since is not None and not self._is_blind and self.policy.stale_max_s != inf:
            due.append(Mono(self._stale_since + self.policy.stale_max_s))
        return min(due, default=None)

    def wake(self, now: Mono) -> tuple[Effect, ...]:
        """Time has passed."""
        due = self.wake_at()
        if due is None or now < due:
            return ()
        if self._stale_since is not None and now >= self._stale_since + self.policy.stale_max_s:
            self._is_blind = True
        over = [each for each, until in self._doubts.items() if until <= now and each not in self._waiting]
        self.counts.expired += len(over)
        for each in over:
            del self._doubts[each]
            self._remove(each)
        return self._publish()

    # ------------------------------------------------------------------------------------------------- the facts

    def _listed(self, fact: Listed, now: Mono) -> tuple[Effect, ...]:
        if fact.stale is None:
            self._return(now)
        else:
            self._leave(fact.stale.problem, fact.stale.ids, now)
        self._is_short = False
        there = {instance.id: instance for instance in fact.instances}
        self._welcome(there)
        gone = [each for each in self._instances if each.id not in there and each.id not in self._doubts]
        self._vanish(gone, now)
        # Those known already have the first claim to the room there is.
        fresh = there.keys() - {each.id for each in self._instances}
        for each in sorted(there.keys() - fresh) + sorted(fresh):
            self._put(there[each])
        self._revision = fact.revision
        self.is_known = True
        return (*self._publish(), Acknowledge(fact.revision))

    def _changed(self, fact: Changed, now: Mono) -> tuple[Effect, ...]:
        if fact.revision <= self._revision:
            return ()
        self._revision = fact.revision
        self._welcome(instance.id for instance in fact.put)
        gone = set(fact.gone) - self._doubts.keys()
        self._vanish([each for each in map(self._find, gone) if each is not None], now)
        for instance in fact.put:
            self._put(instance)
        effects: tuple[Effect, ...] = self._publish()
        if fact.gone or any(instance.stage is not Stage.READY for instance in fact.put):
            effects += (Acknowledge(fact.revision),)
        if self._is_short and len(self._instances) < 0.9 * self.policy.instances_max:
            self._is_short = False
            effects += (FollowAnew(),)
        return effects

    def _went(self, fact: WentAway, now: Mono) -> tuple[Effect, ...]:
        self._leave(fact.problem, None, now)
        return self._publish()

    def _came(self, now: Mono) -> tuple[Effect, ...]:
        self._return(now)
        return self._publish()

    def _leave(self, problem: str, ids: frozenset[str] | None, now: Mono) -> None:
        """What these ids name cannot be asked about, or nothing can. For how long counts from the first time."""
        if self._stale_since is None:
            self.counts.away += 1
            self._stale_since = now
            self._waiting = frozenset(self._doubts)
        elif ids is None:
            self._waiting = frozenset(self._doubts)
        self.problem, self._stale_ids = problem, ids

    def _return(self, now: Mono) -> None:
        if self._stale_since is not None:
            # While the source was away nobody could register again, so that time does not count against anybody.
            away_s = max(0.0, now - self._stale_since)
            for each in self._waiting & self._doubts.keys():
                self._doubts[each] = Mono(self._doubts[each] + away_s)
        self._stale_since = self.problem = self._stale_ids = None
        self._waiting = frozenset()
        self._is_blind = False

    # ---------------------------------------------------------------------------------------------- who is there

    def _vanish(self, gone: list[Instance], now: Mono) -> None:
        """Lets instances go, unless too many expired together."""
        expired = [each for each in gone if each.stage is Stage.READY]
        self._expiries = {
            each: expiry for each, expiry in self._expiries.items() if now - expiry.at <= self.policy.doubt_window_s
        }
        ready = sum(each.stage is Stage.READY and each.id not in self._doubts for each in self._instances)
        ready += len(self._expiries)
        for each in expired:
            self._expiries[each.id] = _Expiry(each, now)
            if len(self._expiries) > self.policy.instances_max:
                del self._expiries[next(iter(self._expiries))]
        together = len(self._expiries)
        is_mass = together >= self.policy.doubt_min and together > self.policy.doubt_share * ready
        for instance in gone:
            if instance.stage is not Stage.READY or not is_mass:
                self._remove(instance.id)
        if expired and is_mass:
            self._doubt()
        elif expired:
            self.counts.expired += len(expired)

    def _doubt(self) -> None:
        """Keeps everybody who expired within the window; those let go when it did not look like many come back."""
        for each, expiry in self._expiries.items():
            if each in self._doubts:
                continue
            if self._find(each) is None:
                if not self._insert(expiry.instance):
                    continue
                self.counts.expired -= 1
            self._doubts[each] = Mono(expiry.at + self.policy.doubt_hold_s)
            self.counts.doubted += 1

    def _welcome(self, ids: Iterable[str]) -> None:
        """Whoever registers is not doubted, and did not expire after all."""
        for each in ids:
            if self._doubts.pop(each, None) is not None:
                self.counts.cleared += 1
            self._expiries.pop(each, None)

    def _put(self, instance: Instance) -> None:
        if not self._insert(instance):
            self.counts.left_out += 1
            self._is_short = True

    # A list sorted by id is changed in place, and copied once for each roster: ten thousand that register one by one
    # cost microseconds each.

    def _insert(self, instance: Instance) -> bool:
        index = bisect_left(self._instances, instance.id, key=_id)
        if index < len(self._instances) and self._instances[index].id == instance.id:
            self._instances[index] = instance
        elif len(self._instances) >= self.policy.instances_max:
            return False
        else:
            self._instances.insert(index, instance)
        return True

    def _remove(self, id: str) -> None:  # noqa: A002 - the word everybody uses
        index = bisect_left(self._instances, id, key=_id)
        if index < len(self._instances) and self._instances[index].id == id:
            del self._instances[index]

    def _find(self, id: str) -> Instance | None:  # noqa: A002 - the word everybody uses
        index = bisect_left(self._instances, id, key=_id)
        is_there = index < len(self._instances) and self._instances[index].id == id
        return self._instances[index] if is_there else None

    def _publish(self) -> tuple[Publish, ...]:
        instances, doubted = tuple(self._instances), frozenset(self._doubts)
        if self._is_blind:
            old = None if self._stale_ids is None else self._stale_ids | self._waiting
            instances = () if old is None else tuple(each for each in instances if each.id not in old)
            doubted &= {each.id for each in instances}
        roster = Roster(
            service=self.service,
            revision=self._revision,
            instances=instances,
            doubted=doubted,
            stale_since=self._stale_since,
        )
        if roster == self.roster:
            return ()
        self.roster = roster
        return (Publish(roster),)
