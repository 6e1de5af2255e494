"""Figures into aligned text, with the ratios that survive a noisy machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.peers.candidate import MEANINGS, Candidate, Feature
from bench.peers.others import BARE, WRAPPER
from bench.peers.timing import ASYNC_OK, SYNC_OK, Column

Columns = Mapping[str, Column]


def letters(features: frozenset[Feature]) -> str:
    """The features as a fixed row of letters, a dot where one is off."""
    return "".join(feature.value if feature in features else "." for feature in Feature)


def legend() -> str:
    """What the letters mean."""
    return ", ".join(f"{feature.value} {meaning}" for feature, meaning in MEANINGS.items())


def nearest_peer(row: Candidate, peers: Sequence[Candidate], columns: Columns) -> Candidate | None:
    """The fastest of the peers that share most of the row's features; None if none shares any."""
    others = [peer for peer in peers if peer.name != row.name]
    most_count = max((len(peer.features & row.features) for peer in others), default=0)
    if most_count == 0:
        return None
    alike = [peer for peer in others if len(peer.features & row.features) == most_count]
    return min(alike, key=lambda peer: _speed(peer, columns))


def calls_table(candidates: Sequence[Candidate], peers: Sequence[Candidate], columns: Columns) -> str:
    """One line per row: each column in ns, and beside it how many times the bare wrapper it is."""
    header = ["", "features"]
    for title in columns:
        header += [title, "x wrap"]
    header += ["x nearest", "nearest peer (features shared)"]
    lines = []
    for row in candidates:
        line = [row.name, "" if row.is_baseline else letters(row.features)]
        for column in columns.values():
            ns, wrapper_ns = column.best_ns(row.name), column.best_ns(WRAPPER)
            line += [whole(ns), times(ns, wrapper_ns)]
        peer = None if row.is_baseline else nearest_peer(row, peers, columns)
        if peer is None:
            line += ["", ""]
        else:
            ratios = [times(column.best_ns(row.name), column.best_ns(peer.name)) for column in columns.values()]
            shared = f"{len(peer.features & row.features)} of {len(row.features)}"
            line += [" / ".join(ratios), f"{peer.name} ({shared})"]
        lines.append(line)
    return text_table(header, lines)


def parts_table(variants: Sequence[Candidate], columns: Columns) -> str:
    """Our variants in order, each with what it adds to the row before it."""
    header = ["", "features"]
    for title in columns:
        header += [title, "added"]
    lines = []
    before: Candidate | None = None
    for row in variants:
        line = [row.name, letters(row.features)]
        for column in columns.values():
            ns = column.best_ns(row.name)
            ns_before = column.best_ns(before.name if before is not None else BARE)
            line += [whole(ns), "-" if ns is None or ns_before is None else f"{ns - ns_before:+.0f}"]
        lines.append(line)
        before = row
    return text_table(header, lines)


def text_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Columns padded to their widest cell; names to the left, figures to the right."""
    rows = [list(header), *(list(line) for line in lines)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(header))]
    text = []
    for row in rows:
        cells = [
            cell.rjust(width) if 2 <= index < len(row) - 1 else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
    text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(text)


def whole(ns: float | None) -> str:
    """A figure in whole ns, or a dash."""
    return "-" if ns is None else f"{ns:.0f}"


def times(ns: float | None, base_ns: float | None) -> str:
    """A ratio, or a dash where either side is missing."""
    return "-" if ns is None or not base_ns else f"{ns / base_ns:.2f}"


def _speed(peer: Candidate, columns: Columns) -> float:
    for title in (SYNC_OK, ASYNC_OK):
        ns = columns[title].best_ns(peer.name) if title in columns else None
        if ns is not None:
            return ns
    return float("inf")
