"""Publishes on their way to the log: those of one turn of the loop go in one call, and so many calls at once."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

from budao.aio.channel_log import ChannelLog
from budao.aio.gateway.metrics import GatewayMetrics
from budao.aio.gateway.policy import GatewayPolicy
from budao.aio.gateway.traces import Traces
from budao.push import Draft, LogAway, LogError, NotPlaced, Placed, Problem

log = logging.getLogger("budao.gateway")

BATCH_MAX: Final = 1_000
BATCH_BYTES: Final = 4 * 1024 * 1024
AWAY_S: Final = 1.0

Result = Placed | Problem
Done = Callable[[Result], None]


class Publisher:
    """Publishes drafts, in order, and calls back once each is durable or is not."""

    def __init__(self, channel_log: ChannelLog, policy: GatewayPolicy, metrics: GatewayMetrics) -> None:
        self.log = channel_log
        self.policy = policy
        self.metrics = metrics
        self.count = 0
        """Drafts that are not answered."""
        self.traces: Traces | None = None
        self._waiting: deque[tuple[Draft, Done, float]] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._is_due = False

    def add(self, draft: Draft, done: Done) -> Problem | None:
        """Publishes it; a problem if there is no room for it, and `done` is not called then."""
        if self.count >= self.policy.publishing_max:
            self.metrics.count_publish_refusal("no-room")
            happened = f"{self.count} messages wait to be durable, and that is the bound; nothing was done"
            return Problem(why="full", happened=happened, after_s=AWAY_S)
        if self.traces is not None:
            draft, done = self.traces.publishing(draft, done)
        self.count += 1
        self._waiting.append((draft, done, self._loop.time()))
        if not self._is_due and len(self._calls) < self.policy.publishes_max:
            self._is_due = True
            self._loop.call_soon(self._start)
        return None

    async def aclose(self, within_s: float) -> None:
        """Waits for what is under way; what then is not answered may have taken effect, and is told so."""
        if self._calls:
            await asyncio.wait(tuple(self._calls), timeout=within_s)
        calls = tuple(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def _start(self) -> None:
        self._is_due = False
        while self._waiting and len(self._calls) < self.policy.publishes_max:
            count = size = 0
            for draft, _, _ in islice(self._waiting, BATCH_MAX):
                size += len(draft.data)
                if count and size > BATCH_BYTES:
                    break
                count += 1
            batch = [self._waiting.popleft() for _ in range(count)]
            call = self._loop.create_task(self._publish(batch))
            self._calls.add(call)
            call.add_done_callback(self._ended)

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if self._waiting and not self._loop.is_closed():
            self._start()

    async def _publish(self, batch: list[tuple[Draft, Done, float]]) -> None:
        results: list[Result]
        try:
            placed = await self.log.publish([draft for draft, _, _ in batch])
            results = [self._result(each) for each in placed]
        except LogAway as away:
            effect = "it may have taken effect" if away.may_have_taken_effect else "nothing was done"
            results = [
                self._away(f"the log does not answer ({away.happened}); {effect}; publish again with the same id")
            ] * len(batch)
        except LogError as problem:
            results = [Problem(why="refused", happened=str(problem))] * len(batch)
            for _ in batch:
                self.metrics.count_publish_refusal("refused")
        except BaseException as problem:
            if isinstance(problem, Exception):
                self.metrics.count_error("mistake")
                log.exception("publishing %d messages to %s failed", len(batch), self.log.name)
            happened = (
                "the gateway cannot say what became of it; it may have taken effect; publish again with the same id"
            )
            results = [self._away(happened)] * len(batch)
            if not isinstance(problem, Exception):
                self._settle(batch, results)
                raise
        self._settle(batch, results)

    def _settle(self, batch: list[tuple[Draft, Done, float]], results: list[Result]) -> None:
        now = self._loop.time()
        record = self.metrics.publish.record_s
        for (_, done, since), result in zip(batch, results, strict=True):
            self.count -= 1
            record(now - since)
            try:
                done(result)
            except Exception:
                self.metrics.count_error("mistake")
                log.exception("an answer to a publish could not be handed on")

    def _result(self, placed: Placed | NotPlaced) -> Result:
        if isinstance(placed, Placed):
            self.metrics.published += 1
            self.metrics.repeats += placed.is_repeat
            return placed
        self.metrics.count_publish_refusal(placed.why)
        return Problem(why=placed.why, happened=placed.happened)

    def _away(self, happened: str) -> Problem:
        self.metrics.count_publish_refusal("log-away")
        return Problem(why="log-away", happened=happened, after_s=AWAY_S)
