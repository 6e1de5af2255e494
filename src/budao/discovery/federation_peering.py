"""One connection between two clusters of a federation: who says what, and when it is given up.

The dialling side says hello with its token, and the other answers with its own hello once it has accepted that. Both then
say where they stand. Whoever is ahead sends what the other misses and waits for the acknowledgement before it sends more,
so that changes gather while the peer is busy, and nothing is queued twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final

from budao.discovery.federation import Delta, FederatedSet, Key, Position, Span
from budao.discovery.federation_policy import FederationPolicy
from budao.model import Mono
from budao.store import Patience

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Hello:
    """Frame: who speaks."""

    cluster: str
    epoch: int
    token: str = ""
    version: int = VERSION

    def __repr__(self) -> str:
        return f"Hello({self.cluster!r}, {self.epoch}, token={'...' if self.token else ''!r}, version={self.version})"


@dataclass(frozen=True, slots=True)
class Digest:
    """Frame: I stand here; send me what I miss."""

    vector: Mapping[str, Position]
    forgotten: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Piece:
    """Frame: part of a delta; `is_last` ends it."""

    delta: Delta
    is_last: bool


@dataclass(frozen=True, slots=True)
class Ack:
    """Frame: the delta is taken in, and I stand here."""

    vector: Mapping[str, Position]


@dataclass(frozen=True, slots=True)
class Ping:
    """Frame: I am here, and this long ago, in seconds, something was heard of each cluster I know."""

    ages_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bye:
    """Frame: I hang up, and why."""

    why: str


Frame = Hello | Digest | Piece | Ack | Ping | Bye


@dataclass(frozen=True, slots=True)
class Connected:
    """Fact: there is a connection."""


@dataclass(frozen=True, slots=True)
class Received:
    """Fact: a frame came. `is_trusted` says of a hello whether its token is the right one."""

    frame: Frame
    is_trusted: bool = True


@dataclass(frozen=True, slots=True)
class Heard:
    """Fact: bytes came that are no whole frame yet."""


@dataclass(frozen=True, slots=True)
class LocalChange:
    """Fact: the set has changed, by us or by another peer."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Fact: the connection is gone, or could not be made."""

    problem: str


@dataclass(frozen=True, slots=True)
class Connect:
    """Effect: try to connect; answer with `Connected` or `Ended`."""


