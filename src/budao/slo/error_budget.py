"""What is left of the bad calls an objective allows, counted in calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from budao.model import Wall
from budao.slo.objective import Objective
from budao.slo.tally import Tally

SLICES = 720
"""Thirty days in slices of an hour: the window is right to 1/720 of its length, in at most 1440 slices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetView:
    """An error budget at one instant.

    Units: `good` and `bad` are calls; `allowed` is calls too, and exact, so seldom whole; shares are of `allowed`.
    """

    good: int
    bad: int
    allowed: Fraction
    """How many of the calls so far may be bad."""
    spent_share: float | None
    """1.0 when just spent, above it when overspent; None without calls, since nothing seen is not nothing spent."""
    remaining_share: float | None
    """What is left, below zero when overspent; None without calls."""
    is_spent: bool
    """More calls were bad than allowed. Exact, unlike the shares beside it."""
    sentence: str


class ErrorBudget:
    """Counts good and bad calls over the objective's window, and says how much of the allowance they used.

    Counts events and never averages ratios: an outage in the busiest hour costs what it cost its callers. Thirty days
    are kept in 720 slices of an hour, other windows in 720 slices as well, so an event is forgotten at most 1/720 of
    the window late and never early.

    Cost: an event batch is constant work; a view adds up 721 slices.
    """

    __slots__ = ("_tally", "objective")

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self._tally = Tally(objective.window_s, SLICES)

    def add(self, good: int, bad: int, now: Wall) -> None:
        """Count calls that ended at `now`."""
        self._tally.add(good, bad, now)

    def at(self, now: Wall) -> BudgetView:
        """The budget of the window that ends at `now`. Reading changes nothing."""
        counts = self._tally.at(now)
        allowed = counts.total * self.objective.allowed
        if not counts.total:
            return BudgetView(
                good=0,
                bad=0,
                allowed=allowed,
                spent_share=None,
                remaining_share=None,
                is_spent=False,
                sentence=f"{self.objective}: no calls in the window, so nothing is known",
            )
        spent = counts.bad / allowed
        return BudgetView(
            good=counts.good,
            bad=counts.bad,
            allowed=allowed,
            spent_share=float(spent),
            remaining_share=float(1 - spent),
            is_spent=counts.bad > allowed,
            sentence=(
                f"{self.objective}: {counts.bad} of {counts.total} calls were bad, {float(allowed):.6g} may be; "
                f"{float(spent):.3g} of the budget is spent"
            ),
        )

    def kept(self) -> tuple[tuple[float, int, int], ...]:
        """What a restart must save: every slice as (its start in Unix seconds, good, bad)."""
        return self._tally.kept()

    def restore(self, kept: Iterable[tuple[float, int, int]]) -> None:
        """Add what `kept` saved for an objective with the same window."""
        self._tally.restore(kept)
