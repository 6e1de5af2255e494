"""The laws of a log hold for all of ours, and notice what is wrong with logs that are broken on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from budao.aio import ChannelLog, DurableLog, LogServer, MemoryLog, RemoteLog
from budao.aio.logs import LocalFeed
from budao.push import (
    Appended,
    Book,
    ChannelPolicy,
    ChannelRules,
    Draft,
    Jumped,
    News,
    NotPlaced,
    Placed,
    Position,
    Stretch,
)
from tests.live.log_suite import Fresh, Open, hold


def in_memory(kind: Callable[..., MemoryLog] = MemoryLog, keep: Callable[[Book, Book], None] | None = None) -> Fresh:
    """One whose book is carried over by hand, as a disk would do it."""

    def fresh(policy: ChannelPolicy) -> Open:
        last: list[Book] = []

        @asynccontextmanager
        async def opened() -> AsyncIterator[ChannelLog]:
            async with kind(rules=ChannelRules(otherwise=policy)) as log:
                if last:
                    (keep or carry_over)(last[-1], log.book)
                last.append(log.book)
                yield log

        return opened

    return fresh


def carry_over(old: Book, new: Book) -> None:
    new.restore(old.kept(), old.known_ids(), MemoryLog().now())


def durable(folder: Path) -> Fresh:
    numbers = count()

    def fresh(policy: ChannelPolicy) -> Open:
        home = folder / str(next(numbers))
        return lambda: DurableLog(home, rules=ChannelRules(otherwise=policy))

    return fresh


def remote(folder: Path) -> Fresh:
    numbers = count()

    def fresh(policy: ChannelPolicy) -> Open:
        home = folder / str(next(numbers))

        @asynccontextmanager
        async def opened() -> AsyncIterator[ChannelLog]:
            async with (
                LogServer(home, rules=ChannelRules(otherwise=policy)) as server,
                RemoteLog("127.0.0.1", server.port) as log,
            ):
                yield log

        return opened

    return fresh


def test_the_log_in_memory_holds_the_laws() -> None:
    asyncio.run(hold(in_memory(), survives=True))


def test_the_durable_log_holds_the_laws(tmp_path: Path) -> None:
    asyncio.run(hold(durable(tmp_path), survives=True))


def test_a_log_behind_a_server_holds_the_laws(tmp_path: Path) -> None:
    asyncio.run(hold(remote(tmp_path), survives=True))


class Losing(LocalFeed):
    async def next(self) -> Sequence[News]:
        return self.spoilt(await super().next())

    def spoilt(self, news: Sequence[News]) -> Sequence[News]:
        return news[1:] if len(news) > 6 else news  # never the last one: whoever waits for that would wait long


class Doubling(Losing):
    def spoilt(self, news: Sequence[News]) -> Sequence[News]:
        return [*news, *news[-1:]]


class Turning(Losing):
    def spoilt(self, news: Sequence[News]) -> Sequence[News]:
        return [Appended(each.channel, each.messages[::-1]) if isinstance(each, Appended) else each for each in news][
            ::-1
        ]


class Mute(Losing):
    def spoilt(self, news: Sequence[News]) -> Sequence[News]:
        return [each for each in news if not isinstance(each, Jumped)]


class Feeding(MemoryLog):
    kind: type[LocalFeed] = LocalFeed

    def feed(self) -> LocalFeed:
        return self.kind(self)


class LosesNews(Feeding):
    kind = Losing


class TellsTwice(Feeding):
    kind = Doubling


class TellsBackwards(Feeding):
    kind = Turning


class JumpsSilently(Feeding):
    kind = Mute


class ForgetsIds(MemoryLog):
    async def publish(self, drafts: Sequence[Draft]) -> tuple[Placed | NotPlaced, ...]:
        return await super().publish([Draft(each.channel, each.data, each.kind, None, each.trace) for each in drafts])


class KnowsIdsOfOthers(MemoryLog):
    """One memory of ids for all channels."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self.known: dict[str, Placed] = {}

    async def publish(self, drafts: Sequence[Draft]) -> tuple[Placed | NotPlaced, ...]:
        answers = []
        for draft in drafts:
            if draft.id in self.known:
                answers.append(Placed(self.known[draft.id].position, is_repeat=True))
                continue
            (answer,) = await super().publish([draft])
            if draft.id is not None and isinstance(answer, Placed):
                self.known[draft.id] = answer
            answers.append(answer)
        return tuple(answers)


class SwapsNeighbours(MemoryLog):
    async def publish(self, drafts: Sequence[Draft]) -> tuple[Placed | NotPlaced, ...]:
        return (await super().publish(drafts[::-1]))[::-1]


class TakesAnything(MemoryLog):
    async def publish(self, drafts: Sequence[Draft]) -> tuple[Placed | NotPlaced, ...]:
        answers = await super().publish(drafts)
        return tuple(Placed(Position("e", 1)) if isinstance(each, NotPlaced) else each for each in answers)


class ReadsShort(MemoryLog):
    async def read(self, channel: str, after: Position, *, count_max: int = 1000, bytes_max: int = 1 << 20) -> Stretch:
        found = await super().read(channel, after, count_max=count_max, bytes_max=bytes_max)
        return Stretch(
            channel, found.head, found.messages[1:] if len(found.messages) > 3 else found.messages, found.more
        )


class SaysNothingIsLeft(MemoryLog):
    async def read(self, channel: str, after: Position, *, count_max: int = 1000, bytes_max: int = 1 << 20) -> Stretch:
        found = await super().read(channel, after, count_max=count_max, bytes_max=bytes_max)
        return Stretch(channel, found.head, found.messages, False)


class LatestIsOldest(MemoryLog):
    async def latest(self, channel: str, count: int) -> Stretch:
        found = await super().latest(channel, 1000)
        return Stretch(channel, found.head, found.messages[:count])


@pytest.mark.parametrize(
    "broken",
    [
        LosesNews,
        TellsTwice,
        TellsBackwards,
        JumpsSilently,
        ForgetsIds,
        KnowsIdsOfOthers,
        SwapsNeighbours,
        TakesAnything,
        ReadsShort,
        SaysNothingIsLeft,
        LatestIsOldest,
    ],
)
def test_a_broken_log_is_noticed(broken: type[MemoryLog]) -> None:
    with pytest.raises(AssertionError):
        asyncio.run(hold(in_memory(broken), survives=True))


def loses_the_last(old: Book, new: Book) -> None:
    kept = [
        type(each)(each.channel, Position(each.head.epoch, each.head.seq - 1), each.at, each.messages[:-1])
        for each in old.kept()
    ]
    new.restore(kept, old.known_ids(), MemoryLog().now())


def loses_the_ids(old: Book, new: Book) -> None:
    new.restore(old.kept(), (), MemoryLog().now())


def begins_anew(old: Book, new: Book) -> None:
    assert len(old) >= 0
    assert len(new) == 0


@pytest.mark.parametrize("keep", [loses_the_last, loses_the_ids, begins_anew])
def test_a_log_that_does_not_survive_as_it_says_is_noticed(keep: Callable[[Book, Book], None]) -> None:
    with pytest.raises(AssertionError):
        asyncio.run(hold(in_memory(keep=keep), survives=True))
