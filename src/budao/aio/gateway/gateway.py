"""The gateway: what listens, what is open, and what holds the parts together.

Parts that are not needed to deliver plug in as a `Watcher`, which is told what happens to connections (health, presence, moving),
or as one of the callables below: `redeem` (tickets), `refusal` (pacing), `controls` (by name, for `/v1/control/…` and the control
socket), `presence`. For a take-over it is the `House` of `movable.py`: `listening`, `about`, `pause_accepting`, `adopt` and so on.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from random import SystemRandom
from secrets import token_hex
from types import TracebackType
from typing import Any, Final, Protocol, Self

from budao.aio.channel_log import ChannelLog
from budao.aio.gateway import listening
from budao.aio.gateway.access import Access
from budao.aio.gateway.beats import Beats
from budao.aio.gateway.certificates import Certificates, Fixed, HasContext
from budao.aio.gateway.connection import OPENING, Connection
from budao.aio.gateway.door import Door
from budao.aio.gateway.feeding import Feeding
from budao.aio.gateway.greeting import Greeting
from budao.aio.gateway.handshakes import bad_end_of
from budao.aio.gateway.hub import Hub
from budao.aio.gateway.load import Load
from budao.aio.gateway.looking_after import LookingAfter
from budao.aio.gateway.metrics import KINDS_OF_ENDS, GatewayMetrics
from budao.aio.gateway.movable import Listening
from budao.aio.gateway.policy import GatewayPolicy
from budao.aio.gateway.publisher import Publisher
from budao.aio.gateway.rates import Rates
from budao.aio.gateway.sampler import WatchPolicy
from budao.aio.gateway.sending import find_send_all
from budao.aio.gateway.tcp import TcpConnection
from budao.aio.gateway.traces import find_traces
from budao.aio.security import check_exposure, is_loopback
from budao.model import Mono, Wall
from budao.push import (
    STANDBY_BEAT_S,
    BadEnd,
    ChannelRules,
    Grant,
    Members,
    Open,
    PacePolicy,
    Problem,
    SessionPolicy,
)
from budao.wire import http1

log = logging.getLogger("budao.gateway")

TICK_S: Final = 0.25
SWEEP_TICKS: Final = 4
COME_BACK_S: Final = 2.0
"""What somebody is told who finds this gateway full."""
UNTIL_MAX: Final = 10 * 365 * 86_400.0
NAMES_AT_ONCE: Final = 256
MISTAKES_TOLD: Final = 20
"""Tracebacks in a log for each kind of mistake."""


class Watcher(Protocol):
    """Somebody who is told what happens to connections. Quickly: nothing here may wait, or take long."""

    def opened(self, connection: Connection) -> None:
        """It is live, and may be written to. It has not said who it is."""

    def welcomed(self, connection: Connection) -> None:
        """It has been welcomed, and reads."""

    def joined(self, connection: Connection, channel: str, *, presence: bool) -> None:
        """It reads another channel."""

    def left(self, connection: Connection, channel: str) -> None:
        """It has unsubscribed."""

    def heard(self, connection: Connection, number: int) -> None:
        """It answered the ping of this number."""

    def promoted(self, connection: Connection) -> None:
        """It was a standby, and flows now."""

    def ended(self, connection: Connection) -> None:
        """It is gone; `connection.why` says how."""


class Visitor(Protocol):
    """A connection that is no more than its requests: a door, or one of HTTP/2. It calls `arrived`, and `left_door` in the end."""

    due: float
    """On the loop's clock: it is told `late` then."""

    def late(self) -> None:
        """Its time is over."""

    def hurry(self) -> None:
        """The gateway leaves: end as soon as what is under way is answered."""

    def fail(self) -> None:
        """A mistake of ours: say so, and end."""

    def cut(self, why: str) -> None:
        """End now."""


