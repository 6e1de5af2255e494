"""What the clients that pick from a pool have in common: who was tried, what a reply tells, how a call ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from budao.aio import Pool
from budao.discovery import Picked
from budao.model import Endpoint, context
from budao.wire import parse_load

CONNECTS_MAX: Final = 3
"""Endpoints tried for one call that could not be sent at all."""
CONNECT_MAX_S: Final = 1.0
"""How long one of them may take to answer the first packet, in seconds; a machine that is gone never does."""

_LATE_S = 0.001  # a timer that ends a call may ring this much early

_tried: ContextVar[set[str] | None] = ContextVar("budao_tried", default=None)

Pools = Mapping[str, Pool]


@contextmanager
def one_call() -> Iterator[None]:
    """All tries within, retries and hedges on whatever thread or task, are tries of one call."""
    token = _tried.set(set())
    try:
        yield
    finally:
        _tried.reset(token)


def begin_call() -> None:
    """The same, where the context ends with the call."""
    _tried.set(set())


def tried_so_far() -> set[str]:
    """The ids that tries of this call went to, to be added to; a new set outside of one."""
    tried = _tried.get()
    return set() if tried is None else tried


def pool_of(pools: Pool | Pools, host: str) -> Pool | None:
    """The pool that stands for a host; None for a host that is just that.

    A pool alone stands for its service, and one that has no name for every host.
    """
    if isinstance(pools, Pool):
        return pools if pools.service in {"", host} else None
    return pools.get(host)


def gives_up(pool: Pool, here: set[str], last: Endpoint, connects_max: int) -> bool:
    """Whether nobody is left to be reached in place of `last`, which `here` then holds too.

    A balancer that picks the same endpoint again has no other: it may leave out some that are there, such as those of weight 0.
    """
    is_again = last.id in here
    here.add(last.id)
    return is_again or len(here) >= connects_max or all(each.id in here for each in pool.endpoints())


class Trip:
    """One try on its way to one endpoint. Whatever comes first ends it; what comes later is too late."""

    __slots__ = ("_failed", "_load", "_picked", "_pool", "_took_s", "_until", "endpoint")

    def __init__(self, pool: Pool, tried: set[str], key: bytes | None = None) -> None:
        """Picks an endpoint.

        Raises:  NobodyThere.
        """
        self._picked: Picked | None = None
        self._picked = picked = pool.pick(key=key, avoid=tried)
        self._pool = pool
        self._until = context.deadline.get()
        self._failed = False
        self._load: str | None = None
        self._took_s: float | None = None
        self.endpoint: Endpoint = picked.endpoint
        tried.add(picked.endpoint.id)

    def answered(self, load: str | None, *, failed: bool) -> None:
        """The answer began, with what the server said of its load; how slowly somebody reads it is not its latency."""
        if self._picked is not None:
            self._took_s = self._pool.clock() - self._picked.since
            self._load = load
            self._failed = failed

    def told(self, load: str | None) -> None:
        """The load came after the answer began."""
        self._load = load

    def end(self, *, failed: bool = False) -> None:
        """The call ended: as the answer said, or worse."""
        picked, self._picked = self._picked, None
        if picked is not None:
            load = None if self._load is None else parse_load(self._load)
            self._pool.settle(picked, failed=failed or self._failed, load=load, took_s=self._took_s)

    def drop(self, *, was_waiting: bool = False) -> None:
        """It was never sent, or its caller left; `was_waiting` if before the answer."""
        picked, self._picked = self._picked, None
        if picked is not None:
            self._pool.drop(picked, was_waiting=was_waiting and self._took_s is None)

    def cancelled(self) -> None:
        """Somebody ended it. When that was the deadline the endpoint is to blame; else it may just be a hedge that won."""
        if self._pool.clock() >= self._until - _LATE_S:
            self.end(failed=True)
        else:
            self.drop(was_waiting=True)

    def __del__(self) -> None:
        # For a reply that was neither read nor closed: nobody else would give its place back.
        if self._picked is not None:
            self._pool.forget(self._picked)


class QuickConnect(Mapping[str, float | None]):
    """The timeouts of a request with a shorter one for connecting; each is looked up when its phase begins."""

    __slots__ = ("_connect_max_s", "_own")

    def __init__(self, own: Mapping[str, float | None], connect_max_s: float) -> None:
        self._own = own
        self._connect_max_s = connect_max_s

    def __getitem__(self, name: str) -> float | None:
        if name != "connect":
            return self._own[name]
        own_s = self._own.get(name)
        return self._connect_max_s if own_s is None else min(own_s, self._connect_max_s)

    def __iter__(self) -> Iterator[str]:
        return iter(("connect", *(each for each in self._own if each != "connect")))

    def __len__(self) -> int:
        return len(self._own) + ("connect" not in self._own)
