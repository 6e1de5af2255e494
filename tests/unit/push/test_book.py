"""The book of a log places drafts, remembers ids, and forgets within its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from budao.model import BadSettings, Wall
from budao.push import (
    START,
    Appended,
    Book,
    BookPolicy,
    ChannelPolicy,
    ChannelRules,
    Draft,
    Kept,
    LogRefused,
    NotPlaced,
    Placed,
    Position,
)

T0 = Wall(1_800_000_000.0)
MIB = 1024 * 1024


def after(span_s: float) -> Wall:
    return Wall(T0 + span_s)


def book(policy: BookPolicy | None = None, **channel: float) -> Book:
    return Book(ChannelRules(otherwise=ChannelPolicy(**channel)), policy)  # type: ignore[arg-type]


def draft(channel: str = "a", data: bytes = b"1", id: str | None = None) -> Draft:  # noqa: A002 -- as a draft calls it
    return Draft(channel, data, id=id)


def publish(into: Book, *drafts: Draft, now: Wall = T0, epoch: str = "e") -> Sequence[Placed | NotPlaced]:
    return into.publish(drafts, now, epoch).answers


def seqs(of: Book, channel: str = "a", after_: Position = START, now: Wall = T0) -> list[int]:
    return [message.position.seq for message in of.read(channel, after_, now).messages]


def test_messages_are_counted_from_1_in_each_channel() -> None:
    into = book()
    assert publish(into, draft("a"), draft("b"), draft("a")) == (
        Placed(Position("e", 1)),
        Placed(Position("e", 1)),
        Placed(Position("e", 2)),
    )
    assert publish(into, draft("a"), epoch="later") == (Placed(Position("e", 3)),)
    assert into.head("a") == Position("e", 3)
    assert into.head("nobody") == START


def test_what_is_prepared_changes_nothing_until_it_is_carried_out() -> None:
    into = book()
    prepared = into.prepare([draft(id="x")], T0, "e")
    assert into.head("a") == START
    assert into.prepare([draft(id="x")], T0, "e") == prepared
    assert into.carry_out(prepared) == (Placed(Position("e", 1)),)
    with pytest.raises(AssertionError, match="in between"):
        into.carry_out(prepared)


def test_the_same_id_is_the_same_message_for_as_long_as_it_is_remembered() -> None:
    into = book(BookPolicy(ids_age_s=10))
    first = publish(into, draft(id="x"), draft(id="x"), draft("b", id="x"))
    assert first == (Placed(Position("e", 1)), Placed(Position("e", 1), is_repeat=True), Placed(Position("e", 1)))
    assert publish(into, draft(data=b"other", id="x"), now=after(9)) == (Placed(Position("e", 1), is_repeat=True),)
    assert publish(into, draft(id="x"), now=after(10)) == (Placed(Position("e", 2)),)


def test_ids_are_bounded_the_oldest_go_first() -> None:
    into = book(BookPolicy(ids_max=2))
    publish(into, draft(id="x"), draft(id="y"), draft(id="z"))
    assert [known.id for known in into.known_ids()] == ["y", "z"]
    into.wake(after(200))
    assert into.known_ids() == ()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (draft(data=bytes(101)), "too-large"),
        (draft("a..b"), "bad-data"),
        (draft("\ud800"), "bad-data"),
        (draft(id=""), "bad-data"),
        (draft(id="x" * 201), "bad-data"),
        (draft(id="\ud800"), "bad-data"),
        (Draft("a", b"", trace="x" * 201), "bad-data"),
    ],
)
def test_a_draft_that_breaks_a_rule_is_refused_and_takes_no_place(given: Draft, why: str) -> None:
    into = book(message_bytes_max=100)
    one, refused, other = publish(into, draft(), given, draft())
    assert isinstance(refused, NotPlaced)
    assert refused.why == why
    assert [one, other] == [Placed(Position("e", 1)), Placed(Position("e", 2))]


def test_history_is_bounded_by_count_bytes_and_age() -> None:
    by_count = book(history_count=2)
    publish(by_count, *[draft()] * 5)
    assert seqs(by_count) == [4, 5]
    by_bytes = book(history_bytes=10)
    publish(by_bytes, *[draft(data=bytes(4))] * 5)
    assert seqs(by_bytes) == [4, 5]
    by_age = book(history_age_s=10.0)
    publish(by_age, draft(), now=T0)
    publish(by_age, draft(), now=after(6))
    assert seqs(by_age, now=after(10)) == [1, 2]
    assert seqs(by_age, now=after(11)) == [2]
    weight = by_age.bytes
    by_age.wake(after(11))
    by_age.wake(after(11))
    assert by_age.bytes == weight // 2
    assert by_age.head("a") == Position("e", 2), "the count goes on"


def test_a_channel_that_keeps_nothing_still_counts_and_tells() -> None:
    into = book(history_count=0)
    prepared = into.publish([draft(), draft()], T0, "e")
    assert [message.position.seq for run in prepared.appended for message in run.messages] == [1, 2]
    stretch = into.read("a", Position("e", 1), T0)
    assert (stretch.head, stretch.messages, stretch.more) == (Position("e", 2), (), False)


def test_reading_begins_behind_a_place_or_with_the_first_that_is_there() -> None:
    into = book(history_count=3)
    publish(into, *[draft()] * 5)
    assert seqs(into, after_=Position("e", 4)) == [5]
    assert seqs(into, after_=Position("e", 5)) == []
    assert seqs(into, after_=Position("e", 1)) == [3, 4, 5]
    assert seqs(into, after_=Position("e", 6)) == [3, 4, 5]
    assert seqs(into, after_=Position("other", 4)) == [3, 4, 5]


def test_reading_is_bounded_and_says_that_there_is_more() -> None:
    into = book()
    publish(into, *[draft(data=bytes(10))] * 5)
    one = into.read("a", START, T0, bytes_max=5)
    assert (len(one.messages), one.more) == (1, True)
    two = into.read("a", START, T0, bytes_max=20)
    assert (len(two.messages), two.more) == (2, True)
    rest = into.read("a", Position("e", 2), T0, count_max=3)
    assert (len(rest.messages), rest.more) == (3, False)


def test_the_channel_that_was_idle_longest_is_forgotten_and_begins_a_new_life() -> None:
    into = book(BookPolicy(channels_max=2, idle_s=5))
    publish(into, draft("a"), now=T0)
    publish(into, draft("b"), now=after(1))
    publish(into, draft("c"), now=after(6), epoch="f")
    assert into.head("a") == START
    assert into.bytes == 2 * 257
    assert publish(into, draft("a"), now=after(7), epoch="g") == (Placed(Position("g", 1)),)
    assert into.head("b") == START


def test_a_new_channel_is_refused_while_all_others_are_in_use() -> None:
    into = book(BookPolicy(channels_max=2, idle_s=5))
    publish(into, draft("a"), draft("b"))
    (refused,) = publish(into, draft("c"), now=after(4))
    assert isinstance(refused, NotPlaced)
    assert refused.why == "no-room"
    assert len(into) == 2


def test_a_channel_of_the_same_batch_is_not_forgotten_for_a_new_one() -> None:
    into = book(BookPolicy(channels_max=1, idle_s=0))
    publish(into, draft("a"))
    one, other = publish(into, draft("a"), draft("b"), now=after(1))
    assert one == Placed(Position("e", 2))
    assert isinstance(other, NotPlaced)
    assert publish(into, draft("b"), draft("a"), now=after(1), epoch="f")[0] == Placed(Position("f", 1))
    assert into.head("a") == START


def test_all_messages_together_are_bounded_and_idle_channels_lose_theirs_first() -> None:
    into = book(BookPolicy(bytes_max=32 * MIB), message_bytes_max=16 * MIB, history_bytes=1024 * MIB)
    big = bytes(10 * MIB)
    publish(into, draft("a", big))
    publish(into, draft("b", big))
    publish(into, draft("a", big))
    publish(into, draft("c", big))
    assert into.latest("b", 9, T0).messages == ()
    assert into.head("b") == Position("e", 1)
    assert len(into.latest("a", 9, T0).messages) == 2
    assert into.bytes == 3 * (10 * MIB + 256)


def test_a_book_is_restored_from_what_it_kept() -> None:
    into = book(history_count=2)
    publish(into, *[draft()] * 3, draft("b", id="x"))
    again = book(history_count=2)
    again.restore(into.kept(), into.known_ids(), T0)
    assert (again.kept(), again.known_ids(), again.bytes) == (into.kept(), into.known_ids(), into.bytes)
    assert publish(again, draft("b", id="x"), draft()) == (
        Placed(Position("e", 1), is_repeat=True),
        Placed(Position("e", 4)),
    )


def test_a_restored_channel_whose_messages_do_not_end_at_its_head_is_refused() -> None:
    into = book()
    publish(into, draft(), draft())
    (kept,) = into.kept()
    with pytest.raises(LogRefused, match="do not end at"):
        book().restore([replace(kept, head=Position("e", 7))], (), T0)
    with pytest.raises(LogRefused):
        book().restore([Kept("other", kept.head, kept.at, kept.messages)], (), T0)


def test_a_replay_gives_the_same_book_and_refuses_what_does_not_follow() -> None:
    into, again = book(), book()
    runs = [
        run
        for epoch, drafts in (("e", [draft(), draft(id="x")]), ("f", [draft(), draft("b")]))
        for run in into.publish(drafts, T0, epoch).appended
    ]
    for run in runs:
        again.replay(run)
    assert (again.kept(), again.known_ids()) == (into.kept(), into.known_ids())
    with pytest.raises(LogRefused, match="stands at"):
        again.replay(runs[0])
    with pytest.raises(LogRefused):
        again.replay(Appended("a", (replace(runs[0].messages[0], position=Position("g", 2)),)))


def test_other_rules_hold_at_once() -> None:
    into = book()
    publish(into, *[draft()] * 5)
    into.reconfigure(ChannelRules([("a", ChannelPolicy(history_count=1))]), T0)
    assert seqs(into) == [5]
    assert into.bytes == 257


def test_bounds_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadSettings) as bad:
        BookPolicy(channels_max=0, bytes_max=1, ids_max=-1)
    assert len(bad.value.problems) == 3
