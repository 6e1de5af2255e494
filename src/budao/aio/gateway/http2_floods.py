"""Frames of HTTP/2 that cost us work and bring nothing, counted before anything reads them.

    problem = guard.feed(data, now)

A client has a calm, which such frames use up and time restores: resets (CVE-2023-44487), pings, settings, priorities, empty data,
headers in many pieces. What we send restores it as well, since each frame of data may be answered with updates of two windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES: Final = 9

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

FRAME_BYTES_MAX: Final = 16_384
"""What we agree to (RFC 9113, section 6.5.2). `h2` would wait for a frame of up to 16 MiB before it refuses it."""
OVERLONG: Final = f"a frame has more than {FRAME_BYTES_MAX} bytes"

COSTS: Final[Mapping[int, float]] = {
    HEADERS: 0.0,
    PRIORITY: 1.0,
    RST_STREAM: 5.0,
    SETTINGS: 10.0,
    PING: 4.0,
    WINDOW_UPDATE: 1.0,
    CONTINUATION: 5.0,
}
OTHER_COST: Final = 1.0
EMPTY_DATA_COST: Final = 2.0
CALM: Final = 1_000.0
"""200 resets, 250 pings or 100 changes of settings at once."""
CALM_PER_S: Final = 50.0
"""10 resets, 12 pings or 5 changes of settings per second, for ever."""
CALM_PER_FRAME_SENT: Final = 3.0


class FloodGuard:
    """Looks at the head of each frame of one connection, and at nothing else of it."""

    __slots__ = ("_block_bytes", "_block_bytes_max", "_calm", "_head", "_last", "_left")

    def __init__(self, *, block_bytes_max: int, now: float) -> None:
        """`block_bytes_max` bounds a block of headers as it comes, compressed and in all its pieces."""
        self._head = b""
        self._left = len(PREFACE)
        self._calm = CALM
        self._last = now
        self._block_bytes = 0
        self._block_bytes_max = block_bytes_max

    def feed(self, data: bytes, now: float) -> str:
        """What is wrong; empty if nothing is. The bytes are of the connection from its first one on, in order."""
        self._calm = min(CALM, self._calm + max(0.0, now - self._last) * CALM_PER_S)
        self._last = now
        at, size = 0, len(data)
        while True:
            skipped = min(self._left, size - at)
            self._left -= skipped
            at += skipped
            if self._left:
                return ""
            head = self._head + data[at : at + HEAD_BYTES - len(self._head)]
            at += len(head) - len(self._head)
            if len(head) < HEAD_BYTES:
                self._head = head
                return ""
            self._head = b""
            self._left = int.from_bytes(head[:3], "big")
            problem = self._frame(head[3], self._left, ends_stream=bool(head[4] & 1))
            if problem:
                return problem

    def _frame(self, kind: int, size: int, *, ends_stream: bool) -> str:
        if size > FRAME_BYTES_MAX:
            return OVERLONG
        cost = COSTS.get(kind, OTHER_COST)
        if kind == DATA:
            cost = 0.0 if size or ends_stream else EMPTY_DATA_COST
        if kind in {HEADERS, CONTINUATION}:
            self._block_bytes = size if kind == HEADERS else self._block_bytes + size
            if self._block_bytes > self._block_bytes_max:
                return f"a block of headers has more than {self._block_bytes_max} bytes"
        return self.spend(cost)

    def spend(self, cost: float) -> str:
        """Something was done for the client that costs its calm."""
        self._calm -= cost
        return "too many frames that bring nothing" if self._calm < 0.0 else ""

    def sent(self, frames: int) -> None:
        """So many frames of data were sent, which the client may answer."""
        self._calm = min(CALM, self._calm + frames * CALM_PER_FRAME_SENT)
