"""A log as a server: one folder, any number of gateways and publishers, over TCP or TLS."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from budao.aio.link import Link
from budao.aio.logs.durable import Answers, DurableLog, LogPolicy
from budao.aio.logs.local import CAUGHT_UP_BYTES, FOLLOWED_MAX, MIB
from budao.aio.reception import Reception, listen
from budao.aio.security import check_exposure, check_token, is_token
from budao.model import Checks, LocalWireError, RemoteWireError
from budao.push import (
    Appended,
    BookPolicy,
    ChannelRules,
    Following,
    LogAway,
    LogError,
    LogRefused,
    Position,
    Stretch,
)
from budao.wire import log_codec
from budao.wire import log_frames as wire

log = logging.getLogger("budao.log")

FEED_ROOM_BYTES: Final = 4 * MIB
"""With less than this in its outbox, a feed is told at once; with more, it is told from the log once it has read."""
READ_BYTES_MAX: Final = 16 * MIB
READ_COUNT_MAX: Final = 10_000
TOLD_BYTES_MAX: Final = wire.FRAME_BYTES_MAX // 2
"""More at once than this is told in pieces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogServerPolicy:
    """What one client, and all of them, may take.

    Raises:  BadSettings with every problem.
    """

    connections_max: int = 2_000
    """Further clients are told to come later."""
    requests_max: int = 65_536
    """Requests of one connection that may be unanswered."""
    request_bytes_max: int = 32 * MIB
    """One request: the messages that are published together."""
    outbox_bytes_max: int = 128 * MIB
    """What may wait for one client to read. Answers alone fill it; news stop long before, and go on from the log."""
    hello_s: float = 5.0
    """How long a newcomer may take to say who it is, TLS included."""
    stop_s: float = 5.0
    """How long stopping waits for what is in flight."""

    def __post_init__(self) -> None:
        check = Checks("server")
        check.count("connections_max", self.connections_max, 1, 100_000)
        check.count("requests_max", self.requests_max, 1, 1_000_000)
        check.count("request_bytes_max", self.request_bytes_max, 4096, 32 * MIB)
        check.count("outbox_bytes_max", self.outbox_bytes_max, MIB, 1024 * MIB)
        check.number("hello_s", self.hello_s, 0.0, 3_600.0, open_low=True)
        check.number("stop_s", self.stop_s, 0.0, 3_600.0)
        check.done()


class LogServer:
    """Serves the log in a folder, as an async context manager. With port 0 the system chooses; see `port`.

    `log` is the log itself, for whoever is in the same process. `is_restored` is of `DurableLog`.

    Raises:  BadSettings for a host beyond loopback without TLS and a token. On entering: LogRefused if the folder is
             another's or the port is taken, Unreadable if the folder is damaged.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        rules: ChannelRules | None = None,
        policy: BookPolicy | None = None,
        log_policy: LogPolicy | None = None,
        server_policy: LogServerPolicy | None = None,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        is_restored: bool = False,
    ) -> None:
        check_exposure(host, tls=tls is not None, token=token is not None)
        self.host = host
        self.port = port
        self.token = None if token is None else check_token(token)
        self.tls = tls
        self.policy = LogServerPolicy() if server_policy is None else server_policy
        self.log = DurableLog(folder, rules=rules, policy=policy, log_policy=log_policy, is_restored=is_restored)
        self.sessions: set[_Session] = set()
        self._reception: Reception[_Session] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._is_suspected = False

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return f"{'budao' if self.tls is None else 'budaos'}://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        listener = listen(self.host, self.port, LogRefused)
        try:
            await self.log.__aenter__()
        except BaseException:
            listener.close()
            raise
        self._reception = Reception(
            listener,
            connect=lambda: _Session(self),
            tls=self.tls,
            connections_max=self.policy.connections_max,
            hello_s=self.policy.hello_s,
            stop_s=self.policy.stop_s,
            log=log,
        )
        self.port, self.sessions = self._reception.port, self._reception.clients
        self.log.name = self.name
        self.log.on_appended = self._appended
        self._reception.open(self.name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Takes nothing new, finishes and answers what is in flight, says goodbye, and lets go of the folder.

        It ends also if nobody waits for it any more.
        """
        if self._reception is not None:
            reception, self._reception = self._reception, None
            self._closing = asyncio.create_task(self._close(reception))
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _close(self, reception: Reception[_Session]) -> None:
        await reception.close()
        await self.log.aclose()

    def compare(self, channel: str, told: Position, head: Position) -> None:
        """Who was told more than there is was told by a log that this one is an older copy of."""
        if told.epoch == head.epoch and told.seq > head.seq and not self._is_suspected:
            self._is_suspected = True
            log.critical(
                "%s: a client was told of message %d of %s, and this log ends at %d: it was put back from a backup, or its disk has"
                " lost what it said was durable. Start it once with --restored: until then readers may miss messages unnoticed",
                self.name, told.seq, channel, head.seq,
            )  # fmt: skip

    def _appended(self, appended: Sequence[Appended], packed: Sequence[bytes]) -> None:
        """Tells everybody who follows. What several follow is put together once."""
        frames: dict[tuple[int, ...], bytes] = {}
        is_small = sum(map(len, packed)) <= TOLD_BYTES_MAX
        for session in tuple(self.sessions):
            if session.following.told:
                session.appended(appended, packed, frames, is_small=is_small)


