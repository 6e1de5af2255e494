"""The plots of the page: four panels over one axis of time, in one SVG."""

from __future__ import annotations

from collections.abc import Sequence

from budao.apps.plot import Box, Scale, cross, line, logarithmic, path, rect, straight, tag, text
from budao.apps.recording import RUNGS, Recording, Second, percent

WIDTH = 1130.0
_LEFT, _RIGHT = 62.0, 1122.0
_HEAD = 46.0
_TITLE = 34.0
"""Above each panel: its title and its key."""

_SPAN = _RIGHT - _LEFT
_LATENCY = Box(left=_LEFT, top=_HEAD + _TITLE, width=_SPAN, height=210.0)
_SHARE = Box(left=_LEFT, top=_LATENCY.bottom + _TITLE + 10, width=_SPAN, height=120.0)
_BREAKER = Box(left=_LEFT, top=_SHARE.bottom + _TITLE + 10, width=_SPAN, height=26.0)
_RUNGS = Box(left=_LEFT, top=_BREAKER.bottom + _TITLE + 10, width=_SPAN, height=130.0)
_BOTTOM = _RUNGS.bottom
HEIGHT = _BOTTOM + 42.0

_TICKS_S = ((0.01, "10 ms"), (0.1, "100 ms"), (1.0, "1 s"), (10.0, "10 s"))
_SHOPS = (("without guard", "bare"), ("with guard", "guarded"))
_BROKEN = 0.5
"""A second in which a smaller share than this succeeded shows its latency as crosses: those were errors."""


def charts(recording: Recording) -> str:
    """The SVG. An empty recording gives empty panels."""
    seconds = max(1, recording.seconds)
    x = straight(0.0, seconds, _LEFT, _RIGHT)
    parts = (
        _phases(recording, x),
        _latency(recording, x),
        _shares(recording, x),
        _breaker(recording, x),
        _rungs(recording, x),
        _time_axis(seconds, x),
        _hover(recording, x),
    )
    said = "Latency, share within the objective, breaker state and ladder rungs over time, with and without the guard"
    return tag("svg", "".join(parts), viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}", role="img", aria_label=said)


def _phases(recording: Recording, x: Scale) -> str:
    parts: list[str] = []
    for phase in recording.phases:
        if phase.start_s >= recording.seconds:
            continue
        left, right = x(phase.start_s), x(phase.end_s)
        if phase.is_ill:
            parts.append(rect(left, 0.0, right - left, _BOTTOM, "illness"))
        if phase.start_s:
            parts.append(line(left, 0.0, left, _BOTTOM, "border"))
        middle, room = (left + right) / 2, right - left
        # About 7.6 pixels a letter at this size, 6.6 for the smaller line. What has no room is in the events as well.
        if len(phase.name) * 7.6 < room:
            parts.append(text(phase.name, middle, 17.0, "phase", "middle"))
        if len(phase.says) * 6.6 < room:
            parts.append(text(phase.says, middle, 35.0, anchor="middle"))
    return "".join(parts)


def _latency(recording: Recording, x: Scale) -> str:
    y = logarithmic(0.003, 10.0, _LATENCY.bottom, _LATENCY.top)
    parts = [_title(_LATENCY, "Latency of requests, errors included")]
    parts += [line(_LEFT, y(at), _RIGHT, y(at), "grid") + _tick(words, y(at)) for at, words in _TICKS_S]
    goal = y(recording.under_s)
    parts += [
        line(_LEFT, goal, _RIGHT, goal, "objective"),
        text(f"{recording.under_s * 1000:.0f} ms", _LEFT - 8, goal + 4.5, "goal", "end"),
    ]
    for (_, color), seconds in zip(_SHOPS, (recording.bare, recording.guarded), strict=True):
        parts.append(path(_points([second.p50_s for second in seconds], seconds, x, y), f"p50 {color}"))
        parts.append(path(_points([second.p99_s for second in seconds], seconds, x, y), f"p99 {color}"))
        parts += [
            cross(x(index + 0.5), y(second.p50_s), f"error {color}")
            for index, second in enumerate(seconds)
            if second.p50_s is not None and _is_broken(second)
        ]
    keys: list[tuple[str, str, str]] = [(name, "line", f"p99 {color}") for name, color in _SHOPS]
    keys += [("p99", "line", "p99 axis"), ("p50", "line", "p50 axis")]
    keys += [("mostly errors", "cross", "error axis"), ("objective", "line", "objective")]
    parts.append(_key(_LATENCY, keys))
    return "".join(parts)


def _points(
    values: Sequence[float | None], seconds: Sequence[Second], x: Scale, y: Scale
) -> list[tuple[float, float] | None]:
    return [
        None if value is None or _is_broken(second) else (x(index + 0.5), y(value))
        for index, (value, second) in enumerate(zip(values, seconds, strict=True))
    ]


def _is_broken(second: Second) -> bool:
    return second.succeeded < _BROKEN * second.requests


def _shares(recording: Recording, x: Scale) -> str:
    y = straight(0.0, 1.0, _SHARE.bottom, _SHARE.top)
    parts = [_title(_SHARE, f"Share answered well within {recording.under_s * 1000:.0f} ms")]
    parts += [line(_LEFT, y(at), _RIGHT, y(at), "grid") + _tick(f"{at:.0%}", y(at)) for at in (0.0, 0.5, 1.0)]
    for (_, color), seconds in zip(_SHOPS, (recording.bare, recording.guarded), strict=True):
        points = [
            (x(index + 0.5), y(second.in_time / second.requests)) if second.requests else None
            for index, second in enumerate(seconds)
        ]
        parts.append(path(points, f"share {color}"))
    parts.append(_key(_SHARE, [(name, "line", f"share {color}") for name, color in _SHOPS]))
    return "".join(parts)


