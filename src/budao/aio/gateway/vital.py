"""What is known of one connection by those who look after it, and rings of connections to look at in turn."""

from __future__ import annotations

import errno
import socket
from typing import Any, Protocol

from budao.push import PERFECT, Health, Pulse


class Watched(Protocol):
    """What is looked after: a connection of the gateway."""

    health: Any
    """A place for the `Vital`."""
    why: str
    """Why it ended; empty while it has not, or where it ended in order."""

    @property
    def socket(self) -> socket.socket | None:
        """The kernel's end; None where there is none."""

    @property
    def peer(self) -> str: ...

    def queued_bytes(self) -> int:
        """In our own outbox."""

    def ping(self, number: int) -> None: ...
    def park(self) -> None: ...
    def unpark(self) -> None: ...
    def close(self, why: str) -> None: ...
    def cut(self, why: str) -> None: ...


class Vital(Pulse[Watched]):
    """Everything that is known of one connection here."""

    __slots__ = (
        "acked",
        "buffer_bytes",
        "descriptor",
        "fresh",
        "health",
        "index",
        "is_blocked",
        "moved",
        "place",
        "prefix",
        "ring",
        "still",
    )

    def __init__(self, connection: Watched, descriptor: int, prefix: str, *, is_mute: bool) -> None:
        super().__init__(connection, is_mute=is_mute)
        self.descriptor = descriptor
        """-1: there is none to ask about."""
        self.prefix = prefix
        self.health: Health | None = None
        self.is_blocked = False
        self.buffer_bytes = 0
        """Of the kernel's send buffer; 0 while nobody asked."""
        self.moved = -1
        """Bytes sent and received as of the last look."""
        self.acked = 0
        """Bytes the peer's kernel had taken when the latest ping was sent, or the kernel was asked about it."""
        self.still = 0
        """Looks in a row that saw nothing move."""
        self.fresh: dict[Vital, None] | None = None
        """Where those are put that are to be looked at with the next tick."""
        self.ring: Ring | None = None
        self.index = 0
        """Where it is in its ring."""

    def doubt(self) -> None:
        """Its transport is full, or something else is odd: look at it with the next tick."""
        if self.fresh is not None and self.descriptor >= 0:
            self.fresh[self] = None

    @property
    def score(self) -> float:
        return PERFECT if self.health is None else self.health.score


class Ring:
    """Connections that are looked at in turn. Adding, leaving and the next one cost the same whatever its size."""

    __slots__ = ("_next", "members", "owed")

    def __init__(self) -> None:
        self.members: list[Vital] = []
        self._next = 0
        self.owed = 0.0
        """Looks that are due, and the part of one that is not due yet."""

    def add(self, vital: Vital) -> None:
        vital.ring, vital.index = self, len(self.members)
        self.members.append(vital)

    def remove(self, vital: Vital) -> None:
        last = self.members.pop()
        if last is not vital:
            self.members[vital.index] = last
            last.index = vital.index
        vital.ring = None

    def take(self, count: int) -> list[Vital]:
        """The next so many, each at most once."""
        members, start = self.members, self._next
        if count >= len(members):
            self._next = 0
            return members[:]
        if start >= len(members):
            start = 0
        taken = members[start : start + count]
        self._next = start + count
        if len(taken) < count:
            self._next = count - len(taken)
            taken += members[: self._next]
        return taken


def why_of(problem: BaseException | None) -> str:
    """The word for a connection that its transport lost: a bad end, or empty where it ended in order."""
    if problem is None:
        return ""
    number = problem.errno if isinstance(problem, OSError) else None
    if number == errno.ETIMEDOUT:
        return "timed-out"
    if number in {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}:
        return "unreachable"
    return "reset"