class _Session:
    """One client."""

    def __init__(self, server: LogServer) -> None:
        self.server = server
        self.link = Link(
            decoder=wire.Decoder(wire.HELLO_BYTES_MAX),
            outbox_bytes_max=server.policy.outbox_bytes_max,
            received=self.received,
            lost=self.lost,
            has_room=self.resume,
            garbage=self._garbage,
            room_bytes=FEED_ROOM_BYTES,
        )
        self.known = asyncio.Event()
        self.gone = asyncio.Event()
        self.is_known = False
        self.is_stopping = False
        self.following = Following()
        self.waiting: set[asyncio.Future[Any]] = set()
        self.readings: deque[tuple[int, wire.Read | wire.Latest]] = deque()
        """What waits until the client has read what it asked for before."""

    def send(self, message: wire.Message) -> None:
        self.link.post(wire.format_message(message))

    def deny(self, problem: str, *, is_for_good: bool = True) -> None:
        self.send(wire.Denied(problem, is_for_good))
        self.link.close(problem)
        self.known.set()

    def beat(self) -> bytes:
        return wire.format_message(wire.Beat())

    def say_goodbye(self) -> None:
        self.send(wire.Goodbye("it stops"))

    def lost(self, why: str) -> None:
        self.following = Following()
        self.readings.clear()
        self.server.sessions.discard(self)
        self.known.set()
        self.gone.set()
        if why and self.is_known:
            log.debug("%s: a client is gone: %s", self.server.name, why)

    def received(self, message: wire.Message) -> None:
        if not self.is_known:
            self._meet(message)
        elif isinstance(message, wire.Ask):
            self._answer(message.number, message.request)
        elif isinstance(message, wire.Unfollow):
            self.following.unfollow(message.channel)
        elif not isinstance(message, wire.Beat):
            self.link.close(f"a client does not say {type(message).__name__}")

    def _garbage(self, problem: RemoteWireError) -> None:
        self.send(wire.Denied(str(problem)[:500]))
        self.known.set()

    def _meet(self, message: wire.Message) -> None:
        server = self.server
        if not isinstance(message, wire.Hello):
            self.deny("a client says hello first")
            return
        if not (message.low <= wire.VERSION_HIGH and message.high >= wire.VERSION_LOW):
            self.send(wire.Versions(wire.VERSION_LOW, wire.VERSION_HIGH))
            self.link.close("its version is not spoken here")
            self.known.set()
            return
        if server.token is not None and not is_token(message.token, server.token):
            self.deny("the token is wrong" if message.token else "it wants a token")
            return
        self.is_known = True
        self.link.decoder.frame_bytes_max = server.policy.request_bytes_max
        version = min(message.high, wire.VERSION_HIGH)
        self.send(wire.Welcome(version, server.log.log_id, server.policy.request_bytes_max))
        self.known.set()

    # -------------------------------------------------------------------------------------------------- requests

    def _answer(self, number: int, request: wire.Publish | wire.Read | wire.Latest | wire.Follow) -> None:
        server = self.server
        try:
            if self.is_stopping:
                raise LogAway(server.name, "it stops")
            if len(self.waiting) + len(self.readings) >= server.policy.requests_max:
                raise LogAway(server.name, f"{server.policy.requests_max} requests of this client wait for an answer")
            if isinstance(request, wire.Publish):
                self._promise(number, server.log.submit(request.drafts))
            elif isinstance(request, wire.Follow):
                self._follow(number, request)
            else:
                self.readings.append((number, request))
                self._read()
        except LogError as refused:
            self.send(wire.Failed(number, refused))

    def _read(self) -> None:
        """History is read while there is room: a hundred readings at once would fill the outbox, and cut their own client off."""
        book, now = self.server.log.book, self.server.log.now()
        while self.readings and self.link.has_room and self.link.is_open:
            number, request = self.readings.popleft()
            if isinstance(request, wire.Latest):
                stretch = book.latest(request.channel, min(request.count, READ_COUNT_MAX), now)
            else:
                count_max, bytes_max = min(request.count_max, READ_COUNT_MAX), min(request.bytes_max, READ_BYTES_MAX)
                stretch = book.read(request.channel, request.after, now, count_max=count_max, bytes_max=bytes_max)
            self._say_stretch(number, stretch)

    def _say_stretch(self, number: int, stretch: Stretch) -> None:
        try:
            frame = wire.format_message(wire.Answered(number, stretch))
        except LocalWireError as problem:
            frame = wire.format_message(wire.Failed(number, LogRefused(f"read {stretch.channel}", str(problem))))
        self.link.send(frame)

    def _promise(self, number: int, answer: asyncio.Future[Answers]) -> None:
        self.waiting.add(answer)
        answer.add_done_callback(lambda done: self._settled(number, done))

    def _settled(self, number: int, answer: asyncio.Future[Answers]) -> None:
        self.waiting.discard(answer)
        if answer.cancelled():
            return
        error = answer.exception()
        if error is None:
            self.link.post(wire.format_message(wire.Answered(number, answer.result())))
        elif isinstance(error, LogError):
            self.send(wire.Failed(number, error))
        else:
            raise error

    # ------------------------------------------------------------------------------------------------------ news

    def _follow(self, number: int, asked: wire.Follow) -> None:
        log = self.server.log
        log.check_open()
        channel, told = asked.channel, self.following.told
        if channel not in told and len(told) >= FOLLOWED_MAX:
            raise LogRefused("follow", f"a feed follows {len(told)} channels, and that is the bound")
        stretch = log.book.latest(channel, min(asked.recent, READ_COUNT_MAX), log.now())
        if asked.after is not None:
            self.server.compare(channel, asked.after, stretch.head)
        self.following.follow(channel, stretch.head if asked.after is None else asked.after, stretch.head)
        self.send(wire.Answered(number, stretch))
        self._pump()

    def appended(
        self,
        appended: Sequence[Appended],
        packed: Sequence[bytes],
        frames: dict[tuple[int, ...], bytes],
        *,
        is_small: bool,
    ) -> None:
        """Tells what is followed, at once if there is room."""
        following = self.following
        has_room = is_small and self.link.has_room
        told: list[int] = []
        for index, run in enumerate(appended):
            if run.channel not in following.told:
                continue
            for news in following.offer(run, has_room=has_room):
                if isinstance(news, Appended):
                    told.append(index)
                else:
                    self.send(news)
        if told:
            which = tuple(told)
            frame = frames.get(which)
            if frame is None:
                frame = frames[which] = wire.format_told([packed[index] for index in which])
            self.link.post(frame)
        if not is_small:
            self._pump()

    def resume(self) -> None:
        """There is room again."""
        self._read()
        self._pump()

    def _pump(self) -> None:
        """Tells of the channels that are behind what is in the log, while there is room."""
        while self.following.behind and self.link.has_room and self.link.is_open:
            for news in self.following.catch_up(self._history):
                if isinstance(news, Appended):
                    self.link.send(wire.format_told([log_codec.format_run(news)]))
                else:
                    self.send(news)

    def _history(self, channel: str, after: Position) -> Stretch:
        log = self.server.log
        return log.book.read(channel, after, log.now(), bytes_max=CAUGHT_UP_BYTES)
