"""How a gateway leaves so that no client misses anything, and how it proves it.

It says that it is not ready, then tells its clients, one cohort after the other and paced, to open another gateway beside this
one. It lets go of a client when that one has left by itself, or when its time to do so is over. Every wait has a bound, and all
bounds come from one grace period.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import ceil
from types import MappingProxyType
from typing import Final

from budao.model import Checks, Mono

MOVE_SHARE: Final = 0.85
"""Of the grace: everybody is told, and has had the time to move. What is left by then is cut."""
END_SHARE: Final = 0.95
"""Of the grace: the leave is over, whatever the state. The rest is for the process to end."""
LAG_SHARE: Final = 0.2
LAG_MAX_S: Final = 5.0
"""Assumed where nobody says how late newcomers learn that it is not ready: a fifth of the grace, and no more than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeavingPolicy:
    """How fast clients are told to go, and how long each part may take.

    Units:   seconds; shares from 0 to 1; clients per second.
    Raises:  BadSettings with every problem.
    """

    grace_s: float = 30.0
    """From the order to leave until the process is killed."""
    lag_s: float | None = None
    """How long newcomers may still be sent here by those who have not learned of it: load balancers, caches of names. None
    assumes a fifth of the grace, 5 s at most."""
    cohort_share: float = 0.1
    """Of those here at the order: how many are on the move at once. More, where the grace would not do otherwise."""
    cohort_max: int = 1_000
    """And no more than this, while the grace allows."""
    moves_per_s: float = 1_000.0
    """How fast they are told. Faster, where the grace would not do otherwise."""
    within_s: float = 5.0
    """How long a client may take to move."""
    back_s: float = 1.0
    """Where there is no other gateway: the earliest time to come back, which should be when the next process serves."""

    def __post_init__(self) -> None:
        check = Checks("leaving")
        check.number("grace_s", self.grace_s, 0.1, 86_400.0)
        if self.lag_s is not None:
            check.number("lag_s", self.lag_s, 0.0, 86_400.0)
        check.number("cohort_share", self.cohort_share, 0.0, 1.0, open_low=True)
        check.count("cohort_max", self.cohort_max, 1, 1_000_000)
        check.number("moves_per_s", self.moves_per_s, 0.0, 1e6, open_low=True)
        check.number("within_s", self.within_s, 0.0, 3_600.0, open_low=True)
        check.number("back_s", self.back_s, 0.0, 3_600.0)
        if not check.problems and self.lag_s is not None:
            check.need(
                self.lag_s <= self.move_s,
                "lag_s",
                f"{self.lag_s:g} s do not fit in the {self.move_s:g} s that a grace of {self.grace_s:g} s leaves",
            )
        check.done()

    @property
    def move_s(self) -> float:
        """From the order until those still here are cut."""
        return self.grace_s * MOVE_SHARE

    @property
    def end_s(self) -> float:
        """From the order until the leave is over."""
        return self.grace_s * END_SHARE

    @property
    def linger_s(self) -> float:
        """How long newcomers are accepted at least."""
        return min(LAG_MAX_S, self.grace_s * LAG_SHARE) if self.lag_s is None else self.lag_s

    def explain(self) -> str:
        """Where each number comes from, a line for each."""
        known = "assumed, since nobody said" if self.lag_s is None else "as told"
        share, pace = f"{self.cohort_share:.0%}", f"{self.moves_per_s:g}"
        return "\n".join(
            (
                f"grace      {self.grace_s:g} s, then the process is killed",
                f"lingering  at least {self.linger_s:g} s for newcomers who do not know yet ({known})",
                f"cohorts    {share} of the clients at once, at most {self.cohort_max}, and more where the grace needs it",
                f"pace       {pace} told per second, and faster where the grace needs it",
                f"moving     {self.within_s:g} s for each client; whoever is left is cut {self.move_s:g} s after the order",
                f"ending     {self.end_s:g} s after the order ({END_SHARE:.0%}), whatever the state",
            )
        )


