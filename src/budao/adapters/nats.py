"""A log of channels in NATS JetStream, for gateways on many machines.

All channels are one stream, with a subject for each. A message carries its place in its headers, and is taken only if it follows
the message its publisher believes to be the latest (`Nats-Expected-Last-Subject-Sequence`): so a channel's numbers have no holes,
however many gateways publish to it. Its feed listens to what the stream republishes once it is stored, and reads what it missed.

    async with open_log("nats://10.0.0.1,10.0.0.2,10.0.0.3?replicas=3") as log: ...  # of budao.adapters.logs

What differs from the embedded log: a channel of which no message is retained has no head any more, and begins a new life with
the next message.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from random import Random, SystemRandom
from types import TracebackType
from typing import Final, Self, TypeVar

from budao.adapters._nats_feed import NatsFeed
from budao.adapters._nats_keeper import ApiFailed, Keeper
from budao.adapters._nats_lane import Job, Lane, head_of, new_attempts
from budao.adapters._nats_link import Gone, NatsLink, Where
from budao.adapters._nats_stream import StreamPolicy
from budao.model import BadSettings, Checks, RemoteWireError, Wall, context
from budao.push import (
    START,
    Book,
    ChannelRules,
    Draft,
    LogAway,
    LogError,
    LogRefused,
    NotPlaced,
    Placed,
    Position,
    Stretch,
)
from budao.wire import nats_kept

__all__ = ["NatsFeed", "NatsLog", "StreamPolicy", "Where"]

log = logging.getLogger("budao.nats")

T = TypeVar("T")

MIB: Final = 1024 * 1024
LANES_MAX: Final = 10_000
"""Channels of which it is remembered where they stand, so that publishing to them takes one round trip."""
PLACED_MAX: Final = 20_000
ENSURE_PAUSE_S: Final = 0.5
AGAIN_S: Final = 0.05
MISTAKES_TOLD: Final = 20


class NatsLog:
    """A `ChannelLog` in a stream of NATS JetStream 2.9 or newer. Any number of tasks on one event loop may share it.

    It connects when it is first needed, and for as long as it is open. What broke with a connection is tried again within its
    time, and told `LogAway` only if it still is not known then; `may_have_taken_effect` says whether a publish may have been taken.

    Units:   `timeout_s` is for each request, the deadline of the caller's context cuts it shorter.
    Raises:  BadSettings if a secret would travel in the clear to another machine.
    """

    def __init__(
        self,
        where: Where,
        *,
        rules: ChannelRules | None = None,
        policy: StreamPolicy | None = None,
        timeout_s: float = 5.0,
        check_s: float = 2.0,
        rng: Random | None = None,
    ) -> None:
        check = Checks("log")
        check.number("timeout_s", timeout_s, 0.0, 86_400.0, open_low=True)
        check.number("check_s", check_s, 0.0, 3_600.0, open_low=True)
        check.done()
        if not where.servers:
            raise BadSettings([("log", "no server of NATS is named")])
        self.timeout_s = timeout_s
        self.check_s = check_s
        """How often feeds look whether they missed the latest message of a channel, which nothing else would tell."""
        self.rules = ChannelRules() if rules is None else rules
        self.policy = StreamPolicy() if policy is None else policy
        self.rng = SystemRandom() if rng is None else rng
        self.name = f"{where.name}/{self.policy.stream}"
        self.link = NatsLink(where, name=f"budao {self.policy.stream}", rng=self.rng, came=self._came, went=self._went)
        self.keeper = Keeper(self.link, self.policy, self.rules)
        self._checker = Book(self.rules)
        """Stays empty; it says what is wrong with a draft, as the embedded log does."""
        self._lanes: OrderedDict[str, Lane] = OrderedDict()
        self._placed: OrderedDict[int, Position] = OrderedDict()
        self._feeds: dict[NatsFeed, None] = {}
        self._attempts = new_attempts(self.rng)
        self._attempt = 0
        self._is_ready = False
        self._refused: LogRefused | None = None
        self._is_decided = asyncio.Event()
        self._problem = "not connected yet"
        self._ensuring: asyncio.Task[None] | None = None
        self._is_closed = False
        self._mistakes = 0

    async def __aenter__(self) -> Self:
        self.link.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Hangs up. What waits is answered with `LogAway`, and feeds end."""
        self._is_closed = True
        for feed in tuple(self._feeds):
            await feed.aclose()
        closed = LogAway(self.name, "it is closed")
        running = [task for lane in self._lanes.values() if (task := lane.end(closed)) is not None]
        if self._ensuring is not None:
            self._ensuring.cancel()
            running.append(self._ensuring)
        await asyncio.gather(*running, return_exceptions=True)
        await self.link.aclose()

    # ------------------------------------------------------------------------------------------------- publish

    async def publish(self, drafts: Sequence[Draft]) -> tuple[Placed | NotPlaced, ...]:
        until = self._until()
        answers: list[Placed | NotPlaced | None] = []
        by_channel: dict[str, list[int]] = {}
        now = Wall(time.time())
        for index, draft in enumerate(drafts):
            found = self._checker.prepare((draft,), now, "-").answers[0]
            if isinstance(found, NotPlaced):
                answers.append(found)
            else:
                answers.append(None)
                by_channel.setdefault(draft.channel, []).append(index)
        jobs = []
        for channel, indexes in by_channel.items():
            job = Job([drafts[index] for index in indexes], until)
            self._lane(channel).add(job)
            jobs.append((indexes, job))
        problem: LogError | None = None
        is_placed = False
        for indexes, job in jobs:
            try:
                found_all = await job.answered
            except LogError as failed:
                problem = problem or failed
                is_placed = is_placed or (isinstance(failed, LogAway) and failed.may_have_taken_effect)
            else:
                for index, each in zip(indexes, found_all, strict=True):
                    answers[index] = each
                    is_placed = is_placed or isinstance(each, Placed)
        if isinstance(problem, LogAway) or (problem is not None and is_placed):
            happened = problem.happened if isinstance(problem, LogAway | LogRefused) else str(problem)
            raise LogAway(self.name, happened, may_have_taken_effect=is_placed)
        if problem is not None:
            raise problem
        return tuple(each for each in answers if each is not None)

    def _lane(self, channel: str) -> Lane:
        lane = self._lanes.get(channel)
        if lane is None:
            lane = self._lanes[channel] = Lane(self, channel)
            if len(self._lanes) > LANES_MAX:
                idle = next((name for name, each in self._lanes.items() if each.is_idle and each is not lane), None)
                if idle is not None:
                    del self._lanes[idle]
        else:
            self._lanes.move_to_end(channel)
        return lane

    # ------------------------------------------------------------------------------------------------- reading

    async def read(self, channel: str, after: Position, *, count_max: int = 1_000, bytes_max: int = MIB) -> Stretch:
        async def ask() -> Stretch:
            head = await self.keeper.head(channel)
            if head is None:
                return Stretch(channel, START, ())
            epoch, seq = head.message.position
            first = max(1, seq - self.rules.of(channel).history_count + 1)
            begin = max(first, after.seq + 1) if after.epoch == epoch and after.seq <= seq else first
            return await self._stretch(channel, head, begin, max(count_max, 1), bytes_max)

        return await self._persist(ask)

    async def latest(self, channel: str, count: int) -> Stretch:
        async def ask() -> Stretch:
            head = await self.keeper.head(channel)
            if head is None:
                return Stretch(channel, START, ())
            wanted = max(0, min(count, self.rules.of(channel).history_count))
            begin = max(1, head.message.position.seq - wanted + 1)
            return await self._stretch(channel, head, begin, max(wanted, 1), 1 << 62)

        return await self._persist(ask)

    async def _stretch(self, channel: str, head: nats_kept.Kept, begin: int, count_max: int, bytes_max: int) -> Stretch:
        place = head.message.position
        if begin > place.seq:
            return Stretch(channel, place, ())
        young = time.time() - self.rules.of(channel).history_age_s
        found = await self.keeper.run(channel, head, begin, count_max, bytes_max, young)
        messages = tuple(kept.message for kept in found)
        more = bool(messages) and messages[-1].position != place
        return Stretch(channel, place, messages, more)

    async def _persist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Asks, and again if the connection broke meanwhile, until its time is over."""
        until = self._until()
        loop = asyncio.get_running_loop()
        happened = "its deadline has passed"
        while (left_s := until - loop.time()) > 0:
            try:
                await self.ready(left_s)
                async with asyncio.timeout(max(0.0, until - loop.time())):
                    return await ask()
            except TimeoutError:
                happened = f"no answer in time ({self.link.problem})" if not self.link.is_up else "no answer in time"
            except (Gone, ApiFailed, RemoteWireError) as problem:
                happened = str(problem)
                if isinstance(problem, ApiFailed):
                    self.look_again()
            await asyncio.sleep(min(AGAIN_S, max(0.0, until - loop.time())))
        raise LogAway(self.name, happened)

    def _until(self) -> float:
        if self._is_closed:
            raise LogAway(self.name, "it is closed")
        self.link.start()
        left_s = min(self.timeout_s, context.deadline.get() - time.monotonic())
        if left_s <= 0.0:
            raise LogAway(self.name, "the deadline had passed before it was asked")
        return asyncio.get_running_loop().time() + left_s

    def feed(self) -> NatsFeed:
        """A feed of its own, over the same connection."""
        if self._is_closed:
            raise LogAway(self.name, "it is closed")
        self.link.start()
        feed = NatsFeed(self, lambda: self._feeds.pop(feed, None))
        self._feeds[feed] = None
        return feed

    # ------------------------------------------------------------------------------------ for lanes and feeds

    async def ready(self, timeout_s: float) -> None:
        """Waits until the stream can be used.

        Raises:  LogAway; LogRefused if it never will.
        """
        if self._is_ready:
            return
        try:
            async with asyncio.timeout(timeout_s):
                while not self._is_ready:
                    if self._refused is not None:
                        raise LogRefused(self._refused.tried, self._refused.happened)
                    await self._is_decided.wait()
        except TimeoutError:
            raise LogAway(self.name, self._why_away()) from None

    def _decide(self, *, is_ready: bool, refused: LogRefused | None = None) -> None:
        """The stream can be used, or cannot and never will, or it is not known yet."""
        self._is_ready, self._refused = is_ready, refused
        if is_ready or refused is not None:
            self._is_decided.set()
        else:
            self._is_decided.clear()

    def _why_away(self) -> str:
        return self._problem if self.link.is_up else self.link.problem

    @property
    def is_ready(self) -> bool:
        return self._is_ready

    @property
    def problem(self) -> str:
        """Why it is not ready."""
        return str(self._refused) if self._refused is not None else self._why_away()

    def next_attempt(self) -> str:
        """A word that no other attempt to publish has."""
        self._attempt += 1
        return f"{self._attempts}{self._attempt:x}"

    def epochs(self) -> str:
        """A name for a life that never comes twice."""
        return f"{self.rng.getrandbits(48):012x}"

    def remember(self, sequence: int, position: Position) -> None:
        """A message with an id, acknowledged to us: if its id comes again, the stream says its sequence only."""
        self._placed[sequence] = position
        if len(self._placed) > PLACED_MAX:
            self._placed.popitem(last=False)

    def remembered(self, sequence: int) -> Position | None:
        """Where it stands."""
        return self._placed.get(sequence)

    def noted(self, kept: nats_kept.Kept) -> None:
        """A feed was told of this message."""
        lane = self._lanes.get(kept.message.channel)
        if lane is not None:
            lane.noted(kept)

    def known(self, channel: str, kept: nats_kept.Kept | None) -> None:
        """This is where a channel stands."""
        lane = self._lanes.get(channel)
        if lane is not None and lane.is_idle:
            lane.head = head_of(kept)

    def look_again(self) -> None:
        """Something says that the stream is not as it was."""
        if self._is_ready and self.link.is_up:
            self._problem = "the stream does not answer"
            self._decide(is_ready=False)
            self._ensure()

    def mistake(self, problem: Exception) -> None:
        """Something of ours broke; whoever asked was told."""
        self._mistakes += 1
        if self._mistakes <= MISTAKES_TOLD:
            log.error("%s: a mistake of the adapter", self.name, exc_info=problem)

    # ---------------------------------------------------------------------------------------------- connection

    def _came(self) -> None:
        self._problem = "the stream was not looked at yet"
        self._ensure()

    def _went(self, problem: str) -> None:
        tried = f"use {self.link.where.name}"
        self._decide(is_ready=False, refused=LogRefused(tried, problem) if self.link.is_denied else None)
        for feed in self._feeds:
            feed.went(problem)

    def _ensure(self) -> None:
        if self._ensuring is not None:
            self._ensuring.cancel()
        self._ensuring = asyncio.get_running_loop().create_task(self._keep_ready(), name=f"stream of {self.name}")

    async def _keep_ready(self) -> None:
        while self.link.is_up:
            created = self.keeper.created
            try:
                await self.keeper.ensure()
            except LogRefused as refused:
                if self._refused is None or self._refused.happened != refused.happened:
                    log.error("%s: %s", self.name, refused)  # noqa: TRY400  # a person has to do something
                self._decide(is_ready=False, refused=refused)
                self._tell_away(str(refused))
            except (Gone, TimeoutError, ApiFailed, RemoteWireError) as problem:
                self._problem = str(problem) or "the stream does not answer"
                self._tell_away(self._problem)
            except Exception as problem:  # noqa: BLE001  # told with its traceback
                self.mistake(problem)
                self._problem = f"a mistake of the adapter: {type(problem).__name__}"
            else:
                if created != self.keeper.created:
                    self._placed.clear()
                self._decide(is_ready=True)
                for feed in self._feeds:
                    feed.came()
                return
            await asyncio.sleep(ENSURE_PAUSE_S)

    def _tell_away(self, problem: str) -> None:
        for feed in self._feeds:
            feed.went(problem)
