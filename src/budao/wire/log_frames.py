"""What a log server and its clients say to each other, as frames of `decoding`.

A client begins with `Hello`, and the server answers with `Welcome`, or with the reason why not. A connection serves requests, or
one feed, or both. From then on either side speaks when it has something to say; a side that has nothing to say for a while
sends a `Beat`, and a side that hears nothing at all for a few beats takes the other for dead. `Hello`, `Versions` and `Denied`
keep their form in every version, so that any two versions can tell each other that they do not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from budao.model import RemoteWireError
from budao.push import (
    Appended,
    Draft,
    Hole,
    Jumped,
    LogAway,
    LogError,
    LogRefused,
    NotPlaced,
    Placed,
    Position,
    Stretch,
)
from budao.wire import decoding
from budao.wire.decoding import FRAME_BYTES_MAX, HELLO_BYTES_MAX
from budao.wire.log_codec import (
    parse_answer,
    parse_draft,
    parse_position,
    parse_run,
    plain_answer,
    plain_draft,
    plain_position,
    plain_run,
)
from budao.wire.packing import array_header, pack, unpack
from budao.wire.store_codec import Plain, flag, many, number, octets, parts, text, wrong

__all__ = [
    "FRAME_BYTES_MAX",
    "HELLO_BYTES_MAX",
    "PROTOCOL",
    "VERSION_HIGH",
    "VERSION_LOW",
    "Answered",
    "Ask",
    "Beat",
    "Decoder",
    "Denied",
    "Failed",
    "Follow",
    "Goodbye",
    "Hello",
    "Latest",
    "Message",
    "Publish",
    "Read",
    "Told",
    "Unfollow",
    "Versions",
    "Welcome",
    "format_message",
    "format_told",
    "parse_message",
]

PROTOCOL: Final = "budao-log"
VERSION_LOW: Final = 1
VERSION_HIGH: Final = 1


@dataclass(frozen=True, slots=True)
class Hello:
    """From the client, first: the versions it speaks, and the token if it has one."""

    token: str = ""
    low: int = VERSION_LOW
    high: int = VERSION_HIGH

    def __repr__(self) -> str:
        return f"Hello(token={'...' if self.token else ''!r}, low={self.low}, high={self.high})"


@dataclass(frozen=True, slots=True)
class Welcome:
    """From the server: the version spoken from here on, and which log this is."""

    version: int
    log: bytes
    request_bytes_max: int
    """A longer frame from the client is garbage."""


@dataclass(frozen=True, slots=True)
class Versions:
    """From the server: it speaks only these. It hangs up."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Denied:
    """From the server: not this client, or not now. It hangs up."""

    problem: str
    is_for_good: bool = True
    """Whether trying again would be in vain until somebody changes something."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Request: publish. Answered with a tuple, one for each draft."""

    drafts: tuple[Draft, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """Request: what is retained after a place. Answered with a `Stretch`, as are the next two."""

    channel: str
    after: Position
    count_max: int
    bytes_max: int


@dataclass(frozen=True, slots=True)
class Latest:
    """Request: the latest messages of a channel."""

    channel: str
    count: int


@dataclass(frozen=True, slots=True)
class Follow:
    """Request: tell of a channel on this connection from here on, or from `after` on if there is one."""

    channel: str
    recent: int = 0
    after: Position | None = None


Request = Publish | Read | Latest | Follow
Answer = tuple[Placed | NotPlaced, ...] | Stretch


@dataclass(frozen=True, slots=True)
class Ask:
    """From the client. The number is its own choice, and free again once it is answered."""

    number: int
    request: Request


@dataclass(frozen=True, slots=True)
class Answered:
    """From the server."""

    number: int
    answer: Answer


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    """From the server: a request was not carried out."""

    number: int
    error: LogError


@dataclass(frozen=True, slots=True)
class Unfollow:
    """From the client: no more of this channel."""

    channel: str


@dataclass(frozen=True, slots=True)
class Told:
    """From the server: news of channels that are followed."""

    runs: tuple[Appended, ...]


@dataclass(frozen=True, slots=True)
class Beat:
    """From either side: here I am."""


@dataclass(frozen=True, slots=True)
class Goodbye:
    """From the server, last: it stops. What it has not answered it has not done."""

    why: str


Message = (
    Hello | Welcome | Versions | Denied | Ask | Answered | Failed | Unfollow | Told | Jumped | Beat | Goodbye
)  # fmt: skip

HELLO, WELCOME, VERSIONS, DENIED, ASK, ANSWERED, FAILED, UNFOLLOW, TOLD, JUMPED, BEAT, GOODBYE = range(12)
PUBLISH, READ, LATEST, FOLLOW = range(4)
PLACED, STRETCH = range(2)
REFUSED, AWAY = range(2)
HOLES: Final = (Hole.TRIMMED, Hole.SLOW, Hole.EPOCH)
NUMBER_OF_HOLE: Final = {hole: index for index, hole in enumerate(HOLES)}


# ---------------------------------------------------------------------------------------------------- out


def format_message(message: Message) -> bytes:
    """A whole frame.

    Raises:  LocalWireError for what no frame can hold.
    """
    return decoding.format_frame(pack(_plain(message)))


def format_told(runs: Sequence[bytes]) -> bytes:
    """The frame of a `Told` from what `log_codec.format_run` has packed."""
    return decoding.format_frame(b"".join((array_header(2), pack(TOLD), array_header(len(runs)), *runs)))


def _plain(message: Message) -> Plain:  # noqa: C901 - one line for each message
    match message:
        case Ask(asked, request):
            return (ASK, asked, *_plain_request(request))
        case Answered(asked, answer):
            return (ANSWERED, asked, *_plain_answered(answer))
        case Told(runs):
            return (TOLD, [plain_run(run.channel, run.messages) for run in runs])
        case Jumped(channel, head, why):
            return (JUMPED, channel, plain_position(head), NUMBER_OF_HOLE[why])
        case Beat():
            return (BEAT,)
        case Unfollow(channel):
            return (UNFOLLOW, channel)
        case Failed(asked, error):
            return (FAILED, asked, _plain_error(error))
        case Hello(token, low, high):
            return (HELLO, PROTOCOL, low, high, token)
        case Welcome(version, log, size):
            return (WELCOME, version, log, size)
        case Versions(low, high):
            return (VERSIONS, low, high)
        case Denied(problem, is_for_good):
            return (DENIED, problem, is_for_good)
        case Goodbye(why):
            return (GOODBYE, why)


def _plain_request(request: Request) -> Plain:
    match request:
        case Publish(drafts):
            return (PUBLISH, list(map(plain_draft, drafts)))
        case Read(channel, after, count_max, bytes_max):
            return (READ, (channel, plain_position(after), count_max, bytes_max))
        case Latest(channel, count):
            return (LATEST, (channel, count))
        case Follow(channel, recent, after):
            return (FOLLOW, (channel, recent, plain_position(after)))


def _plain_answered(answer: Answer) -> Plain:
    if not isinstance(answer, Stretch):
        return (PLACED, list(map(plain_answer, answer)))
    run = plain_run(answer.channel, answer.messages) if answer.messages else None
    return (STRETCH, (answer.channel, plain_position(answer.head), answer.more, run))


def _plain_error(error: LogError) -> Plain:
    if isinstance(error, LogAway):
        return (AWAY, error.log, error.happened, error.may_have_taken_effect)
    if isinstance(error, LogRefused):
        return (REFUSED, error.tried, error.happened)
    return (AWAY, "?", str(error), True)


# ----------------------------------------------------------------------------------------------------- in


class Decoder(decoding.Decoder[Message]):
    """Cuts a stream of bytes, which may come in any pieces, into messages."""

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        super().__init__(PROTOCOL, parse_message, frame_bytes_max)


def parse_message(payload: bytes) -> Message:
    """The message of one frame.

    Raises:  RemoteWireError.
    """
    message = many(unpack(payload), "a frame")
    if not message or type(message[0]) is not int or not 0 <= message[0] < len(_PARSERS):
        raise wrong("the kind of a frame", message[:1])
    return _PARSERS[message[0]](message)


def _parse_hello(value: Plain) -> Message:
    # A later version may say more in its hello.
    if len(value) < 5 or value[1] != PROTOCOL:
        raise wrong("a hello", value[:2])
    return Hello(text(value[4], "a token"), number(value[2], "a version"), number(value[3], "a version"))


def _parse_welcome(value: Plain) -> Message:
    _, version, log, size = parts(value, 4, "a welcome")
    return Welcome(number(version, "a version"), octets(log, "a log's id"), number(size, "a size"))


def _parse_versions(value: Plain) -> Message:
    if len(value) < 3:
        raise wrong("versions", value)
    return Versions(number(value[1], "a version"), number(value[2], "a version"))


def _parse_denied(value: Plain) -> Message:
    if len(value) < 3:
        raise wrong("a denial", value)
    return Denied(text(value[1], "a problem"), flag(value[2], "whether it is for good"))


def _parse_ask(value: Plain) -> Message:
    _, asked, kind, request = parts(value, 4, "a request")
    return Ask(number(asked, "a number"), _parse_request(kind, request))


def _parse_request(kind: Plain, value: Plain) -> Request:
    if kind == PUBLISH:
        return Publish(tuple(map(parse_draft, many(value, "drafts"))))
    if kind == READ:
        channel, after, count_max, bytes_max = parts(value, 4, "a reading")
        return Read(
            text(channel, "a channel"),
            parse_position(after),
            number(count_max, "a count"),
            number(bytes_max, "a count of bytes"),
        )
    if kind == LATEST:
        channel, count = parts(value, 2, "a reading")
        return Latest(text(channel, "a channel"), number(count, "a count"))
    if kind == FOLLOW:
        channel, recent, after = parts(value, 3, "a following")
        place = None if after is None else parse_position(after)
        return Follow(text(channel, "a channel"), number(recent, "a count"), place)
    raise wrong("the kind of a request", kind)


def _parse_answered(value: Plain) -> Message:
    _, asked, kind, answer = parts(value, 4, "an answer")
    number(asked, "a number")
    if kind == PLACED:
        return Answered(asked, tuple(map(parse_answer, many(answer, "answers"))))
    if kind == STRETCH:
        return Answered(asked, _parse_stretch(answer))
    raise wrong("the kind of an answer", kind)


def _parse_stretch(value: Plain) -> Stretch:
    channel, head, more, run = parts(value, 4, "a stretch")
    text(channel, "a channel")
    messages = () if run is None else parse_run(run).messages
    if messages and messages[0].channel != channel:
        raise RemoteWireError("a stretch with messages of another channel")
    return Stretch(channel, parse_position(head), messages, flag(more, "the mark of a cut stretch"))


def _parse_failed(value: Plain) -> Message:
    _, asked, error = parts(value, 3, "a failure")
    return Failed(number(asked, "a number"), _parse_error(many(error, "an error")))


def _parse_error(value: list[Plain]) -> LogError:
    match value:
        case [0, str(tried), str(happened)]:
            return LogRefused(tried, happened)
        case [1, str(log), str(happened), bool(may_have)]:
            return LogAway(log, happened, may_have_taken_effect=may_have)
    raise wrong("an error", value)


def _parse_unfollow(value: Plain) -> Message:
    return Unfollow(text(parts(value, 2, "the end of a following")[1], "a channel"))


def _parse_told(value: Plain) -> Message:
    return Told(tuple(map(parse_run, many(parts(value, 2, "news")[1], "news"))))


def _parse_jumped(value: Plain) -> Message:
    _, channel, head, why = parts(value, 4, "a jump")
    if number(why, "a reason") >= len(HOLES):
        raise wrong("a reason", why)
    return Jumped(text(channel, "a channel"), parse_position(head), HOLES[why])


def _parse_beat(value: Plain) -> Message:
    parts(value, 1, "a beat")
    return Beat()


def _parse_goodbye(value: Plain) -> Message:
    return Goodbye(text(parts(value, 2, "a goodbye")[1], "a reason"))


_PARSERS: Final = (
    _parse_hello, _parse_welcome, _parse_versions, _parse_denied, _parse_ask, _parse_answered, _parse_failed,
    _parse_unfollow, _parse_told, _parse_jumped, _parse_beat, _parse_goodbye,
)  # fmt: skip
"""By kind."""
