"""The stopwatch: rounds over all rows in turn, so that a busy machine slows every row and not one.

A round builds the row anew, warms it, and times one batch with the collector off and everything older frozen.
The best round counts, less the best empty loop. Building anew keeps what a library piles up (an exception
raised again and again holds a longer traceback each time) from slowing later rounds.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from time import perf_counter, perf_counter_ns

from bench.peers.candidate import AsyncCall, Candidate, Failed, SyncCall, Unmeasurable

SYNC_OK = "sync ok"
SYNC_REFUSED = "sync refused"
ASYNC_OK = "async ok"
ASYNC_REFUSED = "async refused"
ASYNC_SUSPENDED = "async suspended"

ARGUMENT = 7
FAILURES_TO_TRIP = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long to look."""

    rounds_count: int = 21
    batch_s: float = 0.005
    """Aim for one timed batch."""
    warm_calls_max: int = 2000
    """Enough to fill the largest window any peer is given here, 1000 calls."""
    warm_s: float = 0.1


QUICK = Plan(rounds_count=3, batch_s=0.0005, warm_calls_max=1000, warm_s=0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One measured column: per row, ns per call of every round, the empty loop already taken off."""

    loop_ns: float
    rounds_ns: Mapping[str, Sequence[float]]
    problems: Mapping[str, str] = field(default_factory=dict)
    """Rows left out, and why."""

    def best_ns(self, name: str) -> float | None:
        """The fastest round of a row; None if the row has no such form."""
        rounds = self.rounds_ns.get(name)
        return min(rounds) if rounds else None


def measure(candidates: Sequence[Candidate], column: str, plan: Plan) -> Column:
    """Time one column over all rows which have that form."""
    gc.collect()
    gc.freeze()  # later collections then look only at what this measurement made
    try:
        if column in (SYNC_OK, SYNC_REFUSED):
            return _measure_sync(candidates, column, plan)
        return asyncio.run(_measure_async(candidates, column, plan))
    finally:
        gc.unfreeze()


def plain(number: int) -> int:
    """The protected function."""
    return number


async def plain_async(number: int) -> int:
    """The protected coroutine; it never suspends, so nothing but the wrapper is timed."""
    return number


async def suspending(number: int) -> int:
    """A coroutine that does let the loop run, so timers armed only on suspension are paid for."""
    await asyncio.sleep(0)
    return number


class _Tripwire:
    """A failing function that counts how often it was reached; a refused call must not reach it."""

    def __init__(self) -> None:
        self.reached_count = 0

    def sync(self) -> SyncCall:
        def failing(number: int) -> int:
            self.reached_count += 1
            raise Failed(number)

        return failing

    def expect(self, reached_count: int) -> None:
        """Raises: Unmeasurable if calls went through that should all have been refused."""
        if self.reached_count != reached_count:
            raise Unmeasurable(f"{self.reached_count - reached_count} calls went through that should have been refused")

    def awaited(self) -> AsyncCall:
        async def failing(number: int) -> int:
            self.reached_count += 1
            raise Failed(number)

        return failing


# Sync


def _measure_sync(candidates: Sequence[Candidate], column: str, plan: Plan) -> Column:
    tally = _Tally([row for row in candidates if row.make_sync is not None and _has(row, column)], plan)
    batch = _refused_batch if column == SYNC_REFUSED else _ok_batch
    for row in tally.rounds():
        try:
            tripwire = _Tripwire()
            call = _ready_sync(row, column, tripwire)
            until = perf_counter() + plan.warm_s
            warm_ns = batch(call, 50)
            for _ in range(50, plan.warm_calls_max, 50):
                if perf_counter() > until:
                    break
                warm_ns = batch(call, 50)
            count, reached_count = tally.count_for(row, warm_ns / 50), tripwire.reached_count
            gc.collect()
            gc.disable()
            try:
                spent_ns = batch(call, count)
            finally:
                gc.enable()
            tripwire.expect(reached_count)
        except Exception as problem:  # noqa: BLE001 - told in the notes; the other rows are still worth having
            tally.leave_out(row, problem)
        else:
            tally.add(row, spent_ns / count)
    return tally.column()


def _ready_sync(row: Candidate, column: str, tripwire: _Tripwire) -> SyncCall:
    assert row.make_sync is not None
    if column == SYNC_OK:
        call = row.make_sync(plain)
        if call(ARGUMENT) != ARGUMENT:
            raise Unmeasurable("the wrapped function answers something else")
        return call
    if row.refuse_sync is not None:
        return row.refuse_sync
    call = row.make_sync(tripwire.sync())
    _refused_batch(call, FAILURES_TO_TRIP)
    return call


def _ok_batch(call: SyncCall, count: int) -> int:
    start = perf_counter_ns()
    for _ in repeat(None, count):
        call(ARGUMENT)
    return perf_counter_ns() - start


def _refused_batch(call: SyncCall, count: int) -> int:
    start = perf_counter_ns()
    for _ in repeat(None, count):
        try:  # noqa: SIM105 - suppress() would be timed with the call
            call(ARGUMENT)
        except Exception:  # noqa: BLE001 - each library refuses with a type of its own
            pass
    return perf_counter_ns() - start


# Async: the same, from inside one coroutine on a real loop


async def _measure_async(candidates: Sequence[Candidate], column: str, plan: Plan) -> Column:
    tally = _Tally([row for row in candidates if row.make_async is not None and _has(row, column)], plan)
    batch = _refused_batch_async if column == ASYNC_REFUSED else _ok_batch_async
    for row in tally.rounds():
        try:
            tripwire = _Tripwire()
            call = await _ready_async(row, column, tripwire)
            until = perf_counter() + plan.warm_s
            warm_ns = await batch(call, 50)
            for _ in range(50, plan.warm_calls_max, 50):
                if perf_counter() > until:
                    break
                warm_ns = await batch(call, 50)
            count, reached_count = tally.count_for(row, warm_ns / 50), tripwire.reached_count
            await asyncio.sleep(0)  # lets the loop throw away the timers that were cancelled so far
            gc.collect()
            gc.disable()
            try:
                spent_ns = await batch(call, count)
            finally:
                gc.enable()
            tripwire.expect(reached_count)
        except Exception as problem:  # noqa: BLE001 - told in the notes; the other rows are still worth having
            tally.leave_out(row, problem)
        else:
            tally.add(row, spent_ns / count)
    return tally.column()


async def _ready_async(row: Candidate, column: str, tripwire: _Tripwire) -> AsyncCall:
    assert row.make_async is not None
    if column != ASYNC_REFUSED:
        call = row.make_async(suspending if column == ASYNC_SUSPENDED else plain_async)
        if await call(ARGUMENT) != ARGUMENT:
            raise Unmeasurable("the wrapped function answers something else")
        return call
    if row.refuse_async is not None:
        return row.refuse_async
    call = row.make_async(tripwire.awaited())
    await _refused_batch_async(call, FAILURES_TO_TRIP)
    return call


async def _ok_batch_async(call: AsyncCall, count: int) -> int:
    start = perf_counter_ns()
    for _ in repeat(None, count):
        await call(ARGUMENT)
    return perf_counter_ns() - start


async def _refused_batch_async(call: AsyncCall, count: int) -> int:
    start = perf_counter_ns()
    for _ in repeat(None, count):
        try:  # noqa: SIM105 - suppress() would be timed with the call
            await call(ARGUMENT)
        except Exception:  # noqa: BLE001 - each library refuses with a type of its own
            pass
    return perf_counter_ns() - start


# Both


class _Tally:
    """The rounds of one column: who is next, how many calls a batch has, what was spent."""

    def __init__(self, rows: Sequence[Candidate], plan: Plan) -> None:
        self._plan = plan
        self._rows = rows
        self._spent: dict[str, list[float]] = {row.name: [] for row in rows}
        self._counts: dict[str, int] = {}
        self._loop: list[float] = []
        self._problems: dict[str, str] = {}

    def rounds(self) -> Iterator[Candidate]:
        for round_index in range(self._plan.rounds_count):
            self._loop.append(_empty_loop_ns())
            start = round_index % max(len(self._rows), 1)  # nobody is always first, or always after the same row
            for row in [*self._rows[start:], *self._rows[:start]]:
                if row.name not in self._problems:
                    yield row

    def count_for(self, row: Candidate, call_ns: float) -> int:
        wanted = self._plan.batch_s * 1e9 / max(call_ns, 1.0)
        return self._counts.setdefault(row.name, int(min(max(wanted, 32), 50_000)))

    def add(self, row: Candidate, ns: float) -> None:
        self._spent[row.name].append(ns)

    def leave_out(self, row: Candidate, problem: Exception) -> None:
        self._problems[row.name] = f"{type(problem).__name__}: {problem}"

    def column(self) -> Column:
        loop_ns = min(self._loop)
        kept = {name: rounds for name, rounds in self._spent.items() if name not in self._problems}
        return Column(
            loop_ns=loop_ns,
            rounds_ns={name: [ns - loop_ns for ns in rounds] for name, rounds in kept.items()},
            problems=self._problems,
        )


def _has(row: Candidate, column: str) -> bool:
    if column in (SYNC_OK, ASYNC_OK, ASYNC_SUSPENDED) or row.has_breaker:
        return True
    return (row.refuse_sync if column == SYNC_REFUSED else row.refuse_async) is not None


def _empty_loop_ns(count: int = 20_000) -> float:
    start = perf_counter_ns()
    for _ in repeat(None, count):
        pass
    return (perf_counter_ns() - start) / count
