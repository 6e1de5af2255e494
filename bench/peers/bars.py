"""The bars the guard answers to, each a ratio of two figures from the same run.

A missed bar is printed, never an error: on a shared machine a bench that could fail a build would fail it by
chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.peers import ours, stacks
from bench.peers.candidate import Candidate
from bench.peers.others import BARE, NOPANIC_SLOW, WRAPPER
from bench.peers.tables import Columns
from bench.peers.timing import ASYNC_OK, ASYNC_REFUSED, SYNC_OK, SYNC_REFUSED

MEMORY_MAX_BYTES = 2048.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One promise: `figure` must be at most `limit`; None means it was not measured."""

    claim: str
    limit: float
    figure: float | None
    unit: str = "x"
    detail: str = ""

    @property
    def word(self) -> str:
        """Met, missed, or not measured."""
        if self.figure is None:
            return "not measured"
        return "met" if self.figure <= self.limit else "missed"

    def line(self) -> str:
        """The bar as one line of text."""
        figure = "-" if self.figure is None else f"{self.figure:.2f}"
        return f"{self.word:<12}  {figure:>8} <= {self.limit:>7.2f} {self.unit:<3}  {self.claim}{self.detail}"


def bars(calls: Columns, stacked: Columns, memory_bytes: Mapping[str, float], peers: Sequence[Candidate]) -> list[Bar]:
    """Every bar, measured or not."""
    return [
        _ratio("full guard, sync, over a functools.wraps wrapper", 3.2, calls, SYNC_OK, ours.FULL, WRAPPER),
        _ratio("full guard, async, over a functools.wraps wrapper", 2.6, calls, ASYNC_OK, ours.FULL, WRAPPER),
        _ratio("full guard, sync, over nopanic with slow calls", 1 / 3, calls, SYNC_OK, ours.FULL, NOPANIC_SLOW),
        _ratio("full guard, async, over nopanic with slow calls", 1 / 3, calls, ASYNC_OK, ours.FULL, NOPANIC_SLOW),
        _ratio("four policies, async, over nopanic's", 1 / 4, stacked, ASYNC_OK, ours.STACK, stacks.NOPANIC),
        _ratio("four policies, sync, over nopanic's", 1 / 4, stacked, SYNC_OK, ours.STACK, stacks.NOPANIC),
        _ratio("refused, sync, over nopanic's", 0.6, calls, SYNC_REFUSED, ours.FULL, NOPANIC_SLOW),
        _ratio("refused, async, over nopanic's", 0.6, calls, ASYNC_REFUSED, ours.FULL, NOPANIC_SLOW),
        Bar(
            claim="memory per idle keyed breaker",
            limit=MEMORY_MAX_BYTES / 1024,
            figure=_kib(memory_bytes.get(ours.KEYED)),
            unit="KiB",
        ),
        _fewer_features("sync", calls, SYNC_OK, peers),
        _fewer_features("async", calls, ASYNC_OK, peers),
        _absolute("full guard, sync, over a bare call", 300, calls, SYNC_OK, ours.FULL, BARE),
        _absolute("full guard, async, over a bare call", 420, calls, ASYNC_OK, ours.FULL, BARE),
        _absolute("four policies, async", 1500, stacked, ASYNC_OK, ours.STACK, None),
    ]


def _ratio(claim: str, limit: float, columns: Columns, title: str, name: str, base: str) -> Bar:
    ns, base_ns = _best(columns, title, name), _best(columns, title, base)
    if ns is None or not base_ns:
        return Bar(claim=claim, limit=limit, figure=None)
    return Bar(claim=claim, limit=limit, figure=ns / base_ns, detail=f" ({ns:.0f} / {base_ns:.0f} ns)")


def _absolute(claim: str, limit: float, columns: Columns, title: str, name: str, base: str | None) -> Bar:
    note = " (absolute, so it drifts with the machine)"
    ns = _best(columns, title, name)
    base_ns = 0.0 if base is None else _best(columns, title, base)
    figure = None if ns is None or base_ns is None else ns - base_ns
    return Bar(claim=claim, limit=limit, figure=figure, unit="ns", detail=note)


def _fewer_features(form: str, columns: Columns, title: str, peers: Sequence[Candidate]) -> Bar:
    """No breaker is faster by more than a tenth, however little it does."""
    claim = f"full guard, {form}, over the fastest peer with any breaker"
    timed = [(ns, p.name) for p in peers if p.has_breaker and (ns := _best(columns, title, p.name)) is not None]
    ns = _best(columns, title, ours.FULL)
    if ns is None or not timed:
        return Bar(claim=claim, limit=1 / 0.9, figure=None)
    fastest_ns, name = min(timed)
    return Bar(claim=claim, limit=1 / 0.9, figure=ns / fastest_ns, detail=f" ({name}, {ns:.0f} / {fastest_ns:.0f} ns)")


def _best(columns: Columns, title: str, name: str) -> float | None:
    column = columns.get(title)
    return None if column is None else column.best_ns(name)


def _kib(size_bytes: float | None) -> float | None:
    return None if size_bytes is None else size_bytes / 1024
