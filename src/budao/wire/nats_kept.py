"""A message of a channel as a stream of NATS keeps it: a subject of one token, the data as it is, and its place in the headers.

`Budao-Place` holds, separated by spaces: the epoch, the seq, the stream sequence of the message before it in its channel (0 for
the first), the bytes of data of its epoch so far, when it was taken, and a word that no other attempt to publish has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from budao.model import RemoteWireError, Wall
from budao.push import Draft, Kind, Message, Position
from budao.wire import nats

PLACE: Final = "Budao-Place"
KIND: Final = "Budao-Kind"
ID: Final = "Budao-Id"
TRACE: Final = "traceparent"
EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"
MESSAGE_ID: Final = "Nats-Msg-Id"
SEQUENCE: Final = "Nats-Sequence"

_TOKEN_SAFE: Final = ":/@!&'()+,;=~"
_VALUE_SAFE: Final = ":/@!&'()+,;=~$?#[]{}|^`\"\\<>*."


@dataclass(frozen=True, slots=True)
class Kept:
    """A message, and where the stream keeps it."""

    message: Message
    sequence: int
    """In the stream, which counts the messages of all channels."""
    before: int
    """The sequence of the message before it in its channel; 0 for the first."""
    total_bytes: int
    """Data of its epoch up to and including its own."""
    attempt: str
    """Who tried to publish it, and which of its attempts this was."""


def token_of(channel: str) -> str:
    """A channel's name as one token of a subject: nothing in it separates tokens, or stands for others."""
    return quote(channel, safe=_TOKEN_SAFE).replace(".", "%2E")


def format_kept(
    draft: Draft, position: Position, before: int, total_bytes: int, at: Wall, attempt: str
) -> dict[str, str]:
    """The headers of a message."""
    headers = {PLACE: f"{position.epoch} {position.seq} {before} {total_bytes} {at!r} {attempt}"}
    if draft.kind is not Kind.JSON:
        headers[KIND] = draft.kind.value
    if draft.id is not None:
        headers[ID] = quote(draft.id, safe=_VALUE_SAFE)
    if draft.trace is not None:
        headers[TRACE] = quote(draft.trace, safe=_VALUE_SAFE)
    return headers


def parse_kept(channel: str, raw_headers: bytes, data: bytes, *, sequence: int = 0) -> Kept:
    """A message as it was kept, republished, or got directly; its sequence is in the headers then.

    Raises:  RemoteWireError for what no gateway has published.
    """
    return kept_of(channel, nats.parse_headers(raw_headers), data, sequence=sequence)


def kept_of(channel: str, headers: Mapping[str, str], data: bytes, *, sequence: int = 0) -> Kept:
    """The same from headers that were read already."""
    words = headers.get(PLACE, "").split(" ")
    try:
        epoch, seq, before, total, at, attempt = words
        position = Position(epoch, int(seq))
        kind = Kind(headers.get(KIND, Kind.JSON.value))
        found = int(headers.get(SEQUENCE, sequence))
        if not epoch or position.seq < 1 or found < 1:
            raise ValueError
        id_, trace = headers.get(ID), headers.get(TRACE)
        message = Message(
            channel,
            position,
            data,
            kind,
            Wall(float(at)),
            None if id_ is None else unquote(id_, errors="strict"),
            None if trace is None else unquote(trace, errors="strict"),
        )
        return Kept(message, found, int(before), int(total), attempt)
    except ValueError as problem:
        raise RemoteWireError(
            f"in {channel!a} stands a message that no gateway published: {PLACE} is {headers.get(PLACE, '')[:80]!r}"
        ) from problem
