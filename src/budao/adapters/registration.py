"""Registration of this process as a one-liner, and leaving without losing a call.

    async with registration(service="inventory", store="budao://store:7420", port=9000) as here:
        await here.left()        # until SIGTERM came and the drain is over

For ASGI see `asgi_registration`, for gRPC `grpc_registration`, for a listener of your own `tcp`. A worker without a
listener leaves out service and store, wraps each piece of work in `with here.call():`, and asks `here.is_draining`
before it takes the next.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from random import Random
from types import FrameType
from typing import Any

from budao.adapters._whereabouts import advertised_host
from budao.adapters.stores import open_store
from budao.aio import Drainer, Port, Registrar, Store, StoreSource, Traffic
from budao.discovery import Address, DrainPolicy, DrainProof, Instance, RegistrarPolicy, new_id
from budao.model import BadSettings, Stage

__all__ = ["Here", "Membership", "Place", "advertised_host", "registration", "signals_taken"]

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ANY_IPV4 = "0.0.0.0"  # noqa: S104 - to be looked for, not listened on
EARLY_S = 0.02
LATE_S = 0.5
"""Ends of the growing pause between looks whether the own port answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What an instance says of itself; what is empty is found out."""

    service: str
    id: str = ""
    protocol: str = "http"
    host: str = ""
    port: int = 0
    zone: str = ""
    weight: float = 1.0
    version: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    capacity: int = 0

    def instance(self, *, bound_host: str, bound_port: int, store: str, rng: Random) -> Instance:
        """What to register for a server that listens on that address.

        Raises:  BadSettings if it is not clear where others reach it.
        """
        port = self.port or bound_port
        if not port:
            raise BadSettings([("registration.port", "nothing says on which port this process listens; give port=...")])
        host = advertised_host(self.host, bound=bound_host, store=store)
        return Instance(
            service=self.service,
            id=self.id or new_id(self.service, rng),
            addresses={self.protocol: Address(host, port)},
            zone=self.zone,
            weight=self.weight,
            version=self.version,
            metadata=self.metadata,
            capacity=self.capacity,
        )


class Membership:
    """An instance in a store, from joining to being revoked: the announcer of a drain."""

    def __init__(
        self, store: Store | str, place: Place, *, policy: RegistrarPolicy | None = None, namespace: str = "budao"
    ) -> None:
        self.place = place
        self._given = store
        self._policy = policy
        self._namespace = namespace
        self._store: Store | None = None
        self._source: StoreSource | None = None
        self._registrar: Registrar | None = None

    @property
    def name(self) -> str:
        who = self._registrar.instance.id if self._registrar is not None else "-"
        return f"service={self.place.service} instance={who}"

    @property
    def instance(self) -> Instance | None:
        """What is registered; None before."""
        return None if self._registrar is None else self._registrar.instance

    async def join(self, bound_host: str = "", bound_port: int = 0) -> None:
        """Registers it as ready.

        Raises:  BadSettings if it is not clear where others reach it; DuplicateInstance; StoreError.
        """
        store = self._store = open_store(self._given) if isinstance(self._given, str) else self._given
        url = self._given if isinstance(self._given, str) else store.name
        try:
            instance = self.place.instance(bound_host=bound_host, bound_port=bound_port, store=url, rng=Random())
            registrar = Registrar(store, instance, policy=self._policy, namespace=self._namespace)
            await registrar.__aenter__()
        except BaseException:
            await self.aclose()
            raise
        self._registrar = registrar
        self._source = StoreSource(store, namespace=self._namespace)

    async def publish_draining(self) -> int:
        assert self._registrar is not None, "join first"
        return await self._registrar.announce(Stage.DRAINING)

    async def watched(self) -> AsyncGenerator[Mapping[str, int], None]:
        assert self._source is not None, "join first"
        async with aclosing(self._source.watchers(self.place.service)) as seen:
            async for watchers in seen:
                yield {watcher.name: watcher.revision for watcher in watchers}

    async def revoke(self) -> None:
        if self._registrar is not None:
            await self._registrar.__aexit__(None, None, None)
        await self.aclose()

    async def aclose(self) -> None:
        """Lets go of what was opened here; a store that was handed in stays open."""
        if self._source is not None:
            await self._source.aclose()
        if self._store is not None and isinstance(self._given, str):
            await self._store.aclose()
        self._store = None


async def answers(host: str, port: int) -> None:
    """Returns once somebody accepts connections there."""
    pause_s = EARLY_S
    host = {"": "127.0.0.1", ANY_IPV4: "127.0.0.1", "::": "::1"}.get(host, host)
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            return
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, LATE_S)


@contextmanager
def signals_taken(on_signal: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Takes SIGTERM and SIGINT for this block; outside the main thread nothing is taken."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Here:
    """This process, while it is registered."""

    def __init__(self, drainer: Drainer, membership: Membership | None, task: asyncio.Task[DrainProof]) -> None:
        self.drainer = drainer
        self.membership = membership
        self._task = task

    @property
    def instance(self) -> Instance | None:
        return None if self.membership is None else self.membership.instance

    @property
    def is_draining(self) -> bool:
        """Whether this process leaves: take no new work."""
        return self.drainer.is_draining

    @contextmanager
    def call(self) -> Iterator[None]:
        """One piece of work, from its start to its end; a drain waits for it."""
        with self.drainer.traffic.call():
            yield

    def leave(self) -> None:
        """Starts the drain, as a signal does."""
        self.drainer.ask()

    async def left(self) -> DrainProof:
        """Waits until the order to leave came and the drain is over."""
        return await asyncio.shield(self._task)


@asynccontextmanager
async def registration(
    service: str = "",
    store: Store | str | None = None,
    *,
    place: Place | None = None,
    host: str = "",
    port: int = 0,
    protocol: str = "tcp",
    id: str = "",  # noqa: A002 - the word everybody uses
    server: Port | None = None,
    traffic: Traffic | None = None,
    drain: DrainPolicy | None = None,
    registrar: RegistrarPolicy | None = None,
    signals: bool = True,
) -> AsyncIterator[Here]:
    """Registers this process while the block is open, and drains before the block is left.

    - With no `service` nothing is registered, and only the drain is there.
    - `place` says more than the short arguments can, and then replaces them.
    - `server` obeys the drain, such as a `tcp.TcpPort`, and `traffic` counts its calls; it should be listening already.
    - `signals` says whether SIGTERM and SIGINT start the drain; a second one hurries it.

    Raises:  BadSettings if it is not clear where others reach this process.
    """
    where = Place(service=service, id=id, protocol=protocol, host=host, port=port) if place is None else place
    membership = None
    if where.service and store is not None:
        membership = Membership(store, where, policy=registrar)
        await membership.join(bound_port=where.port)
    drainer = Drainer(drain, port=server, announcer=membership, traffic=traffic)
    task = asyncio.create_task(drainer.run(), name="budao drain")
    with signals_taken(lambda *_: drainer.ask()) if signals else nullcontext():
        try:
            yield Here(drainer, membership, task)
        finally:
            # Leaving the block is an order as well, unless one has come already.
            if not drainer.was_asked:
                drainer.ask()
            await task
