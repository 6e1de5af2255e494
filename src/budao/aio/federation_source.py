"""The instances of this cluster and of others in one list, for a directory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from budao.aio.source import Source
from budao.discovery import Listed, Sighting, WentAway
from budao.discovery import federation_joining as joining
from budao.model import Mono

if TYPE_CHECKING:
    from budao.aio.federation import Federation

logger = logging.getLogger("budao.federation")

SOURCE_PAUSE_S: Final = 1.0
"""Between tries to follow a source that raised or ended."""


class FederatedSource:
    """A `Source` of the local instances and those of other clusters, in one list. Revisions are those of the local one.

    An id that is both here and elsewhere is the local one. Instances elsewhere stand in the zone "cluster/zone", so that
    a balancer prefers those here, and carry the cluster's name as metadata "cluster"; while their cluster is stale, they
    are listed as starting, so nobody picks them, and nothing is to be learned anew when it returns. While the local
    source is away its instances stay as they were and are listed as old, and those elsewhere still come and go.
    """

    def __init__(self, local: Source, federation: Federation) -> None:
        self.local = local
        self.federation = federation
        self._known: dict[str, Listed] = {}
        """The local half of each service that was followed, for whoever follows it next while the local source is away."""

    @property
    def name(self) -> str:
        return f"{self.local.name} with the federation of {self.federation.cluster}"

    async def follow(self, service: str) -> AsyncGenerator[Sighting, None]:
        clock = self.federation.clock
        facts: asyncio.Queue[Sighting | joining.Remote] = asyncio.Queue(1)
        tasks = [
            asyncio.create_task(self._locals(service, facts), name=f"budao federated {service}"),
            asyncio.create_task(self._remotes(service, facts), name=f"budao federated {service}, remote"),
        ]
        machine = joining.Joining(self.federation.policy, clock(), self._known.get(service))
        try:
            while True:
                fact = await self._next(facts, machine.wake_at())
                now = clock()
                said = machine.wake(now)
                if fact is not None:
                    said += machine.handle(fact, now)
                if machine.known is not None:
                    self._known[service] = machine.known
                for each in said:
                    yield each
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def acknowledge(self, service: str, watcher: str, revision: int) -> bool:
        return await self.local.acknowledge(service, watcher, revision)

    async def aclose(self) -> None:
        """Lets go of nothing: the local source and the federation belong to whoever made them."""

    async def _next(
        self, facts: asyncio.Queue[Sighting | joining.Remote], wake_at: Mono | None
    ) -> Sighting | joining.Remote | None:
        pause_s = None if wake_at is None else min(max(0.0, wake_at - self.federation.clock()), 3_600.0)
        try:
            async with asyncio.timeout(pause_s):
                return await facts.get()
        except TimeoutError:
            return None

    async def _locals(self, service: str, facts: asyncio.Queue[Sighting | joining.Remote]) -> None:
        while True:
            try:
                async with aclosing(self.local.follow(service)) as sightings:  # type: ignore[type-var]
                    async for sighting in sightings:
                        await facts.put(sighting)
                await facts.put(WentAway(f"{self.local.name} ended its list of {service}"))
            except Exception as error:
                logger.exception("following %s on %s failed, trying again", service, self.local.name)
                await facts.put(WentAway(f"{type(error).__name__}: {error}"))
            await asyncio.sleep(SOURCE_PAUSE_S)

    async def _remotes(self, service: str, facts: asyncio.Queue[Sighting | joining.Remote]) -> None:
        async for _ in self.federation.changes.watch():
            clusters = frozenset(self.federation.shared.clusters)
            await facts.put(joining.Remote(self.federation.seen(service), clusters))
