"""Turns in proportion to weights that follow the response times."""

from __future__ import annotations

from collections.abc import Container, Sequence

from budao.discovery.balancing.places import Places
from budao.discovery.balancing.turns import Turning, take_turn, turn_now
from budao.measure import nearest_rank
from budao.model import Endpoint, Load, Mono

WEIGHT_FIRST, WEIGHT_MIN, WEIGHT_MAX = 10.0, 1.0, 100.0
EPSILON_S = 0.0001
ALPHA = 0.2


class _Weighed(Turning):
    __slots__ = ("response_s",)

    def __init__(self, endpoint: Endpoint, turn: float) -> None:
        super().__init__(endpoint, turn)
        self.response_s = 0.0


class LatencyFeedback(Places[_Weighed]):
    """Turns in proportion to w = w0 · p90 / (rtt + ε), from 1 to 100; w0 is ten times the endpoint's own weight.

    `rtt` is the endpoint's mean response time, and p90 the 90th percentile of these over all endpoints. Each client
    weighs anew every `renew_s`. It knows no queue: near full load slow endpoints still get a share they cannot serve.
    """

    def __init__(self, *, renew_s: float = 0.1) -> None:
        super().__init__()
        self.renew_s = renew_s
        self._weights: list[float] = []
        self._weigh_at = 0.0
        self._turn = 0.0  # where newcomers start

    def renew(self, endpoints: Sequence[Endpoint], now: Mono) -> None:
        self._turn = turn_now(self._places)
        super().renew(endpoints, now)

    def _made(self, endpoint: Endpoint, now: Mono) -> _Weighed:  # noqa: ARG002 - a protocol's argument
        return _Weighed(endpoint, self._turn)

    def _renewed(self, now: Mono) -> None:
        self._weigh(now)

    def _chosen(self, now: Mono, key: bytes | None, avoid: Container[str]) -> _Weighed:  # noqa: ARG002
        if now >= self._weigh_at:
            self._weigh(now)
        allowed = self._allowed(avoid)
        if allowed is self._places:
            return take_turn(allowed, self._weights)
        weights = dict(zip(map(id, self._places), self._weights, strict=True))
        return take_turn(allowed, [weights[id(each)] for each in allowed])

    def _learn(self, place: _Weighed, took_s: float, failed: bool, load: Load | None, now: Mono) -> None:  # noqa: ARG002
        alpha = ALPHA if place.response_s else 1.0
        place.response_s += alpha * (took_s - place.response_s)

    def _weigh(self, now: Mono) -> None:
        self._weigh_at = now + self.renew_s
        known = sorted(each.response_s for each in self._places if each.response_s)
        high_s = known[nearest_rank(0.9, len(known)) - 1] if known else 0.0
        self._weights = [_weight(each, high_s) for each in self._places]


def _weight(place: _Weighed, high_s: float) -> float:
    first = WEIGHT_FIRST * (place.endpoint.weight or 1.0)
    if not place.response_s:
        return first
    return min(WEIGHT_MAX, max(WEIGHT_MIN, first * high_s / (place.response_s + EPSILON_S)))
