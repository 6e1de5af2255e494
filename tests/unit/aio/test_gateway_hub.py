"""The hub: who flows gets each message in one write, who lags gets everything from its place on, and nobody gets anything twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budao.aio.gateway import GatewayMetrics, GatewayPolicy
from budao.aio.gateway.channel import Channel
from budao.aio.gateway.connection import FULL, PARKED
from budao.aio.gateway.encoding import WS_JSON, WS_MSGPACK
from budao.aio.gateway.hub import REPLAYS_MAX, Hub
from budao.model import Wall
from budao.push import (
    START,
    Appended,
    ChannelPolicy,
    ChannelRules,
    Follower,
    FromGateway,
    Gap,
    Hole,
    Jumped,
    Kind,
    Message,
    Missing,
    Msg,
    Position,
    Problem,
    Slow,
    Stretch,
)
from budao.wire import push_frames, websocket

EPOCH = "e1"


def message(seq: int, size: int = 10, *, epoch: str = EPOCH) -> Message:
    return Message("c", Position(epoch, seq), b'"' + b"x" * size + b'"', Kind.JSON, Wall(1.0))


class Log:
    """All messages of one channel, and what a feed would answer."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.first = 0
        """How many of the oldest are forgotten."""

    @property
    def head(self) -> Position:
        return self.messages[-1].position if self.messages else START

    def add(self, *sizes: int) -> list[Message]:
        new = [message(len(self.messages) + 1 + index, size) for index, size in enumerate(sizes)]
        self.messages += new
        return new

    def latest(self, count: int) -> Stretch:
        retained = self.messages[self.first :]
        return Stretch("c", self.head, tuple(retained[max(0, len(retained) - count) :]))

    def read(self, place: Position, bytes_max: int) -> Stretch:
        retained = self.messages[self.first :]
        if place.epoch in {EPOCH, ""} and place.seq <= self.head.seq:
            retained = [each for each in retained if each.position.seq > place.seq]
        taken: list[Message] = []
        for each in retained:
            if taken and sum(len(one.data) for one in taken) + len(each.data) > bytes_max:
                break
            taken.append(each)
        return Stretch("c", self.head, tuple(taken), len(taken) < len(retained))


class Reader:
    """As much of a connection as the hub sees. What it is sent goes through the codec and a follower, which raises on any hole."""

    def __init__(self, hub: Hub, name: str = "", *, encoding: Any = WS_JSON) -> None:
        self.hub = hub
        self.encoding = encoding
        self.codec = push_frames.JSON if encoding is WS_JSON else push_frames.MSGPACK
        self.places: dict[Channel, Any] = {}
        self.holds = 0
        self.is_over = False
        self.why = ""
        self.writes = 0
        self.room: int | None = None
        """Messages it still takes before it is full."""
        self.seqs: list[int] = []
        self.gaps: list[Gap] = []
        self.follower: Follower | None = None
        self.gateway = self
        self._reader = websocket.Reader(1 << 24, is_server=False)

    def write(self, data: bytes) -> None:
        self.writes += 1
        for event in self._reader.feed(data):
            assert isinstance(event, websocket.Text | websocket.Binary)
            self.hear(self.codec.decode_from_gateway(event.data))
        if self.room is not None:
            self.room -= 1
            if self.room <= 0 and not self.holds & FULL:
                self.hub.hold(self, FULL)  # type: ignore[arg-type]

    def hear(self, frame: FromGateway) -> None:
        assert isinstance(frame, Msg | Missing)
        item = frame.message if isinstance(frame, Msg) else frame.gap
        if self.follower is not None:
            assert self.follower.take(item) is not None, "nothing is told twice"
        if isinstance(item, Gap):
            self.gaps.append(item)
        else:
            self.seqs.append(item.position.seq)

    def join(
        self, after: Position | None = None, last: int = 0, *, is_standing: bool = False, is_checked: bool = True
    ) -> Any:
        found: list[Any] = []
        place = self.hub.join(self, "c", after, last, found.append, is_standing=is_standing)  # type: ignore[arg-type]
        place = found[0] if place is None and found else place
        if isinstance(place, Position):
            self.follower = Follower("c", place) if is_checked else None
            self.hub.catch_up(self)  # type: ignore[arg-type]
        return place

    def drain(self, room: int | None = None) -> None:
        """It has read: its transport says so."""
        self.room = room
        if self.holds & FULL:
            self.hub.release(self, FULL)  # type: ignore[arg-type]

    def mistake(self, connection: Reader, problem: Exception) -> None:
        assert connection is self, problem
        self.close("mistake")

    def close(self, why: str, *, after_s: float = 0.0, detail: str = "") -> None:
        self.why = why
        self.is_over = True
        self.hub.leave(self)  # type: ignore[arg-type]