@dataclass(frozen=True, slots=True)
class Target:
    """Another gateway that clients can be sent to. `weight` is how much room it has, beside that of the others."""

    name: str
    url: str
    weight: float = 1.0


class LeavingStage(Enum):
    """How far the leave has come."""

    SERVING = "serving"
    MOVING = "moving"
    """Not ready any more; clients are told to move, cohort by cohort."""
    CLOSING = "closing"
    """Nobody is accepted; those who are left have been told to come back elsewhere, and go."""
    GONE = "gone"


class Leave(Enum):
    """What takes it to its next stage."""

    ASK = "ask"
    CLOSE = "close"
    END = "end"


LEAVES: Final[Mapping[tuple[LeavingStage, Leave], LeavingStage]] = MappingProxyType(
    {
        (LeavingStage.SERVING, Leave.ASK): LeavingStage.MOVING,
        (LeavingStage.MOVING, Leave.CLOSE): LeavingStage.CLOSING,
        (LeavingStage.CLOSING, Leave.END): LeavingStage.GONE,
    }
)


@dataclass(frozen=True, slots=True)
class Asked:
    """Fact: this gateway is told to leave. Said again, it means hurry: whoever is left is cut."""


@dataclass(frozen=True, slots=True)
class Came:
    """Fact: a connection that can be moved is here. `key` is whatever names it to the shell."""

    key: Hashable


@dataclass(frozen=True, slots=True)
class Went:
    """Fact: it is gone, whoever ended it."""

    key: Hashable


@dataclass(frozen=True, slots=True)
class Targets:
    """Fact: these are the other gateways now."""

    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class SayNotReady:
    """Effect: answer readiness probes with no."""


@dataclass(frozen=True, slots=True)
class TellToMove:
    """Effect: send `Move` with a ticket for the target. Where there is one connection only (SSE), end it behind that."""

    key: Hashable
    target: Target
    within_s: float


@dataclass(frozen=True, slots=True)
class TellToReturn:
    """Effect: there is nowhere to go. Say `Bye` 4201, to come back after so long; each gets a slot of its own."""

    key: Hashable
    after_s: float


@dataclass(frozen=True, slots=True)
class LetGo:
    """Effect: its time to move is over. Say `Bye` 4100 and end it."""

    key: Hashable


@dataclass(frozen=True, slots=True)
class CutAll:
    """Effect: accept nobody any more; say `Bye` 1001 to everybody who is still here, and end them."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Effect: that was it."""

    proof: LeavingProof


