"""Everything that turns bytes into values, each with what must hold of it whatever the bytes are.

Those of push are in `push_targets`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal

from bench.fuzz import log_samples, push_targets, samples
from bench.fuzz.holding import Target, same, same_however_cut, tried
from budao.adapters.stores import _parse as parse_url
from budao.model import BadSettings, Load, RemoteWireError
from budao.settings import parse, read_environment, read_text, read_version, typed
from budao.settings.versions import written_version
from budao.store import Entry
from budao.wire import (
    decoding,
    federation,
    format_instance,
    format_load,
    format_priority,
    format_timeout,
    format_watcher,
    instance_key,
    joined,
    journal,
    log_codec,
    log_frames,
    log_journal,
    parse_health,
    parse_index,
    parse_instance,
    parse_key,
    parse_load,
    parse_priority,
    parse_slice_event,
    parse_slice_list,
    parse_timeout,
    parse_traceparent,
    parse_validity,
    parse_watcher,
    protobuf,
    store_frames,
)

EDIT_BYTES: Final = 6
SECRET: Final = "sesame"


def read_protobuf(raw: bytes) -> None:
    if not raw:
        return
    kind = samples.TYPES[raw[0] % len(samples.TYPES)]
    if (found := tried(RemoteWireError, protobuf.decode, kind, raw[1:])) is not None:
        same(found, protobuf.decode(kind, protobuf.encode(found)))


def read_store_frame(raw: bytes) -> None:
    if (found := tried(RemoteWireError, store_frames.parse_message, raw)) is not None:
        same(found, store_frames.parse_message(store_frames.format_message(found)[store_frames.LENGTH_BYTES :]))


def read_store_stream(raw: bytes) -> None:
    whole, pieces = store_frames.Decoder(4096), store_frames.Decoder(4096)
    at_once = tried(RemoteWireError, whole.feed, raw)
    apart: list[store_frames.Message] | None = []
    for at in range(0, len(raw), 7):
        more = tried(RemoteWireError, pieces.feed, raw[at : at + 7])
        if more is None:
            apart = None
            break
        assert apart is not None
        apart += more
    same(at_once, apart)


def read_log_frame(raw: bytes) -> None:
    if (found := tried(RemoteWireError, log_frames.parse_message, raw)) is None:
        return
    again = log_frames.parse_message(log_frames.format_message(found)[decoding.LENGTH_BYTES :])
    if isinstance(found, log_frames.Failed):  # errors are equal if they say the same
        assert isinstance(again, log_frames.Failed)
        same(str(found.error), str(again.error))
    else:
        same(found, again)


def read_log_stream(raw: bytes) -> None:
    same_however_cut(raw, lambda: log_frames.Decoder(4096).feed)


def read_log_payload(raw: bytes) -> None:
    """The payload of a record of a log, whichever it is."""
    if (start := tried(RemoteWireError, log_journal.parse_start, raw)) is not None:
        same(start, log_journal.parse_start(log_journal.format_start(start)))
    if (group := tried(RemoteWireError, log_journal.parse_group, raw)) is not None:
        again = log_journal.format_group(group[0], list(map(log_codec.format_run, group[1])))
        same(group, log_journal.parse_group(again))
    first, *parts, last = log_samples.log_records()[2:]
    for payloads in ([raw, *parts, last], [first, raw, last], [first, *parts, raw]):
        tried(RemoteWireError, log_journal.parse_snapshot, payloads)


def read_federation_frame(raw: bytes) -> None:
    if (found := tried(RemoteWireError, federation.parse_frame, raw)) is not None:
        same(found, federation.parse_frame(federation.format_frame(found)[federation.LENGTH_BYTES :]))


def read_journal(raw: bytes) -> None:
    for kind in journal.Kind:
        for may_be_torn in (True, False):
            with suppress(RemoteWireError):
                journal.parse_records(raw, "a file", kind, may_be_torn=may_be_torn)


def read_payload(raw: bytes) -> None:
    """The payload of a record, whichever it is."""
    if (start := tried(RemoteWireError, journal.parse_start, raw)) is not None:
        same(start, journal.parse_start(journal.format_start(start)))
    if (group := tried(RemoteWireError, journal.parse_group, raw)) is not None:
        again = journal.format_group(group[0], list(map(journal.format_command, group[1])))
        same(group, journal.parse_group(again))
    first, *parts, last = samples.snapshot_payloads()
    for payloads in ([raw, *parts, last], [first, raw, last], [first, *parts, raw]):
        tried(RemoteWireError, journal.parse_snapshot, payloads)


JOURNAL: Final = samples.journal_file()
OTHER: Final = samples.journal_file(header=journal.Header(journal.Kind.JOURNAL, bytes(16), 8))
RECORDS: Final = tuple(
    bytes(each) for each in journal.parse_records(JOURNAL, "a file", journal.Kind.JOURNAL, may_be_torn=False).payloads
)


def edit(raw: bytes, script: bytes) -> bytes:
    """A file after what the script does to it: six bytes for each step, at most 16 of them."""
    found = bytearray(raw)
    for step in range(0, min(len(script), 16 * EDIT_BYTES) - EDIT_BYTES + 1, EDIT_BYTES):
        way, size = script[step] % 6, script[step + 1]
        at = int.from_bytes(script[step + 2 : step + 4], "big") % (len(found) + 1)
        to = int.from_bytes(script[step + 4 : step + 6], "big") % (len(found) + 1)
        if way == 0 and at < len(found):
            found[at] ^= size or 1
        elif way == 1:
            del found[at : at + size]
        elif way == 2:
            found[to:to] = found[at : at + size]
        elif way == 3:
            found[at:at] = OTHER[to : to + size]
        elif way == 4:
            del found[at:]
        else:
            found[at : at + size] = bytes(size)
    return bytes(found)


def read_damaged_journal(script: bytes) -> None:
    """Records are a prefix of what was written, or the file is refused."""
    raw = edit(JOURNAL, script)
    for may_be_torn in (True, False):
        try:
            found = journal.parse_records(raw, "a file", journal.Kind.JOURNAL, may_be_torn=may_be_torn)
        except journal.Unreadable:
            continue
        payloads = tuple(map(bytes, found.payloads))
        assert payloads == RECORDS[: len(payloads)], f"{len(payloads)} records are no prefix"
        assert may_be_torn or not found.torn_bytes, "a torn file passed for a whole one"


def read_instance(raw: bytes) -> None:
    if (instance := tried(RemoteWireError, parse_instance, raw)) is not None:
        same(instance, parse_instance(format_instance(instance)))
    if (watcher := tried(RemoteWireError, parse_watcher, "one", raw)) is not None:
        same(watcher, parse_watcher("one", format_watcher(watcher)))
    key = raw.decode("utf-8", "replace")
    if (names := tried(RemoteWireError, parse_key, key)) is not None and len(raw) < 512:
        assert instance_key("x", *names).rsplit("/", 2)[1:] == key.rsplit("/", 2)[1:]


def read_slices(raw: bytes) -> None:
    if (found := tried(RemoteWireError, parse_slice_list, raw, "shop")) is not None:
        joined(found.slices)
    tried(RemoteWireError, parse_slice_event, raw, "shop")


def read_consul(raw: bytes) -> None:
    tried(RemoteWireError, parse_health, raw, "shop")


def read_header(raw: bytes) -> None:
    """None of these ever raises."""
    text = raw.decode("latin-1")
    if (load := parse_load(text)) is not None:
        written = format_load(load)
        assert written == format_load(parse_load(written) or Load(0, 0.0)), f"{written} does not come back"
    if (timeout_s := parse_timeout(text)) is not None:
        format_timeout(timeout_s)
    if (priority := parse_priority(text)) is not None:
        same(priority, parse_priority(format_priority(priority)))
    if found := parse_traceparent(text):
        assert parse_traceparent(found) == found
    assert parse_index(text) >= 0


def read_certificate(raw: bytes) -> None:
    tried(RemoteWireError, parse_validity, raw)


class Speed(Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    low: int = 0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """A program's settings."""

    flag: bool = False
    count: int = 0
    share: float = 0.0
    word: str = ""
    mode: Speed = Speed.FAST
    level: Literal[1, 2] = 1
    maybe: int | str | None = None
    words: tuple[str, ...] = ()
    table: dict[str, float] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    inners: list[Inner] = field(default_factory=list)


