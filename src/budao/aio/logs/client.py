"""A log as seen from another process: one connection for requests, and one for each feed, made again whenever they break."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from itertools import chain
from random import Random
from types import TracebackType
from typing import Final, Self

from budao.aio.logs.line import Line, Where, keep_connected
from budao.aio.logs.remote_feed import RemoteFeed
from budao.aio.security import check_sending, check_token
from budao.model import Checks, LocalWireError, context
from budao.push import Draft, LogAway, LogError, LogRefused, NotPlaced, Placed, Position, Stretch
from budao.wire import log_frames as wire

MIB: Final = 1024 * 1024
GATHERED_BYTES_MAX: Final = MIB
"""What is published together, unless one task alone publishes more."""
DRAFT_BYTES: Final = 64


class RemoteLog:
    """A `ChannelLog` behind a `LogServer`. Any number of tasks on one event loop may share it.

    It connects when it is first needed. A request that never left is sent as soon as there is a connection, within its time.
    What was read when the connection broke is read again; what was published is not: that raises `LogAway` with
    `may_have_taken_effect`, and publishing again with the same ids is safe.

    Units:   `timeout_s` is for each request, the deadline of the caller's context cuts it shorter.
    Raises:  BadSettings if the token would travel in the clear to another machine.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 5.0,
        more: Sequence[tuple[str, int]] = (),
        rng: Random | None = None,
    ) -> None:
        addresses = ((host, port), *more)
        check = Checks("log")
        check.number("timeout_s", timeout_s, 0.0, 86_400.0, open_low=True)
        for _, each in addresses:
            check.count("port", each, 1, 65_535)
        check.done()
        check_sending([each for each, _ in addresses], tls=tls is not None, token=token is not None)
        shown = "" if token is None else check_token(token)
        self.timeout_s = timeout_s
        self.connected = 0
        """How often a connection for requests was made."""
        self._where = Where(addresses, tls, shown, Random() if rng is None else rng)
        self._number = 0
        self._calls: dict[int, _Call] = {}
        self._line: Line | None = None
        self._problem = "not connected yet"
        self._wanted: asyncio.Future[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._is_closed = False
        self._feeds: set[RemoteFeed] = set()
        self._gathered: list[_Publishing] = []
        self._publishing: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return self._where.name

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Hangs up. What waits is answered with `LogAway`, and feeds end."""
        self._is_closed = True
        for call in tuple(self._calls.values()):
            call.fail(LogAway(self.name, "it is closed", may_have_taken_effect=call.may_be_done))
        for each in self._gathered:
            each.fail(LogAway(self.name, "it is closed"))
        if self._publishing:
            await asyncio.wait(tuple(self._publishing))
        for feed in tuple(self._feeds):
            await feed.aclose()
        if self._running is not None:
            running, self._running = self._running, None
            running.cancel()
            await asyncio.wait([running])

    # ------------------------------------------------------------------------------------------------- requests

    async def publish(self, drafts: Sequence[Draft]) -> tuple[Placed | NotPlaced, ...]:
        left_s = context.deadline.get() - time.monotonic()
        if left_s <= 0.0:
            raise LogAway(self.name, "the deadline had passed before it was asked")
        self._start()
        answered: asyncio.Future[tuple[Placed | NotPlaced, ...]] = asyncio.get_running_loop().create_future()
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._send_gathered)
        self._gathered.append(_Publishing(tuple(drafts), answered))
        if left_s >= self.timeout_s:  # the request's own time is then the shorter one
            return await answered
        try:
            async with asyncio.timeout(left_s):
                return await answered
        except TimeoutError:
            raise LogAway(self.name, "its deadline has passed", may_have_taken_effect=True) from None

    def _send_gathered(self) -> None:
        """What several tasks publish in one turn of the loop travels together, and is answered together."""
        gathered, self._gathered = self._gathered, []
        group: list[_Publishing] = []
        size = 0
        for each in gathered:
            more = sum(len(draft.data) for draft in each.drafts) + len(each.drafts) * DRAFT_BYTES
            if group and size + more > GATHERED_BYTES_MAX:
                self._begin_publishing(group)
                group, size = [], 0
            group.append(each)
            size += more
        self._begin_publishing(group)

    def _begin_publishing(self, group: list[_Publishing]) -> None:
        task = asyncio.get_running_loop().create_task(self._publish(group))
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    async def _publish(self, group: list[_Publishing]) -> None:
        drafts = tuple(chain.from_iterable(each.drafts for each in group))
        try:
            answer = await self._ask(wire.Publish(drafts), "publish", is_safe=False)
            if isinstance(answer, Stretch) or len(answer) != len(drafts):
                raise LogAway(self.name, "the server answered with something else", may_have_taken_effect=True)
        except LogRefused as refused:
            if len(group) == 1:
                group[0].fail(refused)
            else:  # for the sake of one of them: the others must not suffer for it
                for each in group:
                    self._begin_publishing([each])
        except LogAway as away:
            for each in group:
                each.fail(LogAway(away.log, away.happened, may_have_taken_effect=away.may_have_taken_effect))
        except BaseException:
            for each in group:
                each.fail(LogAway(self.name, "it is closed", may_have_taken_effect=True))
            raise
        else:
            at = 0
            for each in group:
                each.settle(answer[at : at + len(each.drafts)])
                at += len(each.drafts)

    async def read(self, channel: str, after: Position, *, count_max: int = 1_000, bytes_max: int = MIB) -> Stretch:
        return await self._stretch(wire.Read(channel, after, max(count_max, 0), max(bytes_max, 0)))

    async def latest(self, channel: str, count: int) -> Stretch:
        return await self._stretch(wire.Latest(channel, max(count, 0)))

    def feed(self) -> RemoteFeed:
        """A feed over a connection of its own."""
        if self._is_closed:
            raise LogAway(self.name, "it is closed")
        feed = RemoteFeed(self._where, self.timeout_s, self._feeds.discard)
        self._feeds.add(feed)
        return feed

    async def _stretch(self, request: wire.Read | wire.Latest) -> Stretch:
        answer = await self._ask(request, f"read {request.channel}", is_safe=True)
        if not isinstance(answer, Stretch) or answer.channel != request.channel:
            raise LogAway(self.name, "the server answered with something else")
        return answer

    async def _ask(
        self, request: wire.Publish | wire.Read | wire.Latest, tried: str, *, is_safe: bool
    ) -> tuple[Placed | NotPlaced, ...] | Stretch:
        # Who publishes has a deadline of its own, and shares the request with others.
        left_s = context.deadline.get() - time.monotonic() if is_safe else self.timeout_s
        if left_s <= 0.0:
            raise LogAway(self.name, "the deadline had passed before it was asked")
        timeout_s = min(self.timeout_s, left_s)
        self._start()
        self._number += 1
        number = self._number
        try:
            frame = wire.format_message(wire.Ask(number, request))
        except LocalWireError as problem:
            raise LogRefused(tried, str(problem)) from problem
        call = _Call(tried, frame, is_safe, asyncio.get_running_loop().create_future())
        self._calls[number] = call
        if self._line is not None:
            call.send(self._line)
        elif self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)
        try:
            async with asyncio.timeout(timeout_s):
                return await call.answered
        except TimeoutError:
            happened = f"no answer within {timeout_s:.3g} s"
            if self._line is None:
                happened += f": {self._problem}"
            raise LogAway(self.name, happened, may_have_taken_effect=call.may_be_done) from None
        finally:
            del self._calls[number]

    # ----------------------------------------------------------------------------------------------- connection

    def _start(self) -> None:
        if self._is_closed:
            raise LogAway(self.name, "it is closed")
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().create_task(self._run(), name=f"connection to {self.name}")

    async def _run(self) -> None:
        try:
            await keep_connected(self._where, self, self._when_wanted)
        except Exception as mistake:  # of ours; it must not leave anybody waiting, and the next request begins anew
            self._line = None
            happened = f"its connection has stopped for a mistake of its own: {mistake!r}"
            for call in tuple(self._calls.values()):
                call.fail(LogAway(self.name, happened, may_have_taken_effect=call.may_be_done))
            raise

    def _when_wanted(self) -> asyncio.Future[None] | None:
        if self._calls:
            return None
        self._wanted = asyncio.get_running_loop().create_future()
        return self._wanted

    def came(self, line: Line) -> None:
        """There is a connection."""
        self._line = line
        self.connected += 1
        for call in tuple(self._calls.values()):
            call.send(line)

    def went(self, line: Line, problem: str) -> None:
        """It broke."""
        self._line = None
        self._problem = problem
        for call in tuple(self._calls.values()):
            if not call.is_sent:
                continue
            call.is_sent = False
            if line.said_goodbye:
                call.was_sent = False
            elif not call.is_safe:
                call.fail(LogAway(self.name, problem, may_have_taken_effect=True))

    def denied(self, problem: LogError) -> None:
        """There is none."""
        self._problem = problem.happened if isinstance(problem, LogAway | LogRefused) else str(problem)
        if isinstance(problem, LogRefused):
            for call in tuple(self._calls.values()):
                call.fail(LogRefused(problem.tried, problem.happened))

    def received(self, line: Line, message: wire.Message) -> None:
        """What the server said; for its own connection only."""
        if isinstance(message, wire.Answered):
            call = self._calls.get(message.number)
            if call is not None and not call.answered.done():
                call.answered.set_result(message.answer)
        elif isinstance(message, wire.Failed):
            if (call := self._calls.get(message.number)) is not None:
                call.fail(message.error)
        else:
            line.link.close(f"a server does not say {type(message).__name__} here")


class _Publishing:
    """What one task publishes."""

    __slots__ = ("answered", "drafts")

    def __init__(self, drafts: tuple[Draft, ...], answered: asyncio.Future[tuple[Placed | NotPlaced, ...]]) -> None:
        self.drafts = drafts
        self.answered = answered

    def settle(self, answers: tuple[Placed | NotPlaced, ...]) -> None:
        if not self.answered.done():
            self.answered.set_result(answers)

    def fail(self, error: LogError) -> None:
        if not self.answered.done():
            self.answered.set_exception(error)
            self.answered.exception()  # whoever asked may have left


class _Call:
    """A request that waits for its answer."""

    __slots__ = ("answered", "frame", "is_safe", "is_sent", "tried", "was_sent")

    def __init__(
        self,
        tried: str,
        frame: bytes,
        is_safe: bool,
        answered: asyncio.Future[tuple[Placed | NotPlaced, ...] | Stretch],
    ) -> None:
        self.tried = tried
        self.frame = frame
        self.is_safe = is_safe
        self.answered = answered
        self.is_sent = False
        """On the connection there is."""
        self.was_sent = False

    @property
    def may_be_done(self) -> bool:
        return self.was_sent and not self.is_safe

    def send(self, line: Line) -> None:
        if self.answered.done():
            return
        if len(self.frame) - 4 > line.request_bytes_max:
            bound = line.request_bytes_max
            self.fail(LogRefused(self.tried, f"it has {len(self.frame)} bytes, and the server takes {bound} at once"))
        elif line.link.post(self.frame):
            self.is_sent = self.was_sent = True

    def fail(self, error: LogError) -> None:
        if not self.answered.done():
            self.answered.set_exception(error)
            self.answered.exception()  # whoever asked may have left
