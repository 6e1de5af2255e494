"""Requests of HTTP/1.1 out of bytes, and answers into bytes; and the other way round, for clients.

The reader is strict: what two readers could understand differently is refused, since a proxy before us may be the other one.

Source:  RFC 9110 and RFC 9112.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Generic, NamedTuple, TypeVar
from urllib.parse import parse_qs

from budao.model import Checks, LocalWireError, RemoteWireError
from budao.wire.http1_fields import (
    STATUS_LINES,
    TOKEN,
    BadHead,
    check_unfinished,
    format_fields,
    parse_fields,
    split_head,
    tokens,
)

CHUNK_LINE_BYTES_MAX: Final = 256
"""A size in hexadecimal, and extensions that nobody reads."""
QUERY_FIELDS_MAX: Final = 1_000

_METHODS: Final = frozenset(("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"))
_TARGET: Final = re.compile(r"[!$-;=?-~]+")  # what browsers send: neither space nor ", #, <, >, and ASCII only
_ABSOLUTE: Final = re.compile(r"(?i:https?)://([^/?@]+)([/?].*)?")
_HOST: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t -~\x80-\xff]*)?")
_STARTS: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]")
_DIGITS_MAX: Final = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadPolicy:
    """How much of a request is read.

    Raises: BadSettings.
    """

    head_bytes_max: int = 16 * 1024
    """The request line and all fields; more is answered with 431."""
    target_bytes_max: int = 8 * 1024
    """The target of a request; more is answered with 414."""
    fields_max: int = 100
    """Fields of a head; more are answered with 431."""
    body_bytes_max: int = 1024 * 1024
    """The body of a request; more is answered with 413."""
    early_bytes_max: int = 64 * 1024
    """What may follow a request to upgrade before it is decided; more is answered with 400."""

    def __post_init__(self) -> None:
        check = Checks("head")
        check.count("head_bytes_max", self.head_bytes_max, 256, 1024 * 1024)
        check.count("target_bytes_max", self.target_bytes_max, 64, 1024 * 1024)
        check.count("fields_max", self.fields_max, 8, 10_000)
        check.count("body_bytes_max", self.body_bytes_max, 0, 1024 * 1024 * 1024)
        check.count("early_bytes_max", self.early_bytes_max, 0, 16 * 1024 * 1024)
        check.done()


class Request(NamedTuple):
    """The head of a request. The body, if it has one, follows as `Body`; every request ends with `EndOfBody`."""

    method: str
    target: str
    """As it was sent."""
    path: str
    """Not percent-decoded."""
    query: str
    """What follows the first `?`; "" without one."""
    headers: Mapping[str, str]
    """By lower-case name; fields of one name are joined by ", ". Bytes beyond ASCII are read as Latin-1."""
    is_http10: bool
    keeps_alive: bool
    """Whether another request may follow. Never with HTTP/1.0."""
    body_bytes: int | None
    """None for a chunked body, whose length is not known."""
    expects_continue: bool
    """Whether it waits for `100 Continue` before it sends its body."""
    wants_upgrade: bool
    """Whether it asks for a WebSocket. What follows stays unread until `taken_over` or `go_on` is called."""


class Response(NamedTuple):
    """The head of an answer, at a client. Every answer ends with `EndOfBody`, but for 101, behind which all is `taken_over`."""

    status: int
    reason: str
    headers: Mapping[str, str]
    keeps_alive: bool
    body_bytes: int | None
    """None for a body whose length is not known: chunked, or up to the end of the connection."""


@dataclass(frozen=True, slots=True)
class Body:
    """A piece of the body."""

    data: bytes


@dataclass(frozen=True, slots=True)
class EndOfBody:
    """The message is whole."""


END_OF_BODY: Final = EndOfBody()
Head = TypeVar("Head", Request, Response)


class BadRequest(RemoteWireError):
    """The client sent what is no request that is served here. Answer with `status` and close: where the next begins is unknown.

    `before` holds what was read of the same piece before it; `headers` belong into the answer.
    """

    def __init__(
        self,
        status: int,
        problem: str,
        *,
        headers: Mapping[str, str] | None = None,
        before: tuple[Request | Body | EndOfBody, ...] = (),
    ) -> None:
        super().__init__(status, problem)
        self.status = status
        self.problem = problem
        self.headers = headers or {}
        self.before = before

    def __str__(self) -> str:
        return f"{self.status}: {self.problem}"


class BadResponse(RemoteWireError):
    """The server sent what is no answer. The connection cannot go on. `before` holds what was read before it."""

    def __init__(self, problem: str, *, before: tuple[Response | Body | EndOfBody, ...] = ()) -> None:
        super().__init__(problem)
        self.problem = problem
        self.before = before


class _At(IntEnum):
    """What the next byte belongs to."""

    HEAD = 0
    FIXED = 1
    CHUNK_LINE = 2
    CHUNK_DATA = 3
    CHUNK_END = 4
    TRAILERS = 5
    TO_THE_END = 6
    HELD = 7
    """Nobody knows yet: an upgrade is asked for."""
    OVER = 8


class _Reader(Generic[Head]):
    """What requests and answers have in common: a head, and a body of one of three kinds."""

    __slots__ = ("_at", "_keeps_alive", "_left", "_passed_over", "_policy", "_read", "_tail", "_trailers", "_upgrades")

    def __init__(self, policy: HeadPolicy) -> None:
        self._policy = policy
        self._at = _At.HEAD
        self._tail = b""
        self._left = 0
        """Bytes of this body or chunk that have not come yet."""
        self._read = 0
        """Bytes of the chunks of this body so far."""
        self._trailers = 0
        self._keeps_alive = True
        self._upgrades = False
        self._passed_over = False
        """Whether an empty line was let pass before this head."""

    def taken_over(self) -> bytes:
        """After an upgrade: what follows it, unread. The reader is done."""
        tail, self._tail, self._at = self._tail, b"", _At.OVER
        return tail

    def _step(self, data: bytes, found: list[Head | Body | EndOfBody]) -> None:
        searched = max(0, len(self._tail) - 3)
        if self._tail:
            data = self._tail + data
            self._tail = b""
        at, size = 0, len(data)
        while at < size:
            before, state = at, self._at
            if state == _At.HEAD:
                at = self._head(data, at, searched, found)
            elif state == _At.TO_THE_END:
                found.append(Body(data[at:]))
                at = size
            elif state == _At.OVER:
                at = size
            elif state != _At.HELD:
                at = self._rest(state, data, at, found)
            if at == before and self._at == state:
                break
        if at < size:
            self._tail = data[at:]
            if self._at == _At.HELD and len(self._tail) > self._policy.early_bytes_max:
                raise BadHead(400, f"{len(self._tail)} bytes follow a request to upgrade before it is answered")

    def _rest(self, state: _At, data: bytes, at: int, found: list[Head | Body | EndOfBody]) -> int:
        if state == _At.CHUNK_LINE:
            return self._chunk_line(data, at)
        if state == _At.CHUNK_END:
            return self._chunk_end(data, at)
        if state == _At.TRAILERS:
            return self._trailer(data, at, found)
        return self._data(data, at, found)

    def _head(self, data: bytes, at: int, searched: int, found: list[Head | Body | EndOfBody]) -> int:
        policy = self._policy
        if data.startswith(b"\r\n", at):
            if self._passed_over:
                raise BadHead(400, "two empty lines stand before a head")
            self._passed_over = True  # RFC 9112, section 2.2: one before a request is let pass
            return at + 2
        end: int = data.find(b"\r\n\r\n", max(at, searched))
        if end >= 0 and end + 4 - at <= policy.head_bytes_max:
            self._passed_over = False
            self._begin(data[at : end + 2], found)
            return end + 4
        self._wait_for_head(data, at, searched)
        return at

    def _wait_for_head(self, data: bytes, at: int, searched: int) -> None:
        policy, waiting = self._policy, len(data) - at
        if waiting and _STARTS.match(data, at) is None and data[at:] != b"\r":
            raise BadHead(400, f"no request begins with {data[at : at + 1]!r}")
        if waiting > policy.target_bytes_max and data.find(b"\r\n", at, at + policy.target_bytes_max + 64) < 0:
            raise BadHead(414, f"the target of a request has more than {policy.target_bytes_max} bytes")
        if waiting > policy.head_bytes_max:
            raise BadHead(431, f"a head has more than {policy.head_bytes_max} bytes")
        check_unfinished(data, max(at, searched))

    def _begin(self, head: bytes, found: list[Head | Body | EndOfBody]) -> None:
        raise NotImplementedError

    def _body_of(self, fields: Mapping[str, str], is_http10: bool) -> int | None:
        """How long the body is that a head announces; -1 if it does not say, None for chunks."""
        encoding, length = fields.get("transfer-encoding"), fields.get("content-length")
        if encoding is not None:
            # RFC 9112, section 6.1: either of these is how a request is smuggled past a proxy.
            if length is not None:
                raise BadHead(400, "a head has both Transfer-Encoding and Content-Length")
            if is_http10:
                raise BadHead(400, "HTTP/1.0 has no Transfer-Encoding")
            if encoding.lower() != "chunked":
                raise BadHead(501, "the only transfer encoding that is read is chunked, once")
            return None
        if length is None:
            return -1
        if not (length.isascii() and length.isdigit() and len(length) <= _DIGITS_MAX):
            raise BadHead(400, f"the length {length[:40]!r} is no number")
        if int(length) > self._policy.body_bytes_max:
            raise BadHead(
                413, f"a body of {length} bytes was announced, and at most {self._policy.body_bytes_max} are read"
            )
        return int(length)

    def _expect(self, body_bytes: int | None, found: list[Head | Body | EndOfBody]) -> None:
        if body_bytes is None:
            self._at = _At.CHUNK_LINE
            self._read = self._trailers = 0
        elif body_bytes:
            self._at = _At.FIXED
            self._left = body_bytes
        else:
            self._end(found)

    def _end(self, found: list[Head | Body | EndOfBody]) -> None:
        found.append(END_OF_BODY)
        self._at = _At.HELD if self._upgrades else _At.HEAD if self._keeps_alive else _At.OVER

    def _data(self, data: bytes, at: int, found: list[Head | Body | EndOfBody]) -> int:
        piece = data[at : at + self._left]
        found.append(Body(piece))
        self._left -= len(piece)
        if not self._left:
            if self._at == _At.FIXED:
                self._end(found)
            else:
                self._at = _At.CHUNK_END
        return at + len(piece)

    def _line(self, data: bytes, at: int, bytes_max: int, status: int) -> int:
        """Where the line ends that begins here, or -1 if that is not known yet."""
        end = data.find(b"\r\n", at, at + bytes_max + 2)
        if end < 0:
            check_unfinished(data[at : at + bytes_max + 2], 0)
            if len(data) - at > bytes_max:
                raise BadHead(status, f"a line of a chunked body has more than {bytes_max} bytes")
        return end

    def _chunk_line(self, data: bytes, at: int) -> int:
        end = self._line(data, at, CHUNK_LINE_BYTES_MAX, 400)
        if end < 0:
            return at
        told = _CHUNK.fullmatch(data, at, end)
        if told is None:
            raise BadHead(400, f"{data[at : min(end, at + 40)]!r} is not the size of a chunk")
        self._left = int(told[1], 16)
        self._read += self._left
        if self._read > self._policy.body_bytes_max:
            raise BadHead(413, f"a chunked body has more than {self._policy.body_bytes_max} bytes")
        self._at = _At.CHUNK_DATA if self._left else _At.TRAILERS
        return end + 2

    def _chunk_end(self, data: bytes, at: int) -> int:
        ending = data[at : at + 2]
        if ending == b"\r\n":
            self._at = _At.CHUNK_LINE
            return at + 2
        if ending != b"\r":
            raise BadHead(400, f"a chunk is followed by {ending!r}, and not by CR LF")
        return at

    def _trailer(self, data: bytes, at: int, found: list[Head | Body | EndOfBody]) -> int:
        """Reads a line behind the last chunk. Fields there are checked and dropped: nobody here waits for one."""
        end: int = self._line(data, at, self._policy.head_bytes_max, 431)
        if end < 0:
            return at
        if end == at:
            self._end(found)
            return end + 2
        parse_fields(["", *split_head(data[at : end + 2])], 1)
        self._trailers += end + 2 - at
        if self._trailers > self._policy.head_bytes_max:
            raise BadHead(431, f"the fields behind a body have more than {self._policy.head_bytes_max} bytes")
        return end + 2


_CONNECTIONS: Final = {
    "Upgrade": (False, True),
    "upgrade": (False, True),
    "keep-alive": (False, False),
    "close": (True, False),
}


class RequestReader(_Reader[Request]):
    """Pieces of a connection into requests, any number of them one after the other.

    Cost:    about 6 µs for the request of a browser that opens a WebSocket.
    """

    __slots__ = ()

    @property
    def is_mid_request(self) -> bool:
        """Whether a request has begun and not ended: the shell gives it only so much time."""
        return self._at not in {_At.HEAD, _At.HELD, _At.OVER} or (self._at == _At.HEAD and bool(self._tail))

    def feed(self, data: bytes) -> list[Request | Body | EndOfBody]:
        """What can be read now.

        Raises:  BadRequest; nothing is read afterwards.
        """
        found: list[Request | Body | EndOfBody] = []
        try:
            self._step(data, found)
        except BadHead as bad:
            self._at, self._tail = _At.OVER, b""
            raise BadRequest(bad.status, bad.problem, before=tuple(found)) from None
        return found

    def go_on(self) -> list[Request | Body | EndOfBody]:
        """After a refused upgrade: reads on as HTTP.

        Raises:  BadRequest.
        """
        if self._at != _At.HELD:
            return []
        self._at = _At.HEAD if self._keeps_alive else _At.OVER
        tail, self._tail = self._tail, b""
        return self.feed(tail)

    def _request_line(self, line: str) -> list[str]:
        words = line.split(" ")
        if len(words) != 3:
            raise BadHead(400, f"{line[:60]!r} is no request")
        method, target, version = words
        if method not in _METHODS:
            _check_method(method)
        if version not in {"HTTP/1.1", "HTTP/1.0"}:
            is_other = re.fullmatch(r"HTTP/[0-9]\.[0-9]", version) is not None
            raise BadHead(505 if is_other else 400, f"{version[:20]!r} is not a version that is read here")
        if len(target) > self._policy.target_bytes_max:
            raise BadHead(
                414, f"a target has {len(target)} bytes, and at most {self._policy.target_bytes_max} are read"
            )
        if _TARGET.fullmatch(target) is None:
            raise BadHead(400, f"{target[:60]!r} is no target of a request")
        return words

    def _begin(self, head: bytes, found: list[Request | Body | EndOfBody]) -> None:
        lines = split_head(head)
        method, target, version = self._request_line(lines[0])
        is_http10 = version != "HTTP/1.1"
        fields = parse_fields(lines, self._policy.fields_max)
        local = target if target[0] == "/" else _localized(method, target, fields)
        path, _, query = local.partition("?")
        host = fields.get("host")
        if host is None:
            if not is_http10:
                raise BadHead(400, "a request has no Host")  # RFC 9112, section 3.2
        elif _HOST.fullmatch(host) is None:
            raise BadHead(400, f"{host[:60]!r} is no host")
        expected = fields.get("expect")
        if expected is not None and expected.lower() != "100-continue":
            raise BadHead(417, f"the expectation {expected[:40]!r} is not met here")
        body_bytes = self._body_of(fields, is_http10)
        if body_bytes == -1:
            body_bytes = 0  # RFC 9112, section 6.3: a request that does not say has none
        closes, upgrades = False, False
        connection = fields.get("connection")
        if connection is not None:
            known = _CONNECTIONS.get(connection)
            if known is None:
                options = tokens(connection)
                known = "close" in options, "upgrade" in options
            closes, upgrades = known
        self._keeps_alive = not (closes or is_http10)
        self._upgrades = upgrades and not is_http10 and "websocket" in tokens(fields.get("upgrade", ""))
        found.append(
            Request(
                method,
                target,
                path,
                query,
                fields,
                is_http10,
                self._keeps_alive,
                body_bytes,
                expected is not None and not is_http10 and body_bytes != 0,
                self._upgrades,
            )
        )
        self._expect(body_bytes, found)


def _check_method(method: str) -> None:
    if TOKEN.fullmatch(method) is None:
        raise BadHead(400, f"{method[:40]!r} is no method")
    raise BadHead(501, f"the method {method[:40]} is not served here")


def _localized(method: str, target: str, fields: dict[str, str]) -> str:
    """The path and query of a target that does not begin with a slash (RFC 9112, sections 3.2.2 and 3.2.4)."""
    if target == "*" and method == "OPTIONS":
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise BadHead(400, f"{target[:60]!r} is no target of a request")
    if "host" in fields:
        fields["host"] = absolute[1]  # the host of the target counts, and the field is ignored
    rest: str = absolute[2] or "/"
    return rest if rest[0] == "/" else "/" + rest


class ResponseReader(_Reader[Response]):
    """Pieces of a connection into answers, at a client. Answers 100 to 199 are left out, but for 101."""

    __slots__ = ()

    def feed(self, data: bytes) -> list[Response | Body | EndOfBody]:
        """What can be read now.

        Raises:  BadResponse; nothing is read afterwards.
        """
        found: list[Response | Body | EndOfBody] = []
        try:
            self._step(data, found)
        except BadHead as bad:
            self._at, self._tail = _At.OVER, b""
            raise BadResponse(bad.problem, before=tuple(found)) from None
        return found

    def closed(self) -> list[Response | Body | EndOfBody]:
        """What the end of the connection says.

        Raises:  BadResponse if an answer had begun and was not whole.
        """
        at, self._at = self._at, _At.OVER
        if at == _At.TO_THE_END:
            return [END_OF_BODY]
        if at in {_At.HELD, _At.OVER} or (at == _At.HEAD and not self._tail):
            return []
        raise BadResponse("the connection ended in the middle of an answer")

    def _begin(self, head: bytes, found: list[Response | Body | EndOfBody]) -> None:
        lines = split_head(head)
        version, _, rest = lines[0].partition(" ")
        code, _, reason = rest.partition(" ")
        if version not in {"HTTP/1.1", "HTTP/1.0"} or re.fullmatch(r"[1-5][0-9][0-9]", code) is None:
            raise BadHead(400, f"{lines[0][:60]!r} begins no answer")
        status, is_http10 = int(code), version == "HTTP/1.0"
        fields = parse_fields(lines, self._policy.fields_max)
        if status < 200 and status != 101:
            return
        body_bytes = 0 if status in {101, 204, 304} else self._body_of(fields, is_http10)
        self._upgrades = status == 101
        self._keeps_alive = not (is_http10 or body_bytes == -1 or "close" in tokens(fields.get("connection", "")))
        said = None if body_bytes == -1 else body_bytes
        found.append(Response(status, reason, fields, self._keeps_alive, said))
        if self._upgrades:
            self._at = _At.HELD
        elif body_bytes == -1:
            self._at = _At.TO_THE_END
        else:
            self._expect(body_bytes, found)


def format_response(
    status: int, headers: Mapping[str, str], body: bytes = b"", *, keeps_alive: bool = True, with_body: bool = True
) -> bytes:
    """A whole answer, with its length. `with_body=False` answers HEAD.

    Raises:  LocalWireError for a name or a value that would break the head.
    """
    if status < 200 or status in {204, 304}:
        return format_head(status, headers, keeps_alive=keeps_alive)
    head = format_head(status, headers, keeps_alive=keeps_alive)
    return b"%bcontent-length: %d\r\n\r\n%b" % (head[:-2], len(body), body if with_body else b"")


def format_head(status: int, headers: Mapping[str, str], *, keeps_alive: bool = True) -> bytes:
    """The head of an answer whose body ends in another way: with the connection, or as another protocol.

    Raises:  LocalWireError.
    """
    line = STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    return b"%b%b%b\r\n" % (line, format_fields(headers), b"" if keeps_alive else b"connection: close\r\n")


def format_request(method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """A whole request; `headers` names the host.

    Raises:  LocalWireError.
    """
    if TOKEN.fullmatch(method) is None or _TARGET.fullmatch(target) is None:
        raise LocalWireError("a method is one word, and a target holds neither spaces nor letters beyond ASCII")
    length = b"content-length: %d\r\n" % len(body) if body or method in {"POST", "PUT", "PATCH"} else b""
    return b"%b %b HTTP/1.1\r\n%b%b\r\n%b" % (method.encode(), target.encode(), format_fields(headers), length, body)


def parse_query(query: str) -> dict[str, list[str]]:
    """Names and values of a query, percent-decoded, values in order. What is no UTF-8 is replaced.

    Raises:  BadRequest for more than a thousand of them.
    """
    if not query:
        return {}
    if query.count("&") >= QUERY_FIELDS_MAX:
        raise BadRequest(400, f"a query has more than {QUERY_FIELDS_MAX} fields")
    return parse_qs(query, keep_blank_values=True)
