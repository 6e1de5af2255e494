"""A plain TCP connection: msgpack frames with their length before them, and a hello that brings the token."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from budao.aio.gateway import encoding
from budao.aio.gateway.talk import Talk
from budao.model import RemoteWireError
from budao.push import Grant
from budao.wire import framing, push_frames

if TYPE_CHECKING:
    from budao.aio.gateway.gateway import Gateway


class TcpConnection(Talk):
    """One TCP connection."""

    __slots__ = ("is_known", "reader")

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway, None, push_frames.MSGPACK)
        self.encoding = encoding.TCP
        self.reader = framing.Reader(gateway.session_policy.frame_bytes_max)
        self.is_known = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.begin(cast(asyncio.Transport, transport))
        if self.gateway.arrived(self):
            self.gateway.expect(self, self.gateway.policy.head_s)
        else:
            self.close("full", after_s=self.gateway.come_back_s())

    def received(self, data: bytes) -> None:
        if self.is_over:
            return
        try:
            frames = self.reader.feed(data)
        except framing.BadFraming as bad:
            for frame in bad.before:
                self._frame(frame)
            self.finish_with("too-large", str(bad))
            return
        for frame in frames:
            self._frame(frame)

    def _frame(self, raw: memoryview) -> None:
        if self.is_over:
            return
        if self.is_known:
            self.heard(raw)
            return
        gateway = self.gateway
        try:
            hello, token = self.codec.decode_hello(raw)
        except RemoteWireError as problem:
            self.finish_with("bad-frame", str(problem))
            return
        self.is_known = True
        gateway.expect_no_more(self)
        found = gateway.access.grant(token, gateway.wall())
        if isinstance(found, Grant | None):
            self.session.grant = found
            self.take(hello)
        else:
            self.finish_with(found.why, found.happened)

    def let_go(self) -> None:
        """The client hangs up once it has read why."""
        self.gateway.cut_later(self)
