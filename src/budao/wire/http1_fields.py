"""The lines of an HTTP/1.1 head: fields out of bytes, and fields into bytes.

Source:  RFC 9110, section 5; RFC 9112, section 5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from budao.model import LocalWireError, RemoteWireError

TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
LEGAL: Final = bytes([0x09, 0x0A, 0x0D, *range(0x20, 0x7F), *range(0x80, 0x100)])
"""What may stand in a head at all: no NUL, no other control character."""
_ALONE: Final = re.compile(rb"[^\t\r\n -~\x80-\xff]|(?<!\r)\n|\r(?![\n]|\Z)")
_BARE_VALUE: Final = re.compile(r"[\t -~\x80-\xff]*")

_COMMON: Final = (
    "Accept",
    "Accept-Encoding",
    "Accept-Language",
    "Authorization",
    "Cache-Control",
    "Connection",
    "Content-Length",
    "Content-Type",
    "Cookie",
    "Expect",
    "Host",
    "If-None-Match",
    "Last-Event-ID",
    "Origin",
    "Pragma",
    "Referer",
    "Sec-Fetch-Dest",
    "Sec-Fetch-Mode",
    "Sec-Fetch-Site",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Version",
    "Traceparent",
    "Tracestate",
    "Transfer-Encoding",
    "Upgrade",
    "User-Agent",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Real-IP",
    "X-Request-ID",
)
NAMES: Final = {spelled: name.lower() for name in _COMMON for spelled in (name, name.lower(), name.title())}
"""Names as they are usually spelled, in lower case: they need no check."""

ONCE: Final = frozenset(
    (
        "authorization",
        "content-length",
        "content-type",
        "expect",
        "host",
        "last-event-id",
        "sec-websocket-accept",
        "sec-websocket-key",
        "sec-websocket-version",
        "transfer-encoding",
    )
)
"""Two of these would let two readers choose differently."""


class BadHead(RemoteWireError):
    """The lines of a head break a rule; `status` is what a server answers."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(status, problem)
        self.status = status
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.status}: {self.problem}"


def check_unfinished(data: bytes, since: int) -> None:
    """Refuses what no end of a head could make good: a stray byte, a line that does not end in CR and LF.

    Raises:  BadHead.
    """
    found = _ALONE.search(data, since)
    if found is not None:
        raise BadHead(400, f"the byte {found.group()[:1]!r} stands alone in a head")


def split_head(head: bytes) -> list[str]:
    """The lines of a head that ends in CR LF; the last one is empty.

    Raises:  BadHead if a line ends in anything else, or holds what is no text.
    """
    if head.translate(None, LEGAL) or not head.count(b"\r\n") == head.count(b"\n") == head.count(b"\r"):
        check_unfinished(head, 0)
        raise BadHead(400, "a head does not end in CR LF")  # a CR that is the last byte of all
    return head.decode("latin-1").split("\r\n")


def parse_fields(lines: list[str], fields_max: int) -> dict[str, str]:
    """Fields by lower-case name. `lines` are those of a head: the first is no field, and the last is empty.

    Raises:  BadHead.
    """
    if len(lines) - 2 > fields_max:
        raise BadHead(431, f"a head has {len(lines) - 2} fields, and at most {fields_max} are read")
    fields: dict[str, str] = {}
    known = NAMES.get
    for line in lines[1:-1]:
        spelled, colon, value = line.partition(":")
        name = known(spelled) or _checked(spelled)
        if not colon:
            raise BadHead(400, f"the line {line[:60]!r} of a head has no colon")
        value = value.strip(" \t")
        if name in fields:
            if name in ONCE:
                raise BadHead(400, f"the field {name} stands in a head twice")
            value = f"{fields[name]}, {value}"
        fields[name] = value
    return fields


def _checked(name: str) -> str:
    # A folded line (RFC 9112, section 5.2) and a space before the colon (5.1) end here, too: both smuggled requests once.
    if TOKEN.fullmatch(name) is None:
        raise BadHead(400, f"{name[:60]!r} is no name of a field")
    return name.lower()


STATUS_LINES: Final = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}


def format_fields(fields: Mapping[str, str]) -> bytes:
    """Fields as lines.

    Raises:  LocalWireError for a name or a value that would break the head. A value is not shown: it may be a secret.
    """
    for name, value in fields.items():
        if name not in NAMES and TOKEN.fullmatch(name) is None:
            raise LocalWireError(f"{name[:60]!r} cannot be the name of a field")
        if _BARE_VALUE.fullmatch(value) is None:
            raise LocalWireError(f"the value of the field {name} holds a line end, or what Latin-1 has not")
    return "".join([f"{name}: {value}\r\n" for name, value in fields.items()]).encode("latin-1")


def tokens(value: str) -> list[str]:
    """The members of a list, in lower case."""
    return [part for each in value.lower().split(",") if (part := each.strip(" \t"))]