def read_settings(raw: bytes) -> None:
    def parsed(raw: bytes) -> object:
        return parse(raw, source="a file")

    def stated(raw: bytes) -> object:
        return typed(Own, read_text(raw, source="a file"))

    tried(BadSettings, parsed, raw)
    tried(BadSettings, stated, raw)


def read_variables(raw: bytes) -> None:
    """Each line is a name and a value."""
    lines = raw.decode("utf-8", "surrogateescape").split("\n")
    environ = {f"BUDAO__{name}": value for name, _, value in (line.partition("=") for line in lines)}
    if (stated := tried(BadSettings, read_environment, environ)) is not None:
        tried(BadSettings, typed, Own, stated)


def read_kept_version(raw: bytes) -> None:
    found = tried(BadSettings, read_version, Entry("k", raw, 1, 1, 1, 0))
    if found is not None and len(raw) < 200:
        same(found, read_version(Entry("k", written_version(found), 1, 1, 1, 0)))


def _refusal(url: str) -> str:
    try:
        parse_url(url)
    except BadSettings as refused:
        return str(refused)
    return ""


def read_url(raw: bytes) -> None:
    text = raw.decode("utf-8", "surrogateescape")
    tried(BadSettings, parse_url, text)
    for line in (
        f"etcd://root:{SECRET}{text}{SECRET}@a:1",
        f"etcds://root:{SECRET}@a:1{text}",
        f"budao:{SECRET}{text}",
    ):
        assert SECRET not in _refusal(line), f"{line!r} shows a password"


