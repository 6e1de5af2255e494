"""Beats: so that a client notices a gateway that has frozen, each hears something at least as often as it was promised.

Connections of one beat share a timer and their bytes; there is no timer and no instant for each of them. Who was told a message a
moment ago, or does not read what was sent, is passed over.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from budao.aio.gateway.connection import FROZEN, FULL, Connection
from budao.aio.gateway.policy import BEATS_S

PERIOD_SHARE: Final = 0.8
"""A beat comes this share of its promise after the one before, and it is left out if something was said within the rest."""
SLICE: Final = 2_000
"""Connections that are told in one turn of the loop."""


class Beats:
    """All beats of a gateway."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._members: tuple[dict[Connection, None], ...] = tuple({} for _ in BEATS_S)
        self._timers: list[asyncio.TimerHandle | None] = [None] * len(BEATS_S)
        self._due = [0.0] * len(BEATS_S)

    def add(self, connection: Connection, beat_s: float) -> None:
        """From now on it hears something at least every `beat_s`; 0 asks for nothing."""
        if beat_s <= 0:
            return
        index = max((i for i, each in enumerate(BEATS_S) if each <= beat_s), default=0)
        connection.beat = index + 1
        self._members[index][connection] = None
        if self._timers[index] is None:
            self._due[index] = self._loop.time()
            self._wait(index)

    def remove(self, connection: Connection) -> None:
        """No more."""
        if connection.beat:
            self._members[connection.beat - 1].pop(connection, None)
            connection.beat = 0

    def of(self, connection: Connection) -> float:
        """Its beat; 0 for none."""
        return BEATS_S[connection.beat - 1] if connection.beat else 0.0

    def close(self) -> None:
        """No more for anybody."""
        for timer in self._timers:
            if timer is not None:
                timer.cancel()
        for members in self._members:
            members.clear()

    def _wait(self, index: int) -> None:
        now = self._loop.time()
        self._due[index] = max(self._due[index] + BEATS_S[index] * PERIOD_SHARE, now)
        self._timers[index] = self._loop.call_at(self._due[index], self._ring, index)

    def _ring(self, index: int) -> None:
        members = self._members[index]
        if not members:
            self._timers[index] = None
            return
        self._tell(index, list(members), 0)
        self._wait(index)

    def _tell(self, index: int, members: list[Connection], begin: int) -> None:
        since = self._loop.time() - BEATS_S[index] * (1.0 - PERIOD_SHARE)
        for connection in members[begin : begin + SLICE]:
            if connection.holds & (FULL | FROZEN) or connection.is_over:
                continue
            for channel, lag in connection.places.items():
                if lag is None and channel.told_at > since:
                    break
            else:
                connection.write(connection.encoding.beat)
        if begin + SLICE < len(members):
            self._loop.call_soon(partial(self._tell, index, members, begin + SLICE))