class World:
    """A hub over a log, where nothing waits: reads and turns are done when `settle` is called."""

    def __init__(self, *, answers: bool = True, rules: ChannelPolicy | None = None, **bounds: Any) -> None:
        self.now = 0.0
        self.log = Log()
        self.policy = GatewayPolicy(**bounds)
        self.metrics = GatewayMetrics()
        self.hub = Hub(
            self.policy,
            ChannelRules(otherwise=rules),
            self.metrics,
            now=lambda: self.now,
            wall=lambda: 1.0,
        )
        self.answers = answers
        self.asked: list[Channel] = []
        self.reads: list[tuple[Channel, Position]] = []
        self.turns = 0
        self.unfollowed: list[str] = []
        self.hub.follow = self.follow
        self.hub.unfollow = lambda channel: self.unfollowed.append(channel.name)
        self.hub.read = lambda channel, place: self.reads.append((channel, place))
        self.hub.later = self.later

    def later(self) -> None:
        self.turns += 1

    def follow(self, channel: Channel) -> None:
        self.asked.append(channel)
        if self.answers:
            self.hub.followed(channel, self.log.latest(self.policy.recent_count))

    def say(self, *sizes: int) -> None:
        for part in self.hub.parts(Appended("c", tuple(self.log.add(*sizes)))):
            self.hub.append("c", part)

    def settle(self) -> None:
        """Everything that waits is done, until nothing does."""
        while self.reads or self.turns:
            reads, self.reads = self.reads, []
            for channel, place in reads:
                self.hub.have_read(channel, place, self.log.read(place, self.policy.catch_up_bytes))
            if self.turns:
                self.turns = 0
                self.hub.turn()

    def reader(self, **how: Any) -> Reader:
        return Reader(self.hub, **how)


def test_who_flows_gets_a_batch_in_one_write() -> None:
    world = World()
    one, two = world.reader(), world.reader(encoding=WS_MSGPACK)
    assert one.join() == START
    assert two.join() == START
    world.say(10, 10, 10)
    assert one.seqs == two.seqs == [1, 2, 3]
    assert one.writes == two.writes == 1
    assert world.metrics.transports["ws"].deliveries == 6


def test_a_message_is_encoded_once_for_all_readers_of_a_kind_and_for_those_who_catch_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    readers = [world.reader() for _ in range(5)]
    for each in readers:
        each.join()
    encoded: list[int] = []
    before = WS_JSON._message

    def counting(message: Message) -> bytes:
        encoded.append(message.position.seq)
        return before(message)

    monkeypatch.setattr(WS_JSON, "_message", counting)
    world.say(10)
    late = world.reader()
    late.join(START)
    assert encoded == [1]
    assert late.seqs == [1]


def test_a_full_reader_holds_only_its_place_and_catches_up_in_order() -> None:
    world = World()
    slow, quick = world.reader(), world.reader()
    slow.join()
    quick.join()
    slow.room = 1
    for _ in range(5):
        world.say(10)
    assert slow.seqs == [1]
    assert quick.seqs == [1, 2, 3, 4, 5]
    slow.drain()
    assert slow.seqs == [1, 2, 3, 4, 5]
    world.say(10)
    assert slow.seqs == [1, 2, 3, 4, 5, 6]


