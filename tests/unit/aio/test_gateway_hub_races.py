"""What happens to readers of the hub when answers, news and wishes cross: nobody waits for ever, and nobody is told backwards."""

from __future__ import annotations

from typing import Any

import pytest

from budao.aio.gateway.channel import Channel
from budao.aio.gateway.connection import FULL, PARKED
from budao.aio.gateway.encoding import WS_JSON, WS_MSGPACK
from budao.model import Wall
from budao.push import (
    START,
    ChannelPolicy,
    Gap,
    Hole,
    Jumped,
    Kind,
    Message,
    Position,
    Problem,
    Stretch,
)
from tests.unit.aio.test_gateway_hub import EPOCH, Reader, World, message

AWAY = Problem(why="log-away", happened="it does not answer", after_s=1.0)


def join(world: World, reader: Reader, found: list[Any], after: Position | None = None) -> Any:
    return world.hub.join(reader, "c", after, 0, found.append)  # type: ignore[arg-type]


def leave_one(world: World, reader: Reader) -> None:
    world.hub.leave_one(reader, "c")  # type: ignore[arg-type]


def test_an_answer_to_following_that_comes_after_the_channel_began_anew_ends_nothing() -> None:
    world = World(answers=False)
    first, second = world.reader(), world.reader()
    join(world, first, [])
    leave_one(world, first)
    world.now = 60.0
    world.hub.sweep()
    found: list[Any] = []
    join(world, second, found)
    before, channel = world.asked
    assert before is not channel
    unfollowed = len(world.unfollowed)
    world.hub.followed(before, world.log.latest(0))
    assert len(world.unfollowed) == unfollowed, "the feed goes by names: this would end the new following"
    world.hub.followed(channel, world.log.latest(0))
    assert found == [START]
    world.say(10)
    assert second.seqs == [1]


def test_a_following_that_fails_late_takes_nobody_along_who_came_after() -> None:
    world = World(answers=False)
    first, second = world.reader(), world.reader()
    join(world, first, [])
    leave_one(world, first)
    world.now = 60.0
    world.hub.sweep()
    found: list[Any] = []
    join(world, second, found)
    before, channel = world.asked
    world.hub.not_followed(before, AWAY)
    world.hub.followed(channel, world.log.latest(0))
    world.say(10)
    assert (found, second.seqs) == ([START], [1])


def test_a_channel_that_somebody_wanted_twice_and_left_is_let_go_of() -> None:
    world = World(answers=False)
    reader = world.reader()
    join(world, reader, [])
    join(world, reader, [])
    reader.is_over = True
    world.hub.leave(reader)  # type: ignore[arg-type]
    world.hub.followed(world.asked[0], world.log.latest(0))
    world.now = 60.0
    world.hub.sweep()
    assert world.hub.channels == {}


@pytest.mark.parametrize("is_again", [False, True])
def test_who_gives_up_a_wish_is_answered(is_again: bool) -> None:
    world = World(answers=False)
    reader = world.reader()
    first: list[Any] = []
    second: list[Any] = []
    join(world, reader, first)
    if is_again:
        join(world, reader, second)
    else:
        leave_one(world, reader)
    assert [type(each) for each in first] == [Problem], "an opening counts its channels, and would wait for ever"
    world.hub.followed(world.asked[0], world.log.latest(0))
    assert len(first) == 1
    assert second == ([START] if is_again else [])


def test_who_knows_more_than_our_feed_is_not_too_slow_however_much_comes() -> None:
    world = World(rules=ChannelPolicy(behind_bytes_max=1024))
    world.reader().join()
    world.say(10)
    unheard = tuple(world.log.add(*[600] * 8))
    reader = world.reader()
    reader.join(Position(EPOCH, 9))
    world.settle()
    for each in unheard:
        world.hub.append("c", [each])
    world.say(10)
    world.settle()
    assert (reader.gaps, reader.seqs) == ([], [10])


def test_whom_our_feed_has_just_reached_is_not_told_backwards() -> None:
    world = World(rules=ChannelPolicy(behind_bytes_max=1024))
    world.reader().join()
    world.say(10)
    unheard = tuple(world.log.add(*[600] * 3))
    reader = world.reader()
    reader.join(Position(EPOCH, 4))
    world.hub.append("c", unheard)
    world.settle()
    world.say(10)
    world.settle()
    assert (reader.gaps, reader.seqs) == ([], [5])


def test_who_skips_to_the_latest_and_was_there_already_hears_of_no_gap() -> None:
    world = World(rules=ChannelPolicy(behind_bytes_max=1024))
    slow = world.reader()
    slow.join()
    world.say(10)
    world.hub.hold(slow, PARKED)  # type: ignore[arg-type]
    world.say(5_000)
    world.hub.release(slow, PARKED)  # type: ignore[arg-type]
    world.settle()
    assert (slow.gaps, slow.seqs) == ([], [1, 2])


def poison(seq: int) -> Message:
    return Message("c", Position(EPOCH, seq), b'{"half', Kind.JSON, Wall(1.0))


