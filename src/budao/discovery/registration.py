"""How an instance gets into a store and stays there: the machine behind a registrar.

One lease, one key. One operation is out at a time, and its answer comes back as a fact. Whatever goes wrong is tried
again with a growing, wholly random pause, since after an outage of the store everybody comes at once. A key that
another incarnation holds is never taken away from it: either its lease ends, as after a crash and a restart under
the same id, or it is renewed, and then the id is a duplicate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Final

from budao.discovery.instance import Instance
from budao.model import BudaoError, Checks, Mono, Stage

SLACK_S: Final = 1.5
"""A lease is renewed if its end moved by more than this; some stores tell what is left in whole seconds."""
RENEWALS_MIN: Final = 3
"""A holder lives if its lease was renewed so often. Fewer prove nothing: a store that starts again gives every lease its
whole span, the leases of the dead as well."""
NAME_BYTES_TAKEN: Final = 200
"""Of what a fresh id takes over from the name it is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrarPolicy:
    """How an instance keeps its place in a store.

    Units:   seconds.
    Raises:  BadSettings with every problem at once.
    """

    ttl_s: float = 30.0
    """How long an instance that died is still listed, at most."""
    renew_every_s: float = 10.0
    """Pause between renewals. Two may fail before the third is the last in time."""
    pause_first_s: float = 0.2
    """Upper end of the pause after the first failure; it doubles with each that follows."""
    pause_max_s: float = 5.0
    """No pause is longer."""
    taken_every_s: float = 1.0
    """Pause between looks at an id that another incarnation holds."""
    answer_max_s: float = 5.0
    """A store that has not answered by then counts as away."""
    enter_max_s: float = 10.0
    """How long entering waits for a store that is away; then it goes on trying in the background."""
    leave_max_s: float = 5.0
    """How long leaving may take; then the lease is left to run out."""

    def __post_init__(self) -> None:
        check = Checks("registrar")
        check.number("ttl_s", self.ttl_s, 1.0, 86_400.0)
        check.number("renew_every_s", self.renew_every_s, 0.05, 86_400.0)
        for name in ("pause_first_s", "pause_max_s", "taken_every_s", "answer_max_s"):
            check.number(name, getattr(self, name), 0.01, 3_600.0)
        for name in ("enter_max_s", "leave_max_s"):
            check.number(name, getattr(self, name), 0.0, 3_600.0)
        if not check.problems:
            check.need(
                self.renew_every_s <= self.ttl_s / 2,
                "renew_every_s",
                f"{self.renew_every_s:g} s is more than half of ttl_s, {self.ttl_s:g} s: one lost renewal would end it",
            )
        check.done()


class DuplicateInstance(BudaoError):
    """Another living process is registered under this id. It was left alone, and this one is not registered."""

    def __init__(self, instance: Instance, other: Instance | None, held_s: float) -> None:
        super().__init__(instance, other, held_s)
        self.instance = instance
        self.other = other
        """Who holds the id; None if what stands there cannot be read."""
        self.held_s = held_s
        """How long this one has watched the other hold it, in seconds."""

    def __str__(self) -> str:
        if self.other is None:
            holder = "something that is no instance"
        else:
            address = next(iter(self.other.addresses.values()))
            holder = f"{address.host} port {address.port}, incarnation {self.other.incarnation or 'unknown'},"
        return (
            f"instance {self.instance.id} of service {self.instance.service}: the id is held by {holder} and still was "
            f"after {self.held_s:.3g} s; nothing was changed: give each process an id of its own, or end the other"
        )


# ----------------------------------------------------------------------------------------------------------- facts


@dataclass(frozen=True, slots=True)
class Granted:
    """Fact: there is a lease."""

    lease: int
    ttl_s: float


