"""What a store server and its clients say to each other, as frames: a length of 4 bytes, big-endian, and msgpack.

A client begins with `Hello`, and the server answers with `Welcome`, or with the reason why not. From then on either side
speaks when it has something to say; a side that has nothing to say for a while sends a `Beat`, and a side that hears
nothing at all for a few beats takes the other for dead. `Hello`, `Versions` and `Denied` keep their form in every version,
so that any two versions can tell each other that they do not fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from budao.model import LocalWireError
from budao.store import (
    Batch,
    Command,
    Committed,
    Compacted,
    Lease,
    LeaseGone,
    LeaseView,
    Page,
    Span,
    StoreAway,
    StoreDenied,
    StoreError,
    StoreRefused,
)
from budao.wire import decoding
from budao.wire.decoding import FRAME_BYTES_MAX, HELLO_BYTES_MAX, LENGTH_BYTES
from budao.wire.packing import pack, unpack
from budao.wire.store_codec import (
    Plain,
    flag,
    many,
    number,
    octets,
    parse_batch,
    parse_command,
    parse_committed,
    parse_lease,
    parse_page,
    parse_span,
    parse_view,
    parts,
    plain_batch,
    plain_command,
    plain_committed,
    plain_lease,
    plain_page,
    plain_span,
    plain_view,
    text,
    wrong,
)

PROTOCOL: Final = "budao-store"
VERSION_LOW: Final = 1
VERSION_HIGH: Final = 1

__all__ = [
    "ANSWERED",
    "ASK",
    "AWAY",
    "BEAT",
    "COMMAND",
    "COMMITTED",
    "COMPACTED",
    "DENIED",
    "FAILED",
    "FRAME_BYTES_MAX",
    "GOODBYE",
    "HELLO",
    "HELLO_BYTES_MAX",
    "LEASE",
    "LEASE_GONE",
    "LENGTH_BYTES",
    "LOOK_UP",
    "NOTHING",
    "PIECE",
    "PROTOCOL",
    "REFUSED",
    "RENEW",
    "SEARCH",
    "STORE_DENIED",
    "TOLD",
    "UNWATCH",
    "VERSIONS",
    "VERSION_HIGH",
    "VERSION_LOW",
    "VIEW",
    "WATCH",
    "WELCOME",
    "Answer",
    "Answered",
    "Ask",
    "Beat",
    "Decoder",
    "Denied",
    "Failed",
    "Goodbye",
    "Hello",
    "LookUp",
    "Message",
    "Piece",
    "Renew",
    "Request",
    "Search",
    "Told",
    "Unwatch",
    "Versions",
    "Watch",
    "Welcome",
    "format_message",
    "parse_message",
]


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
    """From the server: the version spoken from here on, which store this is, and how far it is."""

    version: int
    store: bytes
    revision: int
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
class Search:
    """Request: read a span. Answered with a `Piece`."""

    span: Span
    revision: int = 0
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Renew:
    """Request: keep a lease alive. Answered with `Lease`."""

    lease: int


@dataclass(frozen=True, slots=True)
class LookUp:
    """Request: how a lease stands. Answered with `LeaseView`."""

    lease: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Answer: entries, as many as fit."""

    page: Page
    is_cut: bool = False
    """Whether the server stopped for the size of it: the rest is to be asked for at the page's revision."""


Request = Command | Search | Renew | LookUp
Answer = Piece | Committed | Lease | LeaseView | None


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
    """From the server: a request was not carried out, or a watch has ended."""

    number: int
    error: StoreError


@dataclass(frozen=True, slots=True)
class Watch:
    """From the client: tell what changes in a span above a revision. Answered with `Told`, or with `Failed`, which ends it."""

    number: int
    span: Span
    after: int


@dataclass(frozen=True, slots=True)
class Unwatch:
    """From the client: no more of this."""

    number: int


@dataclass(frozen=True, slots=True)
class Told:
    """From the server: what a watch has to say. The first one, empty, says that the watch is heard."""

    number: int
    batches: tuple[Batch, ...]


@dataclass(frozen=True, slots=True)
class Beat:
    """From either side: here I am. The server adds the revision up to which it has told every watch everything."""

    revision: int = 0


@dataclass(frozen=True, slots=True)
class Goodbye:
    """From the server, last: it stops. What it has not answered it has not done."""

    why: str


Message = (
    Hello | Welcome | Versions | Denied | Ask | Answered | Failed | Watch | Unwatch | Told | Beat | Goodbye
)  # fmt: skip

HELLO, WELCOME, VERSIONS, DENIED, ASK, ANSWERED, FAILED, WATCH, UNWATCH, TOLD, BEAT, GOODBYE = range(12)
COMMAND, SEARCH, RENEW, LOOK_UP = range(4)
NOTHING, PIECE, COMMITTED, LEASE, VIEW = range(5)
REFUSED, COMPACTED, LEASE_GONE, AWAY, STORE_DENIED = range(5)


# ---------------------------------------------------------------------------------------------------- out


def format_message(message: Message) -> bytes:
    """A whole frame.

    Raises:  LocalWireError for what no frame can hold.
    """
    return decoding.format_frame(pack(_plain(message)))


