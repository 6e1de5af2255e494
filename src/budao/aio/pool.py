"""The endpoints of a service as calls use them: pick one, send, settle."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterable
from random import Random
from typing import Any, Protocol

from budao.discovery import Balancer, Picked, PoolMachine, PoolView, Roster
from budao.discovery import balancer as balancer_of
from budao.model import Checks, Endpoint, Load, Mono


class HasRoster(Protocol):
    """A `Directory`, or anything else that publishes a roster by replacing it."""

    @property
    def roster(self) -> Roster: ...


class Pool:
    """Picks the endpoint of each call to one service, and teaches the balancer how the calls end.

    One pool serves event loops and threads alike: its lock is held for a pick or a settling, never while anything waits.

    - `where` is a directory, or endpoints that stay as they are.
    - `balancer` is one, or the name of one ("round-robin"); `zone` is where this client is, for those that care.
    - `protocol` chooses among the addresses of an instance, by default its first.
    - `service` names the pool in errors if `where` does not.

    Raises:  BadSettings for a balancer nobody knows, and for two endpoints with one id.
    """

    def __init__(
        self,
        where: HasRoster | Iterable[Endpoint],
        *,
        balancer: Balancer | str = "live-cost",
        protocol: str = "",
        zone: str = "",
        service: str = "",
        clock: Callable[[], float] = time.perf_counter,
        rng: Random | None = None,
    ) -> None:
        if isinstance(balancer, str):
            balancer = balancer_of(balancer, Random() if rng is None else rng, zone=zone)
        self.clock = clock
        self._machine = PoolMachine(balancer, service=service, protocol=protocol)
        self._lock = threading.Lock()
        self._forgotten: deque[Picked] = deque()
        self._where: Any = _Fixed()
        self._seen: object = None
        if hasattr(where, "roster"):
            self._where = where
            self._machine.service = where.roster.service
        else:
            self._seen = self._where.roster
            self._machine.renew_fixed(_checked(where), Mono(clock()))

    @classmethod
    def of(cls, *addresses: str, **more: Any) -> Pool:
        """A pool over fixed addresses, such as `Pool.of("10.0.0.1:8000", "[::1]:8000")`.

        Raises:  BadSettings for an address that is not "host:port".
        """
        check = Checks("pool")
        endpoints = [_endpoint(check, each) for each in addresses]
        check.done()
        return cls(endpoints, **more)

    @property
    def service(self) -> str:
        """What the endpoints are endpoints of; "" while nobody said."""
        return self._machine.service

    @property
    def in_flight(self) -> int:
        """Calls that were picked for and did not end yet."""
        return self._machine.in_flight

    def pick(self, *, key: bytes | None = None, avoid: Container[str] = ()) -> Picked:
        """The endpoint for one call, which then must be settled or dropped.

        `key` is for balancers that keep equal keys together; `avoid` are ids that were tried for this call already.

        Raises:  NobodyThere.
        """
        now = Mono(self.clock())
        with self._lock:
            if self._where.roster is not self._seen or self._forgotten:
                self._catch_up(now)
            picked = self._machine.pick(now, key=key, avoid=avoid)
            if picked is None:
                raise self._machine.nobody()
        return picked

    def settle(
        self, picked: Picked, *, failed: bool = False, load: Load | None = None, took_s: float | None = None
    ) -> None:
        """The call ended: after `took_s` seconds, or just now. `load` is what the server said about itself."""
        now = Mono(self.clock())
        with self._lock:
            self._machine.settle(picked, now - picked.since if took_s is None else took_s, failed, load, now)

    def drop(self, picked: Picked, *, was_waiting: bool = False) -> None:
        """The call ended in a way that says nothing about the endpoint: it was cancelled, or never sent.

        With `was_waiting` it was cancelled before there was an answer, and counts as slow if that took long.
        """
        now = Mono(self.clock())
        with self._lock:
            self._machine.drop(picked, now, was_waiting=was_waiting)

    def forget(self, picked: Picked) -> None:
        """The call is dropped, with the next pick: for collectors, which may run while the lock is held."""
        self._forgotten.append(picked)

    def _catch_up(self, now: Mono) -> None:
        roster = self._where.roster
        if roster is not self._seen:
            self._machine.renew(roster, now)
            self._seen = roster
        while self._forgotten:
            self._machine.drop(self._forgotten.popleft(), now)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints that calls may go to at this moment."""
        return tuple(each.endpoint for each in self.view().endpoints)

    def view(self) -> PoolView:
        """How things stand, for metrics; they are pulled and never pushed."""
        now = Mono(self.clock())
        with self._lock:
            self._catch_up(now)
            return self._machine.view()

    def explain(self) -> str:
        """How things stand, for people."""
        self.view()
        with self._lock:
            return self._machine.explain()


class _Fixed:
    """Stands where a directory would, and never changes."""

    roster = object()


def _checked(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    every = tuple(endpoints)
    check = Checks("pool")
    seen: set[str] = set()
    for each in every:
        check.need(each.id not in seen, "endpoints", f"two have the id {each.id!r}")
        seen.add(each.id)
    check.done()
    return every


def _endpoint(check: Checks, address: str) -> Endpoint:
    host, _, port = address.rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    is_good = bool(host) and 1 <= number <= 65_535 and (":" not in host or host.startswith("["))
    check.need(is_good, "addresses", f"{address!r} is not host:port")
    return Endpoint(id=address, host=host.strip("[]"), port=number)
