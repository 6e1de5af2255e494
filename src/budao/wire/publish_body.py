"""The body of `POST /v1/publish`, and of its answer."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from budao.model import RemoteWireError
from budao.push import WHYS, Draft, Kind, NotPlaced, Placed, Problem, check_channel
from budao.wire.json_data import (
    Kept,
    check_end,
    is_plain,
    parse_items,
    parse_members,
    parse_value,
    skip_space,
    slice_of,
    utf8,
    write_json,
)
from budao.wire.push_fields import Map, id_of, trace_of

MESSAGES_MAX: Final = 1_000
"""Messages in one batch."""


@dataclass(frozen=True, slots=True)
class Publishing:
    """What a body asks for: drafts, in order; one that is wrong is a `Problem` in its place, and the others go on."""

    items: tuple[Draft | Problem, ...]
    is_batch: bool

    @property
    def drafts(self) -> tuple[Draft, ...]:
        """Those that can be published."""
        return tuple(item for item in self.items if isinstance(item, Draft))


# ------------------------------------------------------------------------------------------------------ in


def parse_publish(body: bytes, *, messages_max: int = MESSAGES_MAX, trace: str | None = None) -> Publishing:
    """What is to be published. `trace` is the traceparent of the request, for messages that bring none.

    Raises:  RemoteWireError when the body as a whole is wrong.
    """
    text = utf8(body)
    plain = is_plain(body)
    item = partial(_item, plain=plain, trace=trace)
    items = partial(_items, item=item, messages_max=messages_max)
    values, kept, end = parse_members(text, plain=plain, keep="data", deeper={"messages": items})
    check_end(text, end)
    if "messages" not in values:
        return Publishing((_draft(text, values, kept, trace),), is_batch=False)
    if "channel" in values or "data" in values or "data64" in values:
        raise RemoteWireError("a body is one message, or has messages; this one is both")
    if not values["messages"]:
        raise RemoteWireError("messages: is empty")
    return Publishing(tuple(values["messages"]), is_batch=True)


def _items(text: str, at: int, *, item: Any, messages_max: int) -> tuple[list[Draft | Problem], int]:
    found, end = parse_items(text, at, item)
    if len(found) > messages_max:
        raise RemoteWireError(f"messages: {len(found)} of them, at most {messages_max} are taken at once")
    return found, end


def _item(text: str, at: int, *, plain: bool, trace: str | None) -> tuple[Draft | Problem, int]:
    if text[at : at + 1] != "{":
        _, end = parse_value(text, skip_space(text, at), plain=plain)
        return Problem(why="bad-data", happened="a message is an object with channel and data"), end
    values, kept, end = parse_members(text, at, plain=plain, keep="data")
    return _draft(text, values, kept, trace), end


def _draft(text: str, values: Map, kept: Kept | None, trace: str | None) -> Draft | Problem:
    try:
        channel = check_channel(values.get("channel"))
    except RemoteWireError as problem:
        return Problem(why="bad-channel", happened=str(problem))
    try:
        data, kind = _data(text, values, kept)
        return Draft(channel, data, kind, id_of(values), trace_of(values) or trace)
    except RemoteWireError as problem:
        return Problem(why="bad-data", happened=str(problem))


def _data(text: str, values: Map, kept: Kept | None) -> tuple[bytes, Kind]:
    encoded: Any = values.get("data64")
    if (encoded is None) == (kept is None):
        raise RemoteWireError("data: is missing" if kept is None else "data and data64 are both there")
    if kept is not None:
        if kept.problem is not None:
            raise kept.problem
        return slice_of(text, kept.start, kept.end), Kind.JSON
    try:
        return b64decode(encoded, validate=True), Kind.BYTES
    except (ValueError, TypeError) as problem:
        raise RemoteWireError("data64 is not base64") from problem


# ----------------------------------------------------------------------------------------------------- out


def format_publish(publishing: Publishing, results: Sequence[Placed | NotPlaced | Problem]) -> bytes:
    """The body of the answer. `results` are those of `publishing.drafts`, in order.

    A single message that was refused is an error as a whole: see `format_error`, `status_of`.
    """
    assert len(results) == len(publishing.drafts), "each draft has one result"
    following = iter(results)
    plain = [_plain(item if isinstance(item, Problem) else next(following)) for item in publishing.items]
    return write_json({"results": plain} if publishing.is_batch else plain[0])


def format_error(problem: Problem) -> bytes:
    """The body of an answer that is an error as a whole."""
    return write_json(_plain(problem))


def status_of(why: str) -> int:
    """The HTTP status for a refused message."""
    return WHYS[why][0] if why in WHYS else 400


def _plain(result: Placed | NotPlaced | Problem) -> Mapping[str, object]:
    if isinstance(result, Placed):
        place: dict[str, object] = {"epoch": result.position.epoch, "seq": result.position.seq}
        return {**place, "repeat": True} if result.is_repeat else place
    error: dict[str, object] = {"why": result.why, "happened": result.happened}
    if isinstance(result, Problem) and result.after_s:
        error["after_s"] = result.after_s
    return {"error": error}