def test_data_that_one_encoding_cannot_say_is_lost_to_nobody() -> None:
    world = World()
    packed, text = world.reader(encoding=WS_MSGPACK), world.reader()
    text.write = lambda _: None  # type: ignore[method-assign] - whoever reads JSON gets what was published
    heard: list[Message] = []
    hear = packed.hear

    def listen(frame: Any) -> None:
        heard.append(frame.message)
        hear(frame)

    packed.hear = listen  # type: ignore[method-assign]
    packed.join()
    text.join()
    world.log.messages.append(poison(1))
    world.hub.append("c", world.log.messages[-1:])
    world.say(10)
    assert packed.seqs == [1, 2]
    assert (heard[0].kind, heard[0].data) == (Kind.BYTES, b'{"half')
    late = world.reader(encoding=WS_MSGPACK)
    late.join(START)
    world.settle()
    assert late.seqs == [1, 2]


def test_an_answer_that_cannot_be_handed_on_keeps_nobody_else_waiting() -> None:
    world = World(answers=False)
    broken, other = world.reader(), world.reader()

    def refuse(_: Any) -> None:
        raise RuntimeError("no")

    world.hub.join(broken, "c", None, 0, refuse)  # type: ignore[arg-type]
    found: list[Any] = []
    join(world, other, found)
    world.hub.followed(world.asked[0], world.log.latest(0))
    assert found == [START]
    assert broken.why == "mistake"


def test_news_that_come_before_the_beginning_and_skip_something_leave_nobody_waiting() -> None:
    world = World(answers=False)
    reader = world.reader()
    found: list[Any] = []
    join(world, reader, found, Position("e2", 1))
    world.hub.append("c", [message(6), message(7)])  # of an older following
    world.hub.append("c", [message(2, epoch="e2")])
    world.hub.followed(world.asked[0], Stretch("c", Position("e2", 1), ()))
    assert found == [Position("e2", 1)]


def test_who_was_told_more_than_the_feed_knows_asks_the_log_now_and_then_and_not_all_the_time() -> None:
    world = World()
    world.reader().join()
    world.say(10)
    reader = world.reader()
    reader.join(Position("e2", 5), is_checked=False)
    nothing = Stretch("c", Position("e2", 5), ())
    for _ in range(2):
        (channel, place), world.reads = world.reads[0], []
        assert world.hub.have_read(channel, place, nothing), "it wants a pause"
        world.hub.turn()
        assert world.reads == []
        world.hub.ask_again()
        world.hub.turn()
    assert world.hub.have_read(*world.reads[0], nothing)
    world.hub.jumped(Jumped("c", Position("e2", 5), Hole.EPOCH))
    world.hub.append("c", [message(6, epoch="e2")])
    assert reader.seqs == [6]


def test_a_reader_of_a_channel_that_the_log_forgot_hears_of_the_gap_with_its_next_life() -> None:
    world = World()
    reader = world.reader()
    reader.join(Position("e0", 7))
    world.settle()
    assert reader.gaps == [], "a gap that ends before everything says nothing"
    world.say(10)
    world.settle()
    assert reader.gaps == [Gap("c", Position("e0", 7), Position(EPOCH, 0), Hole.EPOCH)]
    assert reader.seqs == [1]


def test_thousands_who_lag_are_served_in_steps() -> None:
    world = World(step_bytes_max=64 * 1024, catch_up_bytes=8 * 1024, recent_count=4)
    readers = [world.reader() for _ in range(50)]
    for each in readers:
        each.join()
    world.say(*[1_000] * 3)
    world.log.add(*[1_000] * 20)
    before = sum(len(each.seqs) for each in readers)
    world.hub.followed(world.hub.channels["c"], world.log.latest(4))
    (channel, place), world.reads = world.reads[0], []
    world.hub.have_read(channel, place, world.log.read(place, world.policy.catch_up_bytes))
    assert sum(len(each.seqs) for each in readers) - before <= 80, "more than a step at once"
    world.settle()
    world.say(10)
    world.settle()
    assert all(each.seqs == list(range(1, 25)) for each in readers)


def test_what_is_read_for_many_is_put_together_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(recent_count=1)
    world.log.add(*[100] * 20)
    made: list[int] = []
    messages = type(WS_JSON).messages

    def counting(self: Any, recent: Any) -> bytes:
        made.append(len(recent))
        return messages(self, recent)

    readers = [world.reader() for _ in range(10)]
    for each in readers:
        each.join(START)
    monkeypatch.setattr(type(WS_JSON), "messages", counting)
    world.settle()
    assert all(each.seqs == list(range(1, 21)) for each in readers)
    assert made.count(19) + made.count(20) == 1


def held(channel: Channel) -> int:
    return sum(map(len, channel.flowing.values())) + len(channel.lagging) + len(channel.waiting)


def test_who_fills_up_while_it_is_read_for_goes_on_later() -> None:
    world = World(recent_count=1)
    world.log.add(*[100] * 20)
    reader = world.reader()
    reader.room = 1
    reader.join(START)
    world.settle()
    assert reader.holds & FULL
    reader.drain()
    world.settle()
    world.say(10)
    assert reader.seqs == list(range(1, 22))
    assert held(world.hub.channels["c"]) == 1
