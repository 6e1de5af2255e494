"""What is said of every reader of bytes that is fuzzed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from budao.model import RemoteWireError
from budao.wire import framing, http1, websocket

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """What to feed, and where to begin.

    `read` returns for a value that was read and for the error it documents, and raises anything else.
    """

    read: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]
    shape: Callable[[bytes, Random], bytes | None] | None = None
    """Changes a value within the bytes, if they hold one."""


def tried(wrong: type[Exception], read: Callable[..., T], *given: Any) -> T | None:
    """What is read, or None for bytes that are refused as they should be."""
    try:
        return read(*given)
    except wrong as refused:
        str(refused)  # a message that cannot be built is no message
        return None


def same(one: object, other: object) -> None:
    assert repr(one) == repr(other), f"{one!r} came back as {other!r}"


def cut(raw: bytes, step: int, feed: Callable[[bytes], Sequence[object]]) -> tuple[list[object], bool]:
    """What a stream says in pieces, and whether it ended in an error."""
    found: list[object] = []
    for at in range(0, len(raw), step):
        try:
            found += feed(raw[at : at + step])
        except (http1.BadRequest, http1.BadResponse, websocket.BadFrame, framing.BadFraming) as bad:
            str(bad)
            return found + list(bad.before), True
        except RemoteWireError as bad:
            str(bad)
            return found, True
    return found, False


def same_however_cut(raw: bytes, reader: Callable[[], Callable[[bytes], Sequence[object]]]) -> None:
    whole, parts = cut(raw, max(1, len(raw)), reader()), cut(raw, 7, reader())
    if whole[1] == parts[1] is False:
        same(_joined(whole[0]), _joined(parts[0]))
    assert whole[1] == parts[1], "an error depends on how it was cut"


def _joined(found: Sequence[object]) -> list[object]:
    """Neighbouring pieces of a body made one."""
    bodies: list[bytes] = []
    out: list[object] = []
    for each in found:
        if isinstance(each, http1.Body):
            bodies.append(each.data)
            continue
        if bodies:
            out.append(b"".join(bodies))
            bodies = []
        out.append(bytes(each) if isinstance(each, memoryview) else each)
    return [*out, b"".join(bodies)] if bodies else out
