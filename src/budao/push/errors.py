"""What can go wrong with a log of channels."""

from __future__ import annotations

from budao.model import BudaoError


class LogError(BudaoError):
    """A log of channels did not do what was asked."""


class LogAway(LogError):
    """The log did not answer. Publish again with the same id: it is the same message, if it was taken."""

    def __init__(self, log: str, happened: str, *, may_have_taken_effect: bool = False) -> None:
        super().__init__(log, happened, may_have_taken_effect)
        self.log = log
        self.happened = happened
        self.may_have_taken_effect = may_have_taken_effect

    def __str__(self) -> str:
        effect = "it may have taken effect" if self.may_have_taken_effect else "nothing was done"
        return f"log {self.log}: {self.happened}; {effect}; try again, with the same id"


class LogRefused(LogError):
    """The log would not do it, and will not if it is asked again unchanged."""

    def __init__(self, tried: str, happened: str) -> None:
        super().__init__(tried, happened)
        self.tried = tried
        self.happened = happened

    def __str__(self) -> str:
        return f"cannot {self.tried}: {self.happened}"
