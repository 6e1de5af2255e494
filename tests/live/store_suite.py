"""What every store must do, whichever backend keeps it: laws over random histories, with the keeper as the twin.

To hold a backend to them, write a test file of three lines:

    @pytest.mark.parametrize("law", LAWS, ids=name_of)
    def test_a_store_on_such_a_server_keeps(law: Law) -> None:
        keep(law, lambda: SuchAStore(address))

`keep` calls the function inside a fresh event loop, several times a law, for clients of one and the same store, and
closes them. Nothing else may write to that store meanwhile, since revisions are compared exactly: as distances from the
one a law began at, so that a store with a past will do. Each law has a prefix of its own and leaves no lease behind.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from random import Random
from typing import Any, cast

from budao.aio import Followed, Store, campaign, follow, watching
from budao.model import Mono
from budao.store import (
    KEY_BYTES_MAX,
    Batch,
    Change,
    Commit,
    Committed,
    Compact,
    Compacted,
    Condition,
    Delete,
    Deposed,
    Entry,
    Field,
    Grant,
    Keeper,
    LeaseGone,
    Operation,
    Page,
    Put,
    Read,
    Relation,
    Result,
    Revoke,
    Span,
    StoreAway,
    StoreError,
    StoreRefused,
    Txn,
    absent,
    present,
    unchanged,
)

PATIENCE_S = 60.0
T0 = Mono(0.0)
TTL_S = 30.0
SHORT_TTL_S = 2.0
"""No backend grants less than it is asked for; etcd grants no less than this."""

NAMES = ("a", "a/b", "a/b c", "a0", "b", "b/%2F", "b/é", "c/\U0001f600", "c/\uffff", "d\x00e", "d\x7f", "~")

_numbers = itertools.count()


@dataclass
class World:
    """What a law is given: as many clients as it wants, dice, and a prefix that nobody else writes under."""

    open_client: Callable[[], Store]
    rng: Random
    prefix: str
    exits: AsyncExitStack = field(default_factory=AsyncExitStack)

    def client(self) -> Store:
        store = self.open_client()
        self.exits.push_async_callback(store.aclose)
        return store

    def within(self, number: int) -> World:
        """The same, under a prefix of this one."""
        return replace(self, prefix=f"{self.prefix}{number}/")

    @property
    def span(self) -> Span:
        return Span.prefix(self.prefix)


Law = Callable[[World], Awaitable[None]]


def keep(law: Law, open_client: Callable[[], Store], *, seed: int | None = None) -> None:
    """Runs one law. A failure names the seed that finds it again."""

    async def story() -> None:
        world = World(open_client, Random(seed), f"law/{os.getpid()}/{next(_numbers)}/{name_of(law)}/")
        async with world.exits:
            await asyncio.wait_for(law(world), PATIENCE_S)

    seed = 20_26 if seed is None else seed
    try:
        asyncio.run(story())
    except BaseException as error:
        error.add_note(f"law {name_of(law)}, seed {seed}")
        raise


def keep_through(open_client: Callable[[], Store], disturb: Callable[[], Awaitable[None]], *, seed: int = 2026) -> None:
    """Runs concurrent calls while `disturb` does something to the store, and checks that they can be explained."""

    async def calls_while_disturbed(world: World) -> None:
        await calls_through(world, disturb)

    keep(calls_while_disturbed, open_client, seed=seed)


def name_of(law: Law) -> str:
    return cast(Any, law).__name__.replace("_", "-")


# ------------------------------------------------------------------------------------------------------ the twin


class Pair:
    """A store, and the keeper that does the same. Answers are compared in the keeper's numbers."""

    def __init__(self, world: World, store: Store, revision: int) -> None:
        self.world = world
        self.store = store
        self.keeper = Keeper()
        self.offset = revision - self.keeper.revision
        """Real revisions are the keeper's and this."""
        self.log: list[Batch] = []
        """Everything that changed, compacted or not."""

    @classmethod
    async def of(cls, world: World, store: Store) -> Pair:
        return cls(world, store, (await store.read(world.span)).revision)

    async def commit(self, txn: Txn) -> Committed | type[StoreError]:
        def twin() -> Committed:
            return self.keeper.apply(Commit(txn), T0)

        async def real() -> Committed:
            return self.seen_commit(await self.store.commit(self.real_txn(txn)))

        return await self._both(twin, real)

    async def read(self, span: Span, revision: int = 0, limit: int = 0) -> Page | type[StoreError]:
        async def real() -> Page:
            asked = revision + self.offset if revision else 0
            return self.seen_page(await self.store.read(span, revision=asked, limit=limit))

        return await self._both(lambda: self.keeper.read(span, revision, limit), real)

    async def compact(self, revision: int) -> None:
        await self._both(
            lambda: self.keeper.apply(Compact(revision), T0), lambda: self.store.compact(revision + self.offset)
        )

    async def grant(self, ttl_s: float = TTL_S) -> int:
        granted = await self.store.grant(ttl_s)
        assert granted.id > 0
        assert granted.ttl_s >= ttl_s
        self.keeper.apply(Grant(granted.id, ttl_s), T0)
        return granted.id

    async def revoke(self, lease: int) -> None:
        await self._both(lambda: self.keeper.apply(Revoke(lease), T0), lambda: self.store.revoke(lease))

    async def keep_alive(self, lease: int) -> None:
        async def real() -> int:
            return (await self.store.keep_alive(lease)).id

        await self._both(lambda: self.keeper.renew(lease, T0).id, real)

    async def look_up(self, lease: int) -> None:
        async def real() -> tuple[int, tuple[str, ...]]:
            view = await self.store.look_up(lease)
            assert 0.0 < view.left_s <= view.ttl_s
            return view.id, tuple(sorted(view.keys))

        def twin() -> tuple[int, tuple[str, ...]]:
            view = self.keeper.look_up(lease, T0)
            return view.id, view.keys

        await self._both(twin, real)

    async def _both(self, twin: Callable[[], Any], real: Callable[[], Awaitable[Any]]) -> Any:
        seen = self.keeper.revision
        expected = _told(twin)
        self.log += self.keeper.changes(Span.prefix(""), seen) if self.keeper.revision > seen else ()
        found: Any
        try:
            found = await real()
        except (Compacted, LeaseGone, StoreRefused) as error:
            found = type(error)
        assert found == expected, f"the store answered\n  {found}\nand the keeper\n  {expected}"
        return found

    def real_txn(self, txn: Txn) -> Txn:
        return replace(txn, when=tuple(map(self._real_condition, txn.when)))

    def _real_condition(self, condition: Condition) -> Condition:
        against = condition.against
        if condition.field in {Field.CREATED, Field.MODIFIED} and isinstance(against, int) and against > 0:
            return replace(condition, against=against + self.offset)
        return condition

    def seen_commit(self, answer: Committed) -> Committed:
        return Committed(answer.revision - self.offset, answer.held, tuple(map(self._seen_result, answer.results)))

    def _seen_result(self, result: Result) -> Result:
        return self.seen_page(result) if isinstance(result, Page) else result

    def seen_page(self, page: Page) -> Page:
        return Page(page.revision - self.offset, tuple(map(self.seen_entry, page.entries)), page.more)

    def seen_entry(self, entry: Entry) -> Entry:
        return replace(entry, created=entry.created - self.offset, modified=entry.modified - self.offset)

    def seen_batch(self, batch: Batch) -> Batch:
        changes = (
            Change(change.key, None if change.entry is None else self.seen_entry(change.entry))
            for change in batch.changes
        )
        return in_order(Batch(batch.revision - self.offset, tuple(changes)))

    def logged(self, span: Span, after: int) -> list[Batch]:
        """What a watch must see."""
        found = []
        for batch in self.log:
            changes = tuple(change for change in batch.changes if change.key in span)
            if changes and batch.revision > after:
                found.append(in_order(Batch(batch.revision, changes)))
        return found