@dataclass(frozen=True, slots=True)
class WasPut:
    """Fact: the instance stands in the store since this revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class Holder:
    """What stands in the store where the instance was to be put.

    Units:   `left_s` and `ttl_s` of its lease, in seconds; both 0 if the lease has ended meanwhile.
    """

    instance: Instance | None
    """None if it cannot be read."""
    modified: int
    lease: int
    left_s: float
    ttl_s: float


@dataclass(frozen=True, slots=True)
class WasRefused:
    """Fact: the key is not as it was supposed to be, and nothing was put; None if it is not there at all."""

    holder: Holder | None


@dataclass(frozen=True, slots=True)
class KeptAlive:
    """Fact: the lease lasts for its whole span again."""


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """Fact: the lease is gone, and the key with it."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """Fact: the lease has been ended."""


@dataclass(frozen=True, slots=True)
class Away:
    """Fact: the store did not answer, or said no; what was tried may have taken effect."""

    problem: str


@dataclass(frozen=True, slots=True)
class AskedFor:
    """Fact: the instance shall be announced at this stage."""

    stage: Stage


@dataclass(frozen=True, slots=True)
class SetByOthers:
    """Fact: somebody else changed the entry of this very incarnation, as an operator does who drains it."""

    instance: Instance
    revision: int


@dataclass(frozen=True, slots=True)
class KeyGone:
    """Fact: the instance does not stand in the store since this revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class AskedToLeave:
    """Fact: the instance shall be taken out."""


Answer = Granted | WasPut | WasRefused | KeptAlive | LeaseLost | Revoked | Away
Fact = Answer | AskedFor | SetByOthers | KeyGone | AskedToLeave


# --------------------------------------------------------------------------------------------------------- effects


@dataclass(frozen=True, slots=True)
class Grant:
    """Effect: ask for a lease; answer with `Granted` or `Away`."""

    ttl_s: float


@dataclass(frozen=True, slots=True)
class PutInstance:
    """Effect: put the instance if its key was modified last at revision `after`, 0 for a key that is not there.

    Answer with `WasPut`, `WasRefused`, `LeaseLost` or `Away`.
    """

    instance: Instance
    lease: int
    after: int


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Effect: renew the lease; answer with `KeptAlive`, `LeaseLost` or `Away`."""

    lease: int


@dataclass(frozen=True, slots=True)
class Revoke:
    """Effect: end the lease; answer with `Revoked`, `LeaseLost` or `Away`."""

    lease: int


@dataclass(frozen=True, slots=True)
class TellPublished:
    """Effect: the instance is published as it is here, since this revision."""

    instance: Instance
    revision: int


@dataclass(frozen=True, slots=True)
class TellOrdered:
    """Effect: somebody else decided that this instance drains; it stands there since this revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class TellTrouble:
    """Effect: why the instance may not be listed, or be listed as it was; None once it is listed as it should be."""

    problem: str | None


@dataclass(frozen=True, slots=True)
class TellDuplicate:
    """Effect: somebody else has the id. Before the first publication that is the end; later it is tried again."""

    error: DuplicateInstance


@dataclass(frozen=True, slots=True)
class TellLeft:
    """Effect: it is over; nothing follows."""


Order = Grant | PutInstance | KeepAlive | Revoke
Effect = Order | TellPublished | TellOrdered | TellTrouble | TellDuplicate | TellLeft


# --------------------------------------------------------------------------------------------------------- machine


@dataclass(slots=True)
class _Rival:
    """Another incarnation that holds the id, as it was seen first."""

    incarnation: str | None
    since: Mono
    ends: Mono
    """When its lease would end if it were not renewed, as it was when it last moved."""
    renewals: int = 0
    """How often the end has been seen to move."""
    is_told: bool = False
    """Whether it has been reported as a duplicate."""


