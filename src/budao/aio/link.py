"""One connection between a server of ours and a client, seen from either end: bytes into messages, beats, and a bounded outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Generic, TypeVar, cast

from budao.aio.security import explain_tls
from budao.model import RemoteWireError
from budao.wire import decoding

M = TypeVar("M")

BEAT_S: Final = 0.5
"""How often a side that has nothing else to say says that it is there."""
SILENT_BEATS_MAX: Final = 4
"""So many beats without a byte, and the other side counts as dead: 2 to 2.5 s. Beats are counted, not seconds, so that a
side whose own loop stood still does not blame the other."""
ROOM_BYTES: Final = 256 * 1024
"""With less than this in the outbox, there is room for what can wait."""


class Link(asyncio.Protocol, Generic[M]):
    """What it receives, it hands on at once; `lost` is told exactly once, with the reason in words."""

    def __init__(
        self,
        *,
        decoder: decoding.Decoder[M],
        outbox_bytes_max: int,
        received: Callable[[M], None],
        lost: Callable[[str], None],
        has_room: Callable[[], None],
        garbage: Callable[[RemoteWireError], None],
        room_bytes: int = ROOM_BYTES,
    ) -> None:
        self.decoder = decoder
        self.outbox_bytes_max = outbox_bytes_max
        self.is_open = False
        self.has_room = True
        self._room_bytes = room_bytes
        self._posted: list[bytes] = []
        self._is_reading = True
        self._transport: asyncio.Transport | None = None
        self._received = received
        self._lost = lost
        self._room = has_room
        self._garbage = garbage
        self._why: str | None = None
        self._was_heard = True
        self._has_spoken = True
        self._silent_beats = 0

    # ------------------------------------------------------------------------------- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = stream = cast(asyncio.Transport, transport)  # uvloop's own does not inherit from it
        stream.set_write_buffer_limits(high=self._room_bytes)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        self._was_heard = True
        try:
            messages = self.decoder.feed(data)
        except RemoteWireError as problem:
            if self.is_open:
                self._garbage(problem)
                self.close(str(problem))
            return
        for message in messages:
            if self.is_open:
                self._received(message)

    def pause_writing(self) -> None:
        self.has_room = False

    def resume_writing(self) -> None:
        self.has_room = True
        self._room()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._lost(self._why or ("the connection was closed" if exc is None else explain_tls(exc)))

    # -------------------------------------------------------------------------------------- called by its owner

    @property
    def outbox_bytes(self) -> int:
        """What waits for the other side to read."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def post(self, frame: bytes) -> bool:
        """As `send`, in one write with whatever else is posted in this turn of the loop."""
        if not self.is_open or self._transport is None or self._transport.is_closing():
            return False
        if not self._posted:
            asyncio.get_running_loop().call_soon(self._flush)
        self._posted.append(frame)
        return True

    def _flush(self) -> None:
        if self._posted and self.is_open:
            self.send(b"")

    def send(self, frame: bytes) -> bool:
        """Whether it was taken. Whoever does not read what is sent for him is cut off, and nobody waits for him."""
        transport = self._transport
        if not self.is_open or transport is None or transport.is_closing():
            return False
        self._has_spoken = True
        if self._posted:
            frame = b"".join((*self._posted, frame))
            self._posted.clear()
        transport.write(frame)
        if transport.get_write_buffer_size() > self.outbox_bytes_max:
            self.cut(f"{transport.get_write_buffer_size()} bytes wait for it to read, and that is beyond the bound")
        return True

    def beat(self, frame: Callable[[], bytes]) -> None:
        """To be called every `BEAT_S`."""
        is_heard = self._was_heard or not self._is_reading  # who does not listen cannot say that nobody speaks
        self._silent_beats = 0 if is_heard else self._silent_beats + 1
        if self._silent_beats >= SILENT_BEATS_MAX:
            self.cut(f"nothing was heard for {SILENT_BEATS_MAX * BEAT_S:g} s")
            return
        self._was_heard = False
        if not self._has_spoken and self.has_room:
            self.send(frame())
        self._has_spoken = False

    def read(self, *, is_wanted: bool) -> None:
        """Takes what the other side sends, or leaves it waiting."""
        if is_wanted == self._is_reading or self._transport is None or not self.is_open:
            return
        self._is_reading = is_wanted
        if is_wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def close(self, why: str) -> None:
        """Hangs up once what was sent is on its way."""
        self._flush()
        self._end(why, is_at_once=False)

    def cut(self, why: str) -> None:
        """Hangs up at once."""
        self._end(why, is_at_once=True)

    def _end(self, why: str, *, is_at_once: bool) -> None:
        if self._why is None:
            self._why = why
        self.is_open = False
        if self._transport is not None:
            if is_at_once:
                self._transport.abort()
            else:
                self._transport.close()
