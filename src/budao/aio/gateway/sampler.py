"""Looks after the connections of a gateway: heartbeats, health, blocks. The machines decide; here the kernel is asked and obeyed.

Every tick (100 ms) a part of the connections is looked at, by one `getsockopt(TCP_INFO)` each: the same struct says what SIOCOUTQ
would. Who moved more than a pong since the last look is looked at again after `look_s`, who did not after `look_idle_s`, since
the numbers of an idle connection do not change. Who is in doubt (late, lost, blocked, held) is looked at first and always. What is left is bounded
by `looks_per_s_max`, so that the cost has a bound however many move at once: their looks are then further apart.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass, field
from math import ceil
from random import Random
from time import thread_time
from typing import Final

from budao.aio.gateway.vital import Ring, Vital, Watched
from budao.measure import Histogram
from budao.model import Checks, Mono
from budao.push import (
    PERFECT,
    AskKernel,
    BadEnd,
    BlockPolicy,
    Cut,
    Degrade,
    EndSilent,
    Health,
    HealthPolicy,
    HeartbeatPolicy,
    Heartbeats,
    Joint,
    JointEffect,
    Prefixes,
    Release,
    Restore,
    SendPing,
    calm_share,
    is_blocked,
    prefix_of,
)
from budao.wire import TCP_INFO_BYTES, TcpInfo, parse_tcp_info

log = logging.getLogger("budao.gateway")

SMALL_BYTES: Final = 8 * 1024
"""Less than this in the send buffer is not worth asking for its size."""
FEW_BYTES: Final = 100
"""Who moved no more than this since the last look has only answered a ping, and is as idle as before."""
STILL_LOOKS: Final = 2
"""Looks without a change after which a connection counts as idle."""
EXPECTED_MAX_US: Final = 2_000_000
EXPECTED_MAX_S: Final = EXPECTED_MAX_US / 1e6
"""However long the round trip, a ping is not late by more than this beyond `late_s`."""
_TCP_INFO: Final[int | None] = getattr(socket, "TCP_INFO", None)

BAD_ENDS: Final = {
    "reset": BadEnd.RESET,
    "silent": BadEnd.SILENT,
    "timed-out": BadEnd.TIMED_OUT,
    "unreachable": BadEnd.UNREACHABLE,
    "blocked": BadEnd.BLOCKED,
    "slow": BadEnd.SLOW,
    "head": BadEnd.PROTOCOL,
    "frame": BadEnd.PROTOCOL,
    "protocol-error": BadEnd.PROTOCOL,
    "unsupported": BadEnd.PROTOCOL,
    "bad-text": BadEnd.PROTOCOL,
    "bad-frame": BadEnd.PROTOCOL,
    "too-large": BadEnd.PROTOCOL,
}
"""Why a connection ended, and what that is in the table of prefixes. Other ends are in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPolicy:
    """How connections are looked after.

    Raises:  BadSettings with every problem.
    """

    heartbeat: HeartbeatPolicy = field(default_factory=HeartbeatPolicy)
    health: HealthPolicy = field(default_factory=HealthPolicy)
    block: BlockPolicy = field(default_factory=BlockPolicy)
    look_s: float = 0.5
    """How often the kernel is asked about a connection that moves."""
    look_idle_s: float = 30.0
    """And about one that does not. Each ping is a look as well."""
    looks_per_s_max: int = 6_000
    """Each costs 3 to 5 us where there are many. With more connections than half of this that move, their looks are further apart."""
    outbox_bytes_max: int = 64 * 1024
    """A connection with as much in our own outbox is blocked, whatever the kernel says."""

    def __post_init__(self) -> None:
        check = Checks("watch")
        check.number("look_s", self.look_s, 0.05, 60.0)
        check.number("look_idle_s", self.look_idle_s, 0.05, 3_600.0)
        check.count("looks_per_s_max", self.looks_per_s_max, 10, 1_000_000)
        check.count("outbox_bytes_max", self.outbox_bytes_max, 1)
        check.done()