class Registration:
    """Keeps one instance registered. `wake` it once at the start."""

    def __init__(self, instance: Instance, policy: RegistrarPolicy, rng: Random, now: Mono) -> None:
        self.policy = policy
        self.instance = instance
        """As it shall be."""
        self.published: Instance | None = None
        """As it stands in the store, as far as is known."""
        self.revision = 0
        """Since when, at which its key was modified last; 0 while it does not stand there."""
        self.lease = 0
        self.problem: str | None = None
        self.is_over = False
        self._rng = rng
        self._out: Order | None = None
        """The operation that has not been answered."""
        self._put_at = self._renew_at = self._pause_until = now
        self._failures = 0
        self._rival: _Rival | None = None
        self._was_published = False
        self._is_leaving = False
        self._has_said_goodbye = False

    @property
    def is_waiting_for_id(self) -> bool:
        """Whether another incarnation holds the id and it is not clear yet whether it lives."""
        return self._rival is not None

    def wake_at(self) -> Mono | None:
        """When the next operation is due; None while one is out."""
        if self._out is not None or self.is_over:
            return None
        if self._is_leaving or self.lease == 0:
            return self._pause_until
        due = self._renew_at if self.published == self.instance else min(self._renew_at, self._put_at)
        return max(due, self._pause_until)

    def wake(self, now: Mono) -> tuple[Effect, ...]:
        """Time has passed."""
        due = self.wake_at()
        return () if due is None or now < due else self._next(now)

    def handle(self, fact: Fact, now: Mono) -> tuple[Effect, ...]:
        """The store answered, or somebody asked for something."""
        if self.is_over:
            return ()
        effects: tuple[Effect, ...]
        if isinstance(fact, AskedFor):
            effects = self._asked(fact.stage, now)
        elif isinstance(fact, AskedToLeave):
            self._is_leaving, self._pause_until = True, now
            effects = ()
        elif isinstance(fact, SetByOthers):
            effects = self._set_by_others(fact)
        elif isinstance(fact, KeyGone):
            effects = self._gone(fact.revision, now)
        else:
            assert self._out is not None, "an answer follows an operation"
            order, self._out = self._out, None
            effects = self._answered(order, fact, now)
        return effects + self.wake(now)

    def _next(self, now: Mono) -> tuple[Effect, ...]:
        if self._is_leaving:
            self._out = self._farewell()
            if self._out is None:
                self.is_over = True
                return (TellLeft(),)
        elif self.lease == 0:
            self._out = Grant(self.policy.ttl_s)
        elif now >= self._renew_at:
            self._out = KeepAlive(self.lease)
        else:
            self._out = PutInstance(self.instance, self.lease, self.revision)
        return (self._out,)

    def _farewell(self) -> Order | None:
        if self.lease == 0:
            return None
        if self.published is not None and self.published.stage is not Stage.DRAINING and not self._has_said_goodbye:
            # Whoever goes on purpose says so: one that vanishes without a word looks like one that died.
            self._has_said_goodbye = True
            return PutInstance(replace(self.published, stage=Stage.DRAINING), self.lease, self.revision)
        return Revoke(self.lease)

    # ----------------------------------------------------------------------------------------------------- facts

    def _asked(self, stage: Stage, now: Mono) -> tuple[Effect, ...]:
        self.instance = replace(self.instance, stage=stage)
        # Somebody waits, so a pause ends here.
        self._put_at = self._pause_until = now
        if self.published == self.instance and not isinstance(self._out, PutInstance):
            return (TellPublished(self.instance, self.revision),)
        return ()

    def _set_by_others(self, fact: SetByOthers) -> tuple[Effect, ...]:
        """Only "drain" is an order that is taken. What else was changed is put right with the next put."""
        if fact.revision <= self.revision or fact.instance.incarnation != self.instance.incarnation:
            return ()
        is_order = fact.instance.stage is Stage.DRAINING and self.instance.stage is not Stage.DRAINING
        if is_order:
            self.instance = replace(self.instance, stage=Stage.DRAINING)
        if not isinstance(self._out, PutInstance):
            self.published, self.revision = fact.instance, fact.revision
        return (TellOrdered(fact.revision),) if is_order else ()

    def _gone(self, revision: int, now: Mono) -> tuple[Effect, ...]:
        """Either the lease has ended or somebody deleted the key: renewing tells, and the next put mends."""
        if revision < self.revision or self.published is None or self._is_leaving:
            return ()
        self.published, self.revision = None, 0
        self._renew_at = self._put_at = self._pause_until = now
        return ()

    def _answered(self, order: Order, fact: Answer, now: Mono) -> tuple[Effect, ...]:
        if isinstance(fact, Away):
            if isinstance(order, PutInstance):
                self.published = None  # it may have taken effect
            return self._failed(fact.problem, now)
        if isinstance(fact, Granted):
            self.lease = fact.lease
            self._renewed(now, fact.ttl_s)
            self._put_at = now
            return ()
        if isinstance(fact, KeptAlive):
            self._renewed(now, self.policy.ttl_s)
            return self._recovered()
        if isinstance(fact, WasPut):
            assert isinstance(order, PutInstance), "what was put was to be put"
            return self._stands(order.instance, fact.revision)
        if isinstance(fact, WasRefused):
            return self._refused(fact.holder, now)
        self.lease = self.revision = 0
        self.published = None
        return () if isinstance(fact, Revoked) else self._failed("the lease ran out, and the instance with it", now)

    def _renewed(self, now: Mono, ttl_s: float) -> None:
        pause_s = min(self.policy.renew_every_s, ttl_s / 3)
        # Those that started together shall not renew together for ever.
        self._renew_at = Mono(now + self._rng.uniform(0.9, 1.0) * pause_s)

    def _stands(self, instance: Instance, revision: int) -> tuple[Effect, ...]:
        self.published, self.revision = instance, revision
        self._rival, self._was_published = None, True
        return (TellPublished(instance, revision), *self._recovered())

    def _recovered(self) -> tuple[Effect, ...]:
        self._failures = 0
        if self.problem is None or self.published != self.instance:
            return ()
        self.problem = None
        return (TellTrouble(None),)

    def _failed(self, problem: str, now: Mono) -> tuple[Effect, ...]:
        if self._is_leaving:
            # The lease will run out by itself; a process that leaves does not wait for a store.
            self.is_over = True
            return (TellLeft(),)
        self._failures = min(self._failures + 1, 30)
        ceiling_s = min(self.policy.pause_max_s, self.policy.pause_first_s * 2 ** (self._failures - 1))
        self._pause_until = Mono(now + self._rng.uniform(0.0, ceiling_s))
        return self._trouble(problem)

    def _trouble(self, problem: str) -> tuple[Effect, ...]:
        if problem == self.problem:
            return ()
        self.problem = problem
        return (TellTrouble(problem),)

    def _refused(self, holder: Holder | None, now: Mono) -> tuple[Effect, ...]:
        if self._is_leaving:
            return ()
        if holder is None:
            # Somebody deleted the key, or its lease ended between the two looks.
            self.published, self.revision, self._rival = None, 0, None
            return ()
        other = holder.instance
        if other is not None and other.incarnation and other.incarnation == self.instance.incarnation:
            # Ours, from a put whose answer was lost, or from before the lease was lost.
            self.revision = holder.modified
            return ()
        self.published, self.revision = None, 0
        return self._taken(holder, now)

    def _taken(self, holder: Holder, now: Mono) -> tuple[Effect, ...]:
        incarnation = None if holder.instance is None else holder.instance.incarnation
        ends = Mono(now + holder.left_s)
        if self._rival is None or self._rival.incarnation != incarnation:
            self._rival = _Rival(incarnation, now, ends)
        rival = self._rival
        held_s = now - rival.since
        if ends - rival.ends > SLACK_S:
            rival.renewals += 1
            rival.ends = ends
        lives = rival.renewals >= RENEWALS_MIN and held_s > holder.ttl_s
        # A lease that is neither renewed nor ended for three times its span will not end.
        is_stuck = now - rival.ends > 3 * (holder.ttl_s + SLACK_S)
        is_duplicate = holder.lease == 0 or lives or is_stuck
        if rival.is_told:
            self._put_at = Mono(now + self.policy.pause_max_s)
            return ()
        if is_duplicate:
            return self._duplicate(rival, DuplicateInstance(self.instance, holder.instance, held_s), now)
        self._put_at = Mono(now + self.policy.taken_every_s)
        return self._trouble("another incarnation holds the id; waiting until its lease ends or is renewed")

    def _duplicate(self, rival: _Rival, error: DuplicateInstance, now: Mono) -> tuple[Effect, ...]:
        if self._was_published:
            # It served before it lost its lease, and goes on serving; the other may still go away.
            rival.is_told = True
            self.problem = str(error)
            self._put_at = Mono(now + self.policy.pause_max_s)
        else:
            self._is_leaving, self._pause_until = True, now
        return (TellDuplicate(error),)


def new_id(name: str, rng: Random) -> str:
    """An id nobody else has: a name that people know, and 40 random bits."""
    short = name.encode()[:NAME_BYTES_TAKEN].decode(errors="ignore")
    return f"{short}-{rng.getrandbits(40):010x}"


def new_incarnation(rng: Random) -> str:
    """One life of a process, as 64 random bits."""
    return f"{rng.getrandbits(64):016x}"