def _plain(message: Message) -> Plain:  # noqa: C901 - one line for each message
    match message:
        case Ask(asked, request):
            return [ASK, asked, *_plain_request(request)]
        case Answered(asked, answer):
            return [ANSWERED, asked, *_plain_answer(answer)]
        case Told(asked, batches):
            return [TOLD, asked, list(map(plain_batch, batches))]
        case Beat(revision):
            return [BEAT, revision]
        case Watch(asked, span, after):
            return [WATCH, asked, plain_span(span), after]
        case Unwatch(asked):
            return [UNWATCH, asked]
        case Failed(asked, error):
            return [FAILED, asked, _plain_error(error)]
        case Hello(token, low, high):
            return [HELLO, PROTOCOL, low, high, token]
        case Welcome(version, store, revision, size):
            return [WELCOME, version, store, revision, size]
        case Versions(low, high):
            return [VERSIONS, low, high]
        case Denied(problem, is_for_good):
            return [DENIED, problem, is_for_good]
        case Goodbye(why):
            return [GOODBYE, why]


def _plain_request(request: Request) -> Plain:
    if isinstance(request, Search):
        return [SEARCH, [plain_span(request.span), request.revision, request.limit]]
    if isinstance(request, Renew):
        return [RENEW, request.lease]
    if isinstance(request, LookUp):
        return [LOOK_UP, request.lease]
    return [COMMAND, plain_command(request)]


def _plain_answer(answer: Answer) -> Plain:
    if answer is None:
        return [NOTHING, None]
    if isinstance(answer, Piece):
        return [PIECE, [plain_page(answer.page), answer.is_cut]]
    if isinstance(answer, Committed):
        return [COMMITTED, plain_committed(answer)]
    if isinstance(answer, Lease):
        return [LEASE, plain_lease(answer)]
    return [VIEW, plain_view(answer)]


def _plain_error(error: StoreError) -> Plain:
    if isinstance(error, StoreRefused):
        return [REFUSED, error.tried, error.problem]
    if isinstance(error, Compacted):
        return [COMPACTED, error.asked, error.oldest]
    if isinstance(error, LeaseGone):
        return [LEASE_GONE, error.lease]
    if isinstance(error, StoreAway):
        return [AWAY, error.store, error.happened, error.may_have_taken_effect]
    if isinstance(error, StoreDenied):
        return [STORE_DENIED, error.store, error.problem]
    raise LocalWireError(f"no frame says {type(error).__name__}")


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
    _, version, store, revision, size = parts(value, 5, "a welcome")
    return Welcome(
        number(version, "a version"),
        octets(store, "a store's id"),
        number(revision, "a revision"),
        number(size, "a size"),
    )


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
    if kind == COMMAND:
        return parse_command(value)
    if kind == SEARCH:
        span, revision, limit = parts(value, 3, "a search")
        return Search(parse_span(span), number(revision, "a revision"), number(limit, "a limit"))
    if kind == RENEW:
        return Renew(number(value, "a lease"))
    if kind == LOOK_UP:
        return LookUp(number(value, "a lease"))
    raise wrong("the kind of a request", kind)


def _parse_answered(value: Plain) -> Message:
    _, asked, kind, answer = parts(value, 4, "an answer")
    return Answered(number(asked, "a number"), _parse_answer(kind, answer))


def _parse_answer(kind: Plain, value: Plain) -> Answer:
    if kind == NOTHING:
        return None
    if kind == PIECE:
        page, is_cut = parts(value, 2, "a piece")
        return Piece(parse_page(page), flag(is_cut, "whether it is cut"))
    if kind == COMMITTED:
        return parse_committed(value)
    if kind == LEASE:
        return parse_lease(value)
    if kind == VIEW:
        return parse_view(value)
    raise wrong("the kind of an answer", kind)


def _parse_failed(value: Plain) -> Message:
    _, asked, error = parts(value, 3, "a failure")
    return Failed(number(asked, "a number"), _parse_error(many(error, "an error")))


def _parse_error(value: list[Plain]) -> StoreError:
    match value:
        case [0, str(tried), str(problem)]:
            return StoreRefused(tried, problem)
        case [1, int(asked), int(oldest)]:
            return Compacted(asked, oldest)
        case [2, int(lease)]:
            return LeaseGone(lease)
        case [3, str(store), str(happened), bool(may_have)]:
            return StoreAway(store, happened, may_have_taken_effect=may_have)
        case [4, str(store), str(problem)]:
            return StoreDenied(store, problem)
    raise wrong("an error", value)


def _parse_watch(value: Plain) -> Message:
    _, asked, span, after = parts(value, 4, "a watch")
    return Watch(number(asked, "a number"), parse_span(span), number(after, "a revision"))


def _parse_unwatch(value: Plain) -> Message:
    return Unwatch(number(parts(value, 2, "the end of a watch")[1], "a number"))


def _parse_told(value: Plain) -> Message:
    _, asked, batches = parts(value, 3, "what a watch tells")
    return Told(number(asked, "a number"), tuple(map(parse_batch, many(batches, "batches"))))


def _parse_beat(value: Plain) -> Message:
    return Beat(number(parts(value, 2, "a beat")[1], "a revision"))


def _parse_goodbye(value: Plain) -> Message:
    return Goodbye(text(parts(value, 2, "a goodbye")[1], "a reason"))


_PARSERS: Final = (
    _parse_hello, _parse_welcome, _parse_versions, _parse_denied, _parse_ask, _parse_answered, _parse_failed,
    _parse_watch, _parse_unwatch, _parse_told, _parse_beat, _parse_goodbye,
)  # fmt: skip
"""By kind."""
