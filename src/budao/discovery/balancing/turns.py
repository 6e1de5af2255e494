"""Taking turns, in proportion to weights."""

from __future__ import annotations

from collections.abc import Container, Sequence
from heapq import heapify, heapreplace
from typing import TypeVar

from budao.discovery.balancing.places import Place, Places
from budao.model import Endpoint, Mono


class Turning(Place):
    """A place with a turn: the least turn is next, and a pick moves it on by one over the weight."""

    __slots__ = ("turn",)

    def __init__(self, endpoint: Endpoint, turn: float) -> None:
        super().__init__(endpoint)
        self.turn = turn


T = TypeVar("T", bound=Turning)


def take_turn(places: Sequence[T], weights: Sequence[float]) -> T:
    """The place whose turn it is. Spreads each one's picks evenly over the round (stride scheduling)."""
    place, weight = min(zip(places, weights, strict=True), key=lambda each: each[0].turn + 1.0 / each[1])
    place.turn += 1.0 / weight
    return place


def turn_now(places: Sequence[Turning]) -> float:
    """Where a newcomer starts: with those whose turn is next, so that it catches up nothing."""
    return min((each.turn for each in places), default=0.0)


class RoundRobin(Places[Turning]):
    """Each in turn, in proportion to the weights. Learns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = 0.0  # where newcomers start
        self._row: list[tuple[float, int, Turning]] = []  # a heap: the next turn of each, and its number among equals

    def renew(self, endpoints: Sequence[Endpoint], now: Mono) -> None:
        self._turn = turn_now(self._places)
        super().renew(endpoints, now)

    def _made(self, endpoint: Endpoint, now: Mono) -> Turning:  # noqa: ARG002 - a protocol's argument
        return Turning(endpoint, self._turn)

    def _renewed(self, now: Mono) -> None:  # noqa: ARG002
        self._row = [(each.turn + _step(each), number, each) for number, each in enumerate(self._places)]
        heapify(self._row)

    def _chosen(self, now: Mono, key: bytes | None, avoid: Container[str]) -> Turning:  # noqa: ARG002
        row = self._row
        if avoid == () or row[0][2].endpoint.id not in avoid:
            turn, number, place = row[0]
            heapreplace(row, (turn + _step(place), number, place))
        else:
            found = min(row, key=lambda each: (each[2].endpoint.id in avoid, each[:2]))
            turn, number, place = found
            row[row.index(found)] = (turn + _step(place), number, place)
            heapify(row)
        place.turn = turn
        return place


def _step(place: Turning) -> float:
    return 1.0 / (place.endpoint.weight or 1.0)