def _breaker(recording: Recording, x: Scale) -> str:
    parts = [_title(_BREAKER, "Breaker of the guarded shop")]
    for span in recording.states:
        left, right = x(span.start_s), x(span.end_s)
        if right <= left:
            continue
        said = f"{span.state}, {span.start_s:.1f} to {span.end_s:.1f} s"
        parts.append(rect(left, _BREAKER.top, right - left, _BREAKER.height, span.state, said))
        if len(span.state) * 7.4 + 8 < right - left:
            parts.append(text(span.state, (left + right) / 2, _BREAKER.top + 17.5, "on", "middle"))
    seen = {span.state for span in recording.states}
    states = [state for state in ("closed", "open", "probing", "ramping") if state in seen]
    parts.append(_key(_BREAKER, [(state, "box", state) for state in states]))
    return "".join(parts)


def _rungs(recording: Recording, x: Scale) -> str:
    most = max((second.requests for second in recording.guarded), default=0) or 1
    y = straight(0.0, most, _RUNGS.bottom, _RUNGS.top)
    parts = [_title(_RUNGS, "Requests a second in the guarded shop, by the rung that answered")]
    middle = _round_below(most)
    parts += [line(_LEFT, y(at), _RIGHT, y(at), "grid") + _tick(f"{at:g}", y(at)) for at in (0.0, middle)]
    seen: set[str] = set()
    for index, second in enumerate(recording.guarded):
        left, right = x(index) + 0.5, x(index + 1) - 0.5
        lost = second.requests - sum(second.rungs.values())
        below = 0.0
        for name, count in (*((rung, second.rungs.get(rung, 0)) for rung in RUNGS), ("none", lost)):
            if count > 0:
                seen.add(name)
                parts.append(rect(left, y(below + count), right - left, y(below) - y(below + count), name))
                below += count
    words = {"none": "no good answer"}
    shown = [name for name in (*RUNGS, "none") if name in seen]
    parts.append(_key(_RUNGS, [(words.get(name, name), "box", name) for name in shown]))
    return "".join(parts)


def _round_below(most: float) -> float:
    """A round number in the upper half, for the one line of a small panel."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000) if most / step < 10)
    return float(int(most / step) * step)


def _time_axis(seconds: int, x: Scale) -> str:
    step = next(step for step in (1, 5, 10, 20, 30, 60) if seconds / step <= 14)
    parts = [line(_LEFT, _BOTTOM, _RIGHT, _BOTTOM, "axis")]
    for at in range(0, seconds + 1, step):
        anchor = "end" if at == seconds else "middle"
        parts.append(line(x(at), _BOTTOM, x(at), _BOTTOM + 5, "axis"))
        parts.append(text(f"{at} s", x(at), _BOTTOM + 20, anchor=anchor))
    return "".join(parts)


def _hover(recording: Recording, x: Scale) -> str:
    """An invisible column per second that says its numbers when pointed at. The breaker band keeps its own words."""
    parts: list[str] = []
    for index in range(min(len(recording.bare), len(recording.guarded))):
        pairs = zip(_SHOPS, (recording.bare[index], recording.guarded[index]), strict=True)
        said = "\n".join([f"second {index}", *(f"{name}: {_numbers(second)}" for (name, _), second in pairs)])
        left, width = x(index), x(index + 1) - x(index)
        parts.append(rect(left, _LATENCY.top, width, _SHARE.bottom - _LATENCY.top, "hover", said))
        parts.append(rect(left, _RUNGS.top, width, _RUNGS.height, "hover", said))
    return "".join(parts)


def _numbers(second: Second) -> str:
    if not second.requests or second.p50_s is None or second.p99_s is None:
        return "nobody came"
    rungs = ", ".join(f"{rung} {count}" for rung, count in second.rungs.items())
    return (
        f"{second.requests} requests, {percent(second.in_time / second.requests)} in time, p50 "
        f"{second.p50_s * 1000:.0f} ms, p99 {second.p99_s * 1000:.0f} ms" + (f" ({rungs})" if rungs else "")
    )


def _title(box: Box, words: str) -> str:
    return text(words, box.left, box.top - 13, "title")


def _tick(words: str, y: float) -> str:
    return text(words, _LEFT - 8, y + 4.5, anchor="end")


def _key(box: Box, entries: Sequence[tuple[str, str, str]]) -> str:
    """The key of a panel, on the line of its title, right-aligned."""
    y = box.top - 17.5
    widths = [30 + len(words) * 7.4 + 12 for words, _, _ in entries]
    at = box.right - sum(widths) + 12
    parts: list[str] = []
    for (words, shape, class_), width in zip(entries, widths, strict=True):
        if shape == "line":
            parts.append(line(at, y, at + 24, y, class_))
        elif shape == "cross":
            parts.append(cross(at + 16, y, class_))
        else:
            parts.append(rect(at + 10, y - 6, 13.0, 12.0, class_, rx=3.0))
        parts.append(text(words, at + 30, y + 4.5, "key"))
        at += width
    return "".join(parts)