def test_who_is_held_for_two_reasons_goes_on_when_both_are_over() -> None:
    world = World()
    reader = world.reader()
    reader.join()
    world.hub.hold(reader, FULL)  # type: ignore[arg-type]
    world.hub.hold(reader, PARKED)  # type: ignore[arg-type]
    world.say(10)
    world.hub.release(reader, FULL)  # type: ignore[arg-type]
    assert reader.seqs == []
    world.hub.release(reader, PARKED)  # type: ignore[arg-type]
    assert reader.seqs == [1]


def test_what_the_ring_has_forgotten_is_read_from_the_log_once_for_all_who_ask() -> None:
    world = World(recent_count=2)
    world.log.add(*[10] * 10)
    first, second = world.reader(), world.reader()
    first.join(Position(EPOCH, 3))
    second.join(Position(EPOCH, 3))
    assert len(world.reads) == 1
    world.say(10)
    world.settle()
    assert first.seqs == second.seqs == [4, 5, 6, 7, 8, 9, 10, 11]
    world.say(10)
    assert first.seqs[-1] == second.seqs[-1] == 12


def test_what_the_log_has_forgotten_is_a_gap_and_then_what_it_retains() -> None:
    world = World(recent_count=2)
    world.log.add(*[10] * 10)
    world.log.first = 6
    reader = world.reader()
    reader.join(Position(EPOCH, 3))
    world.settle()
    assert reader.gaps == [Gap("c", Position(EPOCH, 3), Position(EPOCH, 6), Hole.TRIMMED)]
    assert reader.seqs == [7, 8, 9, 10]


@pytest.mark.parametrize("place", [Position("old", 2), Position(EPOCH, 99)])
def test_a_place_of_another_life_or_ahead_of_the_head_is_a_gap_and_what_is_retained(place: Position) -> None:
    world = World()
    world.log.add(10, 10)
    reader = world.reader()
    reader.join(place, is_checked=False)
    world.settle()
    assert reader.gaps == [Gap("c", place, Position(EPOCH, 0), Hole.EPOCH)]
    assert reader.seqs == [1, 2]


def test_news_that_come_before_the_answer_to_following_are_neither_lost_nor_doubled() -> None:
    world = World(answers=False)
    world.log.add(10, 10)
    reader = world.reader()
    found: list[Any] = []
    assert world.hub.join(reader, "c", None, 0, found.append) is None  # type: ignore[arg-type]
    answer = world.log.latest(10)
    world.say(10, 10)
    assert found == []
    world.hub.followed(world.asked[0], answer)
    assert found == [Position(EPOCH, 4)]
    world.say(10)
    assert reader.seqs == [5]


def test_a_reader_begins_with_the_latest_messages_if_it_asks_or_its_channel_says_so() -> None:
    world = World(rules=ChannelPolicy(begins_with=1))
    world.log.add(10, 10, 10)
    plain, asking = world.reader(), world.reader()
    assert plain.join() == Position(EPOCH, 2)
    assert asking.join(last=2) == Position(EPOCH, 1)
    assert (plain.seqs, asking.seqs) == ([3], [2, 3])


def test_who_comes_from_a_gateway_that_was_told_more_waits_for_our_feed() -> None:
    world = World()
    first, second = world.reader(), world.reader()
    first.join()
    world.say(10)
    unheard = tuple(world.log.add(10, 10))
    second.join(Position(EPOCH, 3))
    world.settle()
    assert (second.gaps, second.seqs) == ([], [])
    world.hub.append("c", unheard[:1])
    assert second.seqs == []
    world.hub.append("c", unheard[1:])
    world.say(10)
    assert second.seqs == [4]
    assert first.seqs == [1, 2, 3, 4]


def test_who_reads_from_a_log_that_knows_more_than_our_feed_hears_nothing_twice() -> None:
    world = World(recent_count=1)
    world.log.add(10, 10, 10)
    reader = world.reader()
    reader.join(START)
    unheard = tuple(world.log.add(10))
    world.settle()
    assert reader.seqs == [1, 2, 3, 4]
    world.hub.append("c", unheard)
    world.say(10)
    assert reader.seqs == [1, 2, 3, 4, 5]


