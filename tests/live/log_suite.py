"""What every log of channels must hold, whichever backend keeps it: laws over random histories, with a list as the twin.

A backend comes as a `Fresh`: given the policy of all channels, it answers with a way to open one empty log; opening it again
after it was closed finds what was durable, if it `survives`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from random import Random
from typing import Final, TypeVar

from budao.aio import ChannelLog, Feed
from budao.push import (
    START,
    Appended,
    ChannelPolicy,
    Draft,
    Jumped,
    Kind,
    LogCameBack,
    LogWentAway,
    Message,
    NotPlaced,
    Placed,
    Position,
    Stretch,
    follows,
)

T = TypeVar("T")
Open = Callable[[], AbstractAsyncContextManager[ChannelLog]]
Fresh = Callable[[ChannelPolicy], Open]

PATIENCE_S: Final = 30.0
CHANNELS: Final = ("news", "room:42", "shop/orders.new")
KEPT: Final = 20


@dataclass
class Twin:
    """The obvious log: a list of drafts for each channel, and everything by its id."""

    epochs: dict[str, str] = field(default_factory=dict)
    drafts: dict[str, list[Draft]] = field(default_factory=dict)
    ids: dict[tuple[str, str], Position] = field(default_factory=dict)

    def publish(self, draft: Draft, answer: Placed | NotPlaced) -> None:
        """Holds the answer to what it had to be, and takes the draft."""
        assert isinstance(answer, Placed), f"refused: {answer}"
        if draft.id is not None and (draft.channel, draft.id) in self.ids:
            known = self.ids[draft.channel, draft.id]
            assert answer == Placed(known, is_repeat=True), f"{draft} was {known}, and now {answer}"
            return
        assert not answer.is_repeat, f"{draft} is no repeat"
        before = self.drafts.setdefault(draft.channel, [])
        epoch = self.epochs.setdefault(draft.channel, answer.position.epoch)
        assert epoch, "an epoch has a name"
        assert answer.position == Position(epoch, len(before) + 1), f"{draft.channel} had {len(before)}: {answer}"
        before.append(draft)
        if draft.id is not None:
            self.ids[draft.channel, draft.id] = answer.position

    def head(self, channel: str) -> Position:
        drafts = self.drafts.get(channel, [])
        return Position(self.epochs[channel], len(drafts)) if drafts else START

    def check(self, message: Message) -> None:
        """Holds a message to what was published at its place."""
        epoch, seq = message.position
        assert epoch == self.epochs[message.channel], f"{message.channel} has another epoch: {message.position}"
        draft = self.drafts[message.channel][seq - 1]
        found = Draft(message.channel, message.data, message.kind, message.id, message.trace)
        assert found == draft, f"at {message.position} stands {found}, not {draft}"

    def check_stretch(self, stretch: Stretch, channel: str, seqs: range) -> None:
        """Holds a stretch to the messages of these numbers."""
        assert stretch.channel == channel
        assert stretch.head == self.head(channel), f"the head of {channel} is {self.head(channel)}: {stretch.head}"
        assert [message.position.seq for message in stretch.messages] == list(seqs), f"{channel}: not {seqs}"
        for message in stretch.messages:
            self.check(message)


@dataclass
class Reader:
    """Takes the news of a feed, and sees to it that nothing is missing without a word."""

    twin: Twin
    places: dict[str, Position] = field(default_factory=dict)
    told: int = 0
    jumps: list[Jumped] = field(default_factory=list)

    async def follow(self, feed: Feed, channel: str, recent: int = 0) -> Stretch:
        stretch = await patient(feed.follow(channel, recent=recent))
        self.places[channel] = stretch.head
        return stretch

    async def take(self, feed: Feed) -> None:
        """The next news."""
        for news in await patient(feed.next()):
            if isinstance(news, Appended):
                assert news.messages, "news of nothing"
                for message in news.messages:
                    assert message.channel == news.channel
                    self._see(message)
            elif isinstance(news, Jumped):
                assert news.head != self.places[news.channel], "a jump over nothing"
                self.places[news.channel] = news.head
                self.jumps.append(news)
            else:
                assert isinstance(news, LogWentAway | LogCameBack)

    async def take_all(self, feed: Feed) -> None:
        """Until it stands at the head of everything it follows."""
        async with asyncio.timeout(PATIENCE_S):
            while any(place != self.twin.head(channel) for channel, place in self.places.items()):
                await self.take(feed)

    def _see(self, message: Message) -> None:
        before = self.places[message.channel]
        assert follows(before, message.position), f"{message.position} after {before} in {message.channel}"
        self.twin.check(message)
        self.places[message.channel] = message.position
        self.told += 1


async def patient(waited: Awaitable[T]) -> T:
    return await asyncio.wait_for(waited, PATIENCE_S)


def draft(rng: Random, number: int) -> Draft:
    data = f'{{"number":{number},"rest":"{"x" * rng.randrange(40)}"}}'.encode()
    kind = rng.choice((Kind.JSON, Kind.BYTES))
    name = f"id{rng.randrange(30)}" if rng.random() < 0.4 else None
    trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01" if rng.random() < 0.2 else None
    return Draft(rng.choice(CHANNELS), data, kind, name, trace)


# ------------------------------------------------------------------------------------------------------ laws


async def a_history_is_what_a_list_would_hold(fresh: Fresh, rng: Random, survives: bool) -> None:
    """Publishing, reading, the latest, feeds and restarts agree with each other and with the twin."""
    open_log, twin, number = fresh(ChannelPolicy(history_count=KEPT)), Twin(), 0
    for _ in range(3 if survives else 1):
        async with open_log() as log, log.feed() as feed:
            reader = Reader(twin)
            for channel in CHANNELS[:2]:
                twin.check_stretch(
                    await reader.follow(feed, channel, recent=5),
                    channel,
                    latest(twin, channel, 5),
                )
            for _ in range(25):
                batch = [draft(rng, number + index) for index in range(rng.randrange(1, 6))]
                number += len(batch)
                answers = await patient(log.publish(batch))
                assert len(answers) == len(batch)
                for each, answer in zip(batch, answers, strict=True):
                    twin.publish(each, answer)
                await read_some(log, twin, rng)
            await reader.take_all(feed)
            assert not reader.jumps, "it read all the time, and nothing was missing"
            if rng.random() < 0.5:
                feed.unfollow(CHANNELS[0])
                twin.check_stretch(await reader.follow(feed, CHANNELS[0]), CHANNELS[0], latest(twin, CHANNELS[0], 0))
                await publish_one(log, twin, Draft(CHANNELS[0], b"1"))
                await reader.take_all(feed)


async def read_some(log: ChannelLog, twin: Twin, rng: Random) -> None:
    channel = rng.choice((*CHANNELS, "nobody.was.here"))
    head = twin.head(channel)
    first = max(1, head.seq - KEPT + 1)
    after = rng.randrange(0, head.seq + 3)
    place = START if rng.random() < 0.2 else Position(head.epoch if rng.random() < 0.8 else "other", after)
    begin = max(first, after + 1) if place.epoch == head.epoch and after <= head.seq else first
    count = rng.choice((1, 3, 1000))
    stretch = await patient(log.read(channel, place, count_max=count))
    if not head.seq:
        assert stretch == Stretch(channel, START, ())
        return
    seqs = range(begin, min(head.seq + 1, begin + count))
    twin.check_stretch(stretch, channel, seqs)
    assert stretch.more == (seqs.stop <= head.seq), f"more: {stretch.more}, {seqs} of {head}"
    asked = rng.choice((0, 1, 7, 1000))
    twin.check_stretch(await patient(log.latest(channel, asked)), channel, latest(twin, channel, asked))


def latest(twin: Twin, channel: str, count: int) -> range:
    head = twin.head(channel).seq
    return range(max(1, head - min(KEPT, count) + 1), head + 1)


async def publish_one(log: ChannelLog, twin: Twin, each: Draft) -> None:
    (answer,) = await patient(log.publish([each]))
    twin.publish(each, answer)


async def an_id_is_one_message_within_a_batch_and_between_them(fresh: Fresh, rng: Random, survives: bool) -> None:
    open_log, twin = fresh(ChannelPolicy()), Twin()
    twice = Draft("news", b"1", id="same")
    async with open_log() as log:
        batch = [twice, Draft("room:42", b"2", id="same"), twice]
        for each, answer in zip(batch, await patient(log.publish(batch)), strict=True):
            twin.publish(each, answer)
        together = await patient(asyncio.gather(*(log.publish([Draft("news", b"3", id="race")]) for _ in range(5))))
        places = {placed.position for (placed,) in together if isinstance(placed, Placed)}
        assert len(places) == 1, f"one id, and {places}"
        first = next(iter(places))
        twin.publish(Draft("news", b"3", id="race"), Placed(first))
        assert sum(isinstance(placed, Placed) and placed.is_repeat for (placed,) in together) == 4
        await publish_one(log, twin, twice)
    if survives:
        async with open_log() as log:
            await publish_one(log, twin, twice)
            twin.check_stretch(await patient(log.read("news", START)), "news", range(1, 3))


async def publishers_at_once_get_places_without_holes(fresh: Fresh, rng: Random, survives: bool) -> None:
    open_log = fresh(ChannelPolicy())
    async with open_log() as log, log.feed() as feed:
        assert (await patient(feed.follow("news"))).head == START
        own: dict[int, list[int]] = {}

        async def publish(who: int) -> None:
            for turn in range(10):
                (answer,) = await patient(log.publish([Draft("news", f"[{who},{turn}]".encode())]))
                assert isinstance(answer, Placed)
                own.setdefault(who, []).append(answer.position.seq)

        await asyncio.gather(*map(publish, range(12)))
        assert sorted(seq for seqs in own.values() for seq in seqs) == list(range(1, 121))
        assert all(seqs == sorted(seqs) for seqs in own.values()), "each publisher's own stay in order"
        told: list[Message] = []
        while len(told) < 120:
            for news in await patient(feed.next()):
                assert isinstance(news, Appended | LogCameBack | LogWentAway), news
                told += news.messages if isinstance(news, Appended) else ()
        assert [message.position.seq for message in told] == list(range(1, 121))
        assert tuple(told) == (await patient(log.read("news", START))).messages


async def two_feeds_say_the_same(fresh: Fresh, rng: Random, survives: bool) -> None:
    open_log, twin = fresh(ChannelPolicy()), Twin()
    async with open_log() as log, log.feed() as one, log.feed() as other:
        readers = Reader(twin), Reader(twin)
        for reader, feed in zip(readers, (one, other), strict=True):
            for channel in CHANNELS:
                await reader.follow(feed, channel)
        for number in range(60):
            await publish_one(log, twin, draft(rng, number))
        for reader, feed in zip(readers, (one, other), strict=True):
            await reader.take_all(feed)
        assert readers[0].told == readers[1].told == sum(map(len, twin.drafts.values()))


async def what_is_too_large_is_refused_and_takes_no_place(fresh: Fresh, rng: Random, survives: bool) -> None:
    open_log, twin = fresh(ChannelPolicy(message_bytes_max=100)), Twin()
    async with open_log() as log:
        small = Draft("news", b"1")
        answers = await patient(log.publish([small, Draft("news", b"x" * 101), small]))
        assert isinstance(answers[1], NotPlaced)
        assert answers[1].why == "too-large"
        for answer in (answers[0], answers[2]):
            twin.publish(small, answer)


async def whoever_does_not_read_is_told_what_is_missing(fresh: Fresh, rng: Random, survives: bool) -> None:
    """Far more than anybody buffers, of which little is retained: a jump says so, and the feed ends at the head."""
    open_log, twin = fresh(ChannelPolicy(history_count=3)), Twin()
    async with open_log() as log, log.feed() as feed:
        reader = Reader(twin)
        for channel in CHANNELS:
            await reader.follow(feed, channel)
        for number in range(100):
            channel = CHANNELS[number % 2]
            batch = [Draft(channel, bytes([number]) * 32_000, Kind.BYTES) for _ in range(16)]
            for each, answer in zip(batch, await patient(log.publish(batch)), strict=True):
                twin.publish(each, answer)
        await publish_one(log, twin, Draft(CHANNELS[2], b"last"))
        await reader.take_all(feed)
        assert reader.jumps, "50 MiB were held for a reader that did not read"
        assert reader.places == {channel: twin.head(channel) for channel in CHANNELS}


LAWS: Final[tuple[Callable[[Fresh, Random, bool], Awaitable[None]], ...]] = (
    a_history_is_what_a_list_would_hold,
    an_id_is_one_message_within_a_batch_and_between_them,
    publishers_at_once_get_places_without_holes,
    two_feeds_say_the_same,
    what_is_too_large_is_refused_and_takes_no_place,
    whoever_does_not_read_is_told_what_is_missing,
)


async def hold(fresh: Fresh, *, survives: bool, seeds: Sequence[int] = (1, 2, 3), laws: Sequence[str] = ()) -> None:
    """Raises:  AssertionError, naming the law that does not hold."""
    for law in LAWS:
        if laws and law.__name__ not in laws:  # type: ignore[attr-defined]
            continue
        for seed in seeds if law is LAWS[0] else seeds[:1]:
            try:
                await law(fresh, Random(seed), survives)
            except (AssertionError, TimeoutError) as broken:
                name = law.__name__  # type: ignore[attr-defined]
                raise AssertionError(f"{name} (seed {seed}): {str(broken) or type(broken).__name__}") from broken
