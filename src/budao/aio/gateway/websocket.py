"""A WebSocket, once its handshake is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budao.aio.gateway import encoding
from budao.aio.gateway.talk import Talk
from budao.push import Bye, Grant
from budao.wire import deflate, push_frames, websocket

if TYPE_CHECKING:
    from budao.aio.gateway.gateway import Gateway

WHYS = {1002: "protocol-error", 1003: "unsupported", 1007: "bad-text", 1009: "too-large"}
CODECS = {codec.subprotocol: codec for codec in (push_frames.JSON, push_frames.MSGPACK)}


class WebSocket(Talk):
    """One WebSocket. A client that names no subprotocol of ours speaks JSON."""

    __slots__ = ("reader",)

    def __init__(
        self, gateway: Gateway, grant: Grant | None, codec: push_frames.Codec, agreed: deflate.Agreed | None = None
    ) -> None:
        super().__init__(gateway, grant, codec)
        bound = gateway.session_policy.frame_bytes_max
        inflate = None
        if agreed is None:
            self.encoding = encoding.WS_JSON if codec.is_text else encoding.WS_MSGPACK
        else:
            self.encoding = encoding.WS_JSON_DEFLATED if codec.is_text else encoding.WS_MSGPACK_DEFLATED
            inflate = agreed.inflate(bound)
        self.reader = websocket.Reader(bound, is_server=True, inflate=inflate)

    def received(self, data: bytes) -> None:
        try:
            events = self.reader.feed(data)
        except websocket.BadFrame as bad:
            for event in bad.before:
                self._event(event)
            if self.is_over:
                self.hang_up()
            else:
                self.finish_with(WHYS.get(bad.code, "protocol-error"), bad.problem)
            return
        for event in events:
            self._event(event)

    def _event(self, event: websocket.Event) -> None:
        if isinstance(event, websocket.WsClose):
            self._closed(event)
        elif self.is_over or isinstance(event, websocket.WsPong):
            return
        elif isinstance(event, websocket.Text | websocket.Binary):
            if isinstance(event, websocket.Text) is self.codec.is_text:
                self.heard(event.data)
            else:
                self.finish_with(
                    "unsupported", f"{self.codec.subprotocol} comes as {'text' if self.codec.is_text else 'binary'}"
                )
        elif isinstance(event, websocket.WsPing):
            self.raw(websocket.frame(websocket.PONG, event.data))

    def _closed(self, event: websocket.WsClose) -> None:
        if not self.is_over:
            self.flush()
            self.why = self.why or "done"
            code = 1000 if event.code == 1005 else event.code
            self.write(websocket.close_frame(code))
            self.is_over = True
            self.gateway.hub.leave(self)
        self.hang_up()

    def goodbye(self, bye: Bye) -> bytes:
        return super().goodbye(bye) + websocket.close_frame(bye.code, bye.why)

    def let_go(self) -> None:
        """The client closes once it has read why; if we did, what it sent meanwhile would make TCP drop our last words."""
        self.gateway.cut_later(self)
