"""The door: reads the head of a request, answers it, or becomes a WebSocket or a stream of events.

Whoever brings another byte stream (TLS of its own, say) makes a `Door` and calls `connection_made` with its transport. HTTP/2 does
not come through here: it calls `http_api.serve` with exchanges of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

from budao.aio.gateway import http_api
from budao.aio.gateway.greeting import read_query
from budao.aio.gateway.sse import SseConnection
from budao.aio.gateway.websocket import CODECS, WebSocket
from budao.model import RemoteWireError
from budao.push import Grant, Problem
from budao.wire import deflate, format_retry_after, http1, publish_body, push_frames, websocket

if TYPE_CHECKING:
    from budao.aio.gateway.gateway import Gateway

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
STREAM: Final = "/v1/stream"
BAD: Final[Mapping[int, str]] = {413: "too-large", 414: "too-large", 431: "too-large"}

Event = http1.Request | http1.Body | http1.EndOfBody


class Door(asyncio.Protocol):
    """One connection that speaks HTTP, until it becomes something else. It is also the `Exchange` of its current request."""

    __slots__ = (
        "_became",
        "_body",
        "_events",
        "_is_busy",
        "_is_full",
        "_is_last",
        "_keeps_body",
        "_request",
        "_transport",
        "_was_served",
        "due",
        "gateway",
        "is_gone",
        "reader",
    )

    transport: str = "sse"

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.reader = http1.RequestReader(gateway.head_policy)
        self._transport: asyncio.Transport | None = None
        self.is_gone = False
        self.due = 0.0
        """When it is ended unless it has got on: the gateway looks now and then."""
        self._request: http1.Request | None = None
        self._body: list[bytes] = []
        self._keeps_body = False
        self._events: deque[Event] = deque()
        self._is_busy = False
        """A request is being answered; the next one waits."""
        self._is_full = False
        """Its answers are not read: nothing more is answered until they are."""
        self._is_last = False
        """Nothing more is read."""
        self._was_served = False
        """A request was answered: silence after it is no error."""
        self._became: SseConnection | WebSocket | None = None

    # ----------------------------------------------------------------------------------- what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        gateway = self.gateway
        if gateway.arrived(self):
            self.due = gateway.now() + gateway.policy.head_s
        else:
            after_s = gateway.come_back_s()
            body = publish_body.format_error(Problem(why="full", happened="this gateway is full", after_s=after_s))
            headers = {"content-type": http_api.JSON_TYPE, "retry-after": format_retry_after(after_s)}
            self._end(http1.format_response(503, headers, body, keeps_alive=False))

    def data_received(self, data: bytes) -> None:
        if self._is_last:
            return
        try:
            self._take(self.reader.feed(data))
        except http1.BadRequest as bad:
            self._bad(bad)
        except Exception as problem:  # noqa: BLE001 - a mistake of ours ends this connection, and no other
            self.gateway.mistake(self._became or self, problem)

    def pause_writing(self) -> None:
        """Who asks and does not read is read no further, or its answers would fill our memory."""
        self._is_full = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_full = False
        if self._is_busy or self._transport is None:
            return
        if self._events:
            self._answer_next()
        elif not self._is_last:
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        """Who has said everything may still be waiting for an answer."""
        self._is_last = True
        return self._is_busy

    def connection_lost(self, _: Exception | None) -> None:
        self.is_gone = True
        self._is_last = True
        self.gateway.left_door(self)

    def late(self) -> None:
        """Its time is over."""
        if self._is_busy or self._transport is None:  # we are late, not the client
            return
        is_mid_request = self.reader.is_mid_request or self._request is not None
        if is_mid_request or not self._was_served:
            self.gateway.metrics.count_error("timeout" if is_mid_request else "head")
        if is_mid_request:
            body = publish_body.format_error(Problem(why="timeout", happened="the request took too long to come"))
            self._end(http1.format_response(408, {"content-type": http_api.JSON_TYPE}, body, keeps_alive=False))
        else:
            self._end(b"")

    def hurry(self) -> None:
        """The gateway leaves: what is being answered is answered, and then it ends."""
        if not self._is_busy:
            self._end(b"")

    def fail(self) -> None:
        """A mistake of ours: its request is answered 500."""
        body = publish_body.format_error(Problem(why="mistake", happened="a mistake of the gateway; it is in its log"))
        self._end(http1.format_response(500, {"content-type": http_api.JSON_TYPE}, body, keeps_alive=False))

    def cut(self, why: str) -> None:  # noqa: ARG002 - nobody counts why a request ended
        """End it now."""
        self._is_last = True
        if self._transport is not None:
            self._transport.abort()

    # ----------------------------------------------------------------------------------------------- requests

    def _take(self, events: Sequence[Event]) -> None:
        if self._is_busy or self._is_full:
            self._events.extend(events)
            if self._transport is not None:
                self._transport.pause_reading()  # who asks faster than we answer waits in the kernel
            return
        for index, event in enumerate(events):
            if isinstance(event, http1.Request):
                self._request = event
                self._body.clear()
                self._keeps_body = http_api.takes_body(self.gateway, event)
                self.due = self.gateway.now() + self.gateway.policy.body_s
                if event.expects_continue and event.body_bytes != 0 and self._transport is not None:
                    self._transport.write(CONTINUE)
            elif isinstance(event, http1.Body):
                if self._keeps_body:
                    self._body.append(event.data)
            elif self._whole() and index + 1 < len(events):
                self._events.extend(events[index + 1 :])
                return
        self._hasten()

    def _hasten(self) -> None:
        """A head that has begun has only so much time, however slowly it drips."""
        if self._request is None and not self._is_busy and self.reader.is_mid_request:
            self.due = min(self.due, self.gateway.now() + self.gateway.policy.head_s)

    def _whole(self) -> bool:
        """A request is here in full. Whether the next one has to wait: for its answer, or until answers are read."""
        request = self._request
        assert request is not None, "a body has a head"
        body = b"".join(self._body)
        self._body.clear()
        if request.wants_upgrade:
            if request.path == STREAM:
                self._upgrade(request)
                return self._is_busy
            self._events.extend(self.reader.go_on())  # another protocol is not ours: it goes on as HTTP
        self._is_busy = True
        http_api.serve(self.gateway, self, request, body)
        return self._is_busy or self._is_full

    @property
    def peer(self) -> str:
        """See `http_api.Exchange`."""
        found = None if self._transport is None else self._transport.get_extra_info("peername")
        return str(found[0]) if isinstance(found, tuple) else ""

    def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """See `http_api.Exchange`."""
        request, transport = self._request, self._transport
        if request is None or self.is_gone or transport is None:
            return
        keeps_alive = request.keeps_alive and not (self.gateway.is_leaving or self.gateway.is_draining)
        if request.method == "HEAD":
            body = b""
        data = http1.format_response(status, headers, body, keeps_alive=keeps_alive)
        if not keeps_alive:
            self._end(data)
            return
        transport.write(data)
        self._request = None
        self._is_busy = False
        self._was_served = True
        self.due = self.gateway.now() + self.gateway.policy.idle_s
        if self._is_last:
            self._end(b"")
        elif self._is_full:
            pass  # it goes on at `resume_writing`
        elif self._events:
            self._answer_next()
        else:
            transport.resume_reading()

    def _answer_next(self) -> None:
        events = tuple(self._events)
        self._events.clear()
        asyncio.get_running_loop().call_soon(self._go_on, events)

    def _go_on(self, events: Sequence[Event]) -> None:
        try:
            self._take(events)
        except http1.BadRequest as bad:
            self._bad(bad)
        except Exception as problem:  # noqa: BLE001 - see above
            self.gateway.mistake(self._became or self, problem)
        if not (self._is_busy or self._is_full or self._is_last) and self._transport is not None:
            self._transport.resume_reading()

    def stream(self, connection: SseConnection, headers: Mapping[str, str]) -> None:
        """See `http_api.Exchange`. The body ends with the connection, so that its bytes are the same for everybody."""
        self._become(connection)
        connection.open(http1.format_head(200, headers, keeps_alive=False))

    def _become(self, connection: SseConnection | WebSocket) -> None:
        transport = self._transport
        assert transport is not None, "it is connected"
        self._is_last = True
        self._became = connection
        self.gateway.left_door(self)
        transport.set_protocol(connection)
        connection.begin(transport)
        self._transport = None

    def _bad(self, bad: http1.BadRequest) -> None:
        if bad.before:  # they are good, and answered first
            self._take(bad.before)
        if self._is_last or self._is_busy or self._events:
            if self._is_busy or self._events:
                self._is_last = True  # what is under way is answered; then it ends
            return
        self.gateway.metrics.count_error(BAD.get(bad.status, "head"))
        body = publish_body.format_error(Problem(why=BAD.get(bad.status, "bad-request"), happened=bad.problem))
        headers = {"content-type": http_api.JSON_TYPE, **bad.headers}
        self._end(http1.format_response(bad.status, headers, body, keeps_alive=False), is_mid_request=True)

    def _end(self, data: bytes, *, is_mid_request: bool = False) -> None:
        """The last words. Who is still sending would not get to read them if we closed at once, so the rest is let pass."""
        transport = self._transport
        self._is_last = True
        if transport is not None:
            if data:
                transport.write(data)
            if is_mid_request and transport.can_write_eof():
                transport.write_eof()
            else:
                transport.close()
            self.gateway.cut_later(self)

    # ------------------------------------------------------------------------------------------- to a WebSocket

    def _upgrade(self, request: http1.Request) -> None:
        gateway = self.gateway
        headers = request.headers
        asked = websocket.check_upgrade(request)
        if "origin" in headers and (said := gateway.access.origin_problem(headers)):
            self._refuse(Problem(why="forbidden", happened=said))
            return
        query = read_query(request.query) if request.query else {}
        token = http_api.token_of(headers, query)
        if token is None and (said := gateway.access.host_problem(headers)):
            self._refuse(Problem(why="forbidden", happened=said))
            return
        codec: push_frames.Codec = push_frames.JSON
        subprotocol = next((each for each in asked.subprotocols if each in CODECS), "")
        if subprotocol:
            codec = CODECS[subprotocol]
        agreed = None
        if gateway.policy.deflates and asked.extensions:
            agreed = deflate.accept(asked.extensions, out_window_bits_min=15)
        found = gateway.access.grant(token, gateway.wall())
        connection = WebSocket(gateway, found if isinstance(found, Grant) else None, codec, agreed)
        early = self.reader.taken_over()
        self._become(connection)
        gateway.metrics.upgrades += 1
        extensions = "" if agreed is None else agreed.header
        connection.out = [websocket.accept(asked.key, subprotocol=subprotocol, extensions=extensions)]
        problem = gateway.refusal()
        if problem is not None:
            connection.finish_with(problem.why, problem.happened, after_s=problem.after_s)
        elif not isinstance(found, Grant | None):
            connection.finish_with(found.why, found.happened)
        else:
            self._greet(connection, query.get("hello"))
        connection.flush()
        connection.out = None
        if early:
            connection.data_received(early)

    def _greet(self, connection: WebSocket, hello: Sequence[str] | None) -> None:
        """The hello that the URL carries comes first, and its answer in the same write as the upgrade's."""
        if not hello:
            self.gateway.expect(connection, self.gateway.policy.head_s)
            return
        try:
            frame = self.gateway.greeting.hello(hello[0])
        except RemoteWireError as problem:
            connection.finish_with("bad-frame", f"?hello=: {problem}")
        else:
            connection.take(frame)

    def _refuse(self, problem: Problem) -> None:
        self._is_busy = True
        self._events.extend(self.reader.go_on())
        self.gateway.metrics.count_error("forbidden")
        http_api.refuse(self, problem)
