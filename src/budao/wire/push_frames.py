"""The frames of push in bytes: `JSON` (subprotocol `budao.v1.json`) and `MSGPACK` (`budao.v1.msgpack`, and raw TCP).

Both say the same maps. The data of a message is spliced into JSON as it was published, and made msgpack once. What comes in is
checked in full; a key that is not known is passed over, so that a later version may say more.
"""

from __future__ import annotations

from typing import Protocol

from budao.model import RemoteWireError
from budao.push import Frame, FromClient, FromGateway, Hello, Message, Problem


class FrameRefused(RemoteWireError):
    """A request that can be told from the rest, and whose data is wrong: answer it with an `Ack`, and go on."""

    def __init__(self, ref: int, problem: Problem) -> None:
        super().__init__(f"request {ref}: {problem.happened}")
        self.ref = ref
        self.problem = problem


class Codec(Protocol):
    """One subprotocol."""

    subprotocol: str
    is_text: bool
    """Whether a WebSocket carries it as text."""

    def encode(self, frame: Frame) -> bytes:
        """The bytes of a frame.

        Raises:  LocalWireError for what no frame can hold.
        """

    def encode_msg(self, message: Message) -> bytes:
        """`encode(Msg(message))`, without the frame: the same bytes for every reader."""

    def decode(self, raw: bytes | memoryview) -> FromClient:
        """What a client said.

        Raises:  FrameRefused for a request with wrong data; RemoteWireError for anything else, whatever the bytes.
        """

    def decode_hello(self, raw: bytes | memoryview) -> tuple[Hello, str | None]:
        """The first frame of a connection that has no head, with the token in it.

        Raises:  RemoteWireError.
        """

    def decode_from_gateway(self, raw: bytes | memoryview) -> FromGateway:
        """What a gateway said.

        Raises:  RemoteWireError.
        """


JSON: Codec
MSGPACK: Codec


def encode_msg_json(message: Message) -> bytes:
    """The JSON of a message frame, with the stored data as it is."""
    raise NotImplementedError


def check_json_data(raw: bytes | memoryview) -> bytes:
    """Published data as compact UTF-8 JSON: its numbers and texts stay as they are written, only spaces between tokens go.

    Raises:  RemoteWireError for what is not JSON, NaN, whole numbers beyond 64 bits, others beyond a double, half a surrogate
             pair, a key said twice, nesting beyond `DEPTH_MAX`.
    """
    raise NotImplementedError
