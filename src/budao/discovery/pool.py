"""One service's endpoints, a balancer over them, and a count of the calls that are out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from budao.discovery.balancing import Balancer, Choice
from budao.discovery.roster import Roster
from budao.model import Endpoint, Load, Mono, NobodyThere, Refusal, Stage, Why

SLOW_TIMES = 2.0
"""A call that was left after so many times what a call usually takes says that its endpoint is slow."""
USUAL_ALPHA = 0.05
"""The share of the way to the newest time that the usual one goes with each good call."""


class Picked:
    """An endpoint for one call. It is settled or dropped exactly once."""

    __slots__ = ("choice", "endpoint", "is_open", "since", "tally")

    def __init__(self, choice: Choice, tally: Tally, since: Mono) -> None:
        self.choice = choice
        self.endpoint = choice.endpoint
        self.tally = tally
        self.since = since
        self.is_open = True


class Tally:
    """What became of the calls that went to one endpoint."""

    __slots__ = ("dropped", "failed", "in_flight", "picked")

    def __init__(self) -> None:
        self.picked = self.failed = self.dropped = self.in_flight = 0


@dataclass(frozen=True, slots=True)
class EndpointView:
    """One endpoint of a pool, for people and for metrics. All numbers are calls, since the endpoint was first seen."""

    endpoint: Endpoint
    picked: int
    failed: int
    dropped: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool at one moment."""

    service: str
    revision: int
    endpoints: tuple[EndpointView, ...]
    in_flight: int
    """Calls that were picked for and did not end, those to endpoints that are gone included."""
    nobody: int
    """Calls for which there was nobody."""
    others: tuple[tuple[Stage, int], ...] = ()
    """How many are there and not ready, by stage."""


class PoolMachine:
    """Picks and settles, and passes each new roster on to the balancer.

    Not for several threads at once.
    """

    def __init__(self, balancer: Balancer, *, service: str = "", protocol: str = "") -> None:
        self.balancer = balancer
        self.service = service
        self.protocol = protocol
        self.in_flight = 0
        self._revision = 0
        self._endpoints: tuple[Endpoint, ...] = ()
        self._tallies: dict[str, Tally] = {}
        self._others: Counter[Stage] = Counter()
        self._strangers = 0
        self._nobody = 0
        self._usual_s = 0.0

    def renew(self, roster: Roster, now: Mono) -> None:
        """The instances from now on."""
        self.service = roster.service
        self._revision = roster.revision
        self._others = Counter(each.stage for each in roster.instances if each.stage is not Stage.READY)
        endpoints = roster.endpoints(self.protocol)
        self._strangers = len(roster.instances) - len(endpoints) - self._others.total()
        self._take(endpoints, now)

    def renew_fixed(self, endpoints: Iterable[Endpoint], now: Mono) -> None:
        """The endpoints from now on, where there is no roster."""
        every = tuple(endpoints)
        self._others = Counter(each.stage for each in every if each.stage is not Stage.READY)
        self._take(tuple(each for each in every if each.stage is Stage.READY), now)

    def _take(self, endpoints: Sequence[Endpoint], now: Mono) -> None:
        known = self._tallies
        self._endpoints = tuple(endpoints)
        # A call to an endpoint that has left holds its own tally, so nothing of it need be kept here.
        self._tallies = {each.id: known.get(each.id) or Tally() for each in endpoints}
        self.balancer.renew(self._endpoints, now)

    def pick(self, now: Mono, *, key: bytes | None = None, avoid: Container[str] = ()) -> Picked | None:
        """The endpoint for one call; None if there is none."""
        choice = self.balancer.pick(now, key=key, avoid=avoid)
        if choice is None:
            self._nobody += 1
            return None
        tally = self._tallies[choice.endpoint.id]
        tally.picked += 1
        tally.in_flight += 1
        self.in_flight += 1
        return Picked(choice, tally, now)

    def settle(self, picked: Picked, took_s: float, failed: bool, load: Load | None, now: Mono) -> None:
        """The call ended after `took_s` seconds."""
        self._close(picked)
        if failed:
            picked.tally.failed += 1
        else:
            self._usual_s += USUAL_ALPHA * (took_s - self._usual_s) if self._usual_s else took_s
        self.balancer.settle(picked.choice, took_s, failed, load, now)

    def drop(self, picked: Picked, now: Mono, *, was_waiting: bool = False) -> None:
        """The call ended in a way that says nothing about the endpoint.

        Unless its caller `was_waiting` for an answer, much longer than usual: then it took at least that long. Nothing
        else would tell of a server that hangs, when a hedge answers each call it has.
        """
        self._close(picked)
        picked.tally.dropped += 1
        waited_s = now - picked.since
        if was_waiting and self._usual_s and waited_s > SLOW_TIMES * self._usual_s:
            self.balancer.settle(picked.choice, waited_s, False, None, now)
        else:
            self.balancer.drop(picked.choice, now)

    def _close(self, picked: Picked) -> None:
        assert picked.is_open, "a pick is settled exactly once"
        picked.is_open = False
        picked.tally.in_flight -= 1
        self.in_flight -= 1

    def nobody(self) -> NobodyThere:
        """The error for a call that found nobody."""
        count = len(self._endpoints) + self._others.total() + self._strangers
        parts = [f"{number} {stage.value}" for stage, number in sorted(self._others.items(), key=_in_order)]
        if self._strangers:
            parts.append(f"{self._strangers} without an address for {self.protocol!r}")
        if not self._endpoints:
            found = f"0 of {count} ready" + (f": {', '.join(parts)}" if parts else "")
        else:
            found = f"{len(self._endpoints)} of {count} ready, and the balancer picks none of them"
        return NobodyThere(self.service, Refusal(Why.NOBODY), found)

    def view(self) -> PoolView:
        """How things stand."""
        tallies = self._tallies
        return PoolView(
            self.service,
            self._revision,
            tuple(_view(each, tallies[each.id]) for each in self._endpoints),
            self.in_flight,
            self._nobody,
            tuple(sorted(self._others.items(), key=_in_order)),
        )

    def explain(self) -> str:
        """How things stand, for people."""
        view = self.view()
        lines = [f"pool {view.service!r}: {type(self.balancer).__name__} over {len(view.endpoints)} ready endpoints"]
        lines += [f"{number} more {stage.value}" for stage, number in view.others]
        lines += [
            f"  {each.endpoint.id} at {each.endpoint.authority}: {each.picked} calls, {each.failed} failed, "
            f"{each.dropped} dropped, {each.in_flight} in flight" + (", doubted" if each.endpoint.is_doubted else "")
            for each in view.endpoints
        ]
        if view.nobody:
            lines.append(f"{view.nobody} calls found nobody")
        return "\n".join(lines)


def _view(endpoint: Endpoint, tally: Tally) -> EndpointView:
    return EndpointView(endpoint, tally.picked, tally.failed, tally.dropped, tally.in_flight)


def _in_order(pair: tuple[Stage, int]) -> str:
    return pair[0].value
