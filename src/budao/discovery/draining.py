"""How an instance leaves so that no call is lost, and how it proves it.

What loses calls is a listener that closes while somebody still believes in it. So the order is: say so, go on accepting
until those who were told have acknowledged it (and those who cannot acknowledge have had their time), finish, close, and
only then disappear. Every wait has a bound, and all bounds come from one grace period.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from budao.discovery.draining_policy import DrainPolicy, DrainProof
from budao.model import Mono


class Phase(Enum):
    """How far the leave has come."""

    SERVING = "serving"
    ANNOUNCING = "announcing"
    """Draining is on its way to the store; every call is still welcome."""
    ACCEPTING = "accepting"
    """It is published; calls are accepted until those who were told have acknowledged."""
    FINISHING = "finishing"
    """Nothing new is accepted; what is in flight goes on."""
    CLOSING = "closing"
    GONE = "gone"


class Move(Enum):
    """What takes it to its next phase."""

    ASK = "ask"
    PUBLISH = "publish"
    RELEASE = "release"
    """Nobody is waited for any longer."""
    FINISH = "finish"
    END = "end"


MOVES: Mapping[tuple[Phase, Move], Phase] = MappingProxyType(
    {
        (Phase.SERVING, Move.ASK): Phase.ANNOUNCING,
        (Phase.ANNOUNCING, Move.PUBLISH): Phase.ACCEPTING,
        (Phase.ANNOUNCING, Move.RELEASE): Phase.FINISHING,
        (Phase.ACCEPTING, Move.RELEASE): Phase.FINISHING,
        (Phase.FINISHING, Move.FINISH): Phase.CLOSING,
        (Phase.CLOSING, Move.END): Phase.GONE,
    }
)


@dataclass(frozen=True, slots=True)
class Asked:
    """Fact: this process is told to leave. Said again, it means hurry: each time ends the phase it meets."""


@dataclass(frozen=True, slots=True)
class Published:
    """Fact: draining is in the store at this revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """Fact: the store did not do what it was asked, or cannot be watched, and why."""

    problem: str


@dataclass(frozen=True, slots=True)
class Watched:
    """Fact: these are all live watchers of the service, and the revision up to which each has acknowledged."""

    revisions: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Counted:
    """Fact: what is going on. `started` and `ended` count calls since the process began."""

    in_flight: int
    started: int
    ended: int


@dataclass(frozen=True, slots=True)
class Revoked:
    """Fact: the instance is off the store, or it was tried in vain."""

    problem: str = ""


@dataclass(frozen=True, slots=True)
class PublishDraining:
    """Effect: put the instance with its stage DRAINING; answer with `Published` or `StoreFailed`."""


@dataclass(frozen=True, slots=True)
class SayNotReady:
    """Effect: answer readiness probes with no."""


@dataclass(frozen=True, slots=True)
class TellPeersToGo:
    """Effect: tell whoever calls not to use this connection again: `Connection: close`, GOAWAY."""


@dataclass(frozen=True, slots=True)
class StopAccepting:
    """Effect: close the listener; calls in flight go on."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Effect: end what is still in flight."""

    calls: int


@dataclass(frozen=True, slots=True)
class CloseIdle:
    """Effect: close the connections that are left."""


@dataclass(frozen=True, slots=True)
class Revoke:
    """Effect: take the instance off the store; answer with `Revoked`."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Effect: that was it."""

    proof: DrainProof


Fact = Asked | Published | StoreFailed | Watched | Counted | Revoked
Effect = PublishDraining | SayNotReady | TellPeersToGo | StopAccepting | Cut | CloseIdle | Revoke | Finish

PROBLEMS_MAX = 5


