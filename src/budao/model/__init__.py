"""The nouns every other room shares: instants, outcomes, refusals, errors, and the guard's settings as values.

Nothing here decides, waits or remembers.
"""

from budao.model import context
from budao.model.errors import (
    REFUSED_AS,
    BadReply,
    BadSettings,
    BreakerOpen,
    BudaoError,
    BudgetSpent,
    CallFailed,
    CallRefused,
    LocalWireError,
    NoRoom,
    PeerReset,
    RemoteWireError,
    Shed,
    Stopped,
    TimedOut,
    TooLate,
    WireError,
)
from budao.model.outcome import Dropped, Ending, Outcome, Priority, Refusal, Why
from budao.model.policy import (
    PARTS,
    BreakerPolicy,
    BudgetPolicy,
    BulkheadPolicy,
    Checks,
    GuardPolicy,
    HedgePolicy,
    LimitPolicy,
    Mode,
    RatePolicy,
    RetryPolicy,
    ShedPolicy,
    ThresholdPolicy,
    ThrottlePolicy,
    TimeoutPolicy,
    numbers_in,
)
from budao.model.time import Clock, Mono, Wall

__all__ = [
    "PARTS", "REFUSED_AS", "BadReply", "BadSettings", "BreakerOpen", "BreakerPolicy", "BudaoError", "BudgetPolicy", "BudgetSpent",
    "BulkheadPolicy", "CallFailed", "CallRefused", "Checks", "Clock", "Dropped", "Ending", "GuardPolicy", "HedgePolicy",
    "LimitPolicy", "LocalWireError", "Mode", "Mono", "NoRoom", "Outcome", "PeerReset", "Priority", "RatePolicy", "Refusal",
    "RemoteWireError", "RetryPolicy", "Shed", "ShedPolicy", "Stopped", "ThresholdPolicy", "ThrottlePolicy", "TimedOut",
    "TimeoutPolicy", "TooLate", "Wall", "Why", "WireError", "context", "numbers_in",
]