TARGETS: Final = {
    "protobuf": Target(read_protobuf, samples.protobuf_seeds),
    "store-frames": Target(read_store_frame, samples.store_payloads, samples.bent_msgpack),
    "store-stream": Target(
        read_store_stream, lambda: [b"".join(map(store_frames.format_message, samples.store_messages()))]
    ),
    "federation": Target(read_federation_frame, samples.federation_payloads, samples.bent_msgpack),
    "journal": Target(read_journal, lambda: [JOURNAL, OTHER]),
    "journal-payloads": Target(read_payload, lambda: [*RECORDS, *samples.snapshot_payloads()], samples.bent_msgpack),
    "journal-damage": Target(read_damaged_journal, lambda: [bytes([way, 40, 0, 90, 0, 200]) for way in range(6)]),
    "log-frames": Target(read_log_frame, log_samples.log_payloads, samples.bent_msgpack),
    "log-stream": Target(
        read_log_stream, lambda: [b"".join(map(log_frames.format_message, log_samples.log_messages()))]
    ),
    "log-payloads": Target(read_log_payload, log_samples.log_records, samples.bent_msgpack),
    "instances": Target(read_instance, samples.instances, samples.bent_json),
    "kubernetes": Target(read_slices, samples.slices, samples.bent_json),
    "consul": Target(read_consul, samples.consul_entries, samples.bent_json),
    "headers": Target(read_header, samples.headers),
    "certificate": Target(read_certificate, lambda: [samples.certificate()]),
    "settings": Target(read_settings, lambda: [samples.SETTINGS, samples.OF_ITS_OWN]),
    "variables": Target(read_variables, lambda: [b"COUNT=3\nINNER__LOW=4\nWORDS=['a']\nSHARE=1e3"]),
    "versions": Target(read_kept_version, samples.versions, samples.bent_json),
    "store-url": Target(read_url, samples.urls),
    **push_targets.TARGETS,
}
