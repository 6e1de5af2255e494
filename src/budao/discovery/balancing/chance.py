"""Picks that roll dice: one at random, or the better of two."""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import accumulate
from math import exp
from random import Random
from typing import TypeVar

from budao.discovery.balancing.places import Place, Places
from budao.model import Endpoint, Load, Mono

P = TypeVar("P", bound=Place)


def two_of(places: Sequence[P], rng: Random) -> tuple[P, P]:
    """Two different places, evenly; the same one twice if there is only one."""
    count = len(places)
    first = int(rng.random() * count)
    second = int(rng.random() * (count - 1))
    return places[first], places[second + (second >= first) if count > 1 else 0]


class RandomChoice(Places[Place]):
    """One at random, in proportion to the weights. Learns nothing."""

    def __init__(self, rng: Random) -> None:
        super().__init__()
        self._rng = rng
        self._sums: list[float] = []

    def _made(self, endpoint: Endpoint, now: Mono) -> Place:  # noqa: ARG002 - a protocol's argument
        return Place(endpoint)

    def _renewed(self, now: Mono) -> None:  # noqa: ARG002
        self._sums = _sums(self._places)

    def _chosen(self, now: Mono, key: bytes | None, avoid: Container[str]) -> Place:  # noqa: ARG002
        allowed = self._allowed(avoid)
        sums = self._sums if allowed is self._places else _sums(allowed)
        return self._rng.choices(allowed, cum_weights=sums)[0]


class LeastRequest(Places[Place]):
    """Of two at random, the one with fewer of this client's calls in flight for its weight.

    Source: Mitzenmacher, "The power of two choices in randomized load balancing", 2001.
    """

    def __init__(self, rng: Random) -> None:
        super().__init__()
        self._rng = rng

    def _made(self, endpoint: Endpoint, now: Mono) -> Place:  # noqa: ARG002 - a protocol's argument
        return Place(endpoint)

    def _chosen(self, now: Mono, key: bytes | None, avoid: Container[str]) -> Place:  # noqa: ARG002
        one, other = two_of(self._allowed(avoid), self._rng)
        return other if _crowd(other) < _crowd(one) else one


class _Peak(Place):
    __slots__ = ("at", "response_s")

    def __init__(self, endpoint: Endpoint, now: Mono) -> None:
        super().__init__(endpoint)
        self.response_s = 0.0
        self.at: float = now


class PeakEwma(Places[_Peak]):
    """Of two at random, the one with the smaller product of response time and calls in flight.

    The response time is a mean that jumps up at once and comes down over `fade_s`. Failed calls count like others, so a
    server that fails fast looks fast; that is how it is known elsewhere, and why it is not the default here.
    """

    def __init__(self, rng: Random, *, fade_s: float = 1.0) -> None:
        super().__init__()
        self._rng = rng
        self.fade_s = fade_s

    def _made(self, endpoint: Endpoint, now: Mono) -> _Peak:
        return _Peak(endpoint, now)

    def _chosen(self, now: Mono, key: bytes | None, avoid: Container[str]) -> _Peak:  # noqa: ARG002
        one, other = two_of(self._allowed(avoid), self._rng)
        return other if self._cost(other, now) < self._cost(one, now) else one

    def _learn(self, place: _Peak, took_s: float, failed: bool, load: Load | None, now: Mono) -> None:  # noqa: ARG002
        kept = exp(min(0.0, place.at - now) / self.fade_s)
        place.response_s = max(took_s, took_s + (place.response_s - took_s) * kept)
        place.at = now

    def _cost(self, place: _Peak, now: Mono) -> float:
        # It fades to nothing while it is not tried, so that a bad moment is forgotten.
        return place.response_s * exp(min(0.0, place.at - now) / self.fade_s) * _crowd(place)


def _crowd(place: Place) -> float:
    return (place.in_flight + 1) / (place.endpoint.weight or 1.0)


def _sums(places: Sequence[Place]) -> list[float]:
    return list(accumulate(each.endpoint.weight or 1.0 for each in places))