def test_too_slow_a_reader_skips_to_the_latest_with_a_gap() -> None:
    world = World(rules=ChannelPolicy(behind_bytes_max=1024))
    slow, quick = world.reader(), world.reader()
    slow.join()
    quick.join()
    slow.room = 1
    for _ in range(100):
        world.say(100)
    assert quick.seqs == list(range(1, 101))
    slow.drain()
    world.settle()
    assert len(slow.gaps) == 1
    assert slow.gaps[0].why is Hole.SLOW
    assert slow.gaps[0].after == Position(EPOCH, 1)
    assert slow.seqs[-1] == 100
    assert len(slow.seqs) < 10
    world.say(10)
    assert slow.seqs[-1] == 101


def test_who_skips_gets_the_very_latest_message() -> None:
    world = World(rules=ChannelPolicy(behind_bytes_max=1024))
    slow = world.reader()
    slow.join()
    slow.room = 1
    world.say(10)
    world.say(10)
    world.say(2_000)
    slow.drain()
    assert slow.gaps == [Gap("c", Position(EPOCH, 1), Position(EPOCH, 2), Hole.SLOW)]
    assert slow.seqs == [1, 3]


def test_too_slow_a_reader_ends_where_its_channel_wants_everything() -> None:
    world = World(rules=ChannelPolicy(behind_bytes_max=1024, slow=Slow.CLOSE))
    slow = world.reader()
    slow.join()
    slow.room = 1
    for _ in range(20):
        world.say(100)
    assert slow.why == "slow"
    assert not world.hub.channels["c"].lagging


def test_a_reader_that_resumes_from_far_back_is_not_too_slow_for_that() -> None:
    world = World(recent_count=2, rules=ChannelPolicy(behind_bytes_max=1024), catch_up_bytes=1024)
    world.log.add(*[500] * 50)
    reader = world.reader()
    reader.join(START)
    world.settle()
    assert reader.gaps == []
    assert reader.seqs == list(range(1, 51))


def test_a_standby_gets_nothing_is_never_too_slow_and_keeps_the_channel_followed() -> None:
    world = World(rules=ChannelPolicy(behind_bytes_max=1024), linger_s=1.0)
    quiet = world.reader()
    quiet.join(is_standing=True)
    for _ in range(50):
        world.say(100)
    world.now = 10.0
    world.hub.sweep()
    assert (quiet.seqs, quiet.gaps, quiet.why) == ([], [], "")
    assert "c" in world.hub.channels
    assert quiet.join(Position(EPOCH, 48)) == Position(EPOCH, 48)
    assert quiet.seqs == [49, 50]


def test_a_jump_is_a_gap_for_all_who_flow_and_for_those_who_lag_when_they_catch_up() -> None:
    world = World()
    quick, slow = world.reader(), world.reader()
    quick.join()
    slow.join()
    slow.room = 1
    world.say(10)
    world.say(10)
    world.log.add(10, 10, 10)
    world.log.first = 5
    world.hub.jumped(Jumped("c", Position(EPOCH, 5), Hole.TRIMMED))
    assert quick.gaps == [Gap("c", Position(EPOCH, 2), Position(EPOCH, 5), Hole.TRIMMED)]
    slow.drain()
    world.settle()
    assert slow.gaps == [Gap("c", Position(EPOCH, 1), Position(EPOCH, 5), Hole.TRIMMED)]
    world.say(10)
    assert quick.seqs[-1] == slow.seqs[-1] == 6


def test_a_feed_that_skips_something_makes_everybody_read_it_from_the_log() -> None:
    world = World()
    reader = world.reader()
    reader.join()
    world.say(10)
    world.log.add(10)  # nobody told of it
    world.say(10)
    world.settle()
    assert reader.seqs == [1, 2, 3]
    assert reader.gaps == []


