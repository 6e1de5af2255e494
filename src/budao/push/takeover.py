"""How a gateway's live connections pass to its successor process, so that each has exactly one owner at any time.

The old process stops reading (`Freeze`), sends sockets and states, and goes on owning them until the successor has said that it
holds them all. Only then does it say "yours", from which moment it never touches them again; and only then does the successor
begin. Whoever is lost before that word changes nothing: the old one goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from budao.model import Checks, Mono


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeoverPolicy:
    """How long each step may take.

    Units:   seconds.
    Raises:  BadSettings with every problem.
    """

    ready_s: float = 30.0
    """For the successor to connect to its log and to be ready; everybody is served meanwhile."""
    settle_s: float = 0.5
    """For what is written to leave, and for requests to be answered. Who is not done by then stays, and is told to come back."""
    send_s: float = 10.0
    """For everything to be sent and held."""
    take_s: float = 10.0
    """For the successor to begin, after "yours"."""
    rest_s: float = 5.0
    """For those who stay to be told to come back, before the old process ends."""
    batch_count: int = 120
    """Sockets in one message; the kernel takes 253 at most."""
    window: int = 8
    """Messages on their way."""

    def __post_init__(self) -> None:
        check = Checks("takeover")
        for name in ("ready_s", "settle_s", "send_s", "take_s", "rest_s"):
            check.number(name, getattr(self, name), 0.0, 3_600.0, open_low=True)
        check.count("batch_count", self.batch_count, 1, 253)
        check.count("window", self.window, 1, 1_000)
        check.done()


class Stage(Enum):
    """How far the giving has come."""

    OFFERED = "offered"
    """The listeners are with the successor as well, which makes itself ready; everybody is served here."""
    FREEZING = "freezing"
    """Nothing is read any more; what is under way is finished."""
    SENDING = "sending"
    GIVEN = "given"
    """"Yours" is said: the connections belong to the successor, which has not answered yet."""
    DONE = "done"
    """The successor serves them."""
    KEPT = "kept"
    """It came to nothing, and this process goes on serving everybody."""
    LOST = "lost"
    """The successor was lost after "yours": what it had is cut here as well, and clients come back."""


class Step(Enum):
    """What takes it to its next stage."""

    READY = "ready"
    SETTLE = "settle"
    HOLD = "hold"
    TAKE = "take"
    FAIL = "fail"
    MISS = "miss"
    """The successor cannot have heard "yours"."""


STEPS: Final[Mapping[tuple[Stage, Step], Stage]] = MappingProxyType(
    {
        (Stage.OFFERED, Step.READY): Stage.FREEZING,
        (Stage.OFFERED, Step.FAIL): Stage.KEPT,
        (Stage.FREEZING, Step.SETTLE): Stage.SENDING,
        (Stage.FREEZING, Step.FAIL): Stage.KEPT,
        (Stage.SENDING, Step.HOLD): Stage.GIVEN,
        (Stage.SENDING, Step.FAIL): Stage.KEPT,
        (Stage.GIVEN, Step.TAKE): Stage.DONE,
        (Stage.GIVEN, Step.FAIL): Stage.LOST,
        (Stage.GIVEN, Step.MISS): Stage.KEPT,
    }
)


@dataclass(frozen=True, slots=True)
class SuccessorReady:
    """Fact: the successor can serve."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Fact: so many frozen connections have nothing under way any more, and so many have."""

    quiet: int
    busy: int


@dataclass(frozen=True, slots=True)
class Batched:
    """Fact: this is how many messages it takes; said after `SendAll`."""

    batches: int
    connections: int


@dataclass(frozen=True, slots=True)
class BatchHeld:
    """Fact: the successor holds the message of this number, from 0, in order."""

    number: int


@dataclass(frozen=True, slots=True)
class Took:
    """Fact: the successor serves what it was given; so many it could not bring to life."""

    served: int
    failed: int = 0


@dataclass(frozen=True, slots=True)
class SuccessorLost:
    """Fact: the successor closed its connection, died, or said something that makes no sense."""

    problem: str


@dataclass(frozen=True, slots=True)
class NotHeard:
    """Fact: "yours" could not be sent, since nobody was there any more. So nobody has touched anything."""

    problem: str


@dataclass(frozen=True, slots=True)
class Freeze:
    """Effect: accept nobody, read nothing, write nothing new; tell with `Settled` how they get on."""


@dataclass(frozen=True, slots=True)
class SendAll:
    """Effect: see who is quiet, share them out among messages, and say `Batched`."""


@dataclass(frozen=True, slots=True)
class SendBatch:
    """Effect: export those of the message of this number, and send it."""

    number: int


@dataclass(frozen=True, slots=True)
class SayYours:
    """Effect: tell the successor that everything it holds is its own. Nothing here touches it from now on."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Effect: close our ends of what was given, without a word to the clients."""


@dataclass(frozen=True, slots=True)
class SendAway:
    """Effect: tell who is still here to come back now; the process ends by `within_s`."""

    within_s: float


@dataclass(frozen=True, slots=True)
class Resume:
    """Effect: serve everybody again, as if nothing had happened, and say why to whoever asked."""

    problem: str


@dataclass(frozen=True, slots=True)
class Abandon:
    """Effect: cut what was given, since nobody can know how far the successor came; serve the others again."""

    problem: str


