"""What each kind of connection is sent, in bytes: one `Encoding` for all connections of a kind.

A message is encoded once for each encoding, whoever reads it, and the bytes stay with the message in its ring for those who
catch up. Encodings are values that are compared by identity: the hub keeps its readers by them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from budao.push import FromGateway, Recent, Message, Ping
from budao.wire import push_frames, sse, websocket
from budao.wire.framing import frame as tcp_frame

Encode = Callable[[FromGateway], bytes]


class Encoding:
    """How the frames of a gateway look to connections of one kind. `transport` is the label it is counted under."""

    __slots__ = ("_frame", "_message", "beat", "name", "transport")

    def __init__(
        self, name: str, transport: str, message: Callable[[Message], bytes], frame: Encode, beat: bytes
    ) -> None:
        self.name = name
        self.transport = transport
        self._message = message
        self._frame = frame
        self.beat = beat
        """What says only that somebody is there."""

    def frame(self, frame: FromGateway) -> bytes:
        """A frame for one connection."""
        return self._frame(frame)

    def messages(self, kept: Sequence[Recent]) -> bytes:
        """Messages for any number of connections.

        Cost:    the first time, one encoding for each message; after that, a lookup for each and one join.
        """
        if len(kept) == 1:
            return self._one(kept[0])
        return b"".join([self._one(each) for each in kept])

    def _one(self, kept: Recent) -> bytes:
        found = kept.frames.get(self)
        if found is None:
            found = kept.frames[self] = self._message(kept.message)
        return found

    def __repr__(self) -> str:
        return f"<encoding {self.name}>"
