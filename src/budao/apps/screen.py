"""The demo in the terminal: a live table, or plain lines where nothing can be redrawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from budao.apps.recording import Lately, Remark, percent
from budao.apps.script import Phase

if TYPE_CHECKING:
    from rich.console import Group

REMARKS_SHOWN = 8
_STATE_STYLES = {"closed": "green", "open": "bold red", "probing": "yellow", "ramping": "cyan"}


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the screen shows of one instant."""

    at_s: float
    seconds: int
    phase: Phase
    share: float
    """The objective's."""
    under_s: float
    bare: Lately
    guarded: Lately
    state: str
    rungs: Mapping[str, int]
    """Good answers of the guarded shop so far."""
    remarks: tuple[Remark, ...]
    settings: tuple[str, ...]


Cell = tuple[str, str]
"""What a cell says, and in which style."""


def rows(view: View) -> list[tuple[str, Cell, Cell]]:
    """The table: a name, the shop without the guard, the shop with it."""
    bare, guarded = view.bare, view.guarded

    def both(name: str, cell: Callable[[Lately], Cell]) -> tuple[str, Cell, Cell]:
        return name, cell(bare), cell(guarded)

    within = f"within {milliseconds(view.under_s)}"
    rungs = "  ".join(f"{rung} {count}" for rung, count in view.rungs.items())
    return [
        both("requests/s", lambda side: (f"{side.requests_per_s:.0f}", "")),
        both("succeeded", lambda side: _share(side.good_share, view.share)),
        both(within, lambda side: _share(side.in_time_share, view.share)),
        both("p50", lambda side: _span(side.p50_s, view.under_s)),
        both("p99", lambda side: _span(side.p99_s, view.under_s)),
        both("waiting now", lambda side: (str(side.unanswered), "bold red" if side.unanswered > 20 else "")),
        ("breaker", ("none", "dim"), (view.state, _STATE_STYLES.get(view.state, ""))),
        ("answered by", ("", ""), (rungs, "")),
    ]


def milliseconds(span_s: float) -> str:
    """A span for people."""
    return f"{span_s * 1000:.0f} ms"


def _share(share: float | None, goal: float) -> Cell:
    if share is None:
        return "–", "dim"
    return percent(share), "bold green" if share >= goal else "bold red"


def _span(span_s: float | None, under_s: float) -> Cell:
    if span_s is None:
        return "–", "dim"
    return milliseconds(span_s), "green" if span_s <= under_s else "red"


def headline(view: View) -> str:
    """Where the script is."""
    at_s = min(int(view.at_s), view.seconds)
    return f"{at_s:>3} of {view.seconds} s   inventory is {view.phase.name.upper()}: {view.phase.says}"


def live(view: View) -> Group:
    """The whole screen. Needs rich."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=False, title_justify="left", header_style="bold")
    table.add_column("the last 3 seconds", style="bold", min_width=18)
    table.add_column("without guard", justify="right", min_width=16)
    table.add_column("with guard", justify="right", min_width=44)
    for name, bare, guarded in rows(view):
        table.add_row(name, Text(*bare), Text(*guarded))
    style = "bold white on red" if view.phase.is_ill else "bold white on green"
    remarks = [Text(f"{remark.at_s:6.1f} s  {remark.text}") for remark in view.remarks[-REMARKS_SHOWN:]]
    by_hand = [Text(f"set by hand: {each}", style="dim") for each in view.settings]
    return Group(Text(f" {headline(view)} ", style=style), table, *remarks, Text(""), *by_hand)


def plain(view: View) -> str:
    """One line that says the same in short."""
    bare, guarded = (_in_short(side) for side in (view.bare, view.guarded))
    rungs = " ".join(f"{rung} {count}" for rung, count in view.rungs.items() if count)
    return (
        f"{int(view.at_s):>4} s  {view.phase.name:<9}  without guard: {bare}  |  with guard: {guarded}, "
        f"breaker {view.state}, {rungs or 'no answer yet'}"
    )


def _in_short(side: Lately) -> str:
    share = "–" if side.in_time_share is None else percent(side.in_time_share)
    p99 = "–" if side.p99_s is None else milliseconds(side.p99_s)
    return f"{share:>6} in time, p99 {p99:>7}"
