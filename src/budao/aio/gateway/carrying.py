"""A live connection into plain values, and back to life in another process: what `handover` carries, for each kind there is.

What a reader of bytes holds travels as the bytes that bring another one to the same point. Rates begin anew. A place is what the
client was sent last, so that what follows is read from the ring or the log again: nothing is lost, and nothing told twice.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from budao.aio.gateway.connection import FROZEN, FULL, OPENING, Connection
from budao.aio.gateway.sending import is_plain
from budao.aio.gateway.sse import Several, SseConnection, Wish
from budao.aio.gateway.talk import Talk
from budao.aio.gateway.tcp import TcpConnection
from budao.aio.gateway.websocket import CODECS, WebSocket
from budao.model import RemoteWireError, Wall
from budao.push import Grant, Position, Problem, Session, SessionState
from budao.wire import deflate

if TYPE_CHECKING:
    from budao.aio.gateway.gateway import Gateway

EARLY_BYTES_MAX: Final = 256 * 1024
"""What a client may say before its channels are there; then it waits in the kernel."""

Plain = Mapping[str, Any]


class _Kept:
    """Takes what is written to a connection that may be another's by now: it is written if it is still ours in the end."""

    __slots__ = ("pieces",)

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def __call__(self, data: bytes) -> None:
        self.pieces.append(data)


class Seat:
    """A connection as `movable.Movable`."""

    __slots__ = ("connection",)

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def freeze(self) -> bool:
        """See `Movable`. Who is encrypted, not welcomed yet, or so slow that its buffer is full, stays."""
        connection = self.connection
        transport = connection.transport
        if transport is None or connection.is_over or transport.is_closing() or connection.holds & (FULL | OPENING):
            return False
        if isinstance(connection, Talk):
            can_move = connection.session.is_established
        else:
            can_move = isinstance(connection, SseConnection) and not connection.pending
        if not can_move or not is_plain(transport):
            return False
        transport.pause_reading()
        connection.gateway.hub.hold(connection, FROZEN)
        return True

    def is_settled(self) -> bool:
        """See `Movable`. One that has ended has nothing under way either."""
        connection = self.connection
        if connection.is_over:
            return True
        if connection.queued_bytes():
            return False
        if not isinstance(connection, Talk):
            return True
        session = connection.session
        if session.waits_for_log or connection.out or len(session.channels) != len(connection.places):
            return False
        return not isinstance(connection, WebSocket) or connection.reader.unread() is not None

    def thaw(self) -> None:
        """See `Movable`."""
        connection = self.connection
        transport = connection.transport
        if transport is None or transport.is_closing():
            return
        if isinstance(connection.write, _Kept):
            kept, connection.write = connection.write, transport.write
            for piece in kept.pieces:
                connection.write(piece)
        transport.resume_reading()
        connection.gateway.hub.release(connection, FROZEN)

    def export(self) -> tuple[int, Plain]:
        """See `Movable`.

        Raises:  ConnectionError if it has ended.
        """
        connection = self.connection
        found = connection.socket
        if connection.is_over or found is None or found.fileno() < 0:
            raise ConnectionAbortedError("it has ended")
        state = _state(connection)
        connection.write = _Kept()
        return found.fileno(), state

    def forget(self) -> None:
        """See `Movable`."""
        self.connection.forget()


def _state(connection: Connection) -> Plain:
    common = {
        "beat_s": connection.gateway.granted_beat_s(connection),
        "places": {name: list(place) for name, place in _places(connection).items()},
    }
    if isinstance(connection, SseConnection):
        return {
            **common,
            "kind": "sse",
            "session": connection.id,
            "grant": _plain_grant(connection.grant),
            "channels": list(_places(connection)),
            "unread": connection.unread,
        }
    assert isinstance(connection, Talk), "freeze lets nothing else pass"
    reader = cast(WebSocket | TcpConnection, connection).reader
    state = connection.session.state()
    return {
        **common,
        "kind": "ws" if isinstance(connection, WebSocket) else "tcp",
        "codec": connection.codec.subprotocol,
        "deflates": connection.encoding.name.endswith("deflated"),
        "session": state.session,
        "grant": _plain_grant(state.grant),
        "is_standby": state.is_standby,
        "seen": [[name, None if place is None else list(place)] for name, place in state.channels],
        "presence": list(state.presence),
        "unread": reader.unread(),
    }


def _places(connection: Connection) -> dict[str, Position]:
    """What it was sent last, in each of its channels."""
    found = {}
    for channel, lag in connection.places.items():
        if lag is not None:
            found[channel.name] = lag.missing or lag.place
        elif channel.ring is not None:
            found[channel.name] = channel.ring.head
    return found


def _plain_grant(grant: Grant) -> Plain:
    return {
        "subject": grant.subject,
        "subscribe": list(grant.subscribe),
        "publish": list(grant.publish),
        "presence": list(grant.presence),
        "operate": grant.operate,
        "until": grant.until,
    }


# -------------------------------------------------------------------------------------------------- back to life


