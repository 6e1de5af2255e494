"""Where a directory learns who is there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from budao.discovery import Sighting


class Source(Protocol):
    """Follows services: on a store, on Kubernetes, on Consul."""

    @property
    def name(self) -> str:
        """What to call it in a message: kind and address, no secret."""

    def follow(self, service: str) -> AsyncIterator[Sighting]:
        """What is said about a service, for ever; it never raises for a source that is away, but says so."""

    async def acknowledge(self, service: str, watcher: str, revision: int) -> bool:
        """Says that `watcher` acts on everything up to `revision`; False where the source has no place to say it.

        Revision 0 says that it watches no more.
        """

    async def aclose(self) -> None:
        """Lets go of connections and tasks."""
