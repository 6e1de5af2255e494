"""Requests of HTTP/1.1 out of bytes, and answers into bytes.

Source:  RFC 9110 and RFC 9112.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from budao.model import Checks, RemoteWireError


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
    """Whether it asks for another protocol. What follows stays unread until `taken_over` or `go_on` is called."""


@dataclass(frozen=True, slots=True)
class Body:
    """A piece of the body."""

    data: bytes


@dataclass(frozen=True, slots=True)
class EndOfBody:
    """The request is whole."""


class BadRequest(RemoteWireError):
    """The client sent what is no request that is served here. Answer with `status` and close: where the next one begins is unknown.

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


class RequestReader:
    """Pieces of a connection into requests. Strict: what two readers could understand differently is refused."""

    def __init__(self, policy: HeadPolicy) -> None:
        self._policy = policy

    @property
    def is_mid_request(self) -> bool:
        """Whether a request has begun and not ended: the shell gives it only so much time."""
        raise NotImplementedError

    def feed(self, data: bytes) -> list[Request | Body | EndOfBody]:
        """What can be read now.

        Raises:  BadRequest; nothing can be read afterwards.
        """
        raise NotImplementedError

    def go_on(self) -> list[Request | Body | EndOfBody]:
        """After a refused upgrade: reads on as HTTP."""
        raise NotImplementedError

    def taken_over(self) -> bytes:
        """After an upgrade: what follows it, unread. The reader is done."""
        raise NotImplementedError


def format_response(
    status: int,
    headers: Mapping[str, str],
    body: bytes = b"",
    *,
    keeps_alive: bool = True,
) -> bytes:
    """A whole answer, with its length.

    Raises:  LocalWireError for a name or a value that would break the head.
    """
    raise NotImplementedError


def format_head(status: int, headers: Mapping[str, str], *, keeps_alive: bool = True) -> bytes:
    """The head of an answer whose body ends in another way: a stream, or another protocol."""
    raise NotImplementedError


def parse_query(query: str) -> dict[str, list[str]]:
    """Names and values of a query, percent-decoded, values in order. What is no UTF-8 is replaced."""
    raise NotImplementedError
