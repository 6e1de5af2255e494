"""Registries of several clusters that exchange their instances over plain connections.

One direction of dialling is enough for a pair of clusters; both together work and cost twice the pings. What is not
exchanged directly travels through others that know both.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Collection, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import replace
from random import Random
from types import TracebackType
from typing import Any, Final, Self

from budao.aio.federation_source import SOURCE_PAUSE_S, FederatedSource
from budao.aio.latest import Latest
from budao.aio.memory_store import monotonic
from budao.aio.security import check_exposure, check_sending, check_token, explain_tls, is_token
from budao.aio.source import Source
from budao.discovery import (
    Changed,
    FederatedSet,
    FederationPolicy,
    Instance,
    Listed,
    Seen,
    Sighting,
    federation_joining,
)
from budao.discovery import federation_peering as peering
from budao.model import BadSettings, Checks, Clock, Mono, RemoteWireError
from budao.wire import federation as wire

logger = logging.getLogger("budao.federation")

OUTBOX_BYTES_MAX: Final = 64 * 1024 * 1024
"""A peer that lets more than this pile up is cut off."""
CONNECT_MAX_S: Final = 5.0
LINKS_PER_CLUSTER_MAX: Final = 4
TURNED_AWAY_S: Final = 60.0
"""How long it is told that a caller was turned away."""
TURNED_AWAY_MAX: Final = 16
CALM_S: Final = 60.0
"""When nobody outbid us for this long, an earlier time does not count against us."""


class Federation:
    """Shares the instances of some services of this cluster with others, while its block is open.

    Units:   `peers` and `listen` are host and port; port 0 takes a free one, `port` tells which; `listen=None` only dials.
    Raises:  BadSettings for a name that cannot be one, and for anything beyond loopback without TLS and a token.
    """

    def __init__(
        self,
        cluster: str,
        local: Source | None = None,
        services: Sequence[str] = (),
        *,
        listen: tuple[str, int] | None = ("127.0.0.1", 0),
        peers: Sequence[tuple[str, int]] = (),
        token: str = "",
        server_tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
        policy: FederationPolicy | None = None,
        epoch: int | None = None,
        clock: Clock = monotonic,
        rng: Random | None = None,
    ) -> None:
        check = Checks("federation")
        fits = bool(cluster) and cluster.isprintable() and "/" not in cluster and len(cluster.encode()) <= 63
        check.need(fits, "cluster", f"{cluster!r} must be 1 to 63 bytes of printing characters without a slash")
        check.done()
        if token:
            check_token(token)
        if listen is not None:
            check_exposure(listen[0], tls=server_tls is not None, token=bool(token))
        for host, _ in peers:
            check_exposure(host, tls=client_tls is not None, token=bool(token))
        check_sending([host for host, _ in peers], tls=client_tls is not None, token=bool(token))
        self.cluster = cluster
        self.local = local
        self.services = tuple(services)
        self.shared = FederatedSet(cluster, time.time_ns() // 1_000_000 if epoch is None else epoch, policy)
        self.policy = self.shared.policy
        self.freshness = peering.Freshness()
        self.changes: Latest[int] = Latest(0)
        """Counts up whenever something looks different."""
        self.stale: frozenset[str] = frozenset()
        """Clusters nobody has heard of for longer than the policy's `stale_max_s`."""
        self.frames_in = self.frames_out = self.bytes_in = self.bytes_out = 0
        self.clock = clock
        self.rng = Random() if rng is None else rng
        self._listen, self._peers = listen, tuple(peers)
        self._server_tls, self._client_tls, self._token = server_tls, client_tls, token
        self._links: set[_Link] = set()
        self._remote: dict[str, dict[str, Seen]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._turned_away: dict[str, Mono] = {}
        """Why callers were turned away, and when last."""
        self._unlisted = set() if local is None else set(services)
        """Services the local source has not listed yet."""
        self.shared.is_held = bool(self._unlisted)

    def __repr__(self) -> str:
        return f"Federation({self.cluster!r}, services={self.services!r})"

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None, "it listens while its block is open"
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connected(self) -> frozenset[str]:
        """Clusters with an open connection to this one."""
        return frozenset(link.machine.cluster for link in self._links if link.machine.is_open)

    @property
    def problems(self) -> tuple[str, ...]:
        """Why peers are not connected, callers were turned away lately, or others do not go by us; one sentence each."""
        found = [f"{link.where}: {p}" for link in self._links if (p := link.machine.problem) is not None]
        since = self.clock() - TURNED_AWAY_S
        found += {f"a caller: {problem}" for problem, at in self._turned_away.items() if at >= since}
        return tuple(sorted(found + ([self.shared.problem] if self.shared.problem else [])))

    def remote(self, service: str) -> dict[str, Instance]:
        """The instances other clusters have, by id, as rosters here show them."""
        return {id_: each.instance for id_, each in self._remote.get(service, {}).items()}

    def seen(self, service: str) -> dict[str, Seen]:
        """The same, with the cluster whose claim is shown."""
        return dict(self._remote.get(service, {}))

    def source(self) -> FederatedSource:
        """A source of local and remote instances together, for a `Directory`."""
        assert self.local is not None, "a federation without a local source has nothing to join remote instances to"
        return FederatedSource(self.local, self)

    def forget(self, cluster: str) -> None:
        """Takes a cluster out, here and at all who hear of it; it can come back only when it is started anew."""
        keys = self.shared.forget(cluster)
        self.shared.settle(keys)
        self.changed(keys)

    def remove(self, service: str, id: str) -> bool:  # noqa: A002 - the word everybody uses
        """Takes an instance out that another cluster claims, until that cluster says something new of it."""
        removed = self.shared.remove((service, id))
        self.changed({(service, id)})
        return removed

    def put(self, instance: Instance) -> bool:
        """Claims an instance for this cluster, for whoever has no source that could say it."""
        if not self.shared.put(instance):
            return False
        self.changed({(instance.service, instance.id)})
        return True

    def withdraw(self, service: str, id: str) -> bool:  # noqa: A002
        """Takes back what `put` claimed."""
        if not self.shared.withdraw((service, id)):
            return False
        self.changed({(service, id)})
        return True

    # ---------------------------------------------------------------------------------------------------- the block

    async def __aenter__(self) -> Self:
        assert not self._tasks, "a federation is entered once"
        if self._listen is not None:
            loop, (host, port) = asyncio.get_running_loop(), self._listen
            try:
                self._server = await loop.create_server(self._accept, host, port, ssl=self._server_tls)
            except (OSError, UnicodeError) as error:
                problem = f"cannot listen on {host} port {port}: {getattr(error, 'strerror', None) or error}"
                raise BadSettings([("federation.listen", problem)]) from error
        for host, port in self._peers:
            _Link(self, (host, port)).arm()
        if self.local is not None:
            for service in self.services:
                self._start(self._feed(self.local, service))
        if self._unlisted:
            self._start(self._speak_at_last())
        self._start(self._age())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in tuple(self._links):
            link.close("this side is stopping")
        # Lets transports say goodbye and tell that they are gone.
        await asyncio.sleep(0)

    def _start(self, running: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(running, name=f"budao federation {self.cluster}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _accept(self) -> _Wire:
        link = _Link(self, None)
        if len(self._links) > LINKS_PER_CLUSTER_MAX * self.policy.clusters_max:
            link.is_over = True
        return _Wire(link)

    # ------------------------------------------------------------------------------------------------------ sharing

    async def _feed(self, local: Source, service: str) -> None:
        while True:
            try:
                async with aclosing(local.follow(service)) as sightings:  # type: ignore[type-var]
                    async for sighting in sightings:
                        self._take(service, sighting)
            except Exception:
                # A source of somebody else's that raises what it should not must not end the exchange.
                logger.exception("following %s on %s failed, trying again", service, local.name)
            await asyncio.sleep(SOURCE_PAUSE_S)

    def _take(self, service: str, sighting: Sighting) -> None:
        if isinstance(sighting, Listed):
            self._unlisted.discard(service)
            there = {each.id for each in sighting.instances}
            gone: Collection[str] = [id_ for id_ in self.shared.own_ids(service) if id_ not in there]
            put = sighting.instances
        elif isinstance(sighting, Changed):
            put, gone = sighting.put, sighting.gone
        else:
            return
        keys = {(service, each.id) for each in put if self.shared.put(each)}
        keys |= {(service, each) for each in gone if self.shared.withdraw((service, each))}
        is_whole = self.shared.is_held and not self._unlisted
        if is_whole:
            self.shared.is_held = False
        if keys or is_whole:
            self.changed(keys)

    async def _speak_at_last(self) -> None:
        await asyncio.sleep(self.policy.first_list_max_s)
        if self.shared.is_held:
            missing = ", ".join(sorted(self._unlisted))
            logger.warning("no list of %s yet, others are told that there are none in %s", missing, self.cluster)
            self.shared.is_held = False
            self.changed(())

    async def _age(self) -> None:
        renewals, renewed_at = 0, self.clock()
        while True:
            await asyncio.sleep(min(1.0, max(0.05, self.policy.stale_max_s / 4)))
            now = self.clock()
            if renewals != self.shared.renewals:
                renewals, renewed_at = self.shared.renewals, now
            elif now - renewed_at > CALM_S:
                self.shared.calm()
            ages = self.freshness.ages_s(now)
            others = [each for each in self.shared.clusters if each != self.cluster]
            stale = frozenset(each for each in others if ages.get(each, 0.0) > self.policy.stale_max_s)
            for each in others:
                if each not in ages:
                    # Known only from what others told: its time runs from now.
                    self.freshness.hear(each, now)
            if stale != self.stale:
                for each in stale - self.stale:
                    logger.warning("cluster %s was not heard of for %g s, not picked", each, self.policy.stale_max_s)
                turned, self.stale = stale ^ self.stale, stale
                self.changed({key for key, seen in self.shared.visible().items() if seen.cluster in turned}, tell=False)

    def changed(self, keys: Collection[tuple[str, str]], *, tell: bool = True) -> None:
        """These keys may look different: renews what rosters see, and tells the peers."""
        for service, id_ in keys:
            there = self._remote.setdefault(service, {})
            seen = self.shared.seen((service, id_), besides=self.cluster)
            if seen is None:
                there.pop(id_, None)
            else:
                shown = federation_joining.placed(seen.instance, seen.cluster, is_stale=seen.cluster in self.stale)
                there[id_] = replace(seen, instance=shown)
            if not there:
                del self._remote[service]
        if keys:
            self.changes.publish(self.changes.value + 1)
        if tell:
            for link in tuple(self._links):
                link.feed(peering.LocalChange())

    def is_trusted(self, frame: peering.Frame) -> bool:
        """Whether a hello shows the token wanted here."""
        return not isinstance(frame, peering.Hello) or not self._token or is_token(frame.token, self._token)

    def turned_away(self, problem: str) -> None:
        """A caller was refused before it had said who it is, or since of who it says it is."""
        self._turned_away.pop(problem, None)
        self._turned_away[problem] = self.clock()
        if len(self._turned_away) > TURNED_AWAY_MAX:
            del self._turned_away[next(iter(self._turned_away))]

    def link(self, link: _Link, *, is_there: bool) -> None:
        """Counts a connection in, or out."""
        if is_there:
            self._links.add(link)
        else:
            self._links.discard(link)

    def connect(self, link: _Link, where: tuple[str, int]) -> None:
        """Begins to connect; the link is told how it went."""
        self._start(self._connect(link, where))

    async def _connect(self, link: _Link, where: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_MAX_S):
                await loop.create_connection(lambda: _Wire(link), *where, ssl=self._client_tls)
        except TimeoutError:
            link.feed(peering.Ended(f"no connection within {CONNECT_MAX_S:g} s"))
        except (OSError, UnicodeError) as error:  # the second for a name that no name server could be asked for
            link.feed(peering.Ended(explain_tls(error)))

    def machine(self, *, is_dialling: bool) -> peering.Peering:
        """What decides for one connection."""
        return peering.Peering(
            self.shared, self.freshness, self.clock(), token=self._token, rng=self.rng, is_dialling=is_dialling
        )


class _Link:
    """One peer that is dialled, or one connection that was accepted."""

    def __init__(self, federation: Federation, where: tuple[str, int] | None) -> None:
        self.federation = federation
        self.address = where
        self.where = "a caller" if where is None else f"{where[0]}:{where[1]}"
        self.machine = federation.machine(is_dialling=where is not None)
        self.wire: _Wire | None = None
        self.is_over = False
        self._timer: asyncio.TimerHandle | None = None
        federation.link(self, is_there=True)

    def feed(self, fact: peering.Fact) -> None:
        if not self.is_over:
            self.perform(self.machine.handle(fact, self.federation.clock()))

    def perform(self, effects: tuple[peering.Effect, ...]) -> None:
        keys: set[tuple[str, str]] = set()
        for effect in effects:
            if isinstance(effect, peering.Send):
                if self.wire is not None:
                    self.wire.send(effect.frame)
            elif isinstance(effect, peering.Changed):
                keys |= effect.keys
            elif isinstance(effect, peering.Connect):
                assert self.address is not None, "only who dials connects"
                self.federation.connect(self, self.address)
            else:
                logger.warning("federation %s, peer %s: %s", self.federation.cluster, self.where, effect.problem)
                if self.address is None and not self.machine.cluster:
                    self.federation.turned_away(effect.problem)
                self._hang_up()
        self.arm()
        if keys:
            self.federation.changed(keys)

    def arm(self) -> None:
        """Sets the timer to when the machine wants to be woken."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake_at = self.machine.wake_at()
        if wake_at is not None and not self.is_over:
            pause_s = min(max(0.0, wake_at - self.federation.clock()), 3_600.0)
            self._timer = asyncio.get_running_loop().call_later(pause_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        # The loop's clock and ours may differ by a hair.
        self.perform(self.machine.wake(Mono(self.federation.clock() + 0.001)))

    def _hang_up(self) -> None:
        wire, self.wire = self.wire, None
        if wire is not None:
            wire.hang_up()
        if self.address is None:
            self.is_over = True
            self.federation.link(self, is_there=False)

    def close(self, why: str) -> None:
        """Says goodbye for good."""
        if self.wire is not None:
            self.wire.send(peering.Bye(why))
        self._hang_up()
        self.is_over = True
        self.federation.link(self, is_there=False)
        self.arm()

    def ended(self, wire: _Wire, problem: str) -> None:
        """A connection is gone."""
        if wire is self.wire:
            self.wire = None
            self.feed(peering.Ended(problem))
            self._hang_up()


class _Wire(asyncio.Protocol):
    """One connection: bytes into frames and back."""

    def __init__(self, link: _Link) -> None:
        self.link = link
        self.decoder = wire.Decoder()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.link.is_over:
            transport.abort()
            return
        self.link.wire = self
        self.link.feed(peering.Connected())

    def data_received(self, data: bytes) -> None:
        federation = self.link.federation
        federation.bytes_in += len(data)
        self.decoder.feed(data)
        try:
            count = 0
            while self.link.wire is self and (frame := self.decoder.next()) is not None:
                count += 1
                federation.frames_in += 1
                self.link.feed(peering.Received(frame, federation.is_trusted(frame)))
                if self.link.machine.is_open:
                    self.decoder.frame_bytes_max = wire.FRAME_BYTES_MAX
            if not count and self.link.machine.is_open:
                self.link.feed(peering.Heard())
        except RemoteWireError as error:
            logger.warning("federation %s, peer %s: %s", federation.cluster, self.link.where, error)
            self.send(peering.Bye(str(error)))
            self.hang_up()
            self.link.ended(self, str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.link.ended(self, "the connection was closed" if exc is None else explain_tls(exc))

    def send(self, frame: peering.Frame) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        raw = wire.format_frame(frame)
        self.link.federation.frames_out += 1
        self.link.federation.bytes_out += len(raw)
        self.transport.write(raw)
        if self.transport.get_write_buffer_size() > OUTBOX_BYTES_MAX:
            self.transport.abort()

    def hang_up(self) -> None:
        if self.transport is not None:
            self.transport.close()
            # A frozen peer would keep what is still to be written for ever.
            asyncio.get_running_loop().call_later(1.0, self.transport.abort)
