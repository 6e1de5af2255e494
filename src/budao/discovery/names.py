"""What is known of names, for how long, and when to ask again: a cache that would rather be a little old than empty."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum

from budao.discovery.instance import Address
from budao.model import Checks, Mono

NAME_LENGTH_MAX = 253
"""Characters. Source: RFC 1035, section 2.3.4, without the root's empty label."""


class Kind(Enum):
    """What is asked about a name."""

    HOST = "host"
    """Its addresses, of both families."""
    SERVICE = "service"
    """Its SRV records (RFC 2782), with the addresses of their targets."""


@dataclass(frozen=True, slots=True)
class Question:
    """A name, and what is asked about it."""

    name: str
    kind: Kind = Kind.HOST


@dataclass(frozen=True, slots=True)
class Located:
    """One address of a name. For a host the port is 0, and priority and weight say nothing."""

    address: Address
    priority: int = 0
    """Lower is tried first (RFC 2782)."""
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """Fact: a lookup brought these, good for `ttl_s` seconds by the server's word."""

    question: Question
    located: tuple[Located, ...]
    ttl_s: float


@dataclass(frozen=True, slots=True)
class NotThere:
    """Fact: the server says for sure that there is no such name, or nothing of that kind."""

    question: Question


@dataclass(frozen=True, slots=True)
class LookupFailed:
    """Fact: nobody answered, or not in a way that says anything."""

    question: Question
    problem: str


@dataclass(frozen=True, slots=True)
class LookUp:
    """Effect: ask a server. Answered by one of the facts above, exactly once."""

    question: Question


@dataclass(frozen=True, slots=True)
class Known:
    """What the cache knows."""

    located: tuple[Located, ...]
    """Empty where the name is known not to exist."""
    is_stale: bool = False
    """Older than its time; the servers have not answered since."""
    problem: str = ""
    """Why it is stale, or why nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamePolicy:
    """How long to believe a name.

    Units:   seconds.
    Raises:  BadSettings with every problem.
    """

    ttl_min_s: float = 30.0
    """A shorter time to live is taken for this: a lookup for each call is what takes a resolver down."""
    ttl_max_s: float = 300.0
    """A longer one is taken for this: a move must be noticed in the end."""
    stale_max_s: float = 86_400.0
    """How long past its time an answer is still used while nobody answers."""
    absent_s: float = 10.0
    """How long a name stays unknown once a server said that it does not exist."""
    retry_s: float = 2.0
    """A pause after a lookup that failed, before the same name is looked up again."""
    early_share: float = 0.8
    """An answer older than this share of its time is renewed when somebody asks, and nobody waits for that."""
    wait_max_s: float = 2.0
    """How long somebody waits for a name of which nothing is known."""
    lookup_max_s: float = 5.0
    """A lookup that takes longer has failed."""
    names_max: int = 10_000
    """The name that nobody asked for the longest is forgotten first."""

    def __post_init__(self) -> None:
        check = Checks("names")
        check.number("ttl_min_s", self.ttl_min_s, 0.0, 86_400.0)
        check.number("ttl_max_s", self.ttl_max_s, self.ttl_min_s, 604_800.0)
        for name in ("stale_max_s", "absent_s", "retry_s", "wait_max_s", "lookup_max_s"):
            check.number(name, getattr(self, name), 0.0, 604_800.0)
        check.number("early_share", self.early_share, 0.0, 1.0)
        check.count("names_max", self.names_max, 1)
        check.done()


@dataclass(slots=True)
class _Memory:
    fresh_until: Mono
    early_at: Mono
    next_at: Mono
    """Not looked up again before."""
    located: tuple[Located, ...] | None = None
    """None before the first good answer."""
    is_looking: bool = False
    problem: str = ""


@dataclass(slots=True)
class Names:
    """A machine: asked for a name, it answers with what it knows, and says when to look it up."""

    policy: NamePolicy = field(default_factory=NamePolicy)
    forgotten: int = 0
    """Names forgotten because there were too many."""
    _memories: OrderedDict[Question, _Memory] = field(default_factory=OrderedDict)

    def ask(self, question: Question, now: Mono) -> tuple[Known | None, tuple[LookUp, ...]]:
        """What is known, if anything is, and what to look up; None means that waiting for the lookup may help."""
        memory = self._memories.get(question)
        if memory is None:
            memory = self._memories[question] = _Memory(now, now, now)
            self._bound()
        else:
            self._memories.move_to_end(question)
        is_due = memory.located is None or now >= memory.early_at
        lookups: tuple[LookUp, ...] = ()
        if is_due and not memory.is_looking and now >= memory.next_at:
            memory.is_looking = True
            lookups = (LookUp(question),)
        if memory.located is not None:
            if now < memory.fresh_until:
                return Known(memory.located, problem=memory.problem), lookups
            if now < memory.fresh_until + self.policy.stale_max_s and memory.located:
                return Known(memory.located, is_stale=True, problem=memory.problem), lookups
        if memory.is_looking:
            return None, lookups
        return Known((), problem=memory.problem), lookups

    def handle(self, fact: Found | NotThere | LookupFailed, now: Mono) -> None:
        """A lookup has ended."""
        memory = self._memories.get(fact.question)
        if memory is None:  # forgotten meanwhile
            return
        policy = self.policy
        memory.is_looking = False
        if isinstance(fact, Found) and fact.located:
            ttl_s = min(max(fact.ttl_s, policy.ttl_min_s), policy.ttl_max_s)
            memory.located, memory.problem = fact.located, ""
            memory.fresh_until = Mono(now + ttl_s)
            memory.early_at = memory.next_at = Mono(now + ttl_s * policy.early_share)
        elif isinstance(fact, LookupFailed):
            # What was known stays: an old address is worth more than none.
            memory.problem = fact.problem
            memory.next_at = Mono(now + policy.retry_s)
        else:
            memory.located, memory.problem = (), "there is no such name"
            memory.fresh_until = memory.early_at = memory.next_at = Mono(now + policy.absent_s)

    def _bound(self) -> None:
        while len(self._memories) > self.policy.names_max:
            self._memories.popitem(last=False)
            self.forgotten += 1
