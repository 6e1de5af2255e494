"""What a store can say instead of an answer. Every backend says it with these."""

from __future__ import annotations

from budao.model import BudaoError


class StoreError(BudaoError):
    """The root of what a store can say instead of an answer."""


class StoreRefused(StoreError):
    """The request breaks a rule or a bound of the store. Nothing has happened; the same request will be refused again."""

    def __init__(self, tried: str, problem: str) -> None:
        super().__init__(tried, problem)
        self.tried = tried
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.tried}: {self.problem}; nothing was changed"


class Compacted(StoreError):
    """The revision asked for has been forgotten. Read the span anew and watch from the revision of that answer."""

    def __init__(self, asked: int, oldest: int) -> None:
        super().__init__(asked, oldest)
        self.asked = asked
        self.oldest = oldest
        """The oldest revision that can still be asked for."""

    def __str__(self) -> str:
        return f"revision {self.asked} is forgotten, the oldest kept is {self.oldest}; read again and watch from there"


class LeaseGone(StoreError):
    """The lease ran out or was revoked, and its keys went with it. Grant a new one and put the keys again."""

    def __init__(self, lease: int) -> None:
        super().__init__(lease)
        self.lease = lease

    def __str__(self) -> str:
        return f"lease {self.lease:x} is gone, and its keys with it; grant a new one and put them again"


class StoreAway(StoreError):
    """No answer from the store. Whoever reads may go on with what was known last."""

    def __init__(self, store: str, happened: str, *, may_have_taken_effect: bool = False) -> None:
        super().__init__(store, happened, may_have_taken_effect)
        self.store = store
        self.happened = happened
        self.may_have_taken_effect = may_have_taken_effect

    def __str__(self) -> str:
        advice = (
            "it may have taken effect: read before you write again"
            if self.may_have_taken_effect
            else "nothing was changed, trying again is safe"
        )
        return f"store {self.store}: {self.happened}; {advice}"


class StoreDenied(StoreError):
    """The store knows who asks, and says no: a wrong token, password or certificate, or a key it may not touch."""

    def __init__(self, store: str, problem: str) -> None:
        super().__init__(store, problem)
        self.store = store
        self.problem = problem

    def __str__(self) -> str:
        return f"store {self.store} says no: {self.problem}; nothing was changed"