class Gateway:
    """A gateway over a log, as an async context manager. With port 0 the system chooses; see `port` and `tcp_port`.

    Raises:  BadSettings for a host beyond loopback without TLS and keys. On entering: OSError if it cannot listen.
    """

    def __init__(
        self,
        channel_log: ChannelLog,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tcp_port: int | None = None,
        policy: GatewayPolicy | None = None,
        session_policy: SessionPolicy | None = None,
        access: Access | None = None,
        tls: ssl.SSLContext | Certificates | None = None,
        rules: ChannelRules | None = None,
        name: str = "",
        peers: Sequence[str] = (),
        inherited: Sequence[Listening] = (),
        watch_policy: WatchPolicy | None = None,
        pace_policy: PacePolicy | None = None,
    ) -> None:
        self.access = Access() if access is None else access
        check_exposure(host, tls=tls is not None, token=self.access.keys is not None)
        self.log = channel_log
        self.host = host
        self.port = port
        self.tcp_port = tcp_port
        self.tls: HasContext | None = Fixed(tls) if isinstance(tls, ssl.SSLContext) else tls
        self.policy = GatewayPolicy() if policy is None else policy
        self.session_policy = SessionPolicy() if session_policy is None else session_policy
        self.rules = ChannelRules() if rules is None else rules
        self.rates = Rates(rate_per_s=self.policy.publishes_per_s, burst=float(self.policy.publishes_burst))
        """Of those who publish over HTTP."""
        self._dice = SystemRandom()
        self._names: list[str] = []
        self.name = name or f"gateway-{self._dice.getrandbits(24):06x}"
        self.peers = tuple(peers)
        self.head_policy = http1.HeadPolicy(
            head_bytes_max=self.policy.head_bytes_max,
            target_bytes_max=min(http1.HeadPolicy().target_bytes_max, self.policy.head_bytes_max),
            body_bytes_max=self.policy.body_bytes_max,
            early_bytes_max=max(http1.HeadPolicy().early_bytes_max, self.session_policy.frame_bytes_max),
        )
        self.metrics = GatewayMetrics(gateway=self.name)
        self.metrics.before_scrape(self._measure)
        if isinstance(tls, Certificates):
            tls.count_in(self.metrics)
        self.bad_end: Callable[[str, BadEnd], None] = lambda _, __: None
        """Told of a peer, by its address, whose connection never became one."""
        self.shows_metrics = is_loopback(host)
        self.connections: dict[Connection, None] = {}
        """All that are open, and more than a request."""
        self.doors: dict[Visitor, None] = {}
        """Those that are no more than a request, so far."""
        self.watchers: list[Watcher] = []
        self.controls: dict[str, Callable[[Mapping[str, Any]], tuple[int, Mapping[str, Any]]]] = {}
        """By verb: takes the JSON of a body, and answers with a status and JSON."""
        self.redeem: Callable[[str, str | None], Grant | str] = lambda _, __: "this gateway takes no tickets"
        """What a ticket grants to a session, or why nothing."""
        self.presence: Callable[[str, Callable[[Members | None], object]], object] = lambda _, done: done(None)
        """Answers who reads a channel, now or later; None where that is not kept."""
        self.pace: Callable[[], Problem | None] = lambda: None
        """Why a newcomer has to come later, if it does."""
        self.is_draining = False
        """It is about to leave, and says so: it is not ready. Newcomers are still welcome."""
        self.is_leaving = False
        """It stops: nobody is welcome."""
        self.started_at = Wall(time.time())
        self._inherited = tuple(inherited)
        self._watch_policy = watch_policy
        self._pace_policy = pace_policy
        self._listeners: list[listening.Listener] = []
        self._expected: dict[Connection, float] = {}
        self._expiring: dict[int, dict[Connection, None]] = {}
        self._cutting: dict[Connection | Visitor, float] = {}
        self._quiet: dict[Connection, float] = {}
        """Standbys, each with the beat that it has once it is promoted."""
        self._mistakes: dict[str, int] = {}
        self._connections_max = self.policy.connections_max
        self._stopping: asyncio.Task[None] | None = None
        self._empty = asyncio.Event()
        """It is leaving, and nobody is here any more."""

    # ------------------------------------------------------------------------------------------ begin and end

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self.now: Callable[[], Mono] = loop.time  # type: ignore[assignment]
        self.wall: Callable[[], Wall] = time.time  # type: ignore[assignment]
        self.hub = Hub(self.policy, self.rules, self.metrics, now=loop.time, wall=time.time)
        self.hub.send_all = find_send_all() if self.policy.sends_directly else None
        self.feeding = Feeding(self.hub, self.log)
        self.publisher = Publisher(self.log, self.policy, self.metrics)
        traces = self.publisher.traces = find_traces(self.name)
        if traces is not None:
            self.hub.delivered = traces.delivered
        self.beats = Beats()
        self.looking_after = LookingAfter(self, self._watch_policy, self._pace_policy)
        """Heartbeats, health, blocks, bad ends by prefix, and the pace of newcomers."""
        self.greeting = Greeting(self.name, self.peers, self.session_policy.frame_bytes_max)
        self._connections_max = min(self.policy.connections_max, listening.connections_possible())
        if self._connections_max < self.policy.connections_max:
            log.info(
                "%s: open files are limited to %d connections; raise `ulimit -n`", self.name, self._connections_max
            )
        try:
            await self._listen()
        except BaseException:
            for listener in self._listeners:
                listener.close()
            raise
        self.feeding.start()
        self._ticks = 0
        self.load = Load(time.thread_time(), loop.time())
        self._ticking = loop.call_later(TICK_S, self._tick)
        self._tick_at = loop.time() + TICK_S
        self.looking_after.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Takes nothing new, answers what is under way, tells everybody to come back elsewhere, and lets go.

        It ends also if nobody waits for it any more.
        """
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._close())
        await asyncio.shield(self._stopping)

    async def _close(self) -> None:
        self.is_leaving = True
        for listener in self._listeners:
            listener.close()
        await self.publisher.aclose(self.policy.stop_s)
        self.send_away(self.policy.stop_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(self.policy.stop_s):
                await self._empty.wait()
        for connection in tuple(self.connections):
            connection.cut("going-away")
        for door in tuple(self.doors):
            door.cut("going-away")
        for listener in self._listeners:
            listener.abort()
        self._ticking.cancel()
        self.looking_after.stop()
        self.beats.close()
        await self.feeding.aclose()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):  # what was cut says so in the next turns of the loop
                await self._empty.wait()

    async def _listen(self) -> None:
        factories: Mapping[str, Mapping[str, Callable[[], asyncio.Protocol]]] = {
            "http": {"": lambda: Door(self), **self._http2()},
            "tcp": {"": lambda: TcpConnection(self)},
        }
        found = list(self._inherited)
        if not any(each.kind == "http" for each in found):
            found.append(listening.bind("http", self.host, self.port, self.policy.backlog, is_tls=self.tls is not None))
        if self.tcp_port is not None and not any(each.kind == "tcp" for each in found):
            found.append(
                listening.bind("tcp", self.host, self.tcp_port, self.policy.backlog, is_tls=self.tls is not None)
            )
        for each in found:
            listener = listening.Listener(
                self.name,
                each,
                factories[each.kind],
                self.policy.backlog,
                self.tls,
                handshake_s=self.policy.head_s,
                failed=self._handshake_failed,
            )
            self._listeners.append(listener)
            if each.kind == "http":
                self.port = listener.port
            else:
                self.tcp_port = listener.port
        for listener in self._listeners:
            if listener.listening not in self._inherited:  # those are another's until `resume_accepting`
                await listener.open()

    def _http2(self) -> Mapping[str, Callable[[], asyncio.Protocol]]:
        if self.tls is None:
            return {}
        try:
            from budao.aio.gateway.http2 import Http2Connection
        except ImportError:
            log.info("%s: no HTTP/2 without the package h2 (in the extra `push`)", self.name)
            return {}
        return {"h2": lambda: Http2Connection(self)}

    def _handshake_failed(self, cause: str, peer: str) -> None:
        self.metrics.count_handshake_failure(cause)
        self.bad_end(peer, bad_end_of(cause))

    @property
    def url(self) -> str:
        """Where it is, for clients."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    # ------------------------------------------------------------------------------------------- as it is seen

    def unready(self) -> list[str]:
        """Why nobody new should be sent here; empty if they may come."""
        problems = []
        if self.is_leaving or self.is_draining:
            problems.append("it is leaving")
        if self.feeding.problem:
            problems.append(f"the log {self.log.name}: {self.feeding.problem}")
        if self._is_full():
            problems.append(f"{self._connections_max} connections are open, and that is the bound")
        return problems

    def refusal(self) -> Problem | None:
        """Why a newcomer is not welcome now."""
        if self.is_leaving:
            return Problem(why="going-away", happened="this gateway is leaving; go to another one")
        return self.pace()

    def come_back_s(self) -> float:
        """When somebody who was sent away may try again: not all at the same time."""
        return COME_BACK_S * (0.5 + self._dice.random())

    def beat_for(self, wish_s: float) -> float:
        """The beat that a wish gets; 0 wishes nothing in particular."""
        policy = self.session_policy
        wanted = wish_s if wish_s > 0 else policy.beat_s
        return min(max(wanted, policy.beat_min_s), policy.beat_max_s)

    def granted_beat_s(self, connection: Connection) -> float:
        """The beat that it has, or will have once it is promoted; 0 for none."""
        return self._quiet.get(connection) or self.beats.of(connection)

    def new_name(self) -> str:
        """A name for a session, which nobody can guess."""
        if not self._names:  # asking the system for each costs more than all else about a name
            digits = token_hex(NAMES_AT_ONCE * 8)
            self._names = [digits[at : at + 16] for at in range(0, len(digits), 16)]
        return self._names.pop()

    def _is_full(self) -> bool:
        return len(self.connections) + len(self.doors) >= self._connections_max

    def _measure(self, metrics: GatewayMetrics) -> None:
        hub = self.hub
        metrics.channels = len(hub.channels)
        metrics.ring_bytes = sum(each.ring.bytes for each in hub.channels.values() if each.ring is not None)
        metrics.outbox_bytes = sum(each.queued_bytes() for each in self.connections)
        metrics.sessions = sum(1 for each in self.connections if not each.holds & OPENING)
        metrics.subscriptions = sum(len(each.places) for each in self.connections)
        metrics.lagging = sum(1 for each in self.connections if each.holds)
        metrics.log_up = int(not self.feeding.problem)
        metrics.draining = int(self.is_leaving or self.is_draining)
        metrics.load_share = round(self.load.share, 3)

    # ------------------------------------------------------------------------------- what connections tell it

    def arrived(self, newcomer: Visitor | Connection) -> bool:
        """Somebody is connected; False if there is no room."""
        if isinstance(newcomer, Connection):
            return len(self.connections) + len(self.doors) <= self._connections_max and not self.is_leaving
        has_room = not self._is_full()
        self.doors[newcomer] = None
        if not has_room:
            self.metrics.count_error("full")
        return has_room

    def left_door(self, door: Visitor) -> None:
        """A door is gone, or has become something else."""
        self.doors.pop(door, None)
        self._cutting.pop(door, None)
        if self.is_leaving:
            self._look_around()

    def opened(self, connection: Connection) -> None:
        """It is live."""
        self.connections[connection] = None
        counted = self.metrics.transports[connection.encoding.transport]
        counted.connections += 1
        counted.opened += 1
        for watcher in self.watchers:
            watcher.opened(connection)

    def expect(self, connection: Connection, within_s: float) -> None:
        """It says who it is within so many seconds, or it is ended."""
        self._expected[connection] = self._loop.time() + within_s

    def expect_no_more(self, connection: Connection) -> None:
        """It has said it."""
        self._expected.pop(connection, None)

    def welcomed(self, connection: Connection, effect: Open) -> None:
        """A session is open."""
        wake_at, is_quiet = connection.wake_at(), effect.is_standby
        self.reads(connection, effect.beat_s, is_resumed=effect.is_resumed, until=wake_at, is_quiet=is_quiet)

    def reads(
        self, connection: Connection, beat_s: float, *, is_resumed: bool, until: Wall | None, is_quiet: bool = False
    ) -> None:
        """It reads from now on; a quiet one once it is promoted."""
        self._expected.pop(connection, None)
        if is_quiet:
            self._quiet[connection] = beat_s
            beat_s = max(beat_s, STANDBY_BEAT_S)
        self.beats.add(connection, beat_s)
        self.metrics.resumed += is_resumed
        if until is not None and until < self.started_at + UNTIL_MAX:
            self._expiring.setdefault(int(until) + 1, {})[connection] = None
        for watcher in self.watchers:
            watcher.welcomed(connection)

    def joined(self, connection: Connection, channel: str, *, presence: bool) -> None:
        """It reads another channel."""
        for watcher in self.watchers:
            watcher.joined(connection, channel, presence=presence)

    def left(self, connection: Connection, channel: str) -> None:
        """It reads a channel no longer."""
        for watcher in self.watchers:
            watcher.left(connection, channel)

    def heard(self, connection: Connection, number: int) -> None:
        """It answered a ping."""
        for watcher in self.watchers:
            watcher.heard(connection, number)

    def promoted(self, connection: Connection) -> None:
        """A standby flows."""
        self.beats.remove(connection)
        self.beats.add(connection, self._quiet.pop(connection, 0.0))
        for watcher in self.watchers:
            watcher.promoted(connection)

    def ended(self, connection: Connection) -> None:
        """It is gone."""
        if self.connections.pop(connection, 0) == 0:
            return
        self.beats.remove(connection)
        self._quiet.pop(connection, None)
        self._expected.pop(connection, None)
        self._cutting.pop(connection, None)
        until = connection.wake_at()
        if until is not None:
            slot = self._expiring.get(int(until) + 1)
            if slot is not None:
                slot.pop(connection, None)
                if not slot:
                    del self._expiring[int(until) + 1]
        metrics = self.metrics
        metrics.transports[connection.encoding.transport].connections -= 1
        kind = KINDS_OF_ENDS.get(connection.why)
        if kind is not None and kind != "mistake":  # that was counted when it was made
            metrics.count_error(kind)
        metrics.count_end(connection.why)
        for watcher in self.watchers:
            watcher.ended(connection)
        if self.is_leaving:
            self._look_around()

    def _look_around(self) -> None:
        if not self.connections and not self.doors:
            self._empty.set()

    def cut_later(self, connection: Connection | Visitor) -> None:
        """It is ending, and is cut if that takes too long."""
        self._cutting.setdefault(connection, self._loop.time() + self.policy.close_s)

    def mistake(self, connection: Connection | Visitor, problem: Exception) -> None:
        """Something went wrong that should not have: this connection ends, told once in the log, and nobody else notices."""
        self.metrics.count_error("mistake")
        kind = type(problem).__name__
        count = self._mistakes[kind] = self._mistakes.get(kind, 0) + 1
        if count <= MISTAKES_TOLD:
            log.error("%s: a connection ends for a mistake of the gateway", self.name, exc_info=problem)
        try:
            if isinstance(connection, Connection):
                connection.close("mistake", after_s=COME_BACK_S)
            else:
                connection.fail()
        except Exception:
            log.debug("and it could not be told", exc_info=True)
            connection.cut("mistake")

    # -------------------------------------------------------------------------------------------------- time

    def _tick(self) -> None:
        now = self._loop.time()
        self._ticking = self._loop.call_later(TICK_S, self._tick)
        self.metrics.loop_lag_s = max(0.0, now - self._tick_at)
        self._tick_at = now + TICK_S
        self.load.look(time.thread_time(), now)
        for door in [each for each in self.doors if each.due <= now]:
            door.late()
        for late in [each for each, due in self._cutting.items() if due <= now]:
            del self._cutting[late]
            late.cut("cut")
        for connection in [each for each, due in self._expected.items() if due <= now]:
            del self._expected[connection]
            connection.close("silent", detail="no hello came in time")
        self._ticks += 1
        if self._ticks % SWEEP_TICKS == 0:
            self.hub.sweep()
            wall = Wall(time.time())
            for second in [each for each in self._expiring if each <= wall]:
                for connection in tuple(self._expiring.pop(second)):
                    connection.expire(wall)
            for listener in self._listeners:
                listener.look()

    # -------------------------------------------------------------------------------------- House of movable.py

    def listening(self) -> Sequence[Listening]:
        """Its listeners; the sockets stay its own."""
        return [each.listening for each in self._listeners]

    def about(self) -> Mapping[str, Any]:
        """What a successor goes on with."""
        return {"name": self.name, "started_at": float(self.started_at)}

    def pause_accepting(self) -> None:
        """Newcomers wait in the kernel."""
        for listener in self._listeners:
            listener.pause()

    async def resume_accepting(self) -> None:
        """They are let in again."""
        for listener in self._listeners:
            await listener.open()

    def send_away(self, within_s: float) -> None:
        """Tells everybody to come back now, here or elsewhere; who has not gone after so many seconds is cut."""
        self.is_leaving = True
        self._look_around()
        due = self._loop.time() + within_s
        for connection in tuple(self.connections):
            with suppress(Exception):
                connection.close("going-away", detail="this gateway is leaving")
            self._cutting[connection] = due
        for door in tuple(self.doors):
            door.hurry()
