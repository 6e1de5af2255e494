"""What became of a call, and why a call was not made."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Why(Enum):
    """The reason of a refusal. The value is the sentence a person reads."""

    BREAKER_OPEN = "breaker open"
    PROBES_TAKEN = "breaker half open and every probe is taken"
    RAMPING = "breaker just closed and traffic is still ramping up"
    FORCED_OPEN = "breaker forced open by a person"
    NO_ROOM = "as many calls in flight as the bulkhead allows"
    LIMITED = "as many calls in flight as the adaptive limit allows"
    WAITED_OUT = "waited for a place as long as allowed"
    RATE = "rate limit reached"
    THROTTLED = "the other side refuses much, so some calls are refused here already"
    SHED = "overloaded, and less important calls are shed first"
    TOO_LATE = "the deadline has passed"
    BUDGET_SPENT = "the retry budget is spent"
    NOBODY = "no endpoint is ready"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that was not made.

    Units: `retry_after_s` is in seconds; 0.0 means that trying again at once is as good as later.
    """

    why: Why
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended.

    `failed` is the guard's judgement, not merely "raised": a reply with status 503 has failed as well.
    """

    took_s: float
    failed: bool = False


class Dropped(Enum):
    """An ending that says nothing about the other side: its place is given back and nothing is learned."""

    CANCELLED = "cancelled"
    """The caller went away."""
    NOT_SENT = "not sent"
    """Something nearer than the other side refused, such as a guard further in or a deadline."""
    LEFT_EARLY = "left early"
    """The reader of a stream stopped before the first item."""


Ending = Outcome | Dropped


class Priority(Enum):
    """How much a call matters when not every call can be served. Less important calls are shed first.

    Source: the criticality classes of Google's SRE book, chapter 21, in one word each.
    """

    CRITICAL = 0
    """A person waits, and the product is down without it. Shed only when nothing else is left to shed."""
    HIGH = 1
    """The default: a person waits."""
    LOW = 2
    """A person does not wait; a retry later is fine."""
    SHEDDABLE = 3
    """Batch work, prefetching, crawlers."""

    @classmethod
    def of(cls, text: str) -> Priority | None:
        """The priority a header names, by number or by name in any case; None for anything else."""
        word = text.strip().upper()
        if word in cls.__members__:
            return cls[word]
        if word in {"0", "1", "2", "3"}:
            return cls(int(word))
        return None