def test_those_who_were_cut_off_together_are_told_the_same_bytes_until_something_new_comes() -> None:
    world = World()
    world.say(10, 10)
    readers = [world.reader() for _ in range(40)]
    told: list[bytes] = []
    for index, reader in enumerate(readers):
        write = reader.write
        reader.write = lambda data, write=write: (told.append(data), write(data))  # type: ignore[method-assign, misc]
        if index == 20:
            world.say(10)
            told.clear()
        reader.join(START)
        assert reader.seqs == ([1, 2] if index < 20 else [1, 2, 3])
    assert len({id(each) for each in told}) == 1
    world.hub.sweep()
    assert not world.hub._replays
    for seq in range(REPLAYS_MAX + 5):
        world.reader().join(Position(EPOCH, seq % 3))
        world.say(10)
    assert len(world.hub._replays) <= REPLAYS_MAX


def test_who_begins_at_the_start_of_a_life_without_messages_flows() -> None:
    world = World(answers=False)
    reader = world.reader()
    reader.join(START)
    (channel,) = world.asked
    world.hub.followed(channel, Stretch("c", Position(EPOCH, 0), ()))
    assert channel.readers == 1
    world.say(10)
    assert reader.seqs == [1]


def test_a_feed_that_repeats_something_is_not_heard_twice() -> None:
    world = World()
    reader = world.reader()
    reader.join()
    new = tuple(world.log.add(10, 10))
    world.hub.append("c", new)
    world.hub.append("c", new[1:])
    assert reader.seqs == [1, 2]


def test_when_the_feed_begins_anew_who_flows_goes_on_from_where_it_was() -> None:
    world = World(recent_count=2)
    reader = world.reader()
    reader.join()
    world.say(10)
    world.log.add(*[10] * 5)
    world.hub.followed(world.hub.channels["c"], world.log.latest(2))
    world.settle()
    assert reader.seqs == [1, 2, 3, 4, 5, 6]


def test_a_channel_that_nobody_reads_is_let_go_of_after_a_while() -> None:
    world = World(linger_s=5.0)
    reader = world.reader()
    reader.join()
    world.hub.leave(reader)  # type: ignore[arg-type]
    world.now = 4.0
    world.hub.sweep()
    assert world.unfollowed == []
    world.now = 5.0
    world.hub.sweep()
    assert world.unfollowed == ["c"]
    assert world.hub.channels == {}


def test_a_channel_that_was_left_before_it_was_known_is_let_go_of_however_often_that_happens() -> None:
    world = World(answers=False, linger_s=5.0)
    for second in (0.0, 1.0):
        world.now = second
        reader = world.reader()
        assert reader.join() is None
        world.hub.leave_one(reader, "c")  # type: ignore[arg-type]
    gone = world.reader()
    gone.join()
    gone.close("cut")
    world.hub.followed(world.asked[0], world.log.latest(10))
    world.now = 7.0
    world.hub.sweep()
    assert not world.hub.channels
    assert world.unfollowed == ["c"]


@pytest.mark.parametrize("is_told", [True, False])
def test_an_answer_that_comes_when_its_channel_was_let_go_of_and_asked_for_again_harms_nobody(is_told: bool) -> None:
    world = World(answers=False, linger_s=5.0)
    first = world.reader()
    first.join()
    world.hub.leave_one(first, "c")  # type: ignore[arg-type]
    world.now = 6.0
    world.hub.sweep()
    second = world.reader()
    second.join()
    before, now = world.asked
    world.hub.followed(now, world.log.latest(10))
    if is_told:
        world.hub.followed(before, world.log.latest(10))
    else:
        world.hub.not_followed(before, Problem(why="log-away", happened="no answer"))
    assert world.unfollowed == ["c"], "only when it was let go of"
    world.say(10)
    assert second.seqs == [1]


def test_channels_are_bounded_and_idle_ones_make_room() -> None:
    world = World(channels_max=1)
    first, second = world.reader(), world.reader()
    first.join()
    refused = world.hub.join(second, "other", None, 0, lambda _: None)  # type: ignore[arg-type]
    assert isinstance(refused, Problem)
    assert refused.why == "full"
    world.hub.leave(first)  # type: ignore[arg-type]
    assert isinstance(world.hub.join(second, "other", None, 0, lambda _: None), Position)  # type: ignore[arg-type]
    assert list(world.hub.channels) == ["other"]


