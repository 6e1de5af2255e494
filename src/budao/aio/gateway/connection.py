"""What a live connection is to the rest of the gateway, whatever it speaks: the seam between the hub, health and moving.

The hub sees `encoding`, `write` and `places`; nothing else is touched for each message. Health (the sampler) sees `socket`, `peer`,
`queued_bytes`, `park`, `unpark`, `cut` and `close`, and may keep a value of its own in `health`. Moving sees `move`, `close` and the
`Movable` half: `freeze`, `is_settled`, `thaw`, `export`, `forget`.

A transport is whatever has these methods of `asyncio.Transport`: `write`, `get_write_buffer_size`, `set_write_buffer_limits`,
`pause_reading`, `resume_reading`, `is_closing`, `close`, `abort`, `get_extra_info`, `set_protocol`; and it calls `data_received`,
`pause_writing`, `resume_writing`, `eof_received` and `connection_lost` of its protocol, never from within `write` except for
`pause_writing`. So a TLS layer hands its own transport to `Door.connection_made`, and a stream of HTTP/2 is a transport made for
one `SseConnection` (see `sse.py`); neither is known here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from budao.aio.gateway.sending import NOT_ASKED
from budao.aio.gateway.vital import why_of
from budao.model import Wall
from budao.push import BY_WHY, Bye, FromGateway, Move, Ping, Pulse
from budao.wire import websocket

if TYPE_CHECKING:
    from budao.aio.gateway.channel import Channel, Lag
    from budao.aio.gateway.encoding import Encoding
    from budao.aio.gateway.gateway import Gateway

FULL: Final = 1
"""It does not read fast enough: its transport said so."""
PARKED: Final = 2
"""Health wants nothing new to be written to it."""
FROZEN: Final = 4
"""It is about to be another process's."""
OPENING: Final = 8
"""It has not been welcomed."""

NOWHERE: Final = ""
PING_OPCODE: Final = 9


