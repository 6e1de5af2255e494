"""The nouns of a log of channels as lists that msgpack can carry, and back: for its journal, and for frames.

Whoever reads checks every type, since bytes come from a stranger, or from a disk; the rules of the log itself are checked by
the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, Final

from budao.model import RemoteWireError, Wall
from budao.push import Appended, Draft, Kind, Message, NotPlaced, Placed, Position
from budao.wire.packing import pack
from budao.wire.store_codec import Plain, flag, many, number, parts, text, wrong

KINDS: Final = (Kind.JSON, Kind.BYTES)
NUMBER_OF_KIND: Final = {kind: index for index, kind in enumerate(KINDS)}
SEQ_MAX: Final = 2**53
"""Browsers count no further."""


def plain_run(channel: str, messages: Sequence[Message]) -> Plain:
    """Messages of one channel without holes, at least one, to be packed."""
    first = messages[0].position
    entries = [
        (message.at, 0 if message.kind is Kind.JSON else 1, message.data, message.id, message.trace)
        for message in messages
    ]
    return (channel, first.epoch, first.seq, entries)


def format_run(run: Appended) -> bytes:
    """Packed once, for the journal and for everybody who follows the channel.

    Cost:  under 1 µs for each message.
    """
    return pack(plain_run(run.channel, run.messages))


def parse_run(value: Plain) -> Appended:
    """Messages of one channel, unpacked. Raises RemoteWireError."""
    channel, epoch, first, entries = parts(value, 4, "messages")
    text(channel, "a channel")
    text(epoch, "an epoch")
    if not 0 < number(first, "a place") < SEQ_MAX or not many(entries, "messages"):
        raise wrong("messages", value)
    messages = tuple(
        _message(channel, Position(epoch, seq), entry) for seq, entry in enumerate(many(entries, "messages"), first)
    )
    return Appended(channel, messages)


def _message(channel: str, position: Position, entry: Plain) -> Message:
    at, kind, data, name, trace = parts(entry, 5, "a message")
    if type(data) is not bytes or type(kind) is not int or not 0 <= kind <= 1:
        raise wrong("a message", entry)
    _optional(name, "an id")
    _optional(trace, "a trace")
    return Message(channel, position, data, KINDS[kind], instant(at), name, trace)


def instant(value: Plain) -> Wall:
    """A Unix time, unpacked. Raises RemoteWireError."""
    if type(value) is not float or not isfinite(value):
        raise wrong("an instant", value)
    return Wall(value)


def _optional(value: Plain, what: str) -> str | None:
    if value is not None and type(value) is not str:
        raise wrong(what, value)
    found: str | None = value
    return found


def plain_draft(draft: Draft) -> Plain:
    """A draft, to be packed."""
    return (draft.channel, 0 if draft.kind is Kind.JSON else 1, draft.data, draft.id, draft.trace)


def parse_draft(value: Plain) -> Draft:
    """A draft, unpacked. Raises RemoteWireError."""
    channel, kind, data, name, trace = parts(value, 5, "a draft")
    if type(data) is not bytes or type(kind) is not int or not 0 <= kind <= 1:
        raise wrong("a draft", value)
    return Draft(text(channel, "a channel"), data, KINDS[kind], _optional(name, "an id"), _optional(trace, "a trace"))


def plain_answer(answer: Placed | NotPlaced) -> Plain:
    """What a publisher is told, to be packed."""
    if isinstance(answer, Placed):
        return (answer.position.epoch, answer.position.seq, answer.is_repeat)
    return (answer.why, answer.happened)


def parse_answer(value: Plain) -> Placed | NotPlaced:
    """What a publisher is told, unpacked. Raises RemoteWireError."""
    if len(many(value, "an answer")) == 2:
        return NotPlaced(text(value[0], "a reason"), text(value[1], "a reason"))
    epoch, seq, is_repeat = parts(value, 3, "an answer")
    return Placed(parse_position([epoch, seq]), flag(is_repeat, "whether it was there"))


def plain_position(position: Position | None) -> Any:
    """A place, to be packed."""
    return None if position is None else (position.epoch, position.seq)


def parse_position(value: Plain) -> Position:
    """A place, unpacked. Raises RemoteWireError."""
    epoch, seq = parts(value, 2, "a place")
    if number(seq, "a place") > SEQ_MAX:
        raise RemoteWireError(f"a place {seq} is beyond {SEQ_MAX}")
    return Position(text(epoch, "an epoch"), seq)
