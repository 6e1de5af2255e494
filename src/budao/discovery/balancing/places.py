"""What every balancer here keeps about its endpoints, and how a pick is opened and closed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from typing import Any, Generic, TypeVar

from budao.discovery.balancing.balancer import Choice
from budao.model import Endpoint, Load, Mono


class Place:
    """One endpoint, as one balancer knows it. It outlives the endpoint for as long as calls are in flight there."""

    __slots__ = ("endpoint", "in_flight")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.in_flight = 0
        """Own calls that were picked, and neither settled nor dropped."""


P = TypeVar("P", bound=Place)


class Pick(Generic[P]):
    """A pick that is settled or dropped exactly once."""

    __slots__ = ("endpoint", "is_open", "place")

    def __init__(self, place: P) -> None:
        self.place = place
        self.endpoint = place.endpoint
        self.is_open = True


class Places(ABC, Generic[P]):
    """A balancer without its choice: subclasses say what is kept (`_made`), what is picked and what is learned.

    Endpoints are sorted by id, so that the same roster in another order is the same roster.
    """

    def __init__(self) -> None:
        self._places: list[P] = []
        self._by_id: dict[str, P] = {}

    def renew(self, endpoints: Sequence[Endpoint], now: Mono) -> None:
        known = self._by_id
        self._by_id = {}
        for endpoint in sorted(endpoints, key=_id_of):
            assert endpoint.id not in self._by_id, "two endpoints of one pool never share an id"
            place = known.get(endpoint.id)
            if place is None:
                place = self._made(endpoint, now)
            place.endpoint = endpoint
            self._by_id[endpoint.id] = place
        # Weight 0 says "no calls", unless nobody else is there.
        self._places = [each for each in self._by_id.values() if each.endpoint.weight > 0.0]
        self._places = self._places or list(self._by_id.values())
        self._renewed(now)

    def pick(self, now: Mono, *, key: bytes | None = None, avoid: Container[str] = ()) -> Pick[P] | None:
        if not self._places:
            return None
        place = self._chosen(now, key, avoid)
        place.in_flight += 1
        return Pick(place)

    def settle(self, choice: Choice, took_s: float, failed: bool, load: Load | None, now: Mono) -> None:
        self._learn(close(choice), took_s, failed, load, now)

    def drop(self, choice: Choice, now: Mono) -> None:  # noqa: ARG002 - a protocol's argument
        close(choice)

    @abstractmethod
    def _made(self, endpoint: Endpoint, now: Mono) -> P:
        """What is kept of an endpoint that is new."""

    def _renewed(self, now: Mono) -> None:
        """The places are new ones."""

    @abstractmethod
    def _chosen(self, now: Mono, key: bytes | None, avoid: Container[str]) -> P:
        """The place for one call; there is at least one."""

    def _learn(self, place: P, took_s: float, failed: bool, load: Load | None, now: Mono) -> None:
        """A call there ended."""

    def _allowed(self, avoid: Container[str]) -> list[P]:
        """The places that are not to be avoided, or all if that leaves none."""
        if avoid == ():
            return self._places
        return [each for each in self._places if each.endpoint.id not in avoid] or self._places


def close(choice: Choice) -> Any:
    """The place of a pick that ends now."""
    assert isinstance(choice, Pick) and choice.is_open, (
        "a pick is settled or dropped once, by the balancer that made it"
    )
    choice.is_open = False
    choice.place.in_flight -= 1
    return choice.place


def _id_of(endpoint: Endpoint) -> str:
    return endpoint.id