@dataclass(frozen=True, slots=True)
class Send:
    """Effect: send this frame."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Drop:
    """Effect: hang up. Needs no answer."""

    problem: str


@dataclass(frozen=True, slots=True)
class Changed:
    """Effect: these keys may look different now."""

    keys: frozenset[Key]


Fact = Connected | Received | Heard | LocalChange | Ended
Effect = Connect | Send | Drop | Changed


class Freshness:
    """When something was last heard of each cluster, from itself or through others."""

    def __init__(self) -> None:
        self.heard: dict[str, Mono] = {}

    def hear(self, cluster: str, at: Mono) -> None:
        self.heard[cluster] = max(at, self.heard.get(cluster, at))

    def ages_s(self, now: Mono) -> dict[str, float]:
        return {cluster: max(0.0, now - at) for cluster, at in self.heard.items()}


class Peering:
    """A machine for one connection, ours to make (`is_dialling`) or made by the peer."""

    def __init__(
        self, shared: FederatedSet, freshness: Freshness, now: Mono, *, token: str, rng: Random, is_dialling: bool
    ) -> None:
        self.shared = shared
        self.freshness = freshness
        self.policy: FederationPolicy = shared.policy
        self.is_dialling = is_dialling
        self.cluster = ""
        """The peer's name, once its hello was accepted."""
        self.is_open = False
        self.problem: str | None = None
        """Why there is no connection, while there is none."""
        self._token = token
        self._rng = rng
        self._patience = Patience(self.policy.pause)
        self._connect_at: Mono | None = now if is_dialling else None
        self._reset(now)

    def _reset(self, now: Mono) -> None:
        self._is_connected = self.is_open = False
        self._heard_at = now
        self._ping_at = now
        self._vector: dict[str, Position] | None = None
        self._forgotten: dict[str, int] = {}
        self._is_waiting = False
        self._sent: dict[str, Position] = {}
        """Up to where each part was sent: what the peer had no room for is not sent again until it has changed."""
        self._pieces: list[Delta] = []
        self._pieces_writes = 0

    def wake_at(self) -> Mono | None:
        """When to be woken: to connect, to ping, or to take silence for death."""
        if not self._is_connected:
            return self._connect_at
        dead_at = Mono(self._heard_at + self.policy.silence_max_s)
        return min(self._ping_at, dead_at) if self.is_open else dead_at

    def wake(self, now: Mono) -> tuple[Effect, ...]:
        """Time has passed."""
        if self.shared.is_contested:
            return self._give_in(now)
        if not self._is_connected:
            if self._connect_at is None or now < self._connect_at:
                return ()
            self._connect_at = None
            return (Connect(),)
        if now - self._heard_at >= self.policy.silence_max_s:
            return self._drop(f"nothing heard for {self.policy.silence_max_s:g} s", now)
        if self.is_open and now >= self._ping_at:
            self._ping_at = Mono(now + self.policy.ping_s)
            return (Send(Ping(self.freshness.ages_s(now) | {self.shared.cluster: 0.0})),)
        return ()

    def handle(self, fact: Fact, now: Mono) -> tuple[Effect, ...]:
        """Something happened."""
        if isinstance(fact, Connected):
            self._reset(now)
            self._is_connected, self.problem = True, None
            return (Send(self._hello()),) if self.is_dialling else ()
        if isinstance(fact, Ended):
            return self._ended(fact.problem, now)
        if self.shared.is_contested and (self.is_open or not self._is_connected):
            return self._give_in(now)
        if not self._is_connected:
            return ()
        if isinstance(fact, LocalChange):
            return self._tell()
        self._heard_at = now
        if isinstance(fact, Heard):
            return ()
        if not self.is_open and not isinstance(fact.frame, Hello | Bye):
            return self._drop(f"{type(fact.frame).__name__} came before a hello", now)
        if self.is_open:
            self.freshness.hear(self.cluster, now)
        return self._receive(fact, now)

    def _receive(self, fact: Received, now: Mono) -> tuple[Effect, ...]:
        frame = fact.frame
        if isinstance(frame, Hello):
            return self._greet(frame, fact.is_trusted, now)
        if isinstance(frame, Digest):
            self._vector, self._forgotten, self._is_waiting = dict(frame.vector), dict(frame.forgotten), False
            self._sent = {}
            self.shared.acknowledge(self.cluster, frame.vector)
            return self._tell()
        if isinstance(frame, Ack):
            self._vector, self._is_waiting = dict(frame.vector), False
            self.shared.acknowledge(self.cluster, frame.vector)
            return self._tell()
        if isinstance(frame, Piece):
            return self._collect(frame, now)
        if isinstance(frame, Ping):
            for cluster, age_s in frame.ages_s.items():
                if cluster in self.shared.clusters:
                    self.freshness.hear(cluster, Mono(now - age_s))
            return ()
        return self._drop(f"the peer hung up: {frame.why}", now, say=False)

    def _hello(self) -> Hello:
        return Hello(self.shared.cluster, self.shared.epoch, self._token)

    def _greet(self, hello: Hello, is_trusted: bool, now: Mono) -> tuple[Effect, ...]:
        if self.is_open:
            return self._drop("a second hello", now)
        if hello.version != VERSION:
            return self._drop(f"it speaks version {hello.version} of the protocol, this side {VERSION}", now)
        if not is_trusted:
            return self._drop("its token is not the one wanted here", now)
        if self.shared.is_contested:
            return self._give_in(now)
        if hello.cluster == self.shared.cluster:
            return self._drop(f"both sides are called {hello.cluster!r}; each cluster needs its own name", now)
        if hello.epoch <= self.shared.forgotten.get(hello.cluster, -1):
            return self._drop(f"cluster {hello.cluster!r} was forgotten; start it anew to join again", now)
        self.cluster, self.is_open, self._ping_at = hello.cluster, True, now
        self.freshness.hear(hello.cluster, now)
        self._patience.went_well(now)
        answer: tuple[Effect, ...] = () if self.is_dialling else (Send(self._hello()),)
        return (*answer, Send(self._digest()))

    def _digest(self) -> Digest:
        return Digest(self.shared.digest(), self.shared.forgotten)

    def _tell(self) -> tuple[Effect, ...]:
        """Sends what the peer misses, unless it still owes an answer."""
        if not self.is_open or self._vector is None or self._is_waiting:
            return ()
        delta = self.shared.delta_since(self._vector, self._forgotten)
        news = tuple(span for span in delta.spans if self._sent.get(span.cluster) != (span.epoch, span.counter))
        delta = Delta(news, delta.forgotten)
        if not delta.spans and not delta.forgotten:
            return ()
        self._is_waiting = True
        self._forgotten |= delta.forgotten
        self._sent |= {span.cluster: (span.epoch, span.counter) for span in news}
        return tuple(map(Send, pieces(delta, self.policy.writes_max)))

    def _collect(self, piece: Piece, now: Mono) -> tuple[Effect, ...]:
        self._pieces.append(piece.delta)
        self._pieces_writes += sum(1 + len(span.writes) for span in piece.delta.spans)
        bound = (self.policy.elements_max + self.policy.removals_max + 1) * self.policy.clusters_max
        if self._pieces_writes > bound or len(self._pieces) > bound:
            return self._drop(f"a delta of more than {bound} writes", now)
        if not piece.is_last:
            return ()
        delta, self._pieces, self._pieces_writes = joined(self._pieces), [], 0
        absorbed = self.shared.absorb(delta)
        if self._vector is not None and not absorbed.has_gap:
            # The peer has what it has sent, so it is not sent back.
            ahead = {span.cluster: (span.epoch, span.counter) for span in delta.spans}
            self._vector |= {each: at for each, at in ahead.items() if at > self._vector.get(each, (-1, 0))}
        self._forgotten |= delta.forgotten
        self.shared.settle(absorbed.keys)
        if self.shared.is_forgotten:
            return *self._drop(self.shared.problem or "", now), Changed(absorbed.keys)
        if self.shared.is_contested:
            return *self._give_in(now), Changed(absorbed.keys)
        reply = Send(self._digest()) if absorbed.has_gap else Send(Ack(self.shared.digest()))
        return (reply, Changed(absorbed.keys), *self._tell())

    def _give_in(self, now: Mono) -> tuple[Effect, ...]:
        """Another process has our name: to stay connected would make others believe that it is well, whatever it is."""
        problem = self.shared.problem or ""
        effects = self._drop(problem, now) if self._is_connected else ()
        self.problem, self._connect_at = problem, None
        return effects

    def _drop(self, problem: str, now: Mono, *, say: bool = True) -> tuple[Effect, ...]:
        said: tuple[Effect, ...] = (Send(Bye(problem)),) if say else ()
        self._ended(problem, now)
        return (*said, Drop(problem))

    def _ended(self, problem: str, now: Mono) -> tuple[Effect, ...]:
        self._reset(now)
        self.problem = problem
        if self.is_dialling and self._connect_at is None:
            self._connect_at = Mono(now + self._patience.pause_s(now, self._rng))
        return ()


