"""One budget for leaving: every bound of a drain derives from the grace period."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from budao.model import Checks

ACCEPT_SHARE = 0.55
"""Of the grace: going on accepting while callers learn that the instance leaves. The largest share, since a call refused
here costs a caller, while a call that is cut costs one too but is rarely that long."""
CLOSE_SHARE = 0.05
"""Of the grace, and no more than `CLOSE_MAX_S`: closing what is open, and taking the instance off the store."""
EXIT_SHARE = 0.05
"""Of the grace, and no more than `CLOSE_MAX_S`: what the process needs to end once the drain has."""
CLOSE_MAX_S = 2.0
LAG_SHARE = 0.2
"""Of the grace, and no more than `LAG_MAX_S`: what is assumed where nobody says how late others learn of it."""
LAG_MAX_S = 5.0
SETTLE_SHARE = 0.02
"""Of the grace, and no more than `SETTLE_MAX_S`: the way of a call that was sent just before its caller knew."""
SETTLE_MAX_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainPolicy:
    """How long each part of leaving may take.

    Units:   seconds.
    Raises:  BadSettings if the grace is too short for the lag.
    """

    grace_s: float = 30.0
    """From the order to leave until the process is killed: `terminationGracePeriodSeconds` less any `preStop` hook."""
    lag_s: float | None = None
    """How late those who do not watch the store learn of it: load balancers, kube-proxy, caches of names. None where it is
    not known, and then a fifth of the grace is assumed, 5 s at most; 0.0 where every caller watches."""

    def __post_init__(self) -> None:
        check = Checks("drain")
        check.number("grace_s", self.grace_s, 0.1, 86_400.0)
        if self.lag_s is not None:
            check.number("lag_s", self.lag_s, 0.0, 86_400.0)
        if not check.problems and self.lag_s is not None:
            room_s = self.accept_s - self.settle_s
            check.need(
                self.lag_s <= room_s,
                "lag_s",
                f"{self.lag_s:g} s do not fit in the {room_s:g} s that a grace of {self.grace_s:g} s leaves for accepting;"
                f" a grace of {self.lag_s / (ACCEPT_SHARE - SETTLE_SHARE) + 0.05:.1f} s is enough",
            )
        check.done()

    @classmethod
    def of(cls, grace_s: float, *, lag_s: float | None = None) -> DrainPolicy:
        """Everything from the grace period, and the lag where it is known."""
        return cls(grace_s=grace_s, lag_s=lag_s)

    @property
    def accept_s(self) -> float:
        """How long calls are still accepted at most, acknowledged or not."""
        return self.grace_s * ACCEPT_SHARE

    @property
    def linger_s(self) -> float:
        """How long calls are still accepted at least, for those who do not watch."""
        return min(LAG_MAX_S, self.grace_s * LAG_SHARE) if self.lag_s is None else self.lag_s

    @property
    def settle_s(self) -> float:
        """How long it must be quiet after the last acknowledgement and the last new call."""
        return min(SETTLE_MAX_S, self.grace_s * SETTLE_SHARE)

    @property
    def again_s(self) -> float:
        """The pause before the store is asked again after it was away."""
        return self.accept_s / 20

    @property
    def close_s(self) -> float:
        return min(CLOSE_MAX_S, self.grace_s * CLOSE_SHARE)

    @property
    def exit_s(self) -> float:
        return min(CLOSE_MAX_S, self.grace_s * EXIT_SHARE)

    @property
    def cut_s(self) -> float:
        """From the order to leave until calls that still run are cut."""
        return self.grace_s - self.close_s - self.exit_s

    @property
    def end_s(self) -> float:
        """From the order to leave until the drain is over, whatever the state."""
        return self.grace_s - self.exit_s

    @property
    def finish_s(self) -> float:
        """What calls in flight have at least, after the last one was accepted; all that was not used before is added."""
        return self.cut_s - self.accept_s

    def explain(self) -> str:
        """Where each number comes from, a line for each."""
        known = "assumed, since nobody said" if self.lag_s is None else "as told"
        return "\n".join(
            (
                f"grace      {self.grace_s:g} s, then the process is killed",
                f"accepting  at most {self.accept_s:g} s ({ACCEPT_SHARE:.0%}), until every watcher has acknowledged",
                f"lingering  at least {self.linger_s:g} s of these, for callers that do not watch ({known})",
                f"settling   {self.settle_s:g} s after the last acknowledgement and the last new call",
                f"finishing  at least {self.finish_s:g} s, and all that accepting leaves: cut {self.cut_s:g} s after the order",
                f"closing    {self.close_s:g} s ({CLOSE_SHARE:.0%}, at most {CLOSE_MAX_S:g} s), the lease revoked",
                f"exiting    {self.exit_s:g} s ({EXIT_SHARE:.0%}, at most {CLOSE_MAX_S:g} s), for the process to end",
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainProof:
    """What a drain can show for itself.

    Units:   spans in seconds; calls are counts.
    """

    why: str
    """Why it stopped accepting."""
    revision: int
    """At which draining was published; 0 if it was not."""
    acknowledged: tuple[tuple[str, float], ...]
    """Each watcher that acknowledged, and how long after the order that was seen; in that order."""
    missing: tuple[str, ...]
    """Watchers that had not when it stopped accepting."""
    calls_finished: int
    """Calls that ended by themselves since the order."""
    calls_cut: int
    """Calls that still ran at their bound."""
    spans: tuple[tuple[str, float], ...]
    """How long each phase took, by its name."""
    took_s: float
    grace_s: float
    hurried: int = 0
    """Further orders to leave, each of which ended a phase."""
    problems: tuple[str, ...] = ()
    """What the store said, the latest few."""

    NAMES_MAX: ClassVar[int] = 20

    @property
    def is_clean(self) -> bool:
        """Whether every watcher knew, and every call ended by itself."""
        return not self.missing and not self.calls_cut and not self.hurried and not self.problems

    def __str__(self) -> str:
        """One line of `key=value`."""
        known = [f"{_plain(name)}@{after_s:.3f}" for name, after_s in self.acknowledged[: self.NAMES_MAX]]
        missing = [_plain(name) for name in self.missing[: self.NAMES_MAX]]
        parts = [
            f'why="{self.why}"',
            f"revision={self.revision}",
            f"acknowledged={len(self.acknowledged)}",
            f"acknowledged_by={','.join(known) or '-'}",
            f"missing={len(self.missing)}",
            f"missing_names={','.join(missing) or '-'}",
            f"calls_finished={self.calls_finished}",
            f"calls_cut={self.calls_cut}",
            *(f"{phase}_s={span_s:.3f}" for phase, span_s in self.spans),
            f"took_s={self.took_s:.3f}",
            f"grace_s={self.grace_s:g}",
            f"hurried={self.hurried}",
        ]
        if self.problems:
            parts.append('problem="{}"'.format(self.problems[-1].replace('"', "'").replace("\n", " ")))
        return " ".join(parts)


def _plain(name: str) -> str:
    """A name that stays one word in a line."""
    return "".join(each if each.isprintable() and each not in ' ,"=@' else "_" for each in name)
