"""Publishing to one channel: one message after the other, each only if it follows the one we believe to be the latest."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, Final

from budao.adapters._nats_keeper import FULL, NO_STREAM, ApiFailed, parse_answer
from budao.adapters._nats_link import Gone
from budao.model import RemoteWireError, Wall
from budao.push import START, Draft, LogAway, LogError, NotPlaced, Placed, Position
from budao.wire import nats, nats_kept

if TYPE_CHECKING:
    from budao.adapters.nats import NatsLog

TRY_S: Final = 2.0
"""After this, an attempt counts as lost, and whether it was taken is looked up."""
PAUSE_S: Final = 0.002
PAUSE_MAX_S: Final = 0.1
CONFLICT: Final = 10_071
UNDER_WAY: Final = 10_158
"""Error codes: another message came first; the same id is being taken right now."""
LOOK_BACK_MAX: Final = 256


@dataclass(slots=True)
class Head:
    """Where a channel stands, as far as we know."""

    position: Position
    sequence: int
    total_bytes: int


EMPTY: Final = Head(START, 0, 0)


def head_of(kept: nats_kept.Kept | None) -> Head:
    return EMPTY if kept is None else Head(kept.message.position, kept.sequence, kept.total_bytes)


class Job:
    """Drafts of one channel that one call publishes."""

    __slots__ = ("answered", "drafts", "until")

    def __init__(self, drafts: Sequence[Draft], until: float) -> None:
        self.drafts = drafts
        self.until = until
        self.answered: asyncio.Future[list[Placed | NotPlaced]] = asyncio.get_running_loop().create_future()


@dataclass(slots=True)
class _Attempt:
    """What is being published. `is_unsure` once it may have been taken without our hearing of it."""

    name: str
    epoch: str = ""
    """Of the life that begins with it, if the channel is empty."""
    position: Position = START
    """Where it stands, if it was taken without our hearing of it."""
    is_unsure: bool = False
    happened: str = "no answer came in time"


class Lane:
    """One channel. `head` may be known from before, or from the feed; a wrong one costs a conflict, never a mistake."""

    def __init__(self, log: NatsLog, channel: str) -> None:
        self.log = log
        self.channel = channel
        self.subject = log.keeper.subject(channel)
        self.head: Head | None = None
        self._jobs: deque[Job] = deque()
        self._running: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        return self._running is None

    def add(self, job: Job) -> None:
        """Publishes it behind what was added before."""
        self._jobs.append(job)
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run())

    def end(self, problem: LogError) -> asyncio.Task[None] | None:
        """Answers what waits, and stops."""
        for job in self._jobs:
            _fail(job, problem)
        self._jobs.clear()
        if self._running is not None:
            self._running.cancel()
        return self._running

    def noted(self, kept: nats_kept.Kept) -> None:
        """Somebody has published this."""
        position, head = kept.message.position, self.head
        if head is None or head.sequence < kept.sequence:
            self.head = Head(position, kept.sequence, kept.total_bytes)

    async def _run(self) -> None:
        try:
            while self._jobs:
                job = self._jobs.popleft()
                if not job.answered.done():
                    await self._publish(job)
        finally:
            self._running = None

    async def _publish(self, job: Job) -> None:
        answers: list[Placed | NotPlaced] = []
        name = self.log.name
        try:
            for draft in job.drafts:
                answers.append(await self._place(draft, job.until))  # noqa: PERF401  # those before count if one fails
        except LogAway as away:
            may_be = away.may_have_taken_effect or any(isinstance(each, Placed) for each in answers)
            _fail(job, LogAway(name, away.happened, may_have_taken_effect=may_be))
        except LogError as problem:
            _fail(job, problem)
        except BaseException as problem:  # a mistake of ours, or the log is closed: whoever waits has to hear of it
            _fail(job, LogAway(name, f"it stopped: {type(problem).__name__}", may_have_taken_effect=True))
            if not isinstance(problem, Exception):
                raise
            self.log.mistake(problem)
        else:
            if not job.answered.done():
                job.answered.set_result(answers)

    async def _place(self, draft: Draft, until: float) -> Placed | NotPlaced:
        attempt = _Attempt(self.log.next_attempt())
        loop, conflicts = asyncio.get_running_loop(), 0
        while True:
            left_s = until - loop.time()
            if left_s <= 0:
                raise LogAway(self.log.name, attempt.happened, may_have_taken_effect=attempt.is_unsure)
            try:
                await self.log.ready(left_s)
                if (found := await self._where(attempt)) is not None:
                    return found
            except (Gone, TimeoutError, ApiFailed, RemoteWireError) as problem:
                attempt.happened = str(problem) or "no answer came in time"
                if isinstance(problem, ApiFailed) and problem.number == NO_STREAM:
                    self.log.look_again()
                conflicts += 1
            else:
                answer = await self._try(draft, attempt, min(TRY_S, max(0.01, until - loop.time())))
                if answer is not None:
                    return answer
                conflicts += 1
            ceiling_s = min(PAUSE_MAX_S, PAUSE_S * 2.0 ** min(conflicts - 1, 10))
            await asyncio.sleep(min(self.log.rng.uniform(0.0, ceiling_s), max(0.0, until - loop.time())))

    async def _where(self, attempt: _Attempt) -> Placed | None:
        """Makes sure that a head is known. If an attempt before may have been taken, looks for it there."""
        if self.head is not None and not attempt.is_unsure:
            return None
        kept = await self.log.keeper.head(self.channel)
        self.head = head_of(kept)
        if not attempt.is_unsure:
            return None
        # It may have been taken, or may be yet: whatever is tried from here on expects the same message before it, so that
        # one of both is refused. Once another message has its number, it never will be.
        epoch, seq = attempt.position
        if kept is None:
            attempt.is_unsure = seq == 1
            return None
        if kept.message.position.epoch != epoch:
            attempt.is_unsure = False
            return None
        for _ in range(LOOK_BACK_MAX):
            if kept.message.position.seq == seq and kept.attempt == attempt.name:
                return Placed(kept.message.position)
            if kept.message.position.seq <= seq:
                attempt.is_unsure = kept.message.position.seq < seq
                return None
            kept = await self.log.keeper.at(self.channel, kept.before)
            if kept is None:
                break
        happened = "it was not heard whether it was taken, and where it would stand nothing is retained any more"
        raise LogAway(self.log.name, happened, may_have_taken_effect=True)

    async def _try(self, draft: Draft, attempt: _Attempt, timeout_s: float) -> Placed | NotPlaced | None:
        """One attempt; None if there should be another one."""
        head = self.head
        assert head is not None, "`_where` has found out"
        epoch, seq = head.position
        if not epoch:
            epoch = attempt.epoch = attempt.epoch or self.log.epochs()
        position = Position(epoch, seq + 1)
        total = head.total_bytes + len(draft.data)
        at = Wall(time.time())
        headers = nats_kept.format_kept(draft, position, head.sequence, total, at, attempt.name)
        headers[nats_kept.EXPECTED] = str(head.sequence)
        if draft.id is not None:
            said = f"{self.channel}\n{draft.id}".encode(errors="surrogatepass")
            headers[nats_kept.MESSAGE_ID] = blake2b(said, digest_size=12).hexdigest()
        raw = nats.format_headers(headers)
        bound = self.log.link.payload_bytes_max
        if len(raw) + len(draft.data) > bound:
            return NotPlaced(
                "too-large",
                f"the message has {len(raw) + len(draft.data)} bytes with its headers, and {bound} are allowed by the NATS server",
            )
        try:
            said_back = await self.log.link.request(self.subject, draft.data, headers=raw, timeout_s=timeout_s)
            if said_back.status == nats.NO_RESPONDERS:
                raise ApiFailed(503, NO_STREAM, "nobody keeps the stream now")  # as the API says it
            answer = parse_answer(said_back.data)
            sequence = int(answer["seq"])
        except (TimeoutError, Gone, RemoteWireError, KeyError, TypeError, ValueError) as problem:
            self.head = None
            attempt.happened = str(problem) or f"no answer within {timeout_s:.3g} s"
            if not isinstance(problem, Gone) or problem.was_sent:
                attempt.is_unsure, attempt.position = True, position
            return None
        except ApiFailed as failed:
            self.head = None
            return self._refused(failed, attempt)
        if answer.get("duplicate"):
            return await self._repeat(draft, attempt, sequence)
        self.head = Head(position, sequence, total)
        if draft.id is not None:
            self.log.remember(sequence, position)
        return Placed(position)

    def _refused(self, failed: ApiFailed, attempt: _Attempt) -> NotPlaced | None:
        attempt.happened = failed.description
        if failed.number == CONFLICT:
            attempt.happened = "others publish to this channel all the time"
            return None
        if failed.number in FULL:
            return NotPlaced("no-space", f"the NATS server has no room: {failed.description}")
        if failed.number == NO_STREAM:
            self.log.look_again()
            return None
        if failed.code == nats.NO_RESPONDERS or failed.number == UNDER_WAY:
            return None
        return NotPlaced("refused", f"the NATS server refuses it: {failed.description}")

    async def _repeat(self, draft: Draft, attempt: _Attempt, sequence: int) -> Placed | None:
        """The place of a message whose id was there already."""
        head = self.head
        self.head = None if head is None or head.sequence < sequence else head
        if head is not None and head.sequence == sequence and not attempt.is_unsure:
            return Placed(head.position, is_repeat=True)
        if (known := self.log.remembered(sequence)) is not None:
            return Placed(known, is_repeat=True)
        try:
            kept = await self.log.keeper.at(self.channel, sequence)
            if kept is not None and kept.message.id == draft.id:
                return Placed(kept.message.position, is_repeat=kept.attempt != attempt.name)
            # It is not kept any more: it stood somewhere before what is.
            place = await self.log.keeper.first_place(self.channel)
        except (Gone, TimeoutError, ApiFailed, RemoteWireError) as problem:
            attempt.happened = str(problem) or "no answer came in time"
            attempt.is_unsure = True
            return None
        return Placed(START if place is None else place, is_repeat=True)


def _fail(job: Job, problem: LogError) -> None:
    if not job.answered.done():
        job.answered.set_exception(problem)
        job.answered.exception()  # whoever asked may have left


def new_attempts(rng: Random) -> str:
    """A word for the attempts of one log."""
    return f"{rng.getrandbits(48):012x}"
