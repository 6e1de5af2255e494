"""Readings into verdicts.

What good looks like, how fast it is being spent, where slow begins, and the guard's settings that follow.

Everything here is told the time, keeps its state in objects of its own, and answers with frozen values.
Nothing here acts on a verdict, and nothing here talks to a monitoring system.
"""

from budao.slo.burn import (
    WORKBOOK,
    BurnRates,
    BurnRule,
    RuleVerdict,
    Standing,
    Urgency,
    Verdict,
    burn_rate,
    rules_for,
)
from budao.slo.derivation import CALLS_MIN, Derived, Observed, derive
from budao.slo.error_budget import BudgetView, ErrorBudget
from budao.slo.objective import Availability, Latency, Objective
from budao.slo.tally import Counts, Tally
from budao.slo.threshold import Threshold, ThresholdView

__all__ = [
    "CALLS_MIN",
    "WORKBOOK",
    "Availability",
    "BudgetView",
    "BurnRates",
    "BurnRule",
    "Counts",
    "Derived",
    "ErrorBudget",
    "Latency",
    "Objective",
    "Observed",
    "RuleVerdict",
    "Standing",
    "Tally",
    "Threshold",
    "ThresholdView",
    "Urgency",
    "Verdict",
    "burn_rate",
    "derive",
    "rules_for",
]