class Connection(asyncio.Protocol):
    """One live connection. While any bit of `holds` is set, the hub only remembers its places."""

    __slots__ = (
        "beat",
        "descriptor",
        "encoding",
        "gateway",
        "health",
        "holds",
        "is_over",
        "places",
        "pulse",
        "transport",
        "why",
        "write",
    )

    encoding: Encoding
    write: Callable[[bytes], None]
    """Of the transport. Never blocks; what it cannot send it keeps, and says `pause_writing`."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.transport: asyncio.Transport | None = None
        self.places: dict[Channel, Lag | None] = {}
        """What it reads: None where it is at the head and flows."""
        self.holds = 0
        self.is_over = False
        """Nothing more is sent: it ended, or is ending."""
        self.why = NOWHERE
        """Why it ended, as a word of `closing.BY_WHY` or of the metrics' error kinds; empty while nobody has said."""
        self.beat = 0
        """The class of its beat, from 1; 0 for none."""
        self.descriptor = NOT_ASKED
        """The kernel's end, once the native loop has asked for it."""
        self.health: Any = None
        """The sampler's own."""
        self.pulse: Pulse[Any] | None = None
        """Of the heartbeats, where there are any: told whenever something is received."""

    # --------------------------------------------------------------------------------------------- what is

    @property
    def socket(self) -> socket.socket | None:
        """The kernel's end, to look at; None where there is none, as for a stream of HTTP/2."""
        found: socket.socket | None = None if self.transport is None else self.transport.get_extra_info("socket")
        return found

    @property
    def peer(self) -> str:
        """The address at the other end, without its port; empty if that is not known."""
        found = None if self.transport is None else self.transport.get_extra_info("peername")
        return str(found[0]) if isinstance(found, tuple) else NOWHERE

    def queued_bytes(self) -> int:
        """What was written and not yet taken by the kernel."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    # ------------------------------------------------------------------------------------------- what is done

    def begin(self, transport: asyncio.Transport) -> None:
        """It is live, on this transport."""
        policy = self.gateway.policy
        self.transport = transport
        self.write = transport.write
        transport.set_write_buffer_limits(policy.write_high_bytes, policy.write_low_bytes)
        self.gateway.opened(self)

    def send(self, frame: FromGateway) -> None:
        """A frame for this one, at once."""
        if self.is_over:
            return
        self.write(self.encoding.frame(frame))
        if self.holds & FULL:
            self.relieve()

    def relieve(self) -> None:
        """Who makes us write and reads nothing is read no further itself, until it has read."""
        if self.transport is not None and self.queued_bytes() > 2 * self.gateway.policy.write_high_bytes:
            self.transport.pause_reading()

    def ping(self, number: int) -> None:
        """Ask for life, in the words of its transport. Browsers answer the ping of a WebSocket by themselves."""
        if self.is_over or self.holds & (FROZEN | FULL):
            return  # behind a full buffer it would wait with the rest, and say nothing new
        transport = self.encoding.transport
        if transport == "ws":
            self.write(websocket.frame(PING_OPCODE, b"%d" % number))
        elif transport == "tcp":
            self.send(Ping(number=number))
        else:
            self.write(self.encoding.beat)

    def park(self) -> None:
        """Write it nothing of its channels until `unpark`; they go past it, within the bounds of a slow reader."""
        self.gateway.hub.hold(self, PARKED)

    def unpark(self) -> None:
        """Catch up, and go on."""
        self.gateway.hub.release(self, PARKED)

    def move(self, url: str, ticket: str | None, *, within_s: float, why: str = "drain") -> None:
        """Tell it to go elsewhere; it goes on here until it lets go."""
        self.gateway.metrics.moves += 1
        self.send(Move(url=url, ticket=ticket, within_s=within_s, why=why))

    def close(self, why: str, *, after_s: float = 0.0, detail: str = "") -> None:
        """End it with a reason: a word of `closing.BY_WHY`. What was written before is sent first, within `policy.close_s`."""
        ending = BY_WHY[why]
        self.finish(Bye(code=ending.code, why=why, advice=ending.advice, after_s=after_s, detail=detail))

    def finish(self, bye: Bye) -> None:
        """Say goodbye and end it. What is behind a full buffer is not waited for longer than `policy.close_s`."""
        if self.is_over or self.transport is None:
            return
        self.why = self.why or bye.why
        if not self.transport.is_closing():
            self.write(self.goodbye(bye))
        self.is_over = True
        self.gateway.hub.leave(self)
        self.let_go()

    def let_go(self) -> None:
        """The goodbye is written: what comes after it."""
        self.hang_up()

    def hang_up(self) -> None:
        """Close the transport once everything is sent, and cut it if that takes too long."""
        if self.transport is not None:
            self.transport.close()
            if self.queued_bytes():
                self.gateway.cut_later(self)

    def goodbye(self, bye: Bye) -> bytes:
        """The last bytes."""
        return self.encoding.frame(bye)

    def cut(self, why: str) -> None:
        """End it now, without a word. `why` is counted."""
        if self.transport is None:
            return
        self.why = self.why or why
        self.is_over = True
        self.gateway.hub.leave(self)
        self.transport.abort()

    def wake_at(self) -> Wall | None:
        """When its grant runs out; None for never."""
        return None

    def expire(self, _: Wall) -> None:
        """Its grant ran out."""
        self.close("expired", detail="the token is no longer good; come back with a new one")

    # -------------------------------------------------------------------------------- to be moved to a process

    def freeze(self) -> bool:
        """See `movable.Movable`. False: this kind stays."""
        return False

    def is_settled(self) -> bool:
        """Whether nothing of it is under way."""
        return self.queued_bytes() == 0

    def thaw(self) -> None:
        """Goes on as if nothing had happened."""

    def export(self) -> tuple[int, Mapping[str, Any]]:
        """The descriptor, and everything that `adopt` needs."""
        raise NotImplementedError

    def forget(self) -> None:
        """It is another's now."""
        self.is_over = True
        self.why = "taken"
        self.gateway.hub.leave(self)
        if self.transport is not None:
            self.transport.abort()

    # ----------------------------------------------------------------------------------- what a transport says

    def pause_writing(self) -> None:
        self.gateway.hub.hold(self, FULL)
        if self.health is not None:
            self.health.doubt()

    def resume_writing(self) -> None:
        if self.transport is not None and not self.is_over:
            self.transport.resume_reading()
            self.gateway.hub.release(self, FULL)

    def connection_lost(self, problem: Exception | None) -> None:
        self.is_over = True
        if not self.why:
            self.why = why_of(problem)
        self.gateway.hub.leave(self)
        self.gateway.ended(self)
        self.ended()
        self.transport = None

    def ended(self) -> None:
        """It is gone: let go of what only this kind has."""

    def data_received(self, data: bytes) -> None:
        if self.pulse is not None:
            self.pulse.is_heard = True
        try:
            self.received(data)
        except Exception as problem:  # noqa: BLE001 - a mistake of ours ends this connection, and no other
            self.gateway.mistake(self, problem)

    def received(self, data: bytes) -> None:
        """Bytes of the client. Whatever is raised ends this connection with 1011."""

    def __repr__(self) -> str:
        code = BY_WHY[self.why].code if self.why in BY_WHY else ""
        return f"<{type(self).__name__} {self.encoding.name} reads {len(self.places)}{f' ended {code}' if self.is_over else ''}>"