def test_who_waits_for_a_channel_that_the_log_does_not_tell_of_is_told_why() -> None:
    world = World(answers=False)
    reader = world.reader()
    found: list[Any] = []
    world.hub.join(reader, "c", None, 0, found.append)  # type: ignore[arg-type]
    problem = Problem(why="log-away", happened="it does not answer", after_s=1.0)
    world.hub.not_followed(world.asked[0], problem)
    assert found == [problem]
    assert world.hub.channels == {}


def test_a_transport_that_raises_keeps_nobody_else_from_reading() -> None:
    world = World()
    readers = [world.reader() for _ in range(3)]
    broken = world.reader()

    def refuse(_: bytes) -> None:
        raise RuntimeError("closed")

    broken.write = refuse  # type: ignore[method-assign]
    for each in (readers[0], broken, *readers[1:]):
        each.join()
    world.say(10)
    assert [each.seqs for each in readers] == [[1], [1], [1]]
    assert broken.why == "mistake", "left there, it would miss the message and never know"


def test_a_large_batch_goes_out_in_pieces_that_get_smaller_with_more_readers() -> None:
    world = World(step_bytes_max=64 * 1024, write_high_bytes=16 * 1024, write_low_bytes=1024)
    for _ in range(16):
        world.reader().join()
    parts = list(world.hub.parts(Appended("c", tuple(world.log.add(*[1_000] * 20)))))
    assert [len(part) for part in parts] == [3] * 6 + [2]


def move_log(world: World, move: str, value: Any, recent: int) -> None:
    if move == "say":
        world.say(*value)
    elif move == "trim":
        world.log.first = min(len(world.log.messages), world.log.first + value)
    elif move == "skip":
        world.log.add(*[10] * value)
    elif move == "refollow" and "c" in world.hub.channels:
        world.hub.followed(world.hub.channels["c"], world.log.latest(recent))
    elif move == "settle":
        world.settle()


def move_reader(world: World, readers: list[Reader], move: str, value: int) -> None:
    if move == "join":
        readers.append(world.reader(encoding=WS_JSON if value % 2 else WS_MSGPACK))
        readers[-1].join(None if value == 0 else Position(EPOCH, min(value - 1, world.log.head.seq)))
    elif readers:
        reader = readers[value % len(readers)]
        if move == "room":
            reader.room = 1
        elif move == "drain":
            reader.drain()
        elif move == "park":
            world.hub.hold(reader, PARKED)  # type: ignore[arg-type]
        else:
            world.hub.release(reader, PARKED)  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(
    moves=st.lists(
        st.one_of(
            st.tuples(st.just("say"), st.lists(st.integers(1, 300), min_size=1, max_size=4)),
            st.tuples(st.just("join"), st.integers(0, 40)),
            st.tuples(st.just("room"), st.integers(0, 3)),
            st.tuples(st.just("drain"), st.integers(0, 3)),
            st.tuples(st.just("park"), st.integers(0, 3)),
            st.tuples(st.just("unpark"), st.integers(0, 3)),
            st.tuples(st.just("trim"), st.integers(0, 5)),
            st.tuples(st.just("skip"), st.integers(1, 3)),
            st.tuples(st.just("refollow"), st.just(0)),
            st.tuples(st.just("settle"), st.just(0)),
        ),
        max_size=40,
    ),
    recent=st.integers(1, 6),
    behind=st.sampled_from([1024, 4096]),
)
def test_whatever_happens_each_reader_gets_everything_once_and_in_order_or_a_gap(
    moves: Sequence[tuple[str, Any]], recent: int, behind: int
) -> None:
    world = World(recent_count=recent, catch_up_bytes=1024, rules=ChannelPolicy(behind_bytes_max=behind))
    world.log.add(10)
    readers: list[Reader] = []
    for move, value in moves:
        if move in {"join", "room", "drain", "park", "unpark"}:
            move_reader(world, readers, move, value)
        else:
            move_log(world, move, value, recent)
    for reader in readers:
        reader.drain()
        world.hub.release(reader, PARKED)  # type: ignore[arg-type]
    world.settle()
    world.say(10)
    world.settle()
    for reader in readers:
        assert reader.follower is not None
        assert reader.follower.place == world.log.head