class Drain:
    """The machine of one leave. With `registered=False` there is no store to tell, and only the lag is waited for."""

    def __init__(self, policy: DrainPolicy, *, registered: bool = True) -> None:
        self.policy = policy
        self.phase = Phase.SERVING
        self._registered = registered
        self._asked_at = Mono(0.0)
        self._since = Mono(0.0)
        self._spans: list[tuple[str, float]] = []
        self._again_at: Mono | None = None
        """When to publish again, after the store was away."""
        self._published_at = Mono(0.0)
        self._revision = 0
        self._live: dict[str, int] | None = None
        """The watchers as seen last; None before they were seen."""
        self._acknowledged: dict[str, float] = {}
        self._complete_at: Mono | None = None
        """Since when nobody has been missing; None while somebody is."""
        self._missing: tuple[str, ...] = ()
        self._counted = Counted(0, 0, 0)
        self._called_at: Mono | None = None
        """When the latest new call was seen, after draining was published."""
        self._ended_before = 0
        self._cut = 0
        self._finished = 0
        self._hurried = 0
        self._why = ""
        self._problems: list[str] = []

    def handle(self, fact: Fact, now: Mono) -> tuple[Effect, ...]:
        """Something happened. What does not fit the phase changes nothing."""
        match fact:
            case Asked():
                return self._asked(now)
            case Counted():
                return self._count(fact, now)
            case Watched():
                return self._watch(fact, now)
            case Published():
                if self.phase is not Phase.ANNOUNCING:
                    return ()
                return self._publish(fact.revision, now)
            case StoreFailed():
                self._note(fact.problem)
                if self.phase is Phase.ANNOUNCING:
                    self._again_at = Mono(now + self.policy.again_s)
            case Revoked():
                if self.phase is Phase.CLOSING:
                    self._note(fact.problem)
                    return self._end(now)
        return ()

    def wake_at(self) -> Mono | None:
        """When something is due even if nothing happens."""
        match self.phase:
            case Phase.ANNOUNCING:
                until = self._until(self.policy.accept_s)
                return until if self._again_at is None else min(until, self._again_at)
            case Phase.ACCEPTING:
                until, quiet_at = self._until(self.policy.accept_s), self._quiet_at()
                return until if quiet_at is None else min(until, quiet_at)
            case Phase.FINISHING:
                return self._until(self.policy.cut_s)
            case Phase.CLOSING:
                return self._until(self.policy.end_s)
            case _:
                return None

    def wake(self, now: Mono) -> tuple[Effect, ...]:
        """Time has passed; one late wake does all that was due by then."""
        effects: tuple[Effect, ...] = ()
        while (due := self.wake_at()) is not None and now >= due:
            effects += self._due(now)
        return effects

    def _due(self, now: Mono) -> tuple[Effect, ...]:
        if self.phase is Phase.ANNOUNCING and now < self._until(self.policy.accept_s):
            self._again_at = None
            return (PublishDraining(),)
        if self.phase is Phase.ANNOUNCING:
            return self._release("never published: bound passed", now)
        if self.phase is Phase.ACCEPTING:
            quiet_at = self._quiet_at()
            if quiet_at is not None and now >= quiet_at:
                return self._release("everyone acknowledged" if self._acknowledged else "nobody watches", now)
            return self._release("still called: bound passed" if self._complete_at is not None else "bound passed", now)
        if self.phase is Phase.FINISHING:
            return self._finish(now)
        self._note("the store did not answer in time")
        return self._end(now)

    def _asked(self, now: Mono) -> tuple[Effect, ...]:
        match self.phase:
            case Phase.SERVING:
                self._asked_at = self._since = now
                self._ended_before = self._counted.ended
                self._move(Move.ASK, now)
                told = (SayNotReady(), TellPeersToGo())
                if self._registered:
                    return (PublishDraining(), *told)
                self._live = {}
                return told + self._publish(0, now)
            case Phase.ANNOUNCING | Phase.ACCEPTING:
                self._hurried += 1
                return self._release("hurried", now)
            case Phase.FINISHING:
                self._hurried += 1
                return self._finish(now)
            case Phase.CLOSING:
                self._hurried += 1
                return self._end(now)
            case Phase.GONE:
                return ()

    def _publish(self, revision: int, now: Mono) -> tuple[Effect, ...]:
        self._move(Move.PUBLISH, now)
        self._revision, self._published_at = revision, now
        self._judge(now)
        return self.wake(now)

    def _watch(self, seen: Watched, now: Mono) -> tuple[Effect, ...]:
        if self.phase in {Phase.SERVING, Phase.ANNOUNCING, Phase.ACCEPTING}:
            self._live = dict(seen.revisions)
        if self.phase is not Phase.ACCEPTING:
            return ()
        self._judge(now)
        return self.wake(now)

    def _judge(self, now: Mono) -> None:
        """Who knows by now, and who of those still there does not."""
        if self._live is None:
            return
        missing = []
        for name, revision in self._live.items():
            if revision < self._revision:
                missing.append(name)
            elif name not in self._acknowledged and self._registered:
                self._acknowledged[name] = now - self._asked_at
        self._missing = tuple(sorted(missing))
        if missing:
            self._complete_at = None
        elif self._complete_at is None:
            self._complete_at = now

    def _count(self, counted: Counted, now: Mono) -> tuple[Effect, ...]:
        if self.phase is Phase.ACCEPTING and counted.started > self._counted.started:
            self._called_at = now
        self._counted = counted
        if self.phase is Phase.FINISHING and not counted.in_flight:
            return self._finish(now)
        return ()

    def _quiet_at(self) -> Mono | None:
        """When everybody has had time to go elsewhere, if nothing more happens; None while an acknowledgement is missing."""
        if self._complete_at is None:
            return None
        # Also where nobody watches: one may have come whose name is still on its way here.
        settled = self._complete_at + self.policy.settle_s
        if self._called_at is not None:
            settled = max(settled, self._called_at + self.policy.settle_s)
        return Mono(max(settled, self._published_at + self.policy.linger_s))

    def _release(self, why: str, now: Mono) -> tuple[Effect, ...]:
        if self.phase is Phase.ANNOUNCING:
            self._missing = tuple(sorted(self._live or ()))
        self._move(Move.RELEASE, now)
        self._why = why
        effects: tuple[Effect, ...] = (StopAccepting(),)
        return effects if self._counted.in_flight else effects + self._finish(now)

    def _finish(self, now: Mono) -> tuple[Effect, ...]:
        self._move(Move.FINISH, now)
        self._cut = self._counted.in_flight
        self._finished = self._counted.ended - self._ended_before
        effects: tuple[Effect, ...] = (Cut(self._cut), CloseIdle()) if self._cut else (CloseIdle(),)
        return (*effects, Revoke()) if self._registered else effects + self._end(now)

    def _end(self, now: Mono) -> tuple[Effect, ...]:
        self._move(Move.END, now)
        return (
            Finish(
                DrainProof(
                    why=self._why,
                    revision=self._revision,
                    acknowledged=tuple(self._acknowledged.items()),
                    missing=self._missing,
                    calls_finished=self._finished,
                    calls_cut=self._cut,
                    spans=tuple(self._spans),
                    took_s=now - self._asked_at,
                    grace_s=self.policy.grace_s,
                    hurried=self._hurried,
                    problems=tuple(self._problems),
                )
            ),
        )

    def _move(self, move: Move, now: Mono) -> None:
        after = MOVES[self.phase, move]
        if self.phase is not Phase.SERVING:
            self._spans.append((self.phase.value, now - self._since))
        self.phase, self._since = after, now

    def _note(self, problem: str) -> None:
        if problem and (not self._problems or self._problems[-1] != problem):
            self._problems = [*self._problems, problem][-PROBLEMS_MAX:]

    def _until(self, span_s: float) -> Mono:
        return Mono(self._asked_at + span_s)
