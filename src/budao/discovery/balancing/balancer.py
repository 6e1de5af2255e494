"""What every balancer can do."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Protocol

from budao.model import Endpoint, Load, Mono


class Choice(Protocol):
    """An endpoint that was picked, with whatever the balancer remembers about it. Settled exactly once for each pick."""

    @property
    def endpoint(self) -> Endpoint: ...


class Balancer(Protocol):
    """Picks one of several endpoints, and learns from how the calls end.

    Not safe to use from several threads at once: a shell that has several holds a lock around each call.
    """

    def renew(self, endpoints: Sequence[Endpoint], now: Mono) -> None:
        """These are the endpoints from now on. What was learned of those that stay is kept."""

    def pick(self, now: Mono, *, key: bytes | None = None, avoid: Container[str] = ()) -> Choice | None:
        """The endpoint for one call; None if there is none.

        `key` is for balancers that keep equal keys together. `avoid` names ids that were tried for this call already:
        they are picked only if nothing else is left.
        """

    def settle(self, choice: Choice, took_s: float, failed: bool, load: Load | None, now: Mono) -> None:
        """The call ended after `took_s` seconds; `load` is what the server said about itself, if it said anything."""

    def drop(self, choice: Choice, now: Mono) -> None:
        """The call ended in a way that says nothing about the endpoint, such as being cancelled."""
