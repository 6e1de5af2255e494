"""One connection to a gateway, from the first byte to the last: frames out of it and into it, over WebSocket or plain TCP."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from budao.aio.push_client.address import Address
from budao.model import BudaoError, Mono, RemoteWireError
from budao.push import (
    BY_WHY,
    Advice,
    Bye,
    FromClient,
    FromGateway,
    Hello,
    Liveness,
    Ping,
    Pong,
    Welcome,
    advice_for,
    reunion,
)
from budao.wire import framing, http1, push_frames, websocket

HELLO_IN_URL_MAX: Final = 3_000
"""A longer hello is said as the first frame: not every proxy lets a longer request line pass."""
CLOSE_S: Final = 1.0
"""How long the other side may take to read why we go."""
BODY_BYTES_MAX: Final = 4_096
"""Of the answer that refuses a connection."""


class Owner(Protocol):
    """Who hears of it."""

    def welcomed(self, link: Link, welcome: Welcome) -> None: ...

    def received(self, link: Link, frame: FromGateway) -> None: ...

    def ended(self, link: Link, fact: reunion.Ended) -> None: ...


class Link(asyncio.Protocol):
    """Tells its owner of a welcome, of frames, and exactly once of its end. After `hang_up` or `cut` it tells nothing more."""

    def __init__(
        self,
        number: int,
        address: Address,
        owner: Owner,
        codec: push_frames.Codec,
        hello: Callable[[], Hello],
        token: str | None,
        frame_bytes_max: int,
    ) -> None:
        self.number = number
        self.address = address
        self.liveness: Liveness | None = None
        self.listening: dict[str, Any] = {}
        """By channel: who reads what comes of it."""
        self.hello: Hello | None = None
        """What was said."""
        self.bytes_max = 0
        """Longer frames are not accepted by the gateway; 0 if it did not say."""
        self.load_share = 0.0
        """How busy its gateway said that it is, when it was asked last."""
        self.in_flight = 0
        """Publishes that it has not answered."""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._owner: Owner | None = owner
        self._codec = codec
        self._beat = codec.encode(Ping())
        self._say_hello = hello
        self._token = token
        self._frame_bytes_max = frame_bytes_max
        self._transport: asyncio.Transport | None = None
        self._key = ""
        self._head: http1.ResponseReader | None = None
        self._refusal: http1.Response | None = None
        self._body = b""
        self._reader: websocket.Reader | None = None
        self._framing: framing.Reader | None = None
        self._closer: asyncio.TimerHandle | None = None
        self._has_said_close = False

    def __repr__(self) -> str:
        return f"<Link {self.number} to {self.address.url}>"

    # ------------------------------------------------------------------------------------------------- orders

    def send(self, frame: FromClient) -> None:
        """Sends a frame; one that cannot be sent any more is nobody's loss: what wants an answer is asked again elsewhere."""
        self.send_raw(self._codec.encode(frame))

    def send_raw(self, raw: bytes) -> None:
        """Sends a frame that was encoded."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._framing is not None:
            transport.write(framing.frame(raw))
        else:
            opcode = websocket.TEXT if self._codec.is_text else websocket.BINARY
            transport.write(websocket.frame(opcode, raw, mask=os.urandom(4)))

    def encode(self, frame: FromClient) -> bytes:
        """The bytes for `send_raw`."""
        return self._codec.encode(frame)

    def hang_up(self) -> None:
        """Says goodbye and ends."""
        self._owner = None
        self._goodbye(1000)

    def cut(self) -> None:
        """Ends without a word: nobody is there to hear it."""
        self._owner = None
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------------------- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # those of uvloop are of no class of asyncio
        self._transport = stream
        if self._owner is None:
            stream.abort()
            return
        hello = self.hello = self._say_hello()
        if not self.address.is_websocket:
            self._framing = framing.Reader(self._frame_bytes_max)
            stream.write(framing.frame(push_frames.format_hello(self._codec, hello, self._token)))
            return
        query = push_frames.format_hello_query(hello)
        is_short = len(query) <= HELLO_IN_URL_MAX
        target = f"{self.address.path}?hello={query}" if is_short else self.address.path
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        head, self._key = websocket.ask(
            self.address.authority, target, os.urandom(16), subprotocols=(self._codec.subprotocol,), headers=headers
        )
        self._head = http1.ResponseReader(http1.HeadPolicy())
        stream.write(head)

    def data_received(self, data: bytes) -> None:
        if self.liveness is not None:
            self.liveness.heard(Mono(self._loop.time()))
        if self._owner is None:
            return
        try:
            if self._framing is not None:
                for raw in self._framing.feed(data):
                    self._frame(raw)
            else:
                self._websocket(data)
        except RemoteWireError as problem:
            self._tell(reunion.Ended(link=self.number, code=1002, problem=f"it said what cannot be read: {problem}"))
            self._goodbye(1002)
        except BudaoError as problem:
            self._tell(reunion.Ended(link=self.number, problem=str(problem)))
            self._goodbye(1000)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, problem: Exception | None) -> None:
        if self._closer is not None:
            self._closer.cancel()
        if not self.lost.done():
            self.lost.set_result(None)
        if self._refusal is not None:
            self._tell(self._refused(self._refusal))
        said = "the connection was closed" if problem is None else f"the connection broke: {problem}"
        self._tell(reunion.Ended(link=self.number, problem=said))

    # -------------------------------------------------------------------------------------------------- bytes

    def _websocket(self, data: bytes) -> None:
        if self._head is not None:
            data = self._answer(self._head, data)
        if self._reader is None or not data:
            return
        try:
            events = self._reader.feed(data)
        except websocket.BadFrame as bad:
            for event in bad.before:
                self._event(event)
            raise
        for event in events:
            self._event(event)

    def _answer(self, head: http1.ResponseReader, data: bytes) -> bytes:
        for part in head.feed(data):
            if isinstance(part, http1.Response):
                if part.status != 101:
                    self._refusal = part
                    continue
                websocket.check_answer(part, self._key, (self._codec.subprotocol,))
                self._head = None
                self._reader = websocket.Reader(self._frame_bytes_max, is_server=False)
                if self.hello is not None and len(push_frames.format_hello_query(self.hello)) > HELLO_IN_URL_MAX:
                    self.send(self.hello)
                return head.taken_over()
            if isinstance(part, http1.Body):
                self._body = (self._body + part.data)[:BODY_BYTES_MAX]
            elif self._refusal is not None:
                self._tell(self._refused(self._refusal))
                self.cut()
        return b""

    def _event(self, event: websocket.Event) -> None:
        if isinstance(event, websocket.Text | websocket.Binary):
            self._frame(event.data)
        elif isinstance(event, websocket.WsPing):
            if self._transport is not None:
                self._transport.write(websocket.frame(websocket.PONG, event.data, mask=os.urandom(4)))
        elif isinstance(event, websocket.WsClose):
            advice = None if event.code in {1005, 1006} else advice_for(event.code)
            said = f"it closed with {event.code} {event.reason}".rstrip()
            self._tell(reunion.Ended(link=self.number, code=event.code, advice=advice, problem=said))
            self._goodbye(1000 if event.code == 1005 else event.code)

    def _frame(self, raw: bytes | memoryview) -> None:
        if raw == self._beat:
            return  # most of what a quiet connection hears; that it was heard is noted already
        frame = self._codec.decode_from_gateway(raw)
        owner = self._owner
        if owner is None:
            return
        if isinstance(frame, Ping):
            if frame.number:
                self.send(Pong(number=frame.number))
        elif isinstance(frame, Pong):
            self.load_share = frame.load_share
        elif isinstance(frame, Bye):
            said = f"it said goodbye: {frame.why} {frame.detail}".rstrip()
            self._tell(
                reunion.Ended(
                    link=self.number, code=frame.code, advice=frame.advice, after_s=frame.after_s, problem=said
                )
            )
            self._goodbye(1000)
        elif isinstance(frame, Welcome):
            self.bytes_max = frame.frame_bytes_max
            owner.welcomed(self, frame)
        else:
            owner.received(self, frame)

    # ---------------------------------------------------------------------------------------------------- end

    def _refused(self, response: http1.Response) -> reunion.Ended:
        """What the answer to a handshake says, if it is not 101."""
        status, why, happened = response.status, "", ""
        try:
            error = json.loads(self._body)["error"]
            why, happened = str(error["why"])[:60], str(error["happened"])[:300]
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        known = BY_WHY.get(why)
        code = known.code if known is not None else {401: 4300, 403: 4302}.get(status, 1006)
        said = f"it answered {status}: {happened or response.reason}"
        after = response.headers.get("retry-after", "")
        after_s = float(after) if after.isascii() and after.isdigit() and len(after) < 7 else 0.0
        if status in {401, 403}:
            advice: Advice | None = advice_for(code)
        else:
            advice = Advice.LATER if status in {429, 503} else None
        return reunion.Ended(link=self.number, code=code, advice=advice, after_s=after_s, problem=said)

    def _tell(self, fact: reunion.Ended) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.ended(self, fact)

    def _goodbye(self, code: int) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._reader is not None and not self._has_said_close:
            self._has_said_close = True
            transport.write(websocket.close_frame(code if websocket.may_be_sent(code) else 1000, mask=os.urandom(4)))
        transport.close()
        self._closer = self._loop.call_later(CLOSE_S, transport.abort)
