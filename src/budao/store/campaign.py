"""Who leads: the candidate whose key was created first, for as long as its lease is certain to live.

Candidates put one key each, with a lease, under the same prefix. Keys come to be at revisions that only grow, so whoever
is first stays first until its key is gone; the revision is the fencing number: each leader has a higher one than all
before it, and whatever a leader changes can be made to depend on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from budao.model import Checks, Mono
from budao.store.errors import StoreError, StoreRefused
from budao.store.values import Condition, Entry, Field, Page, Put, Read, Relation, Span, Txn, absent


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignPolicy:
    """How long leadership outlives its leader, and how sure a leader must be of it.

    Units:   seconds, shares from 0 to 1.
    """

    ttl_s: float = 10.0
    """The lease of a candidate: a leader that dies is followed by another after this long."""
    renew_share: float = 0.3
    """A lease is renewed once this share of it has passed, and tried again after a tenth of it while that fails."""
    drift_share: float = 0.02
    """A leader gives up this share of its lease early, since its clock may be slower than the store's."""

    def __post_init__(self) -> None:
        check = Checks("campaign")
        check.number("ttl_s", self.ttl_s, 0.0, 86_400.0, open_low=True)
        check.number("renew_share", self.renew_share, 0.0, 0.9, open_low=True)
        check.number("drift_share", self.drift_share, 0.0, 0.5)
        if not check.problems:
            check.need(
                self.renew_share < 1.0 - self.drift_share,
                "renew_share",
                f"{self.renew_share:g} of a lease is over only after the leader has given it up",
            )
        check.done()


class Standing(Enum):
    """Where a candidate stands."""

    CANDIDATE = "candidate"
    LEADING = "leading"
    DEPOSED = "deposed"


@dataclass(frozen=True, slots=True)
class Polled:
    """Fact: what the candidates' keys were: one's own, and the first of all."""

    own: Entry | None
    first: Entry | None

    @classmethod
    def of(cls, key: str, entries: Mapping[str, Entry]) -> Polled:
        """From all candidates' entries, by key."""
        return cls(entries.get(key), min(entries.values(), key=lambda entry: entry.created, default=None))


@dataclass(frozen=True, slots=True)
class Renewed:
    """Fact: the lease was renewed by a request sent at `asked_at`."""

    asked_at: Mono


@dataclass(frozen=True, slots=True)
class RenewalFailed:
    """Fact: no answer to a renewal, or none that helps."""


@dataclass(frozen=True, slots=True)
class LeaseEnded:
    """Fact: the store says that the lease is gone."""


@dataclass(frozen=True, slots=True)
class Renew:
    """Effect: renew the lease; answer with `Renewed`, `RenewalFailed` or `LeaseEnded`."""


@dataclass(frozen=True, slots=True)
class Lead:
    """Effect: from now on this candidate leads."""


@dataclass(frozen=True, slots=True)
class Depose:
    """Effect: from now on it does not, nor stand for it."""

    why: str


CampaignFact = Polled | Renewed | RenewalFailed | LeaseEnded
CampaignEffect = Renew | Lead | Depose


class Deposed(StoreError):
    """A commit that was to be done only by the leader was not done: this candidate does not lead. Stop its work."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"{self.key} does not lead any more; nothing was changed, stop the leader's work"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate's key, and the number that fences it off from every other leader."""

    key: str
    fencing: int
    """The revision at which the key was created."""

    @property
    def leads(self) -> Condition:
        """Holds while the key is there: for one who was told that it leads, while it leads."""
        return Condition(self.key, Field.CREATED, Relation.EQUAL, self.fencing)

    def guarded(self, txn: Txn) -> Txn:
        """The transaction, done only while its candidate leads.

        Raises:  StoreRefused if it has another branch that writes, which would be done by one who does not lead.
        """
        if any(not isinstance(each, Read) for each in txn.otherwise):
            raise StoreRefused("guard a transaction", "its other branch writes, and would do so without leading")
        own = Read(Span.one(self.key))
        return Txn((self.leads, *txn.when), txn.then, (*txn.otherwise, own))

    def is_own(self, page: Page) -> bool:
        """Whether the last read of a guarded transaction that was not done found the key of this candidate."""
        return page.first is not None and page.first.created == self.fencing


def candidates(name: str) -> Span:
    """Where the candidates for `name` put their keys."""
    return Span.prefix(f"{name}/")


def enrolment(name: str, value: bytes, lease: int) -> tuple[str, Txn]:
    """A candidate's key, and the transaction that puts it; its revision is the fencing number."""
    key = f"{name}/{lease:x}"
    return key, Txn((absent(key),), then=(Put(key, value, lease),))


class Campaign:
    """A machine: one candidate, from its enrolment until it is deposed.

    It is deposed when its key is seen gone, when the store says that its lease is gone, and, whatever anybody says, when
    the lease may have run out by its own clock: counted from before the request that renewed it last, so that the store
    counts from later on.

    Units:   `asked_at` is when the lease was asked for; `ttl_s` is what was granted.
    """

    def __init__(self, candidate: Candidate, asked_at: Mono, ttl_s: float, policy: CampaignPolicy) -> None:
        self.candidate = candidate
        self.ttl_s = ttl_s
        self.policy = policy
        self.standing = Standing.CANDIDATE
        self.until = asked_at
        """The lease is certain until then."""
        self._renew_at = asked_at
        self._is_renewing = False
        self._extend(asked_at)

    def wake_at(self) -> Mono | None:
        """When there is something to do."""
        if self.standing is Standing.DEPOSED:
            return None
        return self.until if self._is_renewing else min(self.until, self._renew_at)

    def wake(self, now: Mono) -> tuple[CampaignEffect, ...]:
        """Time has passed."""
        if self.standing is Standing.DEPOSED:
            return ()
        if now >= self.until:
            return self._depose("its lease may have run out: it could not be renewed in time")
        if now >= self._renew_at and not self._is_renewing:
            self._is_renewing = True
            return (Renew(),)
        return ()

    def handle(self, fact: CampaignFact, now: Mono) -> tuple[CampaignEffect, ...]:
        """Something was seen. Time passes before news is read: what came too late is of no use."""
        effects = self.wake(now)
        if self.standing is Standing.DEPOSED:
            return effects
        if isinstance(fact, Polled):
            return effects + self._polled(fact)
        assert self._is_renewing, "an answer has a question"
        self._is_renewing = False
        if isinstance(fact, LeaseEnded):
            return self._depose("its lease is gone")
        if isinstance(fact, Renewed):
            self._extend(fact.asked_at)
        else:
            self._renew_at = Mono(now + self.ttl_s / 10.0)
        return ()

    def _polled(self, polled: Polled) -> tuple[CampaignEffect, ...]:
        own = polled.own
        if own is None or own.created != self.candidate.fencing:
            return self._depose("its key is gone")
        if self.standing is Standing.CANDIDATE and polled.first == own:
            self.standing = Standing.LEADING
            return (Lead(),)
        return ()

    def _extend(self, asked_at: Mono) -> None:
        self.until = max(self.until, Mono(asked_at + self.ttl_s * (1.0 - self.policy.drift_share)))
        self._renew_at = Mono(asked_at + self.ttl_s * self.policy.renew_share)

    def _depose(self, why: str) -> tuple[CampaignEffect, ...]:
        self.standing = Standing.DEPOSED
        return (Depose(why),)
