"""Whether a connection still lives: pings when it is quiet, in three levels, for very many connections without a timer each.

1. A ping that is late by `late_s` is sent again.
2. Three in a row degrade the connection: it counts as lost until anything is heard of it.
3. Silence for `silent_s` ends it. (What the kernel's keepalive ends, it ends without being asked.)

Late is not lost: an answer that comes late clears the lateness; only one that never comes ends anything. Whatever is received
counts as life, and costs one store: `pulse.is_heard = True`. The pulses lie on a ring of buckets, one for each tick, and one that
was heard meanwhile is only laid on again, so a busy connection costs a visit per `quiet_s` and no ping at all.

Before a ping counts as late, the kernel is asked: it knows whether the ping still waits behind other bytes that the peer is
reading, and for a connection that cannot answer at all (SSE), whether it took what it was sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from random import Random
from typing import Generic, TypeVar

from budao.model import Checks, Mono

C = TypeVar("C")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatPolicy:
    """When a connection is asked for life, and when it has none.

    Units:   seconds.
    Raises:  BadSettings with every problem.
    """

    quiet_s: float = 25.0
    """A connection that was not heard for so long is pinged. Below the half minute after which many middle boxes forget."""
    late_s: float = 0.5
    """A ping is late by this much: it is sent again."""
    late_max: int = 3
    """So many in a row degrade the connection."""
    again_max_s: float = 2.0
    """A degraded connection is pinged again after pauses that double up to this."""
    silent_s: float = 15.0
    """Without a sign of life for so long after a ping, the connection ends."""
    spread_share: float = 0.1
    """Each quiet span is this share longer or shorter at random, so that connections opened together drift apart."""
    tick_s: float = 0.1
    """How exactly all of this is kept."""

    def __post_init__(self) -> None:
        check = Checks("heartbeat")
        check.number("quiet_s", self.quiet_s, 0.1, 3_600.0)
        check.number("late_s", self.late_s, 0.05, 60.0)
        check.count("late_max", self.late_max, 1, 100)
        check.number("again_max_s", self.again_max_s, 0.05, 60.0)
        check.number("silent_s", self.silent_s, 0.1, 3_600.0)
        check.number("spread_share", self.spread_share, 0.0, 0.5)
        check.number("tick_s", self.tick_s, 0.01, 1.0)
        if not check.problems:
            check.need(
                self.silent_s > self.late_s * self.late_max,
                "silent_s",
                f"{self.silent_s:g} s end the connection before {self.late_max} pings late by {self.late_s:g} s degrade it",
            )
        check.done()


class Pulse(Generic[C]):
    """What is known of one connection. The shell sets `is_heard` whenever anything is received, and `expected_s` if it likes."""

    __slots__ = (
        "connection",
        "due",
        "expected_s",
        "is_asked",
        "is_excused",
        "is_heard",
        "is_lost",
        "is_mute",
        "late",
        "number",
        "since",
    )

    def __init__(self, connection: C, *, is_mute: bool) -> None:
        self.connection = connection
        self.is_heard = False
        self.is_mute = is_mute
        """It cannot answer a ping: only the kernel can say whether it lives."""
        self.is_asked = False
        """The kernel was asked, and the next tick judges."""
        self.is_excused = False
        """It said that the peer reads, and that the ping still waits behind what it reads."""
        self.is_lost = False
        """Level 2."""
        self.late = 0
        """Pings in a row that were late."""
        self.number = 0
        """Of the latest ping."""
        self.since: int | None = None
        """In which tick the first of the pings that are out was sent; None while none is."""
        self.expected_s = 0.0
        """How long an answer usually takes: a ping is late only beyond this."""
        self.due = 0
        """In which tick the machine visits it next."""


@dataclass(frozen=True, slots=True)
class SendPing(Generic[C]):
    """Effect: ping it; for a mute one, send it a few bytes it will skip."""

    connection: C
    number: int


@dataclass(frozen=True, slots=True)
class AskKernel(Generic[C]):
    """Effect: a ping is about to be late; ask whether that is a wonder.

    Set `pulse.is_excused` where the ping still waits behind bytes that the peer is reading. For a mute one, set `pulse.is_heard` where
    the peer's kernel took what it was sent.
    """

    pulse: Pulse[C]


@dataclass(frozen=True, slots=True)
class Degrade(Generic[C]):
    """Effect: level 2; it counts as lost."""

    connection: C


@dataclass(frozen=True, slots=True)
class Restore(Generic[C]):
    """Effect: it lives after all."""

    connection: C


@dataclass(frozen=True, slots=True)
class EndSilent(Generic[C]):
    """Effect: end it with 4102 `silent`. The machine has forgotten it."""

    connection: C
    silent_s: float
    """How long it was silent after the first ping that was not answered."""


Effect = SendPing[C] | AskKernel[C] | Degrade[C] | Restore[C] | EndSilent[C]


class Heartbeats(Generic[C]):
    """The pulses of all connections of a gateway.

    The machine counts ticks, and no more than one for each time it is woken: whatever came while this process stood still lies
    unread in a socket, and its sender is not to blame.

    Cost: per connection one object of about 200 bytes; a visit per `quiet_s`, and one per ping.
    """

    def __init__(self, policy: HeartbeatPolicy, rng: Random) -> None:
        self.policy = policy
        self._rng = rng
        self._buckets: list[dict[Pulse[C], None]] = [
            {} for _ in range(min(1_024, ceil(policy.quiet_s / policy.tick_s) + 64))
        ]
        self._tick = 0
        self._told: Mono | None = None
        self._count = 0
        self.pings = 0
        """Sent in all; those sent again are counted too."""
        self.late = 0
        """Pings that were sent again."""
        self.degraded = 0
        """Times that a connection reached level 2."""
        self.restored = 0
        self.silent = 0
        """Connections that ended in silence."""
        self.stalled_s = 0.0
        """How much later than due the ticks were in all, where that was more than a tick."""

    def __len__(self) -> int:
        return self._count

    def add(self, pulse: Pulse[C]) -> None:
        """A connection that was just opened. Its first quiet span is anything up to the whole, to spread those of a storm."""
        self._count += 1
        self._lay(pulse, self.policy.quiet_s * self._rng.uniform(0.05, 1.0))

    def remove(self, pulse: Pulse[C]) -> None:
        """It ended. Doing so twice is fine."""
        if self._buckets[pulse.due % len(self._buckets)].pop(pulse, self) is None:
            self._count -= 1

    def ask_now(self, pulse: Pulse[C]) -> None:
        """Ping it with the next tick, quiet or not: there is a doubt. Nothing changes while a ping is out."""
        if pulse.since is None and self._buckets[pulse.due % len(self._buckets)].pop(pulse, self) is None:
            pulse.is_heard = False
            self._lay(pulse, 0.0)

    def wake_at(self) -> Mono | None:
        """When the next tick is; None before the first, which is due at once."""
        return None if self._told is None else Mono(self._told + self.policy.tick_s)

    def wake(self, now: Mono) -> list[Effect[C]]:
        """What is to be done now. Call it each tick, or as near to that as can be."""
        tick_s = self.policy.tick_s
        passed_s = tick_s if self._told is None else now - self._told
        if passed_s < tick_s / 2:
            return []
        if self._told is None or passed_s >= 2 * tick_s:
            self._told = now
            self.stalled_s += passed_s - tick_s
        else:
            self._told = Mono(self._told + tick_s)
        self._tick = tick = self._tick + 1
        index = tick % len(self._buckets)
        bucket = self._buckets[index]
        effects: list[Effect[C]] = []
        if bucket:
            self._buckets[index] = {}
            for pulse in bucket:
                if pulse.due > tick:  # a round of the ring too early
                    self._buckets[pulse.due % len(self._buckets)][pulse] = None
                else:
                    self._visit(pulse, effects)
        return effects

    # ------------------------------------------------------------------------------------------------

    def _lay(self, pulse: Pulse[C], span_s: float) -> None:
        pulse.due = due = self._tick + max(1, ceil(span_s / self.policy.tick_s - 1e-6))
        self._buckets[due % len(self._buckets)][pulse] = None

    def _visit(self, pulse: Pulse[C], effects: list[Effect[C]]) -> None:
        if pulse.is_heard:
            self._lives(pulse, effects)
        elif pulse.since is None:
            pulse.since = self._tick
            self._ping(pulse, effects)
        else:
            self._waited(pulse, effects)

    def _lives(self, pulse: Pulse[C], effects: list[Effect[C]]) -> None:
        pulse.is_heard = pulse.is_asked = pulse.is_excused = False
        pulse.since = None
        pulse.late = 0
        if pulse.is_lost:
            pulse.is_lost = False
            self.restored += 1
            effects.append(Restore(pulse.connection))
        spread = self.policy.spread_share
        self._lay(pulse, self.policy.quiet_s * self._rng.uniform(1.0 - spread, 1.0 + spread))

    def _ping(self, pulse: Pulse[C], effects: list[Effect[C]]) -> None:
        pulse.number += 1
        self.pings += 1
        effects.append(SendPing(pulse.connection, pulse.number))
        policy = self.policy
        wait_s = policy.late_s
        if pulse.is_lost:
            wait_s = max(wait_s, min(policy.again_max_s, wait_s * 2.0 ** min(30, pulse.late - policy.late_max)))
        self._lay(pulse, wait_s + pulse.expected_s - policy.tick_s)

    def _waited(self, pulse: Pulse[C], effects: list[Effect[C]]) -> None:
        if not pulse.is_asked:
            pulse.is_asked = True
            effects.append(AskKernel(pulse))
            self._lay(pulse, 0.0)
            return
        pulse.is_asked = False
        if pulse.is_excused:
            pulse.is_excused = False
            pulse.since = self._tick
            self._lay(pulse, self.policy.late_s + pulse.expected_s - self.policy.tick_s)
            return
        pulse.late += 1
        self.late += 1
        policy = self.policy
        silent_s = (self._tick - (pulse.since or 0)) * policy.tick_s
        if silent_s >= policy.silent_s:
            self.silent += 1
            self._count -= 1
            effects.append(EndSilent(pulse.connection, silent_s))
            return
        if pulse.late == policy.late_max:
            pulse.is_lost = True
            self.degraded += 1
            effects.append(Degrade(pulse.connection))
        self._ping(pulse, effects)
