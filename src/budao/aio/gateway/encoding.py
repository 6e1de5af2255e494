"""What each kind of connection is sent, in bytes: one `Encoding` for all connections of a kind.

A message is encoded once for each encoding, whoever reads it, and the bytes stay with the message in its ring for those who
catch up. Encodings are values that are compared by identity: the hub keeps its readers by them. Another protocol adds its own, with
the label of `metrics.TRANSPORTS` that it is counted under.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from budao.model import LocalWireError
from budao.push import FromGateway, Kind, Message, Ping, Recent
from budao.wire import deflate, framing, push_frames, websocket


class Encoding:
    """How the frames of a gateway look to connections of one kind."""

    __slots__ = ("_beat", "_frame", "_message", "name", "transport")

    def __init__(
        self,
        name: str,
        transport: str,
        *,
        message: Callable[[Message], bytes],
        frame: Callable[[FromGateway], bytes],
    ) -> None:
        self.name = name
        self.transport = transport
        self._message = message
        self._frame = frame
        self._beat = b""

    @property
    def beat(self) -> bytes:
        """What says only that somebody is there. Made when it is first sent: msgpack may not be installed."""
        if not self._beat:
            self._beat = self._frame(Ping())
        return self._beat

    def frame(self, frame: FromGateway) -> bytes:
        """A frame for one connection."""
        return self._frame(frame)

    def messages(self, recent: Sequence[Recent]) -> bytes:
        """Messages for any number of connections.

        Cost:    the first time, one encoding for each message; after that, a lookup for each and one join.
        """
        if len(recent) == 1:
            return self._one(recent[0])
        return b"".join([self._one(each) for each in recent])

    def _one(self, recent: Recent) -> bytes:
        found = recent.frames.get(self)
        if found is None:
            found = recent.frames[self] = self._made(recent.message)
        return found

    def _made(self, message: Message) -> bytes:
        try:
            return self._message(message)
        except LocalWireError:
            # Somebody has published what is no JSON past the gateways. It has a place, so it is told, as what it is.
            return self._message(replace(message, kind=Kind.BYTES))

    def __repr__(self) -> str:
        return f"<encoding {self.name}>"


def _websocket(codec: push_frames.Codec, *, deflates: bool = False) -> Encoding:
    opcode = websocket.TEXT if codec.is_text else websocket.BINARY
    encode, encode_msg, wrap, compress = codec.encode, codec.encode_msg, websocket.frame, deflate.compress

    def message(message: Message) -> bytes:
        return wrap(opcode, encode_msg(message))

    def frame(frame: FromGateway) -> bytes:
        return wrap(opcode, encode(frame))

    def compressed(message: Message) -> bytes:
        return wrap(opcode, compress(encode_msg(message)), rsv1=True)

    name = f"{codec.subprotocol}{' deflated' if deflates else ''}"
    return Encoding(name, "ws", message=compressed if deflates else message, frame=frame)


def _tcp(codec: push_frames.Codec) -> Encoding:
    encode, encode_msg, wrap = codec.encode, codec.encode_msg, framing.frame
    return Encoding(
        "tcp",
        "tcp",
        message=lambda message: wrap(encode_msg(message)),
        frame=lambda frame: wrap(encode(frame)),
    )


WS_JSON: Final = _websocket(push_frames.JSON)
WS_MSGPACK: Final = _websocket(push_frames.MSGPACK)
WS_JSON_DEFLATED: Final = _websocket(push_frames.JSON, deflates=True)
WS_MSGPACK_DEFLATED: Final = _websocket(push_frames.MSGPACK, deflates=True)
"""Without context takeover, so that a message is compressed once for everybody."""
TCP: Final = _tcp(push_frames.MSGPACK)
