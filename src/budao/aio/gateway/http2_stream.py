"""One stream of HTTP/2: the exchange of its request, and the transport of what its answer becomes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from budao.aio.gateway import http_api
from budao.aio.gateway.sse import SseConnection
from budao.wire import http1

if TYPE_CHECKING:
    from budao.aio.gateway.http2 import Http2Connection

OF_HTTP1: Final = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})
"""They mean nothing here, and are malformed (RFC 9113, section 8.2.2)."""


class Http2Stream(asyncio.Transport):
    """See `http_api.Exchange` and `connection.py`. A window that is used up is a full buffer."""

    __slots__ = (
        "_high",
        "_is_closing",
        "_is_paused",
        "_low",
        "_pending",
        "_protocol",
        "body",
        "body_bytes",
        "due",
        "is_gone",
        "is_served",
        "keeps_body",
        "link",
        "number",
        "request",
        "size",
    )

    transport: str = "h2"

    def __init__(self, link: Http2Connection, number: int, request: http1.Request, due: float) -> None:
        # `Transport.__init__` would make a dict for each.
        self.link = link
        self.number = number
        self.request = request
        self.due = due
        """When its body must be whole."""
        self.body: list[bytes] = []
        self.body_bytes = 0
        self.keeps_body = http_api.takes_body(link.gateway, request)
        self.is_served = False
        self.is_gone = False
        self.size = 0
        self._pending: deque[bytes] = deque()
        self._protocol: asyncio.Protocol | None = None
        self._is_closing = False
        self._is_paused = False
        self._high, self._low = 65_536, 16_384

    # --------------------------------------------------------------------------------------------- exchange

    @property
    def peer(self) -> str:
        """See `http_api.Exchange`."""
        found = self.get_extra_info("peername")
        return str(found[0]) if isinstance(found, tuple) else ""

    def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """The whole answer."""
        if self.is_gone or self._is_closing:
            return
        if self.request.method == "HEAD":
            headers = {**headers, "content-length": str(len(body))}
            body = b""
        elif status not in {204, 304}:
            headers = {**headers, "content-length": str(len(body))}
        self.link.send_head(self, status, headers, is_whole=not body)
        if not body:
            self._is_closing = True
            self.link.is_done(self)
            return
        self.write(body)
        self.close()

    def stream(self, connection: SseConnection, headers: Mapping[str, str]) -> None:
        """A stream of events begins."""
        if self.is_gone or self._is_closing:
            return
        self.link.send_head(self, 200, headers, is_whole=False)
        self._protocol = connection
        connection.begin(self)
        connection.open()

    # ---------------------------------------------------------------------------------------------- writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing or not data:
            return
        self._pending.append(bytes(data))
        self.size += len(data)
        self.link.has_more(self)
        if self.size > self._high and not self._is_paused:
            self.link.pump()
            if self.size > self._high and self._protocol is not None and not self.is_gone:
                self._is_paused = True
                self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def take(self, most: int) -> bytes:
        """The next bytes to send, at most so many."""
        pending = self._pending
        taken = []
        room = most
        while pending and room:
            piece = pending[0]
            if len(piece) <= room:
                taken.append(pending.popleft())
            else:
                piece, pending[0] = piece[:room], piece[room:]
                taken.append(piece)
            room -= len(piece)
        self.size -= most - room
        if self._is_paused and self.size <= self._low:
            self._is_paused = False
            self.link.loop.call_soon(self._resumed)
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def _resumed(self) -> None:
        if self._protocol is not None and not (self._is_paused or self._is_closing):
            self._protocol.resume_writing()

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self.size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = 65_536 if low is None else 4 * low
        self._high, self._low = high, high // 4 if low is None else low

    # ---------------------------------------------------------------------------------------------- reading

    def is_reading(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """A request was whole before its stream began: there is nothing more to read."""

    def resume_reading(self) -> None:
        """See `pause_reading`."""

    # ----------------------------------------------------------------------------------------------- ending

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self.link.has_more(self)

    def abort(self) -> None:
        self.link.reset(self)

    def lose(self, problem: Exception | None) -> None:
        """It is over; its protocol hears of it in the next turn."""
        if self.is_gone:
            return
        self.is_gone = self._is_closing = True
        self._pending.clear()
        self.body.clear()
        self.size = 0
        if self._protocol is not None:
            self.link.loop.call_soon(self._protocol.connection_lost, problem)
            self._protocol = None

    # ------------------------------------------------------------------------------------------------ asking

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        # The socket is not the stream's: what the kernel says of it is true of all streams together.
        return default if name == "socket" else self.link.get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None, "a stream of events is open"
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol), "a protocol of streams"
        self._protocol = protocol
