"""Rows that live in the bench only: the oracle, and C3 as it was published, on response times."""

# ruff: noqa: ARG002 - rows keep the arguments of the protocol, whether they read them or not

from __future__ import annotations

from collections.abc import Container, Sequence

from bench.balancers.world import MEAN_S, WORKERS, World
from budao.discovery import Choice
from budao.model import Endpoint, Load, Mono


class Taken:
    __slots__ = ("endpoint", "index")

    def __init__(self, endpoint: Endpoint, index: int) -> None:
        self.endpoint = endpoint
        self.index = index


class Oracle:
    """The least expected time to the end, by the true queues and speeds."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.endpoints: Sequence[Endpoint] = ()

    def renew(self, endpoints: Sequence[Endpoint], now: Mono) -> None:
        self.endpoints = endpoints

    def pick(self, now: Mono, *, key: bytes | None = None, avoid: Container[str] = ()) -> Taken:
        costs = [
            MEAN_S * each.slow * each.disturbed * (1.0 + max(0, each.sent - WORKERS + 1) / WORKERS)
            for each in self.world.servers
        ]
        index = costs.index(min(costs))
        return Taken(self.endpoints[index], index)

    def settle(self, choice: Choice, took_s: float, failed: bool, load: Load | None, now: Mono) -> None:
        pass

    def drop(self, choice: Choice, now: Mono) -> None:
        pass


class C3:
    """R - 1/mu + (1 + own in flight · clients + queue)³ / mu, means of alpha 0.1, failed replies like others."""

    def __init__(self, clients: int) -> None:
        self.clients = clients

    def renew(self, endpoints: Sequence[Endpoint], now: Mono) -> None:
        self.endpoints = endpoints
        self.own = [0] * len(endpoints)
        self.queue = [0.0] * len(endpoints)
        self.service_s = [0.0] * len(endpoints)
        self.response_s = [0.0] * len(endpoints)

    def pick(self, now: Mono, *, key: bytes | None = None, avoid: Container[str] = ()) -> Taken:
        costs = [
            response_s - service_s + (1.0 + own * self.clients + queue) ** 3 * service_s
            for own, queue, service_s, response_s in zip(
                self.own, self.queue, self.service_s, self.response_s, strict=True
            )
        ]
        index = costs.index(min(costs))
        self.own[index] += 1
        return Taken(self.endpoints[index], index)

    def settle(self, choice: Choice, took_s: float, failed: bool, load: Load | None, now: Mono) -> None:
        assert isinstance(choice, Taken)
        assert load is not None
        index = choice.index
        self.own[index] -= 1
        alpha = 0.1 if self.response_s[index] else 1.0
        self.queue[index] += alpha * (load.in_flight - self.queue[index])
        # As published: the time of the reply stands for the service, waiting included.
        self.service_s[index] += alpha * (took_s - self.service_s[index])
        self.response_s[index] += alpha * (took_s - self.response_s[index])

    def drop(self, choice: Choice, now: Mono) -> None:
        assert isinstance(choice, Taken)
        self.own[choice.index] -= 1
