"""`python -m bench.peers`: every table and every bar, in one run."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

from bench.peers import keyed, others, ours, stacks
from bench.peers.bars import Bar, bars
from bench.peers.candidate import Candidate, Unmeasurable
from bench.peers.tables import calls_table, legend, letters, parts_table, text_table
from bench.peers.timing import (
    ASYNC_OK,
    ASYNC_REFUSED,
    ASYNC_SUSPENDED,
    QUICK,
    SYNC_OK,
    SYNC_REFUSED,
    Column,
    Plan,
    measure,
)

CALL_COLUMNS = (SYNC_OK, SYNC_REFUSED, ASYNC_OK, ASYNC_REFUSED)
STACK_COLUMNS = (SYNC_OK, SYNC_REFUSED, ASYNC_OK, ASYNC_REFUSED, ASYNC_SUSPENDED)
DISTRIBUTIONS = (
    "aiobreaker",
    "circuitbreaker",
    "hyx",
    "interlock-cb",
    "nopanic",
    "purgatory",
    "pybreaker",
    "pyresilience",
    "stamina",
    "tenacity",
)
KEYS_COUNT = 10_000
KEYS_QUICK_COUNT = 500

T = TypeVar("T")


@dataclass(slots=True)
class Run:
    """What one run measured, and what it could not."""

    plan: Plan
    keys_count: int
    only: Sequence[str]
    notes: list[str] = field(default_factory=list)

    def wants(self, name: str) -> bool:
        """Whether --only asks for this row; with no --only, every row is asked for."""
        return not self.only or any(part.lower() in name.lower() for part in self.only)

    def installed(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The rows asked for whose library is here."""
        kept = []
        for row in candidates:
            if not self.wants(row.name):
                continue
            if row.missing_modules:
                self.notes.append(f"{row.name}: not installed ({', '.join(row.missing_modules)})")
            else:
                kept.append(row)
        return kept

    def ours(self, what: str, build: Callable[[], T]) -> T | None:
        """Our own row, or None and a note on why there is none."""
        if not self.wants(what):
            return None
        try:
            return build()
        except Unmeasurable as reason:
            self.notes.append(f"{what}: not measured, {reason}")
            return None

    def columns(self, candidates: Sequence[Candidate], titles: Sequence[str]) -> dict[str, Column]:
        """Every column over these rows; a row that cannot be trusted is left out of it, with a note."""
        measured = {}
        for title in titles:
            print(f"measuring {title} ({len(candidates)} rows)", file=sys.stderr)
            column = measure(candidates, title, self.plan)
            self.notes += [f"{name}, {title}: left out, {problem}" for name, problem in column.problems.items()]
            measured[title] = column
        return measured


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, keep; the exit code says only whether the bench itself worked."""
    options = _parse(arguments)
    warnings.simplefilter("ignore")  # some peers use what newer Pythons deprecate; the report is not the place
    run = Run(
        plan=QUICK if options.quick else Plan(),
        keys_count=KEYS_QUICK_COUNT if options.quick else KEYS_COUNT,
        only=options.only,
    )

    baselines = others.baselines()
    peers = run.installed(others.peers())
    variants = run.ours(ours.FULL, ours.variants) or []
    full = [row for row in variants if row.name == ours.FULL]
    parts = variants if len(variants) > 1 else []
    calls = run.columns([*baselines, *peers, *variants], CALL_COLUMNS)

    stack = run.ours(ours.STACK, ours.stack)
    stacked_peers = run.installed(stacks.stacks())
    stacked_rows = [*stacked_peers, *([stack] if stack is not None else [])]
    stacked = run.columns([*baselines, *stacked_rows], STACK_COLUMNS) if stacked_rows else {}
    memory_bytes = _memory(run)
    checked = bars(calls, stacked, memory_bytes, peers)

    print(_heading(run))
    print("\n1. One call, ns (best round)\n")
    print(calls_table([*baselines, *peers, *full], peers, calls))
    print(
        "\nx wrap: times the functools.wraps wrapper in the same column. x nearest: times the fastest peer that shares"
    )
    print("most of the row's features, in the order of the columns.")
    if stacked_rows:
        print("\n2. Retry, breaker, bulkhead and timeout around one call, ns (best round)\n")
        print(calls_table([*baselines, *stacked_rows], stacked_peers, stacked))
    if memory_bytes:
        print(f"\n3. Memory per idle keyed breaker ({run.keys_count} keys, one call each)\n")
        print(text_table(["", "KiB"], [[name, f"{size / 1024:.2f}"] for name, size in memory_bytes.items()]))
    if parts:
        print("\n4. What each part of our guard costs, ns (best round)\n")
        print(parts_table(parts, calls))
    print("\n5. Bars\n")
    for bar in checked:
        print(bar.line())
    if run.notes:
        print("\nNotes\n")
        for note in run.notes:
            print(note)

    if options.json is not None:
        rows = [*baselines, *peers, *variants, *stacked_rows]
        options.json.write_text(json.dumps(_kept(run, rows, calls, stacked, memory_bytes, checked), indent=1) + "\n")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few short rounds: shows that it runs, proves nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every round's figures in this file")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="rows whose name contains this; may be repeated"
    )
    return parser.parse_args(arguments)


def _memory(run: Run) -> dict[str, float]:
    rows = [row for row in keyed.peers() if run.wants(row.name)]
    mine = run.ours(ours.KEYED, ours.keyed)
    if mine is not None:
        rows.append(mine)
    measured = {}
    for row in rows:
        # The same check as for candidates, with the same note.
        if run.installed([Candidate(row.name, frozenset(), None, None, row.modules)]):
            print(f"measuring memory of {row.name}", file=sys.stderr)
            try:
                measured[row.name] = keyed.bytes_per_key(row.make, run.keys_count)
            except Exception as problem:  # noqa: BLE001 - told in the notes; the other rows are still worth having
                run.notes.append(f"{row.name}, memory: left out, {type(problem).__name__}: {problem}")
    return measured


def _heading(run: Run) -> str:
    plan = run.plan
    here = ", ".join(f"{name} {number}" for name, number in _versions().items())
    return "\n".join(
        [
            f"{platform.python_implementation()} {platform.python_version()}, {_machine()}",
            f"peers: {here}",
            f"best of {plan.rounds_count} interleaved rounds, each about {plan.batch_s * 1000:g} ms after a warm-up;",
            "collector off, older objects frozen, the empty loop subtracted; refused means tripped by failures",
            f"features: {legend()}",
        ]
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _machine() -> str:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{platform.system()}, {model}, {os.cpu_count()} cores"


def _kept(
    run: Run,
    rows: Sequence[Candidate],
    calls: dict[str, Column],
    stacked: dict[str, Column],
    memory_bytes: dict[str, float],
    checked: Sequence[Bar],
) -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "machine": _machine(),
        "versions": _versions(),
        "rounds_count": run.plan.rounds_count,
        "features": {row.name: letters(row.features) for row in rows},
        "calls_ns": _rounds(calls),
        "stacks_ns": _rounds(stacked),
        "memory_bytes_per_key": memory_bytes,
        "bars": [
            {"claim": bar.claim, "limit": bar.limit, "figure": bar.figure, "unit": bar.unit, "word": bar.word}
            for bar in checked
        ],
        "notes": run.notes,
    }


def _rounds(columns: dict[str, Column]) -> dict[str, dict[str, list[float]]]:
    return {
        title: {name: [round(ns, 1) for ns in rounds] for name, rounds in column.rounds_ns.items()}
        for title, column in columns.items()
    }


if __name__ == "__main__":
    sys.exit(main())
