"""The frames of push in bytes: `JSON` (subprotocol `budao.v1.json`) and `MSGPACK` (`budao.v1.msgpack`, and raw TCP).

Both say the same maps. The data of a message is spliced into JSON as it was published, and made msgpack once. What comes in is
checked in full; a key that is not known is passed over, so that a later version may say more.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, Final, Protocol

from budao.model import LocalWireError, RemoteWireError, Wall
from budao.push import Frame, FromClient, FromGateway, Hello, Kind, Message, Msg, Position, Problem, Pub
from budao.wire.json_data import (
    BadData,
    Kept,
    check_end,
    check_json_data,
    is_plain,
    parse_json,
    parse_members,
    parse_value,
    skip_space,
    slice_of,
    utf8,
    write_json,
    write_text,
)
from budao.wire.packing import pack, unpack
from budao.wire.push_fields import (
    CHANNEL_CHARACTERS_MAX,
    Map,
    id_of,
    needed_text,
    position_of,
    text_of,
    trace_of,
    whole_of,
    wrong,
)
from budao.wire.push_values import frame_from_client, frame_from_gateway, kind_of, plain_frame

AT_DIGITS: Final = 3
"""`at` is told in seconds, to the millisecond."""
TOKEN_CHARACTERS_MAX: Final = 8 * 1024
HELLO_QUERY_CHARACTERS_MAX: Final = 6 * 1024

_USUAL_MSG: Final = re.compile(
    r'\{"type":"msg","channel":"(?P<channel>[^"\\\x00-\x1f]+)","epoch":"(?P<epoch>[^"\\\x00-\x1f]*)","seq":(?P<seq>0|[1-9][0-9]{0,17})'
    r'(?:,"at":(?P<at>[1-9][0-9]{0,10}\.[0-9]{3}))?(?:,"id":"(?P<id>[^"\\\x00-\x1f]+)")?(?:,"trace":"(?P<trace>[0-9a-f-]+)")?,"data":'
)
"""How `encode_msg_json` writes most messages; read in one step, it takes a third of the time."""

_Data = tuple[bytes, Kind, RemoteWireError | None]
_NO_DATA: Final[_Data] = (b"", Kind.JSON, RemoteWireError("data: is missing"))


class FrameRefused(RemoteWireError):
    """A request that can be told from the rest, and whose data is wrong: give the session a `Malformed`, and go on."""

    def __init__(self, ref: int, problem: Problem) -> None:
        super().__init__(ref, problem)
        self.ref = ref
        self.problem = problem

    def __str__(self) -> str:
        return f"request {self.ref}: {self.problem.happened}"


class Codec(Protocol):
    """One subprotocol."""

    @property
    def subprotocol(self) -> str:
        """What a WebSocket calls it."""

    @property
    def is_text(self) -> bool:
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


# ----------------------------------------------------------------------------------------------------- JSON


def encode_msg_json(message: Message) -> bytes:
    """The JSON of a message frame, with the stored data as it is."""
    position = message.position
    head = f'{{"type":"msg","channel":{write_text(message.channel)},"epoch":{write_text(position.epoch)},"seq":{position.seq}'
    if message.at:
        head += f',"at":{message.at:.3f}'
    if message.id is not None:
        head += f',"id":{write_text(message.id)}'
    if message.trace is not None:
        head += f',"trace":{write_text(message.trace)}'
    try:
        start = head.encode()
    except UnicodeEncodeError as problem:
        raise LocalWireError(f"a message of {message.channel!a} holds half a surrogate pair") from problem
    if message.kind is Kind.JSON:
        return b'%b,"data":%b}' % (start, message.data)
    return b'%b,"data64":"%b"}' % (start, b64encode(message.data))


class _Json:
    subprotocol: Final = "budao.v1.json"
    is_text: Final = True

    def encode(self, frame: Frame) -> bytes:
        if isinstance(frame, Msg):
            return encode_msg_json(frame.message)
        if isinstance(frame, Pub):
            head = write_json(_plain_pub(frame))[:-1]
            if frame.kind is Kind.JSON:
                return b'%b,"data":%b}' % (head, frame.data)
            return b'%b,"data64":"%b"}' % (head, b64encode(frame.data))
        return write_json(plain_frame(frame))

    def encode_msg(self, message: Message) -> bytes:
        return encode_msg_json(message)

    def decode(self, raw: bytes | memoryview) -> FromClient:
        raw = bytes(raw)
        text = utf8(raw)
        plain = is_plain(raw)
        if '"data' in text or "\\" in text:  # a key may be escaped
            values, kept, end = parse_members(text, plain=plain, keep="data")
        else:
            value, end = parse_value(text, skip_space(text, 0), plain=plain)
            values, kept = _object(value), None
        check_end(text, end)
        kind = kind_of(values)
        if kind == "pub":
            return _pub(values, _json_data(text, values, kept))
        if kept is not None and kept.problem is not None:
            raise kept.problem
        return frame_from_client(kind, values)

    def decode_hello(self, raw: bytes | memoryview) -> tuple[Hello, str | None]:
        return _hello_with_token(_object(parse_json(raw)))

    def decode_from_gateway(self, raw: bytes | memoryview) -> FromGateway:
        raw = bytes(raw)
        text = utf8(raw)
        plain = is_plain(raw)
        usual = _USUAL_MSG.match(text)
        if usual is not None:
            start = usual.end()
            _, end = parse_value(text, start, plain=plain)
            if text[end:] == "}":
                values = usual.groupdict()
                values["seq"] = int(values["seq"])
                values["at"] = None if values["at"] is None else float(values["at"])
                return _msg(values, slice_of(text, start, end), Kind.JSON)
        values, kept, end = parse_members(text, plain=plain, keep="data")
        check_end(text, end)
        kind = kind_of(values)
        if kind == "msg":
            data, data_kind, problem = _json_data(text, values, kept)
            if problem is not None:
                raise problem
            return _msg(values, data, data_kind)
        if kept is not None and kept.problem is not None:
            raise kept.problem
        return frame_from_gateway(kind, values)


def _json_data(text: str, values: Mapping[str, Any], kept: Kept | None) -> _Data:
    encoded = values.get("data64")
    if encoded is None:
        if kept is None:
            return _NO_DATA
        if kept.problem is not None:
            return b"", Kind.JSON, kept.problem
        return slice_of(text, kept.start, kept.end), Kind.JSON, None
    if kept is not None:
        return b"", Kind.BYTES, BadData("data and data64 are both there")
    try:
        return b64decode(encoded, validate=True), Kind.BYTES, None
    except (ValueError, TypeError):
        return b"", Kind.BYTES, BadData("data64 is not base64")


# -------------------------------------------------------------------------------------------------- msgpack


class _Msgpack:
    subprotocol: Final = "budao.v1.msgpack"
    is_text: Final = False

    def encode(self, frame: Frame) -> bytes:
        if isinstance(frame, Msg):
            return self.encode_msg(frame.message)
        if isinstance(frame, Pub):
            return pack({**_plain_pub(frame), "data": _packed_data(frame.data, frame.kind)})
        return pack(plain_frame(frame))

    def encode_msg(self, message: Message) -> bytes:
        position = message.position
        values: Map = {"type": "msg", "channel": message.channel, "epoch": position.epoch, "seq": position.seq}
        if message.at:
            values["at"] = round(message.at, AT_DIGITS)
        if message.id is not None:
            values["id"] = message.id
        if message.trace is not None:
            values["trace"] = message.trace
        values["data"] = _packed_data(message.data, message.kind)
        return pack(values)

    def decode(self, raw: bytes | memoryview) -> FromClient:
        values = _object(unpack(raw, unique=True))
        kind = kind_of(values)
        return _pub(values, _unpacked_data(values)) if kind == "pub" else frame_from_client(kind, values)

    def decode_hello(self, raw: bytes | memoryview) -> tuple[Hello, str | None]:
        return _hello_with_token(_object(unpack(raw, unique=True)))

    def decode_from_gateway(self, raw: bytes | memoryview) -> FromGateway:
        values = _object(unpack(raw, unique=True))
        kind = kind_of(values)
        if kind != "msg":
            return frame_from_gateway(kind, values)
        data, kept, problem = _unpacked_data(values)
        if problem is not None:
            raise problem
        return _msg(values, data, kept)


def _packed_data(data: bytes, kind: Kind) -> object:
    if kind is Kind.BYTES:
        return data
    try:
        return parse_json(data)
    except RemoteWireError as problem:
        raise LocalWireError(f"data that was published as JSON is not: {problem}") from problem


def _unpacked_data(values: Map) -> _Data:
    if "data" not in values:
        return _NO_DATA
    value = values["data"]
    if isinstance(value, bytes):
        return value, Kind.BYTES, None
    try:
        # What msgpack can say and JSON cannot is found by writing it, and what no reader should get, by reading it again.
        return check_json_data(write_json(value)), Kind.JSON, None
    except LocalWireError as problem:
        return b"", Kind.JSON, BadData(f"data is neither bytes nor what JSON can say: {problem.__cause__}")
    except RemoteWireError as problem:
        return b"", Kind.JSON, BadData(str(problem))


# ------------------------------------------------------------------------------------------------- together


def _object(values: object) -> Map:
    if type(values) is not dict:
        raise wrong("a frame", values, "a map")
    return values


def _plain_pub(frame: Pub) -> Map:
    values: Map = {"type": "pub", "ref": frame.ref, "channel": frame.channel}
    if frame.id is not None:
        values["id"] = frame.id
    if frame.trace is not None:
        values["trace"] = frame.trace
    return values


def _pub(values: Mapping[str, Any], found: _Data) -> Pub:
    try:
        ref = whole_of(values, "ref", 1)
        channel = needed_text(values, "channel", CHANNEL_CHARACTERS_MAX)
        id_, trace = id_of(values), trace_of(values)
    except RemoteWireError as problem:
        raise RemoteWireError(f"pub.{problem}") from None
    data, kind, wrong_data = found
    if wrong_data is not None:
        raise FrameRefused(ref, Problem(why="bad-data", happened=str(wrong_data)))
    return Pub(ref=ref, channel=channel, data=data, kind=kind, id=id_, trace=trace)


def _msg(values: Mapping[str, Any], data: bytes, kind: Kind) -> Msg:
    at = values.get("at")
    if at is None:
        at = 0.0
    elif type(at) not in {int, float} or not 0.0 <= at < 1e12:
        raise wrong("msg.at", at, "a time in Unix seconds")
    try:
        position = Position(*position_of({"epoch": values.get("epoch"), "seq": values.get("seq")}, "msg"))
        channel = needed_text(values, "channel", CHANNEL_CHARACTERS_MAX)
        return Msg(Message(channel, position, data, kind, Wall(float(at)), id_of(values), trace_of(values)))
    except RemoteWireError as problem:
        raise RemoteWireError(f"msg.{problem}") from None


def _hello_with_token(values: Map) -> tuple[Hello, str | None]:
    kind = kind_of(values)
    hello = frame_from_client(kind, values)
    if not isinstance(hello, Hello):
        raise wrong("type", kind, "hello, with which a connection begins")
    return hello, text_of(values, "token", TOKEN_CHARACTERS_MAX)


JSON: Final[Codec] = _Json()
MSGPACK: Final[Codec] = _Msgpack()
CODECS: Final[Mapping[str, Codec]] = {codec.subprotocol: codec for codec in (JSON, MSGPACK)}
"""By subprotocol, the one that is preferred first."""


def parse_hello_query(text: str) -> Hello:
    """The hello that a URL carries as `?hello=`.

    Raises:  RemoteWireError.
    """
    hello, _ = JSON.decode_hello(read_hello_query(text))
    return hello


def read_hello_query(text: str) -> bytes:
    """The JSON of a hello that a URL carries as base64url, with or without padding. `JSON.decode_hello` reads it.

    Raises:  RemoteWireError.
    """
    if len(text) > HELLO_QUERY_CHARACTERS_MAX:
        raise RemoteWireError(
            f"a hello of {len(text)} characters in a URL, at most {HELLO_QUERY_CHARACTERS_MAX} are allowed"
        )
    bare = text.rstrip("=")
    try:
        return b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
    except ValueError as problem:
        raise RemoteWireError("the hello in the URL is not base64url") from problem


def format_hello_query(hello: Hello) -> str:
    """A hello for `?hello=`."""
    return urlsafe_b64encode(JSON.encode(hello)).rstrip(b"=").decode()


def format_hello(codec: Codec, hello: Hello, token: str | None) -> bytes:
    """The first frame of a connection that has no head, with the token in it: what `decode_hello` reads."""
    if token is None:
        return codec.encode(hello)
    values = {**plain_frame(hello), "token": token}
    return write_json(values) if codec.is_text else pack(values)