def pieces(delta: Delta, writes_max: int) -> list[Piece]:
    """A delta in frames of at most `writes_max` writes; spans that continue one another follow each other."""
    cut: list[list[Span]] = [[]]
    room = writes_max
    for span in delta.spans:
        at = 0
        while True:
            taken = span.writes[at : at + room]
            cut[-1].append(Span(span.cluster, span.epoch, span.base, span.counter, taken))
            at, room = at + len(taken), room - len(taken)
            if at >= len(span.writes):
                break
            cut.append([])
            room = writes_max
    last = len(cut) - 1
    return [
        Piece(Delta(tuple(spans), delta.forgotten if index == 0 else {}), index == last)
        for index, spans in enumerate(cut)
    ]


def joined(deltas: list[Delta]) -> Delta:
    """What `pieces` cut, in one."""
    spans: list[Span] = []
    forgotten: dict[str, int] = {}
    for delta in deltas:
        forgotten |= delta.forgotten
        for span in delta.spans:
            last = spans[-1] if spans else None
            if last is not None and (last.cluster, last.epoch, last.base) == (span.cluster, span.epoch, span.base):
                spans[-1] = Span(span.cluster, span.epoch, span.base, span.counter, last.writes + span.writes)
            else:
                spans.append(span)
    return Delta(tuple(spans), forgotten)