class Watch:
    """Looks after the connections of one gateway, from `start` to `stop`, on the loop that is running.

    Cost: about 700 bytes per connection; under 5 % of a core for 20,000 connections, see `bench/health.py`.
    """

    def __init__(
        self, policy: WatchPolicy | None = None, *, rng: Random | None = None, scores: Histogram | None = None
    ) -> None:
        self.policy = policy = policy or WatchPolicy()
        self.heartbeats: Heartbeats[Watched] = Heartbeats(policy.heartbeat, rng or Random())
        self.joint: Joint[Watched] = Joint()
        self.prefixes = Prefixes()
        self.scores = scores
        """Where each look at a connection that moved leaves its score."""
        self.looks = 0
        """At the kernel, in all."""
        self.busy_s = 0.0
        """CPU time spent in the ticks: pings, looks, scores. What it costs to receive the answers is not in it."""
        self._active, self._idle, self._doubtful = Ring(), Ring(), Ring()
        self._fresh: dict[Vital, None] = {}  # in doubt since a moment ago
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._eye = socket.SocketType(socket.AF_INET, socket.SOCK_STREAM)
        self._eye.close()

    def __len__(self) -> int:
        return len(self.heartbeats)

    # ------------------------------------------------------------------------------------- what the gateway says

    def start(self) -> None:
        """Begin to tick."""
        self._loop = asyncio.get_running_loop()
        if _TCP_INFO is None:
            log.warning("this system does not tell about TCP connections: their health and their blocks are unknown")
        self._timer = self._loop.call_later(self.policy.heartbeat.tick_s, self._tick)

    def stop(self) -> None:
        """No more. Connections that are still there are left alone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def join(self, connection: Watched, *, is_mute: bool = False) -> Vital:
        """It is live. `is_mute`: it cannot answer a ping (SSE)."""
        found = connection.socket if _TCP_INFO is not None else None
        descriptor = -1 if found is None else found.fileno()
        vital = Vital(connection, descriptor, prefix_of(connection.peer), is_mute=is_mute)
        vital.fresh = self._fresh
        connection.health = vital
        self.heartbeats.add(vital)
        if descriptor >= 0:
            self._active.add(vital)  # looked at soon; where nothing moves it comes to rest after a few looks
        return vital

    def leave(self, connection: Watched) -> None:
        """It ended, for the reason it says."""
        vital: Vital | None = connection.health
        if vital is None:
            return
        connection.health = None
        self.heartbeats.remove(vital)
        self.joint.forget(connection)
        self._fresh.pop(vital, None)
        if vital.ring is not None:
            vital.ring.remove(vital)
        kind = BAD_ENDS.get(connection.why)
        if kind is not None:
            self.prefixes.count(vital.prefix, kind, self._now())

    def bad_end(self, peer: str, kind: BadEnd) -> None:
        """A connection that never became one: its handshake or its head was wrong."""
        self.prefixes.count(prefix_of(peer), kind, self._now())

    def counts(self) -> dict[str, int]:
        """Connections that are lost, blocked, held; for metrics and status."""
        members = self._doubtful.members
        return {
            "doubtful": len(members),
            "lost": sum(vital.is_lost for vital in members),
            "blocked": sum(vital.is_blocked for vital in members),
            "held": sum(self.joint.is_held(vital.connection) for vital in members),
        }

    def score_at(self, share: float) -> float:
        """The score that so large a share of the connections does not exceed, as of their last looks; 100 where there is none.

        Cost: sorts the scores of all; for a person who asks, not for every scrape.
        """
        rings = (self._active, self._idle, self._doubtful)
        scores = sorted(vital.score for ring in rings for vital in ring.members)
        return round(scores[min(len(scores) - 1, int(share * len(scores)))], 1) if scores else PERFECT

    # ------------------------------------------------------------------------------------------------- the tick

    def _now(self) -> Mono:
        assert self._loop is not None, "it was started"
        return Mono(self._loop.time())

    def _tick(self) -> None:
        assert self._loop is not None, "it was started"
        began_s, at = thread_time(), self._now()
        try:
            self._beat(at)
            self._look_around(at)
            self._obey(self.joint.wake(at))
        except Exception:
            log.exception("a mistake in looking after connections; it goes on with the next tick")
        now = self._now()
        self.busy_s += thread_time() - began_s
        due = self.heartbeats.wake_at() or now
        self._timer = self._loop.call_at(max(due, now + self.policy.heartbeat.tick_s / 2), self._tick)

    def _beat(self, now: Mono) -> None:
        for effect in self.heartbeats.wake(now):
            if isinstance(effect, AskKernel):
                self._excuse(effect.pulse, now)  # type: ignore[arg-type]  # every pulse here is a Vital
                continue
            connection = effect.connection
            if isinstance(effect, SendPing):
                vital: Vital | None = connection.health
                if vital is not None:
                    info = self._look(vital, now)
                    if info is not None:
                        vital.acked = info.bytes_acked or 0
                    connection.ping(effect.number)
            elif isinstance(effect, Degrade):
                self._tell(connection, now, lost=True)
            elif isinstance(effect, Restore):
                self._tell(connection, now, lost=False)
            elif isinstance(effect, EndSilent):
                self.joint.forget(connection)
                connection.close("silent")

    def _excuse(self, vital: Vital, now: Mono) -> None:
        info = self._look(vital, now)
        queued = None if info is None else info.queued_bytes
        if info is None or queued is None:
            vital.is_heard = vital.is_heard or vital.is_mute  # who cannot answer and cannot be looked at is believed
            return
        acked = info.bytes_acked or 0
        if vital.is_mute:
            vital.is_heard = queued == 0 or acked > vital.acked
        elif info.notsent_bytes and acked > vital.acked:
            vital.is_excused = True
        vital.acked = acked

    def _look_around(self, now: Mono) -> None:
        tick_s = self.policy.heartbeat.tick_s
        left = ceil(self.policy.looks_per_s_max * tick_s)
        if self._fresh:
            fresh = tuple(self._fresh)
            self._fresh.clear()
            for vital in fresh:
                if vital.ring is not None:
                    self._put(vital, self._doubtful)
                    self._look(vital, now)
        for ring, every_s in (
            (self._doubtful, self.policy.look_s),
            (self._idle, self.policy.look_idle_s),
            (self._active, self.policy.look_s),
        ):
            ring.owed = min(ring.owed + len(ring.members) * tick_s / every_s, float(len(ring.members)))
            count = min(int(ring.owed), left)
            if count:
                ring.owed -= count
                left -= count
                for vital in ring.take(count):
                    if vital.ring is ring:  # an effect of an earlier look may have ended it
                        self._look(vital, now)

    def _look(self, vital: Vital, now: Mono) -> TcpInfo | None:
        """Ask the kernel about one, and conclude what can be."""
        if vital.descriptor < 0 or _TCP_INFO is None:
            return None
        eye = self._eye
        try:
            # One socket object looks at every descriptor in turn: an object for each would cost memory, and uvloop's own
            # makes a new one for every call.
            eye.__init__(socket.AF_INET, socket.SOCK_STREAM, 6, vital.descriptor)  # type: ignore[misc]
            raw = eye.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, TCP_INFO_BYTES)
        except OSError:  # it is closed, and about to be told
            return None
        finally:
            eye.detach()
        self.looks += 1
        info = parse_tcp_info(raw)
        if info is None:
            return None
        # Taken apart once: reading the fields by name costs more than asking the kernel.
        *_, rtt_us, rttvar_us, _, total, acked, received, segs_out, _, notsent, _, sent, resent = info
        if sent is None or resent is None or acked is None or notsent is None or received is None:
            sent, resent, queued = segs_out or 0, total, 0  # an old kernel counts segments only
            moved = sent + total
        else:
            queued = sent - resent - acked + notsent
            moved = sent + received
        if moved != vital.moved:
            if moved - vital.moved > FEW_BYTES:
                vital.still = 0
                if vital.ring is self._idle:
                    self._put(vital, self._active)
            else:
                vital.still += 1
            vital.moved = moved
            self._judge(vital, rtt_us, rttvar_us, sent, resent, now)
        else:
            vital.still += 1
        if queued >= SMALL_BYTES or vital.is_blocked or vital.ring is self._doubtful:
            self._weigh(vital, info, queued, now)
        elif vital.still >= STILL_LOOKS and vital.ring is self._active:
            self._put(vital, self._idle)
        return info

    def _judge(self, vital: Vital, rtt_us: int, rttvar_us: int, sent: int, resent: int, now: Mono) -> None:
        health = vital.health
        if health is None:
            health = vital.health = Health()
        policy = self.policy.health
        calm = 1.0
        if self.prefixes:
            ends_per_min = self.prefixes.ends_per_min(vital.prefix, now)
            if ends_per_min:
                calm = calm_share(ends_per_min, policy)
        score = health.look(rtt_us, rttvar_us, sent, resent, calm, policy)
        vital.expected_s = rtt_us / 1e6 if rtt_us < EXPECTED_MAX_US else EXPECTED_MAX_S
        if self.scores is not None:
            self.scores.record(int(score))

    def _weigh(self, vital: Vital, info: TcpInfo, queued: int, now: Mono) -> None:
        """Whether it is blocked, and whether there is a doubt at all."""
        if queued >= SMALL_BYTES and queued * 2 >= vital.buffer_bytes:
            vital.buffer_bytes = self._buffer_bytes(vital)  # it grows while nobody has set it
        connection = vital.connection
        outbox = connection.queued_bytes()
        was = vital.is_blocked
        is_outbox_full = outbox >= self.policy.outbox_bytes_max
        vital.is_blocked = is_blocked(was, queued, vital.buffer_bytes, is_outbox_full, self.policy.block)
        if vital.is_blocked or vital.is_lost or was or self.joint.is_doubtful(connection):
            effects = self.joint.tell(
                connection, now, lost=vital.is_lost, blocked=vital.is_blocked, retrying=info.is_retrying
            )
            self._obey(effects)
            if vital.is_blocked and not was:
                self.heartbeats.ask_now(vital)  # is it lost as well?
        ring = vital.ring
        if ring is None:  # it was ended by what was told
            return
        is_doubtful = vital.is_blocked or vital.late > 0 or outbox > 0 or self.joint.is_doubtful(connection)
        if is_doubtful:
            self._put(vital, self._doubtful)
        elif ring is self._doubtful:
            self._put(vital, self._active)

    def _buffer_bytes(self, vital: Vital) -> int:
        eye = self._eye
        try:
            eye.__init__(socket.AF_INET, socket.SOCK_STREAM, 6, vital.descriptor)  # type: ignore[misc]
            return eye.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        except OSError:
            return 0
        finally:
            eye.detach()

    def _tell(self, connection: Watched, now: Mono, *, lost: bool) -> None:
        vital: Vital | None = connection.health
        if vital is None:
            return
        if vital.ring is not None:
            self._put(vital, self._doubtful)
            if self._look(vital, now) is not None:  # which tells both at once
                return
        self._obey(self.joint.tell(connection, now, lost=lost))

    def _obey(self, effects: tuple[JointEffect[Watched], ...]) -> None:
        for effect in effects:
            if isinstance(effect, Cut):
                effect.connection.cut("blocked")
            elif isinstance(effect, Release):
                effect.connection.unpark()
            else:
                effect.connection.park()

    def _put(self, vital: Vital, ring: Ring) -> None:
        if vital.ring is not ring:
            if vital.ring is not None:
                vital.ring.remove(vital)
            ring.add(vital)
