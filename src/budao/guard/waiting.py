"""Who waits for a place, who gets it, and who waited long enough."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf, sqrt

from budao.model import BulkheadPolicy, Mono, Priority, Refusal, Why

_HEAP_SLACK = 64
"""Deadlines of calls that are gone are kept until they outnumber those waiting by this many."""

_AGAIN_INTERVALS = 16
"""A queue that stands again within this many intervals is dropped from at nearly the old pace (RFC 8289, 5.6)."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A call that waited got the place that came free."""

    number: int
    waited_s: float


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """A call waits no longer and gets no place."""

    number: int
    refusal: Refusal


@dataclass(slots=True)
class _Waiting:
    number: int
    priority: Priority
    since: Mono
    until: Mono
    is_gone: bool = False


class WaitingRoom:
    """Calls that wait for a place. Each number that joins has exactly one ending: placed, turned away, or left.

    A place goes to the most important call, and among equals to the one that came first. While the queue stands, which
    means that the call waiting longest has waited longer than `sojourn_target_s` at every moment of the last
    `sojourn_interval_s`, two things change:

    - Among equals the newest comes first (adaptive LIFO): whoever came first has probably given up, and serving the
      newest keeps some callers fast instead of making all of them late.
    - Each free place first costs the oldest of the least important calls its place in the queue, at a pace that grows
      with the square root of the number dropped so far (CoDel's control law). The last call waiting is never dropped:
      there is a place for it.

    CoDel measures the call it takes out. That would be the newest one here, which has hardly waited, so the oldest is
    measured instead, and without sampling: the instant from which it has been too old is known when it joins.

    Cost:    each method O(log n) amortised; nothing per call that does not wait; at most `waiting_max` calls.
    Source:  RFC 8289, sections 4.2, 4.3 and 5; Ben Maurer, "Fail at Scale" (ACM Queue, 2015), on adaptive LIFO.
    """

    __slots__ = ("_drop_at", "_drops", "_drops_first", "_heap", "_is_dropping", "_lanes", "_old_from", "_tick",
                 "_waiting", "policy")  # fmt: skip

    def __init__(self, policy: BulkheadPolicy) -> None:
        self.policy = policy
        self._waiting: dict[int, _Waiting] = {}
        self._lanes: dict[Priority, OrderedDict[int, _Waiting]] = {}  # only lanes with somebody in them
        self._heap: list[tuple[Mono, int, _Waiting]] = []
        self._tick = 0
        self._old_from = inf  # from when on there has been, at every moment, somebody who waited for too long
        self._is_dropping = False
        self._drop_at = -inf
        self._drops = 0
        self._drops_first = 0  # the value of `_drops` when dropping last began

    def __len__(self) -> int:
        return len(self._waiting)

    def is_standing(self, now: Mono) -> bool:
        """Whether somebody has waited for too long all through the last interval: the queue does not drain."""
        return now >= self._old_from + self.policy.sojourn_interval_s

    def oldest_s(self, now: Mono) -> float:
        """How long the call that waits longest has waited; 0.0 if nobody waits."""
        return max((max(0.0, now - each.since) for each in self._oldest_of_each()), default=0.0)

    # -- coming and going

    def join(self, number: int, priority: Priority, until: Mono, now: Mono) -> tuple[TurnedAway, ...]:
        """A call begins to wait, until `until` or the longest wait allowed, whichever is sooner.

        In a full room the newest of the least important calls is turned away if it is less important than the one that
        comes; otherwise the one that comes is. Ends those whose time is up as well.
        """
        assert number not in self._waiting, "a number waits once"
        turned_away = list(self.wake(now))
        until = min(until, Mono(now + self.policy.wait_max_s))
        if until <= now:
            turned_away.append(TurnedAway(number, Refusal(Why.WAITED_OUT, self.oldest_s(now))))
            return tuple(turned_away)
        if len(self._waiting) >= self.policy.waiting_max:
            least = self._least()
            if least is None or least.value <= priority.value:
                turned_away.append(TurnedAway(number, Refusal(Why.NO_ROOM, self.oldest_s(now))))
                return tuple(turned_away)
            newest = next(reversed(self._lanes[least].values()))
            turned_away.append(self._turn_away(newest, Why.SHED, now))
        waiting = _Waiting(number, priority, now, until)
        if not self._waiting:
            self._old_from = now + self.policy.sojourn_target_s
        self._waiting[number] = waiting
        self._lanes.setdefault(priority, OrderedDict())[number] = waiting
        self._tick += 1  # no two entries compare equal, and those of one instant keep their order
        heappush(self._heap, (until, self._tick, waiting))
        return tuple(turned_away)

    def leave(self, number: int, now: Mono) -> bool:
        """The caller went away. False if that number does not wait (any more)."""
        waiting = self._waiting.get(number)
        if waiting is None:
            return False
        self._remove(waiting, now)
        return True

    def next(self, now: Mono) -> tuple[Placed | TurnedAway, ...]:
        """One place came free: whom to turn away, and then who gets it, if anybody waits."""
        effects: list[Placed | TurnedAway] = [*self.wake(now), *self._drop(now)]
        if self._waiting:
            lane = self._lanes[min(self._lanes, key=_importance)]
            chosen = next(reversed(lane.values())) if self.is_standing(now) else next(iter(lane.values()))
            self._remove(chosen, now)
            effects.append(Placed(chosen.number, max(0.0, now - chosen.since)))
        return tuple(effects)

    # -- time

    def wake_at(self) -> Mono | None:
        """When the next call's time is up."""
        return self._heap[0][0] if self._heap else None

    def wake(self, now: Mono) -> tuple[TurnedAway, ...]:
        """Turns away whoever waited for as long as allowed, the earliest first."""
        turned_away: list[TurnedAway] = []
        while self._heap and self._heap[0][0] <= now:
            turned_away.append(self._turn_away(self._heap[0][2], Why.WAITED_OUT, now))
        return tuple(turned_away)

    def obey(self, policy: BulkheadPolicy) -> None:
        """Takes new settings while calls wait. Nobody is turned away for it, and times once given stay."""
        if self._waiting:
            # A moment that is approximate, as nobody knows who was too old by the new target and is gone.
            self._old_from += policy.sojourn_target_s - self.policy.sojourn_target_s
        self.policy = policy

    # -- inside

    def _drop(self, now: Mono) -> list[TurnedAway]:
        """CoDel, told that a place came free. The names of RFC 8289, 5.6 are in brackets."""
        dropped: list[TurnedAway] = []
        if not self._can_drop(now):
            self._is_dropping = False
            return dropped
        if not self._is_dropping:
            self._is_dropping = True
            dropped.append(self._drop_one(now))
            since_first = self._drops - self._drops_first  # [delta]
            is_again = since_first > 1 and now - self._drop_at < _AGAIN_INTERVALS * self.policy.sojourn_interval_s
            self._drops = self._drops_first = since_first if is_again else 1  # [count, lastcount]
            self._drop_at = self._after(now)  # [drop_next]
        while self._is_dropping and now >= self._drop_at:
            if not self._can_drop(now):
                self._is_dropping = False
                break
            dropped.append(self._drop_one(now))
            self._drops += 1
            self._drop_at = self._after(self._drop_at)
        return dropped

    def _can_drop(self, now: Mono) -> bool:
        return len(self._waiting) > 1 and self.is_standing(now)

    def _after(self, instant: float) -> float:
        return instant + self.policy.sojourn_interval_s / sqrt(self._drops)

    def _drop_one(self, now: Mono) -> TurnedAway:
        lane = self._lanes[max(self._lanes, key=_importance)]
        return self._turn_away(next(iter(lane.values())), Why.SHED, now)

    def _turn_away(self, waiting: _Waiting, why: Why, now: Mono) -> TurnedAway:
        # As good a guess as any at how long a place takes to come free.
        retry_after_s = self.oldest_s(now)
        self._remove(waiting, now)
        return TurnedAway(waiting.number, Refusal(why, retry_after_s))

    def _remove(self, waiting: _Waiting, now: Mono) -> None:
        waiting.is_gone = True
        del self._waiting[waiting.number]
        lane = self._lanes[waiting.priority]
        del lane[waiting.number]
        if not lane:
            del self._lanes[waiting.priority]
        oldest = min((each.since for each in self._oldest_of_each()), default=None)
        if oldest is None:
            self._old_from = inf
        elif oldest + self.policy.sojourn_target_s > now:
            self._old_from = oldest + self.policy.sojourn_target_s
        # Otherwise somebody too old is still there, and `_old_from` stands.
        heap = self._heap
        while heap and heap[0][2].is_gone:
            heappop(heap)
        if len(heap) > 2 * len(self._waiting) + _HEAP_SLACK:
            heap[:] = [entry for entry in heap if not entry[2].is_gone]
            heapify(heap)

    def _oldest_of_each(self) -> list[_Waiting]:
        return [next(iter(lane.values())) for lane in self._lanes.values()]

    def _least(self) -> Priority | None:
        return max(self._lanes, key=_importance, default=None)


def _importance(priority: Priority) -> int:
    return priority.value
