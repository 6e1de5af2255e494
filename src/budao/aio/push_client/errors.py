"""What can go wrong for whoever reads or publishes."""

from __future__ import annotations

from budao.model import BudaoError


class PushError(BudaoError):
    """A push client cannot do what was asked."""


class Unauthorized(PushError):
    """The gateways do not accept the token; the client has ended. It takes a new token, and a new client."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.problem}; the client has ended: open another one with a token that is accepted"


class GivenUp(PushError):
    """A gateway says that coming back is of no use as things are; the client has ended."""

    def __init__(self, code: int, problem: str) -> None:
        super().__init__(code, problem)
        self.code = code
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.problem} (code {self.code}); the client has ended, change what is wrong and open another one"


class Closed(PushError):
    """The client is closed."""

    def __init__(self, tried: str, *, may_have_taken_effect: bool = False) -> None:
        super().__init__(tried, may_have_taken_effect)
        self.tried = tried
        self.may_have_taken_effect = may_have_taken_effect

    def __str__(self) -> str:
        effect = "it may have taken effect" if self.may_have_taken_effect else "nothing was done"
        return f"cannot {self.tried}: the client is closed; {effect}"


class ChannelRefused(PushError):
    """A gateway does not do this with this channel, and will not if it is asked again unchanged."""

    def __init__(self, tried: str, why: str, happened: str) -> None:
        super().__init__(tried, why, happened)
        self.tried = tried
        self.why = why
        self.happened = happened

    def __str__(self) -> str:
        return f"cannot {self.tried}: {self.happened or self.why}; nothing was done"


class Forbidden(ChannelRefused):
    """The token does not allow it."""

    def __str__(self) -> str:
        return f"{super().__str__()}, ask for a token that allows it"


class PublishTimedOut(PushError, TimeoutError):
    """No gateway has said within the deadline that the message is durable."""

    def __init__(self, channel: str, name: str, after_s: float, *, was_sent: bool, problem: str = "") -> None:
        super().__init__(channel, name, after_s, was_sent, problem)
        self.channel = channel
        self.id = name
        self.after_s = after_s
        self.may_have_taken_effect = was_sent
        self.problem = problem

    def __str__(self) -> str:
        effect = "it may have taken effect" if self.may_have_taken_effect else "it was not sent"
        latest = f" (latest problem: {self.problem})" if self.problem else ""
        return (
            f"publish to {self.channel}: no answer within {self.after_s:g} s{latest}; {effect}; "
            f"publish again with id={self.id!r}, and it is the same message"
        )
