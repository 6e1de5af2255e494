"""Drawing with numbers: scales, and the few SVG shapes the page is made of. Units: pixels, from the top left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import log10

Scale = Callable[[float], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Where a panel is drawn."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height


def straight(low: float, high: float, start: float, end: float) -> Scale:
    """From `low`..`high` to `start`..`end`; what lies outside is drawn at the edge."""

    def place(value: float) -> float:
        return start + (min(max(value, low), high) - low) / (high - low) * (end - start)

    return place


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """The same by powers of ten. `low` is above 0."""
    place = straight(log10(low), log10(high), start, end)
    return lambda value: place(log10(max(value, low)))


def tag(name: str, content: str = "", /, **attributes: object) -> str:
    """One element. A trailing underscore in an attribute's name is dropped, others become hyphens; None leaves it out.

    `content` is markup; text goes through `escape` first.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{shown}>{content}</{name}>"


def number(value: object) -> str:
    """A coordinate to a tenth of a pixel; everything else as it is."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def text(words: str, x: float, y: float, class_: str = "", anchor: str | None = None) -> str:
    """Words whose baseline starts, ends or is centred at a point."""
    return tag("text", escape(words), x=x, y=y, class_=class_ or None, text_anchor=anchor)


def rect(x: float, y: float, width: float, height: float, class_: str, title: str = "", rx: float | None = None) -> str:
    """A rectangle; `title` is said when it is pointed at."""
    inside = tag("title", escape(title)) if title else ""
    return tag("rect", inside, x=x, y=y, width=width, height=height, class_=class_, rx=rx)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Sequence[tuple[float, float] | None], class_: str) -> str:
    """A line through the points; None breaks it, and a point alone between two breaks becomes a dot."""
    parts: list[str] = []
    for index, point in enumerate(points):
        if point is None:
            continue
        before = points[index - 1] if index else None
        after = points[index + 1] if index + 1 < len(points) else None
        here = f"{number(point[0])} {number(point[1])}"
        parts.append(f"{'L' if before else 'M'}{here}")
        if before is None and after is None:
            parts.append(f"L{here}")
    return tag("path", d="".join(parts), class_=class_) if parts else ""


def cross(x: float, y: float, class_: str, size: float = 3.0) -> str:
    """A small × around a point."""
    d = f"M{number(x - size)} {number(y - size)}L{number(x + size)} {number(y + size)}"
    d += f"M{number(x - size)} {number(y + size)}L{number(x + size)} {number(y - size)}"
    return tag("path", d=d, class_=class_)