class _Arrival(asyncio.Protocol):
    """Stands before a connection until all its channels are there, so that nothing the client says comes too early."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._transport: asyncio.Transport | None = None
        self._early = bytearray()
        self._has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.connection.begin(self._transport)

    def data_received(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > EARLY_BYTES_MAX and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._has_ended = True
        return True

    def pause_writing(self) -> None:
        self.connection.pause_writing()

    def resume_writing(self) -> None:
        self.connection.resume_writing()

    def connection_lost(self, problem: Exception | None) -> None:
        self._transport = None
        self.connection.connection_lost(problem)

    def step_aside(self) -> None:
        """It goes on by itself."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.set_protocol(self.connection)
        if self._early:
            self.connection.data_received(bytes(self._early))
        if self._has_ended:
            transport.close()
        elif len(self._early) > EARLY_BYTES_MAX:
            transport.resume_reading()


async def adopt(gateway: Gateway, found: socket.socket, state: Plain) -> Connection:
    """Goes on with a connection that another process exported.

    Raises:  RemoteWireError for a state that does not parse; OSError for a socket that is none of the network.
    """
    try:
        connection, channels, is_standing = _restored(gateway, state)
        beat_s, presence = float(state["beat_s"]), tuple(state.get("presence", ()))
    except (KeyError, TypeError, ValueError, IndexError) as problem:
        raise RemoteWireError(f"the state of a connection does not parse: {problem!r}") from problem
    connection.holds = OPENING
    arrival = _Arrival(connection)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: arrival, found)
    _Resuming(gateway, arrival, channels, beat_s, presence, is_standing=is_standing).begin()
    return connection


class _Resuming:
    """Channels of an adopted connection that begin again, each at its place."""

    def __init__(
        self,
        gateway: Gateway,
        arrival: _Arrival,
        channels: Mapping[str, Position],
        beat_s: float,
        presence: Sequence[str],
        *,
        is_standing: bool,
    ) -> None:
        self.gateway = gateway
        self.arrival = arrival
        self.channels = channels
        self.beat_s = beat_s
        self.presence = presence
        self.is_standing = is_standing
        self.pending = 0

    def begin(self) -> None:
        connection, join = self.arrival.connection, self.gateway.hub.join
        self.pending = 1
        for name, place in self.channels.items():
            if connection.is_over:
                return
            self.pending += 1
            found = join(connection, name, place, 0, self._placed, is_standing=self.is_standing)
            if found is not None:
                self._placed(found)
        self.pending -= 1
        self._look()

    def _placed(self, found: Position | Problem) -> None:
        self.pending -= 1
        connection = self.arrival.connection
        if isinstance(found, Problem) and not connection.is_over:
            # It would miss something without knowing. Whoever comes back asks for its channels again.
            why = "log-away" if found.why == "log-away" else "full"
            connection.close(why, after_s=found.after_s, detail=found.happened)
        self._look()

    def _look(self) -> None:
        connection, gateway = self.arrival.connection, self.gateway
        if self.pending or connection.is_over:
            return
        self.pending = -1
        until = connection.wake_at()
        gateway.reads(connection, self.beat_s, is_resumed=False, until=until, is_quiet=self.is_standing)
        for name in self.presence:
            gateway.joined(connection, name, presence=True)
        gateway.hub.release(connection, OPENING)
        self.arrival.step_aside()


def _restored(gateway: Gateway, state: Plain) -> tuple[Connection, dict[str, Position], bool]:
    """The connection, its places, and whether it is a standby. Raises what comes of a state that does not fit."""
    places = {str(name): _position(place) for name, place in state["places"].items()}
    grant = _grant(state["grant"])
    kind = state["kind"]
    connection: Connection
    if kind == "sse":
        wish = Wish({"channel": [str(each) for each in state["channels"]]}, {}, channels_max=len(places))
        wish.after, wish.beat_s = dict(places), float(state["beat_s"])
        connection = SseConnection(gateway, grant, wish)
        connection.id, connection.unread = str(state["session"]), int(state["unread"])
        connection.channels = dict(places)
        if isinstance(connection.encoding, Several):
            connection.encoding.places = dict(places)
        return connection, places, False
    talk: WebSocket | TcpConnection
    if kind == "ws":
        agreed = deflate.Agreed(header="") if state["deflates"] else None
        talk = WebSocket(gateway, grant, CODECS[state["codec"]], agreed)
    elif kind == "tcp":
        talk = TcpConnection(gateway)
        talk.is_known = True
    else:
        raise ValueError(f"no connection is a {kind!r}")
    is_standby = bool(state["is_standby"])
    said = SessionState(
        session=str(state["session"]),
        grant=grant,
        is_standby=is_standby,
        channels=tuple((str(name), None if place is None else _position(place)) for name, place in state["seen"]),
        presence=tuple(map(str, state["presence"])),
    )
    talk.session = Session.restored(said, gateway.session_policy, gateway.rules)
    feed: Callable[[bytes], object] = talk.reader.feed
    if state["unread"]:
        feed(bytes(state["unread"]))
    return talk, places, is_standby


def _position(plain: Sequence[Any]) -> Position:
    epoch, seq = plain
    return Position(str(epoch), int(seq))


def _grant(plain: Plain) -> Grant:
    until = plain["until"]
    return Grant(
        subject=str(plain["subject"]),
        subscribe=tuple(map(str, plain["subscribe"])),
        publish=tuple(map(str, plain["publish"])),
        presence=tuple(map(str, plain["presence"])),
        operate=bool(plain["operate"]),
        until=None if until is None else Wall(float(until)),
    )
