"""Every error a user of Budao can meet.

An error says what was tried, what happened, whether it may have taken effect, and what to do next. Facts sit in
fields; the message is built from the fields when somebody reads it, since a refused call must stay cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from budao.model.outcome import Refusal, Why


class BudaoError(Exception):
    """The root of all errors of this package."""


class CallRefused(BudaoError):
    """The call was never sent; trying elsewhere, or later, is safe."""

    if TYPE_CHECKING:
        # `BaseException.__new__` keeps the arguments; an `__init__` of our own would cost as much as all the rest.
        def __init__(self, target: str, refusal: Refusal) -> None: ...

    @property
    def target(self) -> str:
        """What was not called."""
        return str(self.args[0])

    @property
    def refusal(self) -> Refusal:
        """Why, and when to come back."""
        found: Refusal = self.args[1]
        return found

    @property
    def why(self) -> Why:
        """The reason, for code that branches on it."""
        return self.refusal.why

    @property
    def retry_after_s(self) -> float:
        """How long to wait before another try has a chance, in seconds."""
        return self.refusal.retry_after_s

    def __str__(self) -> str:
        refusal = self.refusal
        wait_s = refusal.retry_after_s
        advice = f"retry after {wait_s:.3g} s" if wait_s > 0 else "trying elsewhere is safe"
        return f"{self.target}: not sent, {refusal.why.value}; {advice}"


class BreakerOpen(CallRefused):
    """The breaker keeps calls away from something that fails.

    It comes in floods, so a number stands for the refusal until somebody asks: seconds until the breaker probes.
    """

    if TYPE_CHECKING:

        def __init__(self, target: str, refusal: Refusal | float) -> None: ...

    @property
    def refusal(self) -> Refusal:
        """Why, and when to come back."""
        found: Refusal | float = self.args[1]
        return found if isinstance(found, Refusal) else Refusal(Why.BREAKER_OPEN, found)


class NoRoom(CallRefused):
    """Too many calls are in flight already, or come too fast."""


class Shed(CallRefused):
    """This process, or the one it calls, is overloaded, and this call mattered less than others."""


class TooLate(CallRefused):
    """The deadline passed before the call was sent."""


class BudgetSpent(CallRefused):
    """A repeat was due, but the retry budget is spent."""


class NobodyThere(CallRefused):
    """No endpoint of the service takes calls at present."""

    if TYPE_CHECKING:

        def __init__(self, target: str, refusal: Refusal, found: str = "") -> None: ...

    @property
    def found(self) -> str:
        """Who is there instead, such as "0 of 3 are ready: 2 starting, 1 draining"."""
        return str(self.args[2]) if len(self.args) > 2 else ""

    def __str__(self) -> str:
        found = f" ({self.found})" if self.found else ""
        return f"service {self.target}: not sent, {self.why.value}{found}; it is safe to try again later"


REFUSED_AS: dict[Why, type[CallRefused]] = {
    Why.BREAKER_OPEN: BreakerOpen,
    Why.PROBES_TAKEN: BreakerOpen,
    Why.RAMPING: BreakerOpen,
    Why.FORCED_OPEN: BreakerOpen,
    Why.NO_ROOM: NoRoom,
    Why.LIMITED: NoRoom,
    Why.WAITED_OUT: NoRoom,
    Why.RATE: NoRoom,
    Why.THROTTLED: Shed,
    Why.SHED: Shed,
    Why.TOO_LATE: TooLate,
    Why.BUDGET_SPENT: BudgetSpent,
    Why.NOBODY: NobodyThere,
}
"""Which exception carries which reason. A test holds this table complete."""


class CallFailed(BudaoError):
    """The call was sent and may have taken effect."""

    def __init__(self, target: str, happened: str, advice: str = "repeat it only if it is safe to repeat") -> None:
        super().__init__(target, happened, advice)
        self.target = target
        self.happened = happened
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.target}: {self.happened}; it may have taken effect: {self.advice}"


class TimedOut(CallFailed, TimeoutError):
    """No answer came in time. Also a built-in `TimeoutError`, so existing handlers go on working."""

    def __init__(self, target: str, after_s: float) -> None:
        super().__init__(target, f"no answer within {after_s:.3g} s")
        self.args = (target, after_s)
        self.after_s = after_s

    def __reduce__(self) -> tuple[type[TimedOut], tuple[str, float]]:
        # An `OSError` given three arguments takes the third for a file name, and pickles it along.
        return type(self), (self.target, self.after_s)


class PeerReset(CallFailed, ConnectionError):
    """The other side broke the connection off."""


class BadReply(CallFailed):
    """The other side answered with something that counts as a failure."""


class WireError(BudaoError):
    """Bytes broke a rule."""


class LocalWireError(WireError):
    """We were about to send something that breaks a rule."""


class RemoteWireError(WireError):
    """The other side sent something that breaks a rule."""


class BadSettings(BudaoError, ValueError):
    """A person must edit something. Lists every problem at once, each with its path; nothing was changed."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        count = len(self.problems)
        lines = "\n".join(f"  {path}: {problem}" for path, problem in self.problems)
        return f"{count} problem{'' if count == 1 else 's'} in the settings, nothing was changed:\n{lines}"


class Stopped(BudaoError):
    """This process is leaving."""

    def __init__(self, go_to: str | None = None) -> None:
        super().__init__(go_to)
        self.go_to = go_to

    def __str__(self) -> str:
        return "this process is stopping" + (f"; go to {self.go_to}" if self.go_to else "; try another instance")
