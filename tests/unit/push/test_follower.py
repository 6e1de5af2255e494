from __future__ import annotations

import pytest

from budao.model import Wall
from budao.push import (
    START,
    BrokenPromise,
    Follower,
    Followers,
    Gap,
    Hole,
    Kind,
    Message,
    Missing,
    Msg,
    Ping,
    Position,
    Welcome,
)


def message(seq: int, epoch: str = "a", channel: str = "news") -> Message:
    return Message(channel, Position(epoch, seq), b"1", Kind.JSON, Wall(0.0))


def gap(after: Position, upto: Position, why: Hole = Hole.TRIMMED) -> Gap:
    return Gap("news", after, upto, why)


def at(seq: int, epoch: str = "a") -> Position:
    return Position(epoch, seq)


def test_messages_in_order_are_handed_out_and_repetitions_are_not() -> None:
    follower = Follower("news", START)
    taken = [follower.take(message(seq)) for seq in (1, 2, 1, 2, 3)]
    assert [each and each.position.seq for each in taken if not isinstance(each, Gap)] == [1, 2, None, None, 3]
    assert (follower.delivered, follower.dropped, follower.place) == (3, 2, at(3))


def test_a_message_that_comes_too_early_raises_and_the_place_stays() -> None:
    follower = Follower("news", at(3))
    with pytest.raises(BrokenPromise, match=r"a:5 does not follow a:3.*subscribe again"):
        follower.take(message(5))
    assert follower.place == at(3)
    assert follower.take(message(4)) == message(4)


def test_a_reader_at_the_start_takes_only_a_first_message() -> None:
    with pytest.raises(BrokenPromise, match=r"a:2 does not follow \(start\):0"):
        Follower("news", START).take(message(2))
    assert Follower("news", START).take(message(1)) == message(1)


def test_a_reader_without_a_place_begins_where_it_is_told() -> None:
    told = Follower("news")
    told.begin(at(7))
    told.begin(at(9))  # another connection; the place stands
    assert told.take(message(8)) == message(8)
    assert Follower("news").take(message(40)) == message(40)
    first = Follower("news")
    assert first.take(gap(at(3), at(5))) == gap(at(3), at(5))
    assert first.take(message(6)) == message(6)


def test_a_gap_is_handed_out_as_what_is_news_of_it() -> None:
    follower = Follower("news", at(4))
    assert follower.take(gap(at(2), at(9))) == gap(at(4), at(9))
    assert follower.take(gap(at(4), at(9))) is None
    assert follower.take(gap(at(2), at(6))) is None
    assert (follower.gaps, follower.missed, follower.dropped) == (1, 5, 2)
    assert follower.take(message(10)) == message(10)


def test_a_gap_that_begins_too_late_or_leads_back_raises() -> None:
    follower = Follower("news", at(4))
    with pytest.raises(BrokenPromise, match="a gap from a:5 to a:9"):
        follower.take(gap(at(5), at(9)))
    with pytest.raises(BrokenPromise):
        follower.take(gap(at(4), at(2)))
    with pytest.raises(BrokenPromise):  # said of another place: asked again, it is told of ours
        follower.take(gap(at(3), at(2), Hole.EPOCH))
    assert follower.place == at(4)


def test_where_an_older_log_was_put_in_place_its_messages_are_news() -> None:
    follower = Follower("news", at(4))
    back = gap(at(4), at(2), Hole.EPOCH)
    assert follower.take(back) == back
    assert follower.take(back) is None
    assert follower.take(message(3)) == message(3)
    assert (follower.place, follower.missed) == (at(3), 0)
    turn = gap(at(3), at(1, "b"), Hole.EPOCH)
    assert follower.take(turn) == turn
    assert follower.take(message(4)) is None
    again = gap(at(1, "b"), at(2), Hole.EPOCH)  # a life that was over
    assert follower.take(again) == again
    assert follower.take(message(3)) == message(3)
    assert follower.take(message(2, "b")) is None


def test_of_two_lives_it_never_heard_in_order_neither_is_left_out_unnoticed() -> None:
    follower = Follower("news", at(1, "life1"))
    ahead = gap(at(1, "life1"), at(0, "life3"), Hole.EPOCH)
    assert follower.take(ahead) == ahead
    with pytest.raises(BrokenPromise, match=r"a gap from life1:1 to life2:0 does not follow life3:0.*subscribe again"):
        follower.take(gap(at(1, "life1"), at(0, "life2"), Hole.EPOCH))  # another connection, which is behind
    assert follower.take(message(1, "life3")) == message(1, "life3")


def test_a_new_life_needs_a_gap_and_then_the_old_one_is_over() -> None:
    follower = Follower("news", at(4))
    with pytest.raises(BrokenPromise):
        follower.take(message(1, "b"))
    turn = gap(at(4), at(0, "b"), Hole.EPOCH)
    assert follower.take(turn) == turn
    assert follower.take(message(5)) is None  # a connection that has not heard of it
    assert follower.take(gap(START, at(9))) is None
    assert follower.take(message(1, "b")) == message(1, "b")
    assert follower.take(turn) is None
    assert follower.missed == 0


def test_a_gap_into_a_new_life_begins_at_or_before_the_place() -> None:
    assert Follower("news", at(4)).take(gap(at(3), at(2, "b"))) == gap(at(4), at(2, "b"))
    for after in (at(5), at(1, "x"), START):
        with pytest.raises(BrokenPromise):
            Follower("news", at(4)).take(gap(after, at(2, "b")))


def test_what_lies_before_every_life_is_never_news() -> None:
    assert Follower("news", at(4)).take(gap(START, START)) is None


def test_the_gap_from_the_start_counts_what_is_missing() -> None:
    follower = Follower("news", START)
    follower.take(gap(START, at(5)))
    assert follower.missed == 5


def test_followers_take_the_frames_of_a_gateway() -> None:
    followers = Followers({"news": None, "sport": at(2)})
    followers.take(Welcome(session="s", gateway="g", channels={"news": at(7), "sport": at(2), "other": at(1)}))
    assert followers.places() == {"news": at(7), "sport": at(2)}
    assert followers.take(Msg(message(8))) == message(8)
    assert followers.take(Missing(Gap("sport", at(2), at(4), Hole.SLOW))) == Gap("sport", at(2), at(4), Hole.SLOW)
    assert followers.take(Msg(message(1, channel="other"))) is None
    assert followers.take(Missing(Gap("other", at(2), at(4), Hole.SLOW))) is None
    assert followers.take(Ping()) is None
    assert followers.follow("news") is followers["news"]
    assert followers.follow("more", at(1)).place == at(1)
    followers.forget("news")
    followers.forget("news")
    assert "news" not in followers
