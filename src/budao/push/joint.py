"""What is done about a connection that is lost, blocked, or both: rules as data, and a machine that applies them.

*lost*: three pings in a row were late. *blocked*: the kernel's send buffer, or our own outbox, is as good as full. *retrying*:
the kernel sends again what was not acknowledged, so there is a path and it is bad. The first rule of the table that fits holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, TypeVar

from budao.model import Checks, Mono

C = TypeVar("C")


class Treatment(Enum):
    """What is done."""

    NONE = "none"
    BACK_OFF = "back off"
    """Nothing more is put behind what is already waiting, for a while."""
    PARK = "park"
    """It leaves the connections that are written to, keeps its place, and nothing of it grows."""
    CUT = "cut"
    """It ends, with 4103 `blocked`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line of the table. None of a condition: it does not matter.

    Units:   seconds.
    """

    treatment: Treatment
    lost: bool | None = None
    blocked: bool | None = None
    retrying: bool | None = None
    within_s: float = 0.0
    """The treatment begins this long after the rule began to fit, at the latest, and not before half of it: what passes by
    itself is left alone."""
    lasts_s: float = 0.0
    """It lasts at least so long once it began."""

    def __post_init__(self) -> None:
        check = Checks("rule")
        check.number("within_s", self.within_s, 0.0, 3_600.0)
        check.number("lasts_s", self.lasts_s, 0.0, 3_600.0)
        check.done()

    def fits(self, lost: bool, blocked: bool, retrying: bool) -> bool:
        return (
            (self.lost is None or self.lost is lost)
            and (self.blocked is None or self.blocked is blocked)
            and (self.retrying is None or self.retrying is retrying)
        )


RULES: Final = (
    Rule(lost=True, blocked=True, treatment=Treatment.CUT, within_s=0.2),
    Rule(lost=True, treatment=Treatment.PARK, within_s=0.5, lasts_s=0.5),
    Rule(blocked=True, retrying=False, treatment=Treatment.PARK, within_s=0.5, lasts_s=0.5),
    Rule(blocked=True, retrying=True, treatment=Treatment.BACK_OFF, within_s=0.2, lasts_s=1.0),
)
"""The rules of the design. What none of them fits is left alone."""


@dataclass(frozen=True, slots=True)
class Cut(Generic[C]):
    """Effect: end it at once, with 4103 `blocked`. The machine has forgotten it."""

    connection: C


@dataclass(frozen=True, slots=True)
class Park(Generic[C]):
    """Effect: write nothing more to it; it keeps its place."""

    connection: C


@dataclass(frozen=True, slots=True)
class PauseCatchUp(Generic[C]):
    """Effect: do not catch up before it is released."""

    connection: C


@dataclass(frozen=True, slots=True)
class Release(Generic[C]):
    """Effect: it may catch up and flow again."""

    connection: C


JointEffect = Cut[C] | Park[C] | PauseCatchUp[C] | Release[C]


_STRENGTH: Final = {Treatment.NONE: 0, Treatment.BACK_OFF: 1, Treatment.PARK: 2, Treatment.CUT: 3}
CALM_S: Final = 0.3
"""What is treated must have been well for so long before it is released."""


class _Doubt:
    """One connection that is not well, or was not a moment ago."""

    __slots__ = ("blocked", "due", "ill_since", "lost", "retrying", "treatment", "until", "well_since")

    def __init__(self) -> None:
        self.lost = self.blocked = self.retrying = False
        self.treatment = Treatment.NONE
        self.ill_since: Mono | None = None
        """Since when a stronger treatment than the present one is called for."""
        self.well_since: Mono | None = None
        """Since when no rule fits."""
        self.until = Mono(0.0)
        """The treatment lasts until then at least."""
        self.due: Mono | None = None
        """When it must be looked at again, though nothing is told."""


class Joint(Generic[C]):
    """Applies the rules to the connections of a gateway.

    A treatment only grows stronger while any rule fits, and ends by a release, once nothing fitted for `CALM_S` and it lasted as
    long as its rule says: a connection that flaps between two rules is treated steadily.

    Cost: nothing for a connection that is well; one object for one that is not, and a visit per wake while something is due.
    """

    def __init__(self, rules: tuple[Rule, ...] = RULES) -> None:
        self.rules = rules
        self._doubts: dict[C, _Doubt] = {}
        self._due: dict[C, _Doubt] = {}
        self._wake_at: Mono | None = None
        self.ordered = dict.fromkeys(Treatment, 0)
        """How often each treatment began; `NONE` counts releases."""

    def __len__(self) -> int:
        """Connections in doubt."""
        return len(self._doubts)

    def treatment_of(self, connection: C) -> Treatment:
        doubt = self._doubts.get(connection)
        return Treatment.NONE if doubt is None else doubt.treatment

    def is_doubtful(self, connection: C) -> bool:
        return connection in self._doubts

    def is_held(self, connection: C) -> bool:
        """Whether it is parked, or pauses."""
        return self.treatment_of(connection) is not Treatment.NONE

    def tell(
        self,
        connection: C,
        now: Mono,
        *,
        lost: bool | None = None,
        blocked: bool | None = None,
        retrying: bool | None = None,
    ) -> tuple[JointEffect[C], ...]:
        """What is true of a connection now. None: as it was."""
        doubt = self._doubts.get(connection)
        if doubt is None:
            if not (lost or blocked):  # no rule fits one that is neither; `retrying` alone is the kernel's own affair
                return ()
            doubt = self._doubts[connection] = _Doubt()
        if lost is not None:
            doubt.lost = lost
        if blocked is not None:
            doubt.blocked = blocked
        if retrying is not None:
            doubt.retrying = retrying
        return self._judge(connection, doubt, now)

    def forget(self, connection: C) -> None:
        """It ended."""
        self._doubts.pop(connection, None)
        self._due.pop(connection, None)

    def wake_at(self) -> Mono | None:
        """When time alone may change something. It may be too early, never too late."""
        return self._wake_at if self._due else None

    def wake(self, now: Mono) -> tuple[JointEffect[C], ...]:
        """What time alone has changed."""
        if not self._due or self._wake_at is None or now < self._wake_at:
            return ()
        effects: tuple[JointEffect[C], ...] = ()
        for connection, doubt in tuple(self._due.items()):
            if doubt.due is not None and now >= doubt.due:
                effects += self._judge(connection, doubt, now)
        self._wake_at = min((doubt.due for doubt in self._due.values() if doubt.due is not None), default=None)
        return effects

    def _judge(self, connection: C, doubt: _Doubt, now: Mono) -> tuple[JointEffect[C], ...]:
        rule = next((each for each in self.rules if each.fits(doubt.lost, doubt.blocked, doubt.retrying)), None)
        if rule is None or rule.treatment is Treatment.NONE:
            return self._well(connection, doubt, now)
        doubt.well_since = None
        if _STRENGTH[rule.treatment] <= _STRENGTH[doubt.treatment]:
            doubt.ill_since = None
            self._look_again(connection, doubt, None)
            return ()
        if doubt.ill_since is None:
            doubt.ill_since = now
        begins_at = Mono(doubt.ill_since + rule.within_s / 2)
        if now < begins_at:
            self._look_again(connection, doubt, begins_at)
            return ()
        doubt.treatment = rule.treatment
        doubt.ill_since = None
        doubt.until = Mono(now + rule.lasts_s)
        self.ordered[rule.treatment] += 1
        self._look_again(connection, doubt, None)
        if rule.treatment is Treatment.CUT:
            self.forget(connection)
            return (Cut(connection),)
        return (Park(connection) if rule.treatment is Treatment.PARK else PauseCatchUp(connection),)

    def _well(self, connection: C, doubt: _Doubt, now: Mono) -> tuple[JointEffect[C], ...]:
        doubt.ill_since = None
        if doubt.treatment is Treatment.NONE:
            self.forget(connection)
            return ()
        if doubt.well_since is None:
            doubt.well_since = now
        ends_at = Mono(max(doubt.until, doubt.well_since + CALM_S))
        if now < ends_at:
            self._look_again(connection, doubt, ends_at)
            return ()
        self.ordered[Treatment.NONE] += 1
        self.forget(connection)
        return (Release(connection),)

    def _look_again(self, connection: C, doubt: _Doubt, at: Mono | None) -> None:
        doubt.due = at
        if at is None:
            self._due.pop(connection, None)
            return
        self._due[connection] = doubt
        if self._wake_at is None or len(self._due) == 1 or at < self._wake_at:
            self._wake_at = at


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPolicy:
    """When a connection counts as blocked.

    Units:   shares of the send buffer of its socket (SO_SNDBUF).
    Raises:  BadSettings with every problem.
    """

    full_share: float = 0.9
    """Blocked from here."""
    free_share: float = 0.7
    """And until here."""

    def __post_init__(self) -> None:
        check = Checks("block")
        check.number("full_share", self.full_share, 0.0, 1.0, open_low=True)
        check.number("free_share", self.free_share, 0.0, 1.0)
        if not check.problems:
            check.need(
                self.free_share < self.full_share,
                "free_share",
                f"{self.free_share:g} is not below full_share, {self.full_share:g}",
            )
        check.done()


def is_blocked(
    was_blocked: bool, queued_bytes: int, buffer_bytes: int, is_outbox_full: bool, policy: BlockPolicy
) -> bool:
    """Whether a connection counts as blocked, given whether it did.

    Units:   `queued_bytes` is what the kernel holds for the peer, counted as the kernel counts it against `buffer_bytes`.
    """
    if is_outbox_full:
        return True
    share = queued_bytes / buffer_bytes if buffer_bytes > 0 else 0.0
    return share >= (policy.free_share if was_blocked else policy.full_share)