Fact = Asked | Came | Went | Targets
Effect = SayNotReady | TellToMove | TellToReturn | LetGo | CutAll | Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class LeavingProof:
    """What a leave can show for itself, so far or in the end.

    Units:   spans in seconds; everything else counts connections.
    """

    stage: LeavingStage
    here: int
    """At the order."""
    came: int
    """After the order."""
    told: int
    moved: int
    """Left by themselves within their time."""
    late: int
    """Had to be let go when their time was over."""
    returned: int
    """Told to come back later, since there was no other gateway."""
    left: int
    """Ended before they were told anything."""
    cut: int
    """Still here at the end."""
    cohorts: int
    targets: tuple[tuple[str, int], ...]
    """How many were sent to each other gateway, by its name."""
    took_s: float
    grace_s: float
    hurried: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether everybody moved in time."""
        return not (self.late or self.cut or self.returned)

    def __str__(self) -> str:
        """One line of `key=value`."""
        names = ("here", "came", "told", "moved", "late", "returned", "left", "cut", "cohorts")
        to = ",".join(f"{_plain(name)}:{count}" for name, count in self.targets) or "-"
        parts = [f"stage={self.stage.value}", *(f"{name}={getattr(self, name)}" for name in names), f"targets={to}"]
        return " ".join([*parts, f"took_s={self.took_s:.3f}", f"grace_s={self.grace_s:g}", f"hurried={self.hurried}"])


class Leaving:
    """The machine of one leave. It hears of every connection that is there before it is asked, and then of who comes and goes.

    Cost:    an entry of a dict for each connection, and one comparison for each target when one is told.
    """

    def __init__(self, policy: LeavingPolicy) -> None:
        self.policy = policy
        self.stage = LeavingStage.SERVING
        self._waiting: dict[Hashable, None] = {}
        """Not told yet, the oldest first."""
        self._moving: dict[Hashable, Mono] = {}
        """Told, each with the end of its time; these ends only grow."""
        self._late: set[Hashable] = set()
        """Let go, and not gone yet."""
        self._cohort: deque[Hashable] = deque()
        """Of the cohort on the move: who is still to be told."""
        self._told_of_cohort = 0
        self._cohort_at = Mono(0.0)
        self._pace = policy.moves_per_s
        self._targets: tuple[Target, ...] = ()
        self._sent: dict[str, int] = {}
        self._asked_at = Mono(0.0)
        self._ended_at: Mono | None = None
        self._counts = dict.fromkeys(("here", "came", "told", "moved", "late", "returned", "left", "cut", "cohorts"), 0)
        self._hurried = 0

    def __len__(self) -> int:
        """How many are here."""
        return len(self._waiting) + len(self._moving) + len(self._late)

    def proof(self, now: Mono) -> LeavingProof:
        """How it stands, or how it ended."""
        took_s = 0.0
        if self.stage is not LeavingStage.SERVING:
            took_s = (now if self._ended_at is None else self._ended_at) - self._asked_at
        counts = self._counts if self.stage is not LeavingStage.SERVING else {**self._counts, "here": len(self)}
        return LeavingProof(
            stage=self.stage,
            **counts,
            targets=tuple(sorted(self._sent.items())),
            took_s=took_s,
            grace_s=self.policy.grace_s,
            hurried=self._hurried,
        )

    def handle(self, fact: Fact, now: Mono) -> tuple[Effect, ...]:
        """Something happened."""
        match fact:
            case Came():
                self._waiting[fact.key] = None
                if self.stage is not LeavingStage.SERVING:
                    self._counts["came"] += 1
                return self._go_on(now) if self.stage is LeavingStage.MOVING else ()
            case Went():
                self._went(fact.key)
                return self._go_on(now)
            case Targets():
                self._targets = fact.targets
            case Asked():
                return self._asked(now)
        return ()

    def wake_at(self) -> Mono | None:
        """When something is due even if nothing happens."""
        if self.stage is LeavingStage.CLOSING:
            return Mono(self._asked_at + self.policy.end_s)
        if self.stage is not LeavingStage.MOVING:
            return None
        due = self._asked_at + self.policy.move_s
        lingers_until = self._asked_at + self.policy.linger_s
        if not len(self):
            return Mono(min(due, lingers_until))
        if self._moving:
            due = min(due, next(iter(self._moving.values())))
        if self._cohort:
            due = min(due, self._next_at())
        return Mono(due)

    def wake(self, now: Mono) -> tuple[Effect, ...]:
        """Time has passed; one late wake does all that was due by then."""
        due = self.wake_at()
        return self._go_on(now) if due is not None and now >= due else ()

    def _asked(self, now: Mono) -> tuple[Effect, ...]:
        match self.stage:
            case LeavingStage.SERVING:
                self._counts["here"] = len(self)
                self._asked_at = now
                self.stage = LEAVES[self.stage, Leave.ASK]
                return (SayNotReady(), *self._go_on(now))
            case LeavingStage.MOVING:
                self._hurried += 1
                return self._close(now)
            case LeavingStage.CLOSING:
                self._hurried += 1
                return self._end(now)
            case LeavingStage.GONE:
                return ()

    def _went(self, key: Hashable) -> None:
        is_leaving = self.stage is not LeavingStage.SERVING
        if self._moving.pop(key, None) is not None:
            self._counts["moved"] += self.stage is LeavingStage.MOVING
        elif key in self._waiting:
            del self._waiting[key]  # those of the cohort who are not told yet are looked up when their turn comes
            self._counts["left"] += is_leaving
        else:
            self._late.discard(key)

    def _go_on(self, now: Mono) -> tuple[Effect, ...]:
        """Does what is due, in the only order that makes sense: let go, tell, close, end."""
        if self.stage is LeavingStage.CLOSING:
            return self._end(now) if not len(self) or now >= self._asked_at + self.policy.end_s else ()
        if self.stage is not LeavingStage.MOVING:
            return ()
        if now >= self._asked_at + self.policy.move_s or (
            not len(self) and now >= self._asked_at + self.policy.linger_s
        ):
            return self._close(now)
        effects: list[Effect] = []
        for key in [key for key, until in _while_due(self._moving, now)]:
            del self._moving[key]
            self._late.add(key)
            self._counts["late"] += 1
            effects.append(LetGo(key))
        if not self._cohort and not self._moving and self._waiting:
            self._begin_cohort(now)
        while self._cohort and now >= self._next_at():
            key = self._cohort.popleft()
            if key in self._waiting:
                del self._waiting[key]
                self._told_of_cohort += 1
                effects.append(self._tell(key, now))
        if not self._cohort and not self._moving and self._waiting:
            # The whole cohort left before it was told.
            return (*effects, *self._go_on(now))
        return tuple(effects)

    def _begin_cohort(self, now: Mono) -> None:
        policy, waiting = self.policy, len(self._waiting)
        left_s = self._asked_at + policy.move_s - now
        wanted = min(policy.cohort_max, max(1, ceil(policy.cohort_share * self._counts["here"])))
        # If every client took all of its time, so many cohorts would still fit.
        fit = max(1, int(left_s / (policy.within_s + wanted / policy.moves_per_s)))
        size = max(wanted, ceil(waiting / fit))
        self._cohort = deque(key for key, _ in zip(self._waiting, range(size), strict=False))
        self._pace = max(policy.moves_per_s, 2.0 * waiting / left_s)
        self._cohort_at, self._told_of_cohort = now, 0
        self._counts["cohorts"] += 1

    def _next_at(self) -> float:
        """When the next one of the cohort is told."""
        return self._cohort_at + self._told_of_cohort / self._pace

    def _tell(self, key: Hashable, now: Mono) -> Effect:
        self._counts["told"] += 1
        if not self._targets:
            self._counts["returned"] += 1
            self._late.add(key)
            # The slots go on over all cohorts, so that the next process is not met by everybody at once.
            return TellToReturn(key, self.policy.back_s + self._counts["returned"] / self._pace)
        sent = self._sent
        target = min(self._targets, key=lambda each: (sent.get(each.name, 0) + 1) / max(each.weight, 1e-9))
        sent[target.name] = sent.get(target.name, 0) + 1
        within_s = min(self.policy.within_s, self._asked_at + self.policy.move_s - now)
        self._moving[key] = Mono(now + within_s)
        return TellToMove(key, target, within_s)

    def _close(self, now: Mono) -> tuple[Effect, ...]:
        self._counts["cut"] = len(self._waiting) + len(self._moving)
        self.stage = LEAVES[self.stage, Leave.CLOSE]
        self._cohort.clear()
        return (CutAll(), *self._go_on(now))

    def _end(self, now: Mono) -> tuple[Effect, ...]:
        self.stage = LEAVES[self.stage, Leave.END]
        self._ended_at = now
        return (Finish(self.proof(now)),)


def _while_due(moving: Mapping[Hashable, Mono], now: Mono) -> list[tuple[Hashable, Mono]]:
    """Those at the front whose time is over."""
    due = []
    for key, until in moving.items():
        if until > now:
            break
        due.append((key, until))
    return due


def _plain(name: str) -> str:
    """A name that stays one word in a line."""
    return "".join(each if each.isprintable() and each not in ' ,"=:' else "_" for each in name)
