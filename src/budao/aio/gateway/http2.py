"""HTTP/2 for streams of events and for publishing. Clients get it by ALPN; `h2` keeps the state of the protocol.

A stream that becomes a stream of events is a transport to the hub, with its window as back-pressure. Everything that a client can
make us hold or do has a bound: streams, headers, bodies, frames that bring nothing (`http2_floods.py`), and answers it does not
read. Beyond one of them the connection ends with GOAWAY, which says why. A gateway that leaves says GOAWAY and finishes its streams.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from budao.aio.gateway import http_api
from budao.aio.gateway.http2_floods import GOAWAY, OVERLONG, FloodGuard
from budao.aio.gateway.http2_stream import OF_HTTP1, Http2Stream
from budao.push import Problem
from budao.wire import http1, publish_body

if TYPE_CHECKING:
    from budao.aio.gateway.gateway import Gateway

log = logging.getLogger("budao.gateway")

STREAMS_MAX: Final = 100
REQUESTS_MAX: Final = 100_000
"""After so many on one connection the client is asked to open another."""
CLOSED_MAX: Final = 256
"""Streams that ended, as remembered by the state of the protocol."""
UNREAD_BYTES_MAX: Final = 256 * 1024
"""Answers to frames of control that the client does not read, until it is read no further."""
RESET_COST: Final = 5.0
NEVER: Final = float("inf")

Codes = h2.errors.ErrorCodes
_TEXT: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_PATH: Final = re.compile(r"/[\x21-\x7e]*")
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")


class _State(h2.connection.H2Connection):
    MAX_CLOSED_STREAMS = CLOSED_MAX


class Http2Connection(asyncio.Protocol):
    """One connection with its streams."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.loop = asyncio.get_running_loop()
        self.due = 0.0
        """When it is ended unless it has got on."""
        self.streams: dict[int, Http2Stream] = {}
        self._waiting: dict[Http2Stream, None] = {}
        """They have something to send. Who sent goes to the end."""
        self._transport: asyncio.Transport | None = None
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self._state = _State(config)
        policy = gateway.policy
        codes = h2.settings.SettingCodes
        self._state.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                codes.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
                codes.MAX_HEADER_LIST_SIZE: policy.head_bytes_max,
            },
        )
        self._state.decoder.max_header_list_size = policy.head_bytes_max
        self._guard = FloodGuard(block_bytes_max=2 * policy.head_bytes_max, now=self.loop.time())
        self._body_bytes = 0
        self._requests = 0
        self._last = 0
        self._is_full = False
        self._is_due = False
        self._is_leaving = False
        """It said GOAWAY: no new streams."""
        self._is_over = False

    # ----------------------------------------------------------------------------------- what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._state.initiate_connection()
        has_room = self.gateway.arrived(self)
        self._look_ahead()
        self._flush()
        if not has_room:
            self._end(Codes.ENHANCE_YOUR_CALM)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        try:
            problem = self._guard.feed(data, self.loop.time())
            if problem:
                self._offended(problem)
                return
            for event in self._state.receive_data(data):
                if not self._is_over:
                    self._happened(event)
        except h2.exceptions.DenialOfServiceError as error:
            self._offended(str(error))
            return
        except (h2.exceptions.ProtocolError, UnicodeDecodeError) as error:
            self.gateway.metrics.count_error("frame")
            log.debug("a connection of HTTP/2 broke a rule: %s", error)
            self._end(None)  # the state has queued the GOAWAY
            return
        except Exception as error:  # noqa: BLE001 - a mistake of ours ends this connection, and no other
            self.gateway.mistake(self, error)
            return
        self._look_ahead()
        self._schedule()
        transport = self._transport
        if transport is not None and transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            transport.pause_reading()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        if self._transport is not None and not self._is_over:
            self._transport.resume_reading()
        self._schedule()

    def connection_lost(self, problem: Exception | None) -> None:
        self._is_over = True
        self._transport = None
        for stream in tuple(self.streams.values()):
            stream.lose(problem)
        self.streams.clear()
        self._waiting.clear()
        self.gateway.left_door(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Of the transport below."""
        return default if self._transport is None else self._transport.get_extra_info(name, default)

    # ----------------------------------------------------------------------------------------------- events

    def _happened(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._requested(event)
        elif isinstance(event, h2.events.DataReceived):
            self._heard(event)
        elif isinstance(event, h2.events.StreamEnded):
            stream = self.streams.get(event.stream_id or 0)
            if stream is not None and not stream.is_served:
                self._serve(stream)
        elif isinstance(event, h2.events.StreamReset):
            stream = self.streams.get(event.stream_id or 0)
            if stream is not None:
                is_plain = event.error_code in {Codes.NO_ERROR, Codes.CANCEL}
                self._forget(stream)
                stream.lose(None if is_plain else ConnectionResetError(f"the stream was reset: {event.error_code!r}"))
        elif isinstance(event, h2.events.ConnectionTerminated):
            self._is_leaving = True  # it finishes what it has, and closes

    def _requested(self, event: h2.events.RequestReceived) -> None:
        number = event.stream_id
        self._requests += 1
        if self._is_leaving and number > self._last:
            self._refuse(number, Codes.REFUSED_STREAM)
            return
        self._last = max(self._last, number)
        request, problem = _request([(bytes(name), bytes(value)) for name, value in event.headers], self.gateway)
        if request is None:
            log.debug("a request of HTTP/2 is malformed: %s", problem)
            self.gateway.metrics.count_error("head")
            self._refuse(number, Codes.PROTOCOL_ERROR)
            return
        stream = Http2Stream(self, number, request, self.loop.time() + self.gateway.policy.body_s)
        self.streams[number] = stream
        if problem is not None:
            self.gateway.metrics.count_error("head")
            self._answer_early(stream, 414, problem)

    def _heard(self, event: h2.events.DataReceived) -> None:
        number = event.stream_id
        self._state.acknowledge_received_data(event.flow_controlled_length, number)
        stream = self.streams.get(number)
        if stream is None or stream.is_served:
            return
        if stream.keeps_body:
            stream.body.append(bytes(event.data))
        stream.body_bytes += len(event.data)
        self._body_bytes += len(event.data)
        body_bytes_max = self.gateway.policy.body_bytes_max
        if stream.body_bytes > body_bytes_max:
            self.gateway.metrics.count_error("too-large")
            self._answer_early(stream, 413, f"a body may have {body_bytes_max} bytes")
        elif self._body_bytes > 2 * body_bytes_max:
            self.gateway.metrics.count_error("too-large")
            self._answer_early(stream, 413, f"the bodies of a connection may have {2 * body_bytes_max} bytes together")

    def _serve(self, stream: Http2Stream) -> None:
        stream.is_served = True
        stream.due = NEVER
        body = b"".join(stream.body)
        self._let_go_of_body(stream)
        http_api.serve(self.gateway, stream, stream.request, body)

    def _answer_early(self, stream: Http2Stream, status: int, happened: str) -> None:
        """Before the body is whole: the client may stop sending it (RFC 9113, section 8.1)."""
        self._let_go_of_body(stream)
        stream.is_served = True
        why = "timeout" if status == 408 else "too-large"
        body = publish_body.format_error(Problem(why=why, happened=happened))
        stream.answer(status, {"content-type": http_api.JSON_TYPE}, body)

    def _let_go_of_body(self, stream: Http2Stream) -> None:
        self._body_bytes -= stream.body_bytes
        stream.body_bytes = 0
        stream.body = []

    # ---------------------------------------------------------------------------------- what a stream asks for

    def send_head(self, stream: Http2Stream, status: int, headers: Mapping[str, str], *, is_whole: bool) -> None:
        """The head of an answer."""
        said = [(":status", str(status))]
        said += [(name, value) for name, value in headers.items() if name not in OF_HTTP1]
        self._state.send_headers(stream.number, said, end_stream=is_whole)
        self._schedule()

    def has_more(self, stream: Http2Stream) -> None:
        """It has something to send, or its end."""
        self._waiting[stream] = None
        self._schedule()

    def is_done(self, stream: Http2Stream) -> None:
        """Everything of it is sent."""
        self._forget(stream)
        stream.lose(None)
        if self._is_half_open(stream.number):
            self._state.reset_stream(stream.number, Codes.NO_ERROR)

    def reset(self, stream: Http2Stream) -> None:
        """End it at once."""
        if stream.is_gone:
            return
        self._forget(stream)
        stream.lose(None)
        if not self._is_over:
            self._refuse(stream.number, Codes.CANCEL)

    def _is_half_open(self, number: int) -> bool:
        """Whether the client may still send on a stream that we have ended."""
        found = self._state.streams.get(number)
        return found is not None and not found.closed

    def _refuse(self, number: int, code: Codes) -> None:
        if self._is_half_open(number):
            self._state.reset_stream(number, code)
        problem = self._guard.spend(RESET_COST)  # whoever makes us reset streams is no better than who does it
        if problem:
            self._offended(problem)
        self._schedule()

    def _forget(self, stream: Http2Stream) -> None:
        if self.streams.pop(stream.number, None) is not None:
            self._let_go_of_body(stream)
        self._waiting.pop(stream, None)
        if not self.streams:
            self._look_ahead()

    # ---------------------------------------------------------------------------------------------- sending

    def _schedule(self) -> None:
        if not self._is_due and not self._is_over:
            self._is_due = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_due = False
        try:
            self.pump()
        except Exception as problem:  # noqa: BLE001 - as above
            self.gateway.mistake(self, problem)

    def pump(self) -> None:
        """Sends what the windows and the transport have room for, one frame of each stream after the other."""
        state = self._state
        blocked = 0
        sent = 0
        while not self._is_full and not self._is_over and blocked < len(self._waiting):
            stream = next(iter(self._waiting))
            del self._waiting[stream]
            if not stream.size:
                if stream.is_closing():
                    state.end_stream(stream.number)
                    self.is_done(stream)
                continue
            room = min(state.local_flow_control_window(stream.number), state.max_outbound_frame_size)
            if room <= 0:
                self._waiting[stream] = None
                blocked += 1
                continue
            is_last = stream.is_closing() and stream.size <= room
            state.send_data(stream.number, stream.take(room), end_stream=is_last)
            sent += 1
            blocked = 0
            if is_last:
                self.is_done(stream)
            elif stream.size or stream.is_closing():
                self._waiting[stream] = None
            self._flush()
        self._guard.sent(sent)
        self._flush()
        if not self.streams and not self._is_over:
            if self._is_leaving:
                self._end(None)
            elif self.gateway.is_leaving or self._requests >= REQUESTS_MAX:
                # Earlier would be allowed, but clients made with `h2` take GOAWAY for the end of their streams.
                self._end(Codes.NO_ERROR)

    def _flush(self) -> None:
        data = self._state.data_to_send()
        if data and self._transport is not None:
            self._transport.write(data)

    # ------------------------------------------------------------------------------------------- time and ends

    def _look_ahead(self) -> None:
        """When somebody has to look after it."""
        if self.streams:
            self.due = min(stream.due for stream in self.streams.values())
        else:
            self.due = self.loop.time() + self.gateway.policy.idle_s

    def late(self) -> None:
        """The time of a body, or of an idle connection, is over."""
        now = self.loop.time()
        if not self.streams:
            self._end(Codes.NO_ERROR)
            return
        for stream in [each for each in self.streams.values() if each.due <= now]:
            self.gateway.metrics.count_error("timeout")
            stream.due = NEVER
            self._answer_early(stream, 408, "the request took too long to come")
        self._look_ahead()

    def hurry(self) -> None:
        """The gateway leaves: what was said to everybody goes first."""
        self.pump()
        self.say_goaway()
        self._schedule()

    def fail(self) -> None:
        """A mistake of ours."""
        self._end(Codes.INTERNAL_ERROR)

    def cut(self, _: str) -> None:
        """End it now."""
        self._is_over = True
        if self._transport is not None:
            self._transport.abort()

    def say_goaway(self) -> None:
        """No new streams; those that are open go on. It is said past the state of `h2`, which would end them."""
        if not self._is_leaving and not self._is_over and self._transport is not None:
            self._is_leaving = True
            self._flush()
            self._transport.write(
                (8).to_bytes(3, "big") + bytes([GOAWAY, 0, 0, 0, 0, 0]) + self._last.to_bytes(4, "big") + bytes(4)
            )

    def _offended(self, problem: str) -> None:
        is_flood = problem != OVERLONG
        self.gateway.metrics.count_error("flood" if is_flood else "frame")
        log.debug("a connection of HTTP/2 ends: %s", problem)
        self._end(Codes.ENHANCE_YOUR_CALM if is_flood else Codes.FRAME_SIZE_ERROR)

    def _end(self, code: Codes | None) -> None:
        """GOAWAY, and close; None where it has been said."""
        if self._is_over:
            return
        self._is_over = True
        if code is not None:
            self._state.close_connection(code, last_stream_id=self._last)
        self._flush()
        for stream in tuple(self.streams.values()):
            stream.lose(None if code is Codes.NO_ERROR else ConnectionResetError("its connection ended"))
        self.streams.clear()
        self._waiting.clear()
        if self._transport is not None:
            self._transport.close()
            self.gateway.cut_later(self)


def _request(headers: list[tuple[bytes, bytes]], gateway: Gateway) -> tuple[http1.Request | None, str | None]:
    """A request as HTTP/1.1 would bring it, and what is wrong with it.

    `h2` has checked what belongs to the protocol (RFC 9113, section 8.3); this is what values may hold.
    """
    pseudo: dict[str, str] = {}
    fields: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if _TEXT.fullmatch(value) is None:
            return None, f"the value of {name[:50]!r} holds a character of control"
        if name.startswith(":"):
            pseudo[name] = value
        elif name in fields:
            fields[name] += ("; " if name == "cookie" else ", ") + value
        elif _METHOD.fullmatch(name[:32]) is None:
            return None, f"the name {name[:50]!r} holds a character that no name does"
        else:
            fields[name] = value
    method, target = pseudo.get(":method", ""), pseudo.get(":path", "")
    if _METHOD.fullmatch(method) is None or _PATH.fullmatch(target) is None:
        return None, "its method or its path is none"
    authority = pseudo.get(":authority", "")
    if fields.setdefault("host", authority) != authority and authority:
        return None, "its authority and its host differ"
    path, _, query = target.partition("?")
    length = fields.get("content-length", "")
    request = http1.Request(
        method=method,
        target=target,
        path=path,
        query=query,
        headers=fields,
        is_http10=False,
        keeps_alive=True,
        body_bytes=int(length) if length.isdigit() and len(length) < 19 else None,
        expects_continue=False,
        wants_upgrade=False,
    )
    if len(target) > gateway.head_policy.target_bytes_max:
        return request, f"a path may have {gateway.head_policy.target_bytes_max} bytes"
    return request, None
