"""Readers of a hub over a log whose feed, answers and readings come late and crosswise: nobody is told a hole, or anything twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from budao.aio.gateway import GatewayMetrics, GatewayPolicy
from budao.aio.gateway.channel import Channel
from budao.aio.gateway.connection import FULL, PARKED
from budao.aio.gateway.hub import Hub
from budao.model import Wall
from budao.push import (
    START,
    Appended,
    Book,
    BookPolicy,
    ChannelPolicy,
    ChannelRules,
    Draft,
    Following,
    Jumped,
    Position,
    Problem,
    Stretch,
)
from tests.unit.aio.test_gateway_hub import Reader

NOW = Wall(1_000.0)


class World:
    """A hub, a book, and everything between them in queues that are emptied a piece at a time."""

    def __init__(self, recent: int, history: int, behind: int) -> None:
        rules = ChannelRules(otherwise=ChannelPolicy(history_count=history, behind_bytes_max=behind))
        self.book = Book(rules, BookPolicy(channels_max=1, idle_s=0.0))
        self.lives = 0
        self.policy = GatewayPolicy(recent_count=recent, catch_up_bytes=1024, linger_s=1.0)
        self.now = 0.0
        self.hub = Hub(self.policy, rules, GatewayMetrics(), now=lambda: self.now, wall=lambda: NOW)
        self.following = Following()
        self.wire: list[Appended | Jumped | tuple[Channel, Stretch]] = []
        """From the log, in order: news, and answers to following."""
        self.reads: list[tuple[Channel, Position]] = []
        self.stretches: list[tuple[Channel, Position, Stretch]] = []
        self.turns = 0
        self.hub.follow = self.follow
        self.hub.unfollow = lambda channel: self.following.unfollow(channel.name)
        self.hub.read = lambda channel, place: self.reads.append((channel, place))
        self.hub.later = self.later
        self.readers: list[Reader] = []
        self.mistakes: list[Exception] = []

    def mistake(self, _: Any, problem: Exception) -> None:
        """What a hub would end a connection for."""
        self.mistakes.append(problem)

    def later(self) -> None:
        self.turns += 1

    def follow(self, channel: Channel) -> None:
        stretch = self.book.latest("c", self.policy.recent_count, NOW)
        self.wire = [each for each in self.wire if isinstance(each, tuple)]  # as a feed does
        self.following.follow("c", stretch.head, stretch.head)
        self.wire.append((channel, stretch))

    def publish(self, channel: str, count: int, size: int) -> None:
        self.lives += 1
        drafts = [Draft(channel, b'"' + b"x" * size + b'"') for _ in range(count)]
        for run in self.book.publish(drafts, NOW, f"e{self.lives}").appended:
            self.wire += self.following.offer(run, has_room=True)

    def tell(self) -> None:
        if not self.wire:
            return
        news = self.wire.pop(0)
        if isinstance(news, tuple):
            self.hub.followed(*news)
        elif isinstance(news, Jumped):
            self.hub.jumped(news)
        else:
            for part in self.hub.parts(news):
                self.hub.append("c", part)

    def read(self) -> None:
        """The log answers; the answer is on its way."""
        if self.reads:
            channel, place = self.reads.pop(0)
            self.stretches.append((channel, place, self.book.read("c", place, NOW, bytes_max=1024)))

    def hear(self) -> None:
        if self.stretches and self.hub.have_read(*self.stretches.pop(0)):
            self.hub.ask_again()

    def turn(self) -> None:
        if self.turns:
            self.turns = 0
            self.hub.turn()

    def settle(self) -> None:
        for _ in range(10_000):
            if not (self.wire or self.reads or self.stretches or self.turns):
                return
            self.tell()
            self.read()
            self.hear()
            self.turn()
        raise AssertionError("it never comes to rest")

    def go_on(self, how: str) -> None:
        if how == "settle":
            self.settle()
            return
        for each in how:
            {"t": self.tell, "r": self.read, "h": self.hear}[each]()
        if how:
            self.turn()

    def join(self, reader: Reader, after: Position | None) -> None:
        def begun(found: Position | Problem) -> None:
            if isinstance(found, Position) and reader.follower is None:
                reader.follower = _Follower(found)

        found = self.hub.join(reader, "c", after, 0, begun)  # type: ignore[arg-type]
        if found is not None:
            begun(found)
            self.hub.catch_up(reader)  # type: ignore[arg-type]

    def newcomer(self, value: int) -> None:
        reader = Reader(self.hub)
        reader.mistake = self.mistake  # type: ignore[method-assign]
        self.readers.append(reader)
        head = self.book.head("c")
        places = [None, START, head, Position(head.epoch, head.seq // 2), Position("e0", 3)]
        after = places[value % len(places)]
        if after is not None:
            reader.follower = _Follower(after)
        self.join(reader, after)

    def again(self, reader: Reader) -> None:
        """It unsubscribes and subscribes in one breath, from where it is."""
        self.hub.leave_one(reader, "c")  # type: ignore[arg-type]
        self.join(reader, None if reader.follower is None else reader.follower.place)


class _Follower:
    """A stricter one: every item begins exactly where the last one ended."""

    def __init__(self, place: Position) -> None:
        self.place = place

    def take(self, item: Any) -> Any:
        position = getattr(item, "position", None)
        if position is None:
            assert item.after == self.place, (item, self.place)
            assert item.upto != item.after, item
            assert item.upto.epoch != item.after.epoch or item.upto.seq > item.after.seq, item
            self.place = item.upto
        else:
            is_next = position.seq == self.place.seq + 1 and self.place.epoch in {position.epoch, ""}
            assert is_next, (item.position, self.place)
            self.place = position
        return item


MOVES = st.one_of(
    *(st.tuples(st.just("say"), st.tuples(st.integers(1, 4), st.integers(1, most))) for most in (30, 300, 2_000)),
    st.tuples(st.just("forget"), st.just(0)),
    st.tuples(st.just("join"), st.integers(0, 4)),
    *(st.tuples(st.just(each), st.integers(0, 3)) for each in ("again", "leave", "full", "drain", "park", "unpark")),
    *(st.tuples(st.just(each), st.just(0)) for each in ("refollow", "sweep")),
)


def move_reader(world: World, move: str, reader: Reader) -> None:
    hub: Any = world.hub
    if move == "again":
        world.again(reader)
    elif move == "leave":
        reader.close("done")
        world.readers.remove(reader)
    elif move == "full":
        reader.room = 1
    elif move == "drain":
        reader.room = None
        if reader.holds & FULL:
            hub.release(reader, FULL)
    elif move == "park":
        hub.hold(reader, PARKED)
    elif move == "unpark":
        hub.release(reader, PARKED)


def move_log(world: World, move: str, value: Any) -> None:
    if move == "say":
        world.publish("c", *value)
    elif move == "forget":
        world.publish("another", 1, 1)  # there is room for one channel
    elif move == "refollow":
        for channel in world.hub.channels.values():
            world.follow(channel)
    elif move == "sweep":
        world.now += 2.0
        world.hub.sweep()
    else:
        getattr(world, move)()


@settings(max_examples=150, deadline=None)
@given(
    moves=st.lists(st.tuples(MOVES, st.sampled_from(["", "", "t", "trh", "trh", "settle"])), min_size=10, max_size=60),
    recent=st.integers(1, 6),
    history=st.integers(0, 8),
    behind=st.sampled_from([1024, 4096]),
)
def test_whatever_crosses_each_reader_goes_on_exactly_where_it_was(
    moves: Sequence[tuple[tuple[str, Any], str]], recent: int, history: int, behind: int
) -> None:
    world = World(recent, history, behind)
    world.publish("c", 2, 10)
    for value in range(3):
        world.newcomer(value)
    world.settle()
    for (move, value), then in moves:
        if move == "join":
            world.newcomer(value)
        elif move in {"again", "leave", "full", "drain", "park", "unpark"}:
            if world.readers:
                move_reader(world, move, world.readers[value % len(world.readers)])
        else:
            move_log(world, move, value)
        world.go_on(then)
    for reader in world.readers:
        move_reader(world, "drain", reader)
        move_reader(world, "unpark", reader)
    world.settle()
    world.publish("c", 1, 1)
    world.settle()
    assert world.mistakes == []
    for reader in world.readers:
        assert reader.follower is not None
        assert reader.follower.place == world.book.head("c")
