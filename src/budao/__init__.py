"""Budao keeps Python services inside their service level objectives.

State what good looks like; the guard derives its settings, protects the calls, and can explain each number.
"""

from budao.guard import Remembered, Rung
from budao.model import (
    BadReply,
    BadSettings,
    BreakerOpen,
    BreakerPolicy,
    BudaoError,
    BudgetPolicy,
    BudgetSpent,
    BulkheadPolicy,
    CallFailed,
    CallRefused,
    GuardPolicy,
    HedgePolicy,
    LimitPolicy,
    Mode,
    NobodyThere,
    NoRoom,
    PeerReset,
    Priority,
    RatePolicy,
    Refusal,
    RetryPolicy,
    Shed,
    ShedPolicy,
    ThresholdPolicy,
    ThrottlePolicy,
    TimedOut,
    TimeoutPolicy,
    TooLate,
    Why,
)
from budao.protect import Guard, GuardView
from budao.slo import Availability, Latency
from budao.threads import follow

__version__ = "0.1.0"

__all__ = [
    "Availability",
    "BadReply",
    "BadSettings",
    "BreakerOpen",
    "BreakerPolicy",
    "BudaoError",
    "BudgetPolicy",
    "BudgetSpent",
    "BulkheadPolicy",
    "CallFailed",
    "CallRefused",
    "Guard",
    "GuardPolicy",
    "GuardView",
    "HedgePolicy",
    "Latency",
    "LimitPolicy",
    "Mode",
    "NoRoom",
    "NobodyThere",
    "PeerReset",
    "Priority",
    "RatePolicy",
    "Refusal",
    "Remembered",
    "RetryPolicy",
    "Rung",
    "Shed",
    "ShedPolicy",
    "ThresholdPolicy",
    "ThrottlePolicy",
    "TimedOut",
    "TimeoutPolicy",
    "TooLate",
    "Why",
    "follow",
]
