"""A stream of server-sent events: it reads, and says nothing.

With one channel, the bytes of a message are the same for everybody, and its id is its place. With several, an id must carry the
places of all of them, so each such connection has an encoding of its own.

Another protocol carries a stream by handing a transport of its own to `SseConnection.begin`, as `connection.py` says: what is
written there is the body of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from budao.aio.gateway.connection import OPENING, Connection
from budao.aio.gateway.encoding import Encoding
from budao.model import LocalWireError, RemoteWireError, Wall
from budao.push import (
    Bye,
    FromGateway,
    Grant,
    Message,
    Missing,
    Move,
    Ping,
    Position,
    Problem,
    Recent,
    Welcome,
    check_channel,
)
from budao.wire import push_frames, sse

if TYPE_CHECKING:
    from budao.aio.gateway.gateway import Gateway

SAFE: Final = ""
ID_BYTES_MAX: Final = 8 * 1024
"""A browser sends the id back as a header, which must find room in a head."""
PLACE_BYTES: Final = 40
"""What the place of one channel takes in an id, at most."""
RETRY_S: Final = 1.0
"""How long a browser waits before it comes back, unless it is told otherwise."""
UNREAD_BYTES_MAX: Final = 64 * 1024
"""What a reader may say after its request. It has no reason to say anything."""
_ID: Final = re.compile(r"([^:;=\s\x00-\x1f\x7f]{0,64}):([0-9]{1,18})")


def format_place(place: Position) -> str:
    """A place as an id."""
    return f"{place.epoch}:{place.seq}"


def format_places(places: Mapping[str, Position]) -> str:
    """The places of several channels as one id."""
    return ";".join(f"{quote(name, safe=SAFE)}={format_place(place)}" for name, place in places.items())


def parse_last_id(text: str, channels: Sequence[str]) -> dict[str, Position]:
    """Where a reader of these channels stands. Channels that the id does not name are not there.

    Raises:  RemoteWireError for what no gateway has said.
    """
    if not text:
        return {}
    if len(channels) == 1 and "=" not in text:
        return {channels[0]: _place(text)}
    found = {}
    for part in text.split(";"):
        name, _, place = part.partition("=")
        channel = unquote(name)
        if channel in channels:
            found[channel] = _place(place)
    return found


def _place(text: str) -> Position:
    match = _ID.fullmatch(text)
    if match is None:
        raise RemoteWireError(f"Last-Event-ID {text[:60]!r} is not an id that a gateway has said")
    return Position(match[1], int(match[2]))


def _frame(frame: FromGateway) -> bytes:
    """What is the same whatever is read."""
    body = push_frames.JSON.encode(frame)
    if isinstance(frame, Missing):
        return sse.event(body, id=format_place(frame.gap.upto), event="gap")
    if isinstance(frame, Bye):
        return sse.event(body, event="bye", retry_s=max(RETRY_S, frame.after_s))
    if isinstance(frame, Welcome):
        place = next(iter(frame.channels.values()), None)
        return sse.event(body, id=None if place is None else format_place(place), event="welcome", retry_s=RETRY_S)
    if isinstance(frame, Move):
        return sse.event(body, event="move")
    if isinstance(frame, Ping):
        return sse.BEAT
    raise LocalWireError(f"a stream of events does not carry {type(frame).__name__}")


def _message(message: Message) -> bytes:
    return sse.event(push_frames.JSON.encode_msg(message), id=format_place(message.position))


ONE: Final = Encoding("sse", "sse", message=_message, frame=_frame)
"""For readers of one channel."""
ONE_H2: Final = Encoding("sse h2", "h2", message=_message, frame=_frame)
"""The same over HTTP/2, which is counted apart."""


class Several(Encoding):
    """For one reader of several channels: each id carries all its places."""

    __slots__ = ("places",)

    def __init__(self, transport: str, after: Mapping[str, Position]) -> None:
        super().__init__("sse, several channels", transport, message=_message, frame=_frame)
        self.places = dict(after)
        """Those included of channels that are refused for now: a browser keeps only the last id, and comes back with that."""

    def frame(self, frame: FromGateway) -> bytes:
        if isinstance(frame, Missing):
            self.places[frame.gap.channel] = frame.gap.upto
            return sse.event(push_frames.JSON.encode(frame), id=format_places(self.places), event="gap")
        if isinstance(frame, Welcome):
            self.places.update(frame.channels)
            body = push_frames.JSON.encode(frame)
            return sse.event(body, id=format_places(self.places) or None, event="welcome", retry_s=RETRY_S)
        return super().frame(frame)

    def messages(self, recent: Sequence[Recent]) -> bytes:
        out = []
        for each in recent:
            message = each.message
            self.places[message.channel] = message.position
            out.append(sse.event(push_frames.JSON.encode_msg(message), id=format_places(self.places)))
        return b"".join(out)


class Wish:
    """What a request for events asks for."""

    __slots__ = ("after", "beat_s", "channels", "last")

    def __init__(self, query: Mapping[str, Sequence[str]], headers: Mapping[str, str], *, channels_max: int) -> None:
        """Raises:  RemoteWireError."""
        self.channels = tuple(dict.fromkeys(check_channel(each) for each in query.get("channel", ())))
        if not self.channels:
            raise RemoteWireError("name what to read: ?channel=…, once for each channel")
        if len(self.channels) > channels_max:
            raise RemoteWireError(f"{len(self.channels)} channels are asked for, and at most {channels_max} are given")
        id_bytes = sum(len(quote(each, safe=SAFE)) + PLACE_BYTES for each in self.channels)
        if len(self.channels) > 1 and id_bytes > ID_BYTES_MAX:
            happened = f"the places of {len(self.channels)} channels make an id of up to {id_bytes} bytes, and a browser has to send it back"
            raise RemoteWireError(f"{happened}: at most {ID_BYTES_MAX}; ask for fewer, or use a WebSocket")
        last_id = headers.get("last-event-id") or _only(query, "last-event-id")
        self.after = parse_last_id(last_id, self.channels)
        self.last = _whole(_only(query, "last"), 10_000)
        beat = _only(query, "beat")
        try:
            self.beat_s = float(beat) if beat else 0.0
        except ValueError:
            raise RemoteWireError(f"beat={beat[:20]!r} is not a number of seconds") from None


def _only(query: Mapping[str, Sequence[str]], name: str) -> str:
    found = query.get(name, ())
    return found[-1] if found else ""


def _whole(text: str, most: int) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise RemoteWireError(f"{text[:20]!r} is not a number from 0 to {most}")
    return min(int(text or "0"), most)


class SseConnection(Connection):
    """One stream of events."""

    __slots__ = ("channels", "grant", "id", "pending", "refused", "unread", "wish")

    def __init__(self, gateway: Gateway, grant: Grant, wish: Wish, *, transport: str = "sse") -> None:
        super().__init__(gateway)
        self.grant = grant
        self.wish = wish
        self.id = gateway.new_name()
        self.holds = OPENING
        self.pending = 0
        self.unread = 0
        self.channels: dict[str, Position] = {}
        self.refused: dict[str, Problem] = {}
        if len(wish.channels) > 1:
            self.encoding = Several(transport, wish.after)
        else:
            self.encoding = ONE if transport == "sse" else ONE_H2

    def open(self, head: bytes = b"") -> None:
        """After `begin`: says where it begins, and what follows, in one write with the head if all of it is here."""
        out = [head]
        join = self.gateway.hub.join
        for name in self.wish.channels:
            found = join(self, name, self.wish.after.get(name), self.wish.last, self._placed_of(name))
            if found is None:
                self.pending += 1
            else:
                self._note(name, found)
        if not self.pending:
            self._welcome(out)
        if any(out):
            self.write(b"".join(out))

    def _placed_of(self, name: str):  # type: ignore[no-untyped-def]
        def placed(found: Position | Problem) -> None:
            self.pending -= 1
            if not self.is_over:
                self._note(name, found)
                if not self.pending:
                    out: list[bytes] = []
                    self._welcome(out)
                    self.write(b"".join(out))

        return placed

    def _note(self, name: str, found: Position | Problem) -> None:
        if isinstance(found, Problem):
            self.refused[name] = found
        else:
            self.channels[name] = found

    def _welcome(self, out: list[bytes]) -> None:
        gateway = self.gateway
        beat_s = gateway.beat_for(self.wish.beat_s)
        welcome = Welcome(
            session=self.id,
            gateway=gateway.name,
            resumed=bool(self.wish.after),
            channels=self.channels,
            refused=self.refused,
            beat_s=beat_s,
            peers=gateway.peers,
        )
        out.append(self.encoding.frame(welcome))
        gateway.hub.release(self, OPENING, out.append)
        gateway.reads(self, beat_s, is_resumed=welcome.resumed, until=self.grant.until)
        if not self.channels:  # EventSource comes back by itself after what it is told
            self.write(b"".join(out))
            out.clear()
            problem = next(iter(self.refused.values()))
            self.close(
                "log-away" if problem.why == "log-away" else "full", after_s=problem.after_s, detail=problem.happened
            )

    def wake_at(self) -> Wall | None:
        """When its grant runs out."""
        return self.grant.until

    def received(self, data: bytes) -> None:
        self.unread += len(data)
        if self.unread > UNREAD_BYTES_MAX:
            self.cut("flood")