Fact = SuccessorReady | Settled | Batched | BatchHeld | Took | SuccessorLost | NotHeard
Effect = Freeze | SendAll | SendBatch | SayYours | Forget | SendAway | Resume | Abandon


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeoverProof:
    """What a take-over can show for itself."""

    stage: Stage
    given: int
    failed: int
    stayed: int
    """Connections that could not be moved: encrypted, or not quiet in time."""
    frozen_s: float
    """How long nobody read: from the freeze until the successor served, or this process went on."""
    took_s: float
    problem: str = ""

    def __str__(self) -> str:
        """One line of `key=value`."""
        said = f"stage={self.stage.value} given={self.given} failed={self.failed} stayed={self.stayed}"
        said += f" frozen_s={self.frozen_s:.3f} took_s={self.took_s:.3f}"
        return said + (
            ' problem="{}"'.format(self.problem.replace('"', "'").replace("\n", " ")) if self.problem else ""
        )


class Giving:
    """The old side of one take-over."""

    def __init__(self, policy: TakeoverPolicy, now: Mono, *, stays: int = 0) -> None:
        self.policy = policy
        self.stage = Stage.OFFERED
        self.stayed = stays
        self._began = now
        self._due: Mono | None = Mono(now + policy.ready_s)
        self._frozen_at: Mono | None = None
        self._thawed_at: Mono | None = None
        self._ended: Mono | None = None
        self._batches = 0
        self._given = 0
        self._failed = 0
        self._sent = 0
        self._held = 0
        self._problem = ""

    @property
    def is_over(self) -> bool:
        """Whether it has come to an end, good or bad."""
        return self.stage in {Stage.DONE, Stage.KEPT, Stage.LOST}

    def proof(self, now: Mono) -> TakeoverProof:
        """How it stands, or how it ended."""
        frozen_s = 0.0
        if self._frozen_at is not None:
            frozen_s = (now if self._thawed_at is None else self._thawed_at) - self._frozen_at
        return TakeoverProof(
            stage=self.stage,
            given=self._given if self.stage in {Stage.DONE, Stage.GIVEN, Stage.LOST} else 0,
            failed=self._failed,
            stayed=self.stayed,
            frozen_s=frozen_s,
            took_s=(now if self._ended is None else self._ended) - self._began,
            problem=self._problem,
        )

    def handle(self, fact: Fact, now: Mono) -> tuple[Effect, ...]:
        """Something happened. What does not fit the stage is a mistake of the successor, and ends it."""
        if self.is_over:
            return ()
        match fact:
            case SuccessorLost():
                return self._fail(fact.problem, now)
            case NotHeard() if self.stage is Stage.GIVEN:
                return self._fail(fact.problem, now, Step.MISS)
            case SuccessorReady() if self.stage is Stage.OFFERED:
                self._step(Step.READY)
                self._frozen_at = now
                self._due = Mono(now + self.policy.settle_s)
                return (Freeze(),)
            case Settled() if self.stage is Stage.FREEZING:
                return self._send(now) if not fact.busy else ()
            case Settled():
                return ()  # told once more on the way
            case Batched() if self.stage is Stage.SENDING and not self._batches:
                self._batches, self._given = fact.batches, fact.connections
                return self._go_on() if fact.batches else self._give(now)
            case BatchHeld() if self.stage is Stage.SENDING and fact.number == self._held < self._sent:
                self._held += 1
                return self._give(now) if self._held == self._batches else self._go_on()
            case Took() if self.stage is Stage.GIVEN:
                self._step(Step.TAKE)
                self._failed = fact.failed
                self._end(now)
                return (Forget(), SendAway(self.policy.rest_s))
        return self._fail(f"{type(fact).__name__} does not fit here: the take-over was {self.stage.value}", now)

    def wake_at(self) -> Mono | None:
        """When something is due even if nothing happens."""
        return self._due

    def wake(self, now: Mono) -> tuple[Effect, ...]:
        """Time has passed."""
        if self._due is None or now < self._due:
            return ()
        if self.stage is Stage.FREEZING:
            return self._send(now)
        bound = {
            Stage.OFFERED: f"ready within {self.policy.ready_s:g} s",
            Stage.SENDING: f"done with receiving within {self.policy.send_s:g} s",
            Stage.GIVEN: f"serving within {self.policy.take_s:g} s",
        }[self.stage]
        return self._fail(f"the successor was not {bound}", now)

    def _send(self, now: Mono) -> tuple[Effect, ...]:
        self._step(Step.SETTLE)
        self._due = Mono(now + self.policy.send_s)
        return (SendAll(),)

    def _go_on(self) -> tuple[Effect, ...]:
        until = min(self._batches, self._held + self.policy.window)
        effects = tuple(map(SendBatch, range(self._sent, until)))
        self._sent = max(self._sent, until)
        return effects

    def _give(self, now: Mono) -> tuple[Effect, ...]:
        self._step(Step.HOLD)
        self._due = Mono(now + self.policy.take_s)
        return (SayYours(),)

    def _fail(self, problem: str, now: Mono, step: Step = Step.FAIL) -> tuple[Effect, ...]:
        self._step(step)
        self._problem = problem
        self._end(now)
        return (Abandon(problem) if self.stage is Stage.LOST else Resume(problem),)

    def _end(self, now: Mono) -> None:
        self._due = None
        self._ended = now
        if self._frozen_at is not None:
            self._thawed_at = now

    def _step(self, step: Step) -> None:
        self.stage = STEPS[self.stage, step]
