"""Messages of every kind that a log server and its clients say, and what its folder holds."""

from __future__ import annotations

from budao.model import Wall
from budao.push import (
    Appended,
    Draft,
    Hole,
    Jumped,
    Kept,
    Kind,
    KnownId,
    LogAway,
    LogRefused,
    Message,
    NotPlaced,
    Placed,
    Position,
    Stretch,
)
from budao.wire import decoding, log_codec, log_frames, log_journal

PLACE = Position("3f9a", 7)
NEWS = Appended(
    "room:42",
    (
        Message("room:42", PLACE, b'{"a":1}', Kind.JSON, Wall(1.8e9), "id-1", None),
        Message("room:42", Position("3f9a", 8), b"\x00\xff", Kind.BYTES, Wall(1.8e9), None, "00-ab-cd-01"),
    ),
)
DRAFTS = (Draft("room:42", b"1", id="id-1"), Draft("news", b"\x00", Kind.BYTES, trace="00-ab-cd-01"))


def log_messages() -> list[log_frames.Message]:
    return [
        log_frames.Hello("a token that nobody guesses"),
        log_frames.Welcome(1, bytes(16), 4096),
        log_frames.Versions(1, 2),
        log_frames.Denied("not you", True),
        log_frames.Ask(1, log_frames.Publish(DRAFTS)),
        log_frames.Ask(2, log_frames.Read("news", PLACE, 100, 65_536)),
        log_frames.Ask(3, log_frames.Latest("news", 5)),
        log_frames.Ask(4, log_frames.Follow("news", 5, PLACE)),
        log_frames.Answered(1, (Placed(PLACE, True), NotPlaced("too-large", "it is"))),
        log_frames.Answered(2, Stretch("room:42", Position("3f9a", 9), NEWS.messages, True)),
        log_frames.Failed(1, LogAway("log", "gone", may_have_taken_effect=True)),
        log_frames.Failed(2, LogRefused("read", "no")),
        log_frames.Unfollow("news"),
        log_frames.Told((NEWS, NEWS)),
        Jumped("news", PLACE, Hole.EPOCH),
        log_frames.Beat(),
        log_frames.Goodbye("it stops"),
    ]


def log_payloads() -> list[bytes]:
    return [log_frames.format_message(each)[decoding.LENGTH_BYTES :] for each in log_messages()]


def log_records() -> list[bytes]:
    """A start, a group, and a whole snapshot."""
    kept = (Kept("room:42", Position("3f9a", 8), Wall(1.8e9), NEWS.messages),)
    ids = (KnownId("room:42", "id-1", PLACE, Wall(1.8e9)),)
    return [
        log_journal.format_start(3),
        log_journal.format_group(3, [log_codec.format_run(NEWS)]),
        *log_journal.format_snapshot(3, kept, ids),
    ]
