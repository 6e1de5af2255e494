"""The bytes of a log of channels on disk: what the records of its journals and snapshots hold. The records are those of `records`.

A journal holds what was appended, with its places, so reading it back depends on nobody's settings. Everything that was made
durable at once is one record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from budao.model import RemoteWireError, Wall
from budao.push import Appended, Kept, KnownId, Message
from budao.wire.log_codec import instant, parse_position, parse_run, plain_position, plain_run
from budao.wire.packing import array_header, pack, unpack
from budao.wire.store_codec import many, number, parts, text

CHUNK_BYTES: Final = 256 * 1024
CHUNK_CHANNELS: Final = 512
CHUNK_IDS: Final = 4_096


def format_start(groups: int) -> bytes:
    """The payload of a journal's first record: how many groups were made durable before it."""
    return pack([groups])


def parse_start(payload: bytes | memoryview) -> int:
    """Raises:  RemoteWireError."""
    return number(parts(unpack(payload), 1, "the start of a journal")[0], "a count of groups")


def format_group(groups: int, runs: Sequence[bytes]) -> bytes:
    """The payload of one write: how many were before it, and what was appended, as `format_run` packs it."""
    return b"".join((array_header(2), pack(groups), array_header(len(runs)), *runs))


def parse_group(payload: bytes | memoryview) -> tuple[int, tuple[Appended, ...]]:
    """Raises:  RemoteWireError."""
    groups, runs = parts(unpack(payload), 2, "a group of messages")
    return number(groups, "a count of groups"), tuple(map(parse_run, many(runs, "messages")))


def format_snapshot(groups: int, kept: Sequence[Kept], ids: Sequence[KnownId]) -> Iterator[bytes]:
    """The payloads of a snapshot, each of bounded size; the last one says that nothing is missing."""
    yield pack([groups])
    chunk: list[Any] = []
    size = count = 0
    for each in kept:
        for piece in _pieces(each.messages):
            chunk.append(plain_run(each.channel, piece))
            size += sum(len(message.data) for message in piece)
            count += len(piece)
            if size >= CHUNK_BYTES or len(chunk) >= CHUNK_CHANNELS:
                yield pack(["messages", chunk])
                chunk, size = [], 0
        # Behind its messages; channels stand in their order, the one that was idle longest first.
        chunk.append((each.channel, each.at, plain_position(each.head), len(each.messages)))
    yield pack(["messages", chunk])
    for at in range(0, len(ids), CHUNK_IDS):
        yield pack(["ids", [(each.channel, each.id, *each.position, each.at) for each in ids[at : at + CHUNK_IDS]]])
    yield pack(["end", len(kept), count, len(ids)])


def parse_snapshot(payloads: Sequence[bytes | memoryview]) -> tuple[int, tuple[Kept, ...], tuple[KnownId, ...]]:
    """Raises:  RemoteWireError."""
    if len(payloads) < 2:
        raise RemoteWireError("the snapshot is not whole")
    groups = number(parts(unpack(payloads[0]), 1, "the start of a snapshot")[0], "a count of groups")
    kept: list[Kept] = []
    ids: list[KnownId] = []
    messages: list[Message] = []
    count = 0
    for payload in payloads[1:-1]:
        name, content = parts(unpack(payload), 2, "a part of a snapshot")
        if name == "ids":
            ids.extend(map(_parse_id, many(content, "ids")))
            continue
        for each in many(content, "channels"):
            _, _, third, fourth = parts(each, 4, "a channel")
            if type(third) is int:
                messages.extend(parse_run([*each[:2], third, fourth]).messages)
                continue
            if number(fourth, "a count of messages") != len(messages):
                raise RemoteWireError(f"{len(messages)} messages of a channel that has {fourth}")
            kept.append(Kept(text(each[0], "a channel"), parse_position(third), instant(each[1]), tuple(messages)))
            count += len(messages)
            messages = []
    if messages or unpack(payloads[-1]) != ["end", len(kept), count, len(ids)]:
        raise RemoteWireError(f"the snapshot is not whole: {len(kept)} channels and {count} messages")
    return groups, tuple(kept), tuple(ids)


def _pieces(messages: Sequence[Message]) -> Iterable[Sequence[Message]]:
    begin = size = 0
    for index, message in enumerate(messages):
        size += len(message.data)
        if size >= CHUNK_BYTES or index - begin >= CHUNK_CHANNELS:
            yield messages[begin : index + 1]
            begin, size = index + 1, 0
    if begin < len(messages):
        yield messages[begin:]


def _parse_id(value: Any) -> KnownId:
    channel, name, epoch, seq, at = parts(value, 5, "an id")
    return KnownId(text(channel, "a channel"), text(name, "an id"), parse_position([epoch, seq]), Wall(instant(at)))