def in_order(batch: Batch) -> Batch:
    """A batch does not promise an order among its keys."""
    return Batch(batch.revision, tuple(sorted(batch.changes, key=lambda change: change.key)))


def _told(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except (Compacted, LeaseGone, StoreRefused) as error:
        return type(error)


class Watcher:
    """A task that keeps everything a watch says."""

    def __init__(self, store: Store, span: Span, after: int) -> None:
        self.span, self.after = span, after
        self.batches: list[Batch] = []
        self.was_told_compacted = False
        self._news = asyncio.Event()
        self._task = asyncio.ensure_future(self._run(store))

    async def _run(self, store: Store) -> None:
        try:
            async with watching(store, self.span, after=self.after) as batches:
                async for batch in batches:
                    self.batches.append(batch)
                    self._news.set()
        except Compacted:
            self.was_told_compacted = True
        self._news.set()

    async def until(self, is_enough: Callable[[], bool]) -> None:
        """Waits for news until there is enough, or no more can come."""
        while not is_enough() and not self._task.done():
            self._news.clear()
            news = asyncio.ensure_future(self._news.wait())
            await asyncio.wait({news, self._task}, return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
        if self._task.done():
            self._task.result()

    async def until_revision(self, revision: int) -> None:
        await self.until(lambda: bool(self.batches) and self.batches[-1].revision >= revision)

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


@asynccontextmanager
async def watched(store: Store, span: Span, after: int) -> AsyncIterator[Watcher]:
    watcher = Watcher(store, span, after)
    try:
        yield watcher
    finally:
        await watcher.aclose()


# -------------------------------------------------------------------------------------------------- random histories


class Dice:
    """Draws what a random history does, in the keeper's numbers."""

    def __init__(self, world: World, pair: Pair) -> None:
        self.rng, self.prefix, self.pair = world.rng, world.prefix, pair
        self.leases: list[int] = []
        self.values = itertools.count()

    def key(self) -> str:
        return self.prefix + self.rng.choice(NAMES)

    def span(self) -> Span:
        match self.rng.randrange(4):
            case 0:
                return Span.one(self.key())
            case 1:
                return Span.prefix(self.prefix + self.rng.choice("abcd~"))
            case 2:
                low, high = sorted((self.key(), self.key()))
                return Span(low, high + "\0")
        return Span.prefix(self.prefix)

    def lease(self) -> int:
        return self.rng.choice([0, 0, *self.leases[-6:]])

    def operation(self) -> Operation:
        match self.rng.randrange(6):
            case 0:
                return Read(self.span(), self.rng.choice((0, 0, 1, 3)))
            case 1:
                return Delete(self.span())
        return Put(self.key(), b"%d" % next(self.values), self.lease())

    def condition(self) -> Condition:
        key = self.key()
        entry = self.pair.keeper.read(Span.one(key)).first
        match self.rng.randrange(5):
            case 0:
                return absent(key)
            case 1:
                return present(key)
            case 2 if entry is not None:
                return unchanged(entry)
            case 3:
                against = (
                    entry.value if entry is not None and self.rng.random() < 0.5 else b"%d" % self.rng.randrange(50)
                )
                return Condition(key, Field.VALUE, self.rng.choice(list(Relation)), against)
        kind = self.rng.choice((Field.VERSION, Field.CREATED, Field.MODIFIED, Field.LEASE))
        number = self.lease() if kind is Field.LEASE else self.rng.randrange(self.pair.keeper.revision + 1)
        return Condition(key, kind, self.rng.choice(list(Relation)), number)

    def txn(self) -> Txn:
        when = tuple(self.condition() for _ in range(self.rng.choice((0, 0, 1, 1, 2))))
        then = tuple(self.operation() for _ in range(self.rng.choice((1, 1, 2, 4))))
        otherwise = tuple(self.operation() for _ in range(self.rng.choice((0, 1, 2)) if when else 0))
        return Txn(when, then, otherwise)


class History:
    """Random steps taken by a store and its twin, with watchers that begin now and then."""

    def __init__(self, pair: Pair, store: Store, exits: AsyncExitStack, *, is_compacting: bool) -> None:
        self.pair, self.store, self.exits, self.is_compacting = pair, store, exits, is_compacting
        self.dice, self.rng = Dice(pair.world, pair), pair.world.rng
        self.watchers: list[Watcher] = []

    async def watch(self, span: Span, after: int) -> None:
        watcher = watched(self.store, span, after + self.pair.offset)
        self.watchers.append(await self.exits.enter_async_context(watcher))

    async def step(self) -> None:
        keeper, limit = self.pair.keeper, self.rng.choice((0, 0, 1, 2))
        match self.rng.randrange(20):
            case 0 | 1 | 2:
                await self._step_of_a_lease()
            case 3 | 4:
                await self.pair.read(self.dice.span(), limit=limit)
            case 5 | 6:
                await self.pair.read(self.dice.span(), self.rng.randrange(1, keeper.revision + 2), limit)
            case 7:
                await self.watch(self.dice.span(), self.rng.randrange(max(1, keeper.compacted), keeper.revision + 1))
            case 8 if self.is_compacting and keeper.compacted < keeper.revision:
                await self.pair.compact(self.rng.randrange(keeper.compacted + 1, keeper.revision + 1))
            case _:
                await self.pair.commit(self.dice.txn())

    async def _step_of_a_lease(self) -> None:
        leases = self.dice.leases
        if len(leases) < 2 or self.rng.random() < 0.4:
            leases.append(await self.pair.grant())
            return
        work = self.rng.choice((self.pair.revoke, self.pair.keep_alive, self.pair.look_up))
        await work(self.rng.choice(leases[-6:]))

    async def finish(self) -> None:
        """Each watcher sees a last change, and has seen all before it, or was told that it cannot."""
        for lease in self.dice.leases:
            await self.pair.revoke(lease)
        for watcher in self.watchers:
            await self.pair.commit(Txn(then=(Put(watcher.span.start, b"end"),)))
        for watcher in self.watchers:
            expected = self.pair.logged(watcher.span, watcher.after - self.pair.offset)
            await watcher.until_revision(expected[-1].revision + self.pair.offset)
            seen = [self.pair.seen_batch(batch) for batch in watcher.batches]
            if watcher.was_told_compacted:
                assert self.is_compacting, "nothing was forgotten"
                expected = expected[: len(seen)]
            assert seen == expected, f"{watcher.span} after {watcher.after}: {seen}\nand the keeper\n  {expected}"
        await self.pair.read(self.pair.world.span)


async def random_history(world: World, *, steps: int, is_compacting: bool) -> None:
    pair = await Pair.of(world, world.client())
    async with AsyncExitStack() as exits:
        history = History(pair, world.client(), exits, is_compacting=is_compacting)
        for span in (world.span, Span.prefix(world.prefix + "a"), Span.one(world.prefix + NAMES[1])):
            await history.watch(span, 1)
        for _ in range(steps):
            await history.step()
        await history.finish()


async def a_random_history_is_that_of_the_keeper(world: World) -> None:
    for number in range(4):
        await random_history(world.within(number), steps=60, is_compacting=False)


async def a_random_history_with_compactions_is_that_of_the_keeper(world: World) -> None:
    for number in range(3):
        await random_history(world.within(number), steps=60, is_compacting=True)


# ------------------------------------------------------------------------------------------------------ single laws


async def odd_keys_are_kept_apart_and_in_order(world: World) -> None:
    store = world.client()
    names = [
        *NAMES,
        "/",
        "//",
        " ",
        "\x00",
        "\x00\x00",
        "\n",
        "a\\b",
        "%00",
        "\U0010ffff",
        "\ud7ff",
        "\ue000",
        "\u202e",
    ]
    keys = sorted(world.prefix + name for name in names)
    values = {key: bytes([number, 0, 255]) for number, key in enumerate(keys)}
    for key in world.rng.sample(keys, len(keys)):
        await store.commit(Txn(then=(Put(key, values[key]),)))
    page = await store.read(world.span)
    assert [(entry.key, entry.value) for entry in page.entries] == sorted(values.items())
    for key in keys:
        found = await store.read(Span.one(key))
        assert [entry.value for entry in found.entries] == [values[key]]


async def the_longest_key_and_a_long_value_are_kept_and_longer_ones_refused(world: World) -> None:
    store = world.client()
    before = (await store.read(world.span)).revision
    room = KEY_BYTES_MAX - len(world.prefix.encode())
    key, value = world.prefix + "é" * (room // 2) + "k" * (room % 2), bytes(1_000_000)
    await store.commit(Txn(then=(Put(key, value),)))
    entry = (await store.read(Span.prefix(key))).first
    assert entry is not None
    assert entry.value == value
    for txn in (
        Txn(then=(Put(key + "k", b""),)),
        Txn(then=(Put(world.prefix, bytes(8 * 1024 * 1024)),)),
        Txn(then=(Put("", b""),)),
        Txn(then=(Put(world.prefix + "\ud800", b""),)),
        Txn(then=tuple(Put(f"{world.prefix}{n}", b"") for n in range(1_000))),
        Txn((Condition(world.prefix, Field.VALUE, Relation.EQUAL, 1),)),
        Txn(then=(Put(world.prefix + "a", b""), Put(world.prefix + "a", b""))),
        Txn(then=(Put(world.prefix + "a", b""), Delete(world.span))),
        Txn((absent(key),), then=(Put(world.prefix + "a", b""), Put(world.prefix + "a", b""))),
    ):
        await raises(StoreRefused, store.commit(txn))
    await raises(StoreRefused, store.read(Span("b", "a")))
    await raises(StoreRefused, store.read(Span("", None)))
    page = await store.read(world.span)
    assert (page.revision, len(page.entries)) == (before + 1, 1)


async def revisions_to_come_are_refused_and_forgotten_ones_compacted(world: World) -> None:
    store = world.client()
    revisions = [(await store.commit(Txn(then=(Put(world.prefix + "a", b""),)))).revision for _ in range(6)]
    await raises(StoreRefused, store.read(world.span, revision=revisions[-1] + 1))
    await raises(StoreRefused, store.compact(revisions[-1] + 1))
    await store.compact(revisions[3])
    error = await raises(Compacted, store.read(world.span, revision=revisions[1]))
    assert cast(Compacted, error).asked == revisions[1]
    await raises(Compacted, store.compact(revisions[3]))
    entry = (await store.read(world.span, revision=revisions[3])).first
    assert entry is not None
    assert entry.modified == revisions[3]
    async with watched(store, world.span, revisions[1]) as behind, watched(store, world.span, revisions[3]) as level:
        await behind.until(lambda: behind.was_told_compacted)
        await level.until_revision(revisions[-1])
        assert behind.batches == []
        assert [batch.revision for batch in level.batches] == revisions[4:]


async def a_lease_that_is_gone_is_gone_for_every_question(world: World) -> None:
    store = world.client()
    lease = (await store.grant(TTL_S)).id
    await store.commit(Txn(then=(Put(world.prefix + "b", b"", lease), Put(world.prefix + "a", b"", lease))))
    revision = (await store.read(world.span)).revision
    async with watched(store, world.span, revision) as watcher:
        await store.revoke(lease)
        await watcher.until_revision(revision + 1)
        gone = (Change(world.prefix + "a", None), Change(world.prefix + "b", None))
        assert list(map(in_order, watcher.batches)) == [Batch(revision + 1, gone)]
    for asking in (
        store.revoke(lease),
        store.look_up(lease),
        store.keep_alive(lease),
        store.commit(Txn(then=(Put(world.prefix + "c", b""), Put(world.prefix + "d", b"", lease)))),
    ):
        error = await raises(LeaseGone, asking)
        assert cast(LeaseGone, error).lease == lease
    assert await store.read(world.span) == Page(revision + 1, ())


async def a_lease_id_that_is_given_is_granted_once(world: World) -> None:
    store = world.client()
    number = world.rng.randrange(2**40, 2**62)
    assert (await store.grant(TTL_S, lease=number)).id == number
    await raises(StoreRefused, store.grant(TTL_S, lease=number))
    await store.revoke(number)


async def a_lease_that_is_not_renewed_takes_its_keys_along_at_one_revision(world: World) -> None:
    store, other = world.client(), world.client()
    left, kept = await store.grant(SHORT_TTL_S), await store.grant(SHORT_TTL_S)
    puts = [Put(f"{world.prefix}{name}", b"", left.id) for name in "abc"]
    await store.commit(Txn(then=(*puts, Put(world.prefix + "k", b"", kept.id), Put(world.prefix + "m", b"", left.id))))
    revision = (await store.commit(Txn(then=(Put(world.prefix + "m", b"", kept.id),)))).revision
    async with watched(other, world.span, revision) as watcher:
        waiting = asyncio.ensure_future(watcher.until_revision(revision + 1))
        while not waiting.done():
            assert (await store.keep_alive(kept.id)).id == kept.id
            await asyncio.wait({waiting}, timeout=SHORT_TTL_S / 8)
        await waiting
        gone = tuple(Change(put.key, None) for put in puts)
        assert in_order(watcher.batches[0]) == Batch(revision + 1, gone)
    await raises(LeaseGone, store.keep_alive(left.id))
    await raises(LeaseGone, other.look_up(left.id))
    assert set((await store.look_up(kept.id)).keys) == {world.prefix + "k", world.prefix + "m"}
    assert len((await store.read(world.span)).entries) == 2
    await store.revoke(kept.id)


async def a_follower_ends_up_with_what_is_there_whatever_is_forgotten(world: World) -> None:
    store, other = world.client(), world.client()
    pair = await Pair.of(world, store)
    dice = Dice(world, pair)
    seen: dict[str, Entry] = {}
    async with aclosing(follow(other, world.span, rng=world.rng)) as told:
        for turn in range(8):
            for _ in range(6):
                await pair.commit(dice.txn())
            if turn % 2:
                await pair.compact(pair.keeper.revision)
            end = await store.commit(Txn(then=(Put(world.prefix + "end", b"%d" % turn),)))
            pair.keeper.apply(Commit(Txn(then=(Put(world.prefix + "end", b"%d" % turn),))), T0)
            async for each in told:
                assert isinstance(each, Followed), each
                for change in each.changes:
                    if change.entry is None:
                        del seen[change.key]
                    else:
                        seen[change.key] = change.entry
                assert seen == each.entries
                if each.revision >= end.revision:
                    break
            page = await store.read(world.span)
            assert sorted(seen) == [entry.key for entry in page.entries]
            assert tuple(seen[key] for key in sorted(seen)) == page.entries


async def raises(kind: type[StoreError], asking: Awaitable[object]) -> StoreError:
    try:
        answer = await asking
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was due, and it answered {answer!r}")


# ---------------------------------------------------------------------------------------------- many clients at once


async def concurrent_counters_lose_no_increment(world: World) -> None:
    clients = [world.client() for _ in range(5)]
    key = world.prefix + "counter"
    await clients[0].commit(Txn(then=(Put(key, b"0"),)))
    reached: list[int] = []

    async def count(store: Store, times: int) -> None:
        while times:
            entry = (await store.read(Span.one(key))).first
            assert entry is not None
            wanted = int(entry.value) + 1
            answer = await store.commit(Txn((unchanged(entry),), then=(Put(key, b"%d" % wanted),)))
            if answer.held:
                reached.append(wanted)
                times -= 1

    await asyncio.gather(*(count(client, 20) for client in clients))
    assert sorted(reached) == list(range(1, 101))


class End(Enum):
    """How a call of a concurrent history ended."""

    ANSWERED = "answered"
    UNSURE = "it may have taken effect"
    UNDONE = "it has not taken effect"


@dataclass(frozen=True)
class Call:
    """One call of a concurrent history: when it began and ended, and what it says it saw or did."""

    began: int
    ended: int
    end: End
    revision: int
    """Of the answer; 0 without one."""
    key: str
    value: bytes | None
    """What it read or put; None for a key that was not there, or a delete."""
    is_write: bool


class Callers:
    """Clients that read, put and delete a few keys at once, and note down every call."""

    def __init__(self, world: World, pause_max_s: float) -> None:
        self.pause_max_s = pause_max_s
        self.keys = [world.prefix + name for name in "abc"]
        self.calls: list[Call] = []
        self._ticks, self._values = itertools.count(1), itertools.count()

    async def work(self, store: Store, rng: Random, is_enough: Callable[[int], bool]) -> None:
        for count in itertools.count():
            if is_enough(count):
                return
            await asyncio.sleep(rng.uniform(0.0, self.pause_max_s))
            calls = (self._read, self._put, self._delete)
            await rng.choices(calls, (5, 4, 1))[0](store, rng.choice(self.keys))

    async def _read(self, store: Store, key: str) -> None:
        began = next(self._ticks)
        try:
            page = await store.read(Span.one(key))
        except StoreAway:
            await asyncio.sleep(0.02)
            return  # nothing was seen, and nothing done
        value = None if page.first is None else page.first.value
        self.calls.append(Call(began, next(self._ticks), End.ANSWERED, page.revision, key, value, is_write=False))

    async def _put(self, store: Store, key: str) -> None:
        value = b"%d" % next(self._values)
        await self._write(store, Txn(then=(Put(key, value),)), key, value)

    async def _delete(self, store: Store, key: str) -> None:
        await self._write(store, Txn((present(key),), then=(Delete(Span.one(key)),)), key, None)

    async def _write(self, store: Store, txn: Txn, key: str, value: bytes | None) -> None:
        began = next(self._ticks)
        try:
            done = await store.commit(txn)
        except StoreAway as error:
            end = End.UNSURE if error.may_have_taken_effect else End.UNDONE
            self.calls.append(Call(began, next(self._ticks), end, 0, key, value, is_write=True))
            await asyncio.sleep(0.02)
            return
        self.calls.append(Call(began, next(self._ticks), End.ANSWERED, done.revision, key, value, is_write=done.held))


async def calls_take_effect_one_after_the_other_between_their_begin_and_end(world: World) -> None:
    await calls_through(world, None)


async def calls_through(world: World, disturb: Callable[[], Awaitable[None]] | None) -> None:
    """Calls of five clients and, meanwhile, whatever a test does to the store; the store answers again afterwards.

    Revisions are the witness: every answered write is at its revision, every other change is a write whose client was
    told that it may have taken effect, every read saw what its revision says, and no call took effect before it began
    or after it ended. A watch that lives through it all, resumed where it was told that the store is away, sees the same
    as one that begins when all is over.
    """
    # A fault lasts for seconds, and no history is endless.
    callers = Callers(world, pause_max_s=0.0 if disturb is None else 0.02)
    start = (await world.client().read(world.span)).revision
    is_over = asyncio.Event()
    clients = [world.client() for _ in range(5)]
    seen: list[Batch] = []
    note = seen.append

    async def watch_on(store: Store) -> None:
        while True:
            try:
                async with watching(store, world.span, after=seen[-1].revision if seen else start) as batches:
                    async for batch in batches:
                        note(batch)
            except StoreAway:
                await asyncio.sleep(0.02)

    living = asyncio.ensure_future(watch_on(world.client()))
    tasks = [
        asyncio.ensure_future(
            callers.work(client, Random(world.rng.random()), lambda count: count >= 40 and is_over.is_set())
        )
        for client in clients
    ]
    try:
        if disturb is not None:
            await disturb()
        is_over.set()
        await asyncio.gather(*tasks)
        end = (await world.client().commit(Txn(then=(Put(world.prefix + "end", b""),)))).revision
        async with watched(world.client(), world.span, start) as watcher:
            await watcher.until_revision(end)
            log = list(watcher.batches)
        while not seen or seen[-1].revision < end:
            assert not living.done(), living
            await asyncio.sleep(0.01)
    finally:
        for task in (living, *tasks):
            task.cancel()
        await asyncio.wait({living, *tasks})
    assert seen == log, f"a watch that lived through it saw {len(seen)} revisions of {len(log)}, or others"
    assert log.pop().revision == end
    check_calls(callers.calls, log, start)


def check_calls(calls: list[Call], log: list[Batch], start: int) -> None:
    """Raises unless the log is an order of the calls that explains what each saw and did."""
    changed: dict[int, tuple[str, bytes | None]] = {}
    for number, batch in enumerate(log, start=start + 1):
        assert batch.revision == number, f"revision {number} was not watched"
        (change,) = batch.changes
        changed[number] = (change.key, None if change.entry is None else change.entry.value)
    answered = [call for call in calls if call.is_write and call.end is End.ANSWERED]
    for call in answered:
        assert changed.get(call.revision) == (call.key, call.value), f"{call} is not in the log"
    revisions = {call.revision for call in answered}
    assert len(revisions) == len(answered), "two writes were answered with one revision"
    unsure = [(call.key, call.value) for call in calls if call.end is End.UNSURE]
    for revision in changed.keys() - revisions:
        assert changed[revision] in unsure, f"nobody wrote {changed[revision]} at revision {revision}"
        unsure.remove(changed[revision])
    check_reads(calls, changed)
    check_times(calls, start)


def check_reads(calls: list[Call], changed: dict[int, tuple[str, bytes | None]]) -> None:
    revisions: dict[str, list[int]] = {}
    for revision in sorted(changed):
        revisions.setdefault(changed[revision][0], []).append(revision)
    for call in calls:
        if not call.is_write and call.end is End.ANSWERED:
            of_key = revisions.get(call.key, [])
            index = bisect_right(of_key, call.revision)
            was_there = changed[of_key[index - 1]][1] if index else None
            assert call.value == was_there, f"{call} did not see what was there: {was_there!r}"


def check_times(calls: list[Call], start: int) -> None:
    answered = [call for call in calls if call.end is End.ANSWERED]
    by_end = sorted(answered, key=lambda call: call.ended)
    seen, index = start, 0
    for call in sorted(answered, key=lambda call: call.began):
        while by_end[index].ended < call.began:
            seen = max(seen, by_end[index].revision)
            index += 1
        assert call.revision >= seen + call.is_write, f"{call} began after revision {seen} had been answered"


async def watchers_of_many_writers_see_every_revision_once_and_in_order(world: World) -> None:
    writers = [world.client() for _ in range(4)]
    start = (await writers[0].read(world.span)).revision
    async with AsyncExitStack() as exits:
        watchers = [await exits.enter_async_context(watched(world.client(), world.span, start)) for _ in range(4)]

        async def write(store: Store, number: int) -> list[int]:
            puts = (Put(f"{world.prefix}{number}/{n}", b"") for n in range(50))
            return [(await store.commit(Txn(then=(put,)))).revision for put in puts]

        acknowledged = await asyncio.gather(*(write(store, number) for number, store in enumerate(writers)))
        revisions = sorted(itertools.chain.from_iterable(acknowledged))
        assert revisions == list(range(start + 1, start + 201))
        watchers.append(await exits.enter_async_context(watched(world.client(), world.span, start)))
        watchers.append(await exits.enter_async_context(watched(world.client(), world.span, start + 100)))
        for watcher in watchers:
            await watcher.until_revision(revisions[-1])
            assert [batch.revision for batch in watcher.batches] == [each for each in revisions if each > watcher.after]
            assert watcher.batches == watchers[0].batches[watcher.after - start :]
    assert len((await writers[0].read(world.span)).entries) == 200


# ----------------------------------------------------------------------------------------------------- campaigns


async def leaders_follow_one_another_with_higher_fencing_numbers(world: World) -> None:
    name = world.prefix + "leader"
    led: list[tuple[str, int]] = []
    leading: list[str] = []

    async def stand(who: str) -> None:
        async with campaign(world.client(), name, who.encode(), rng=Random(world.rng.random())) as leadership:
            leading.append(who)
            led.append((who, leadership.fencing))
            for n in range(3):
                assert leading == [who], "one leads at a time"
                assert leadership.is_certain
                done = await leadership.commit(Txn((), (Put(world.prefix + "work", f"{who}{n}".encode()),)))
                assert (done.held, done.results) == (True, (None,))
            leading.remove(who)
        assert leadership.lost.is_set()

    await asyncio.gather(*(stand(who) for who in "abcde"))
    assert sorted(who for who, _ in led) == list("abcde")
    assert [fencing for _, fencing in led] == sorted({fencing for _, fencing in led})
    assert (await world.client().read(Span.prefix(name + "/"))).entries == (), "who resigns leaves no key behind"


async def a_leader_whose_lease_is_gone_learns_of_it_and_can_commit_no_more(world: World) -> None:
    store, name = world.client(), world.prefix + "leader"
    work = Txn((absent(world.prefix + "never"),), (Put(world.prefix + "work", b""),))
    async with campaign(store, name, b"first") as first:
        await first.commit(work)
        blocked = await first.commit(replace(work, when=(present(world.prefix + "never"),)))
        assert (blocked.held, blocked.results) == (False, ()), "its own condition failed, and it still leads"
        second_waits = asyncio.ensure_future(lead_once(world.client(), name, b"second"))
        async with watched(store, Span.prefix(name + "/"), first.fencing) as watcher:
            await watcher.until_revision(first.fencing + 1)
        assert not second_waits.done()
        own = (await store.read(Span.one(first.key))).first
        assert own is not None
        assert (own.value, own.created) == (b"first", first.fencing)
        await store.revoke(own.lease)
        await raises(Deposed, first.commit(work))
        await first.lost.wait()
        assert first.why
        assert await second_waits > first.fencing


async def lead_once(store: Store, name: str, value: bytes) -> int:
    async with campaign(store, name, value) as leadership:
        return leadership.fencing


LAWS: tuple[Law, ...] = (
    a_random_history_is_that_of_the_keeper,
    a_random_history_with_compactions_is_that_of_the_keeper,
    odd_keys_are_kept_apart_and_in_order,
    the_longest_key_and_a_long_value_are_kept_and_longer_ones_refused,
    revisions_to_come_are_refused_and_forgotten_ones_compacted,
    a_lease_that_is_gone_is_gone_for_every_question,
    a_lease_id_that_is_given_is_granted_once,
    a_lease_that_is_not_renewed_takes_its_keys_along_at_one_revision,
    a_follower_ends_up_with_what_is_there_whatever_is_forgotten,
    concurrent_counters_lose_no_increment,
    calls_take_effect_one_after_the_other_between_their_begin_and_end,
    watchers_of_many_writers_see_every_revision_once_and_in_order,
    leaders_follow_one_another_with_higher_fencing_numbers,
    a_leader_whose_lease_is_gone_learns_of_it_and_can_commit_no_more,
)
