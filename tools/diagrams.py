"""Draws docs/explanation/breaker.svg from the table of moves: `python tools/diagrams.py`. A shape test holds it equal."""

from __future__ import annotations

from collections.abc import Mapping
from math import hypot
from pathlib import Path

from budao.guard import MOVES, Move, State

DRAWING = Path(__file__).parents[1] / "docs" / "explanation" / "breaker.svg"

PLACES: Mapping[State, tuple[int, int]] = {
    State.CLOSED: (130, 60),
    State.OPEN: (670, 60),
    State.PROBING: (670, 320),
    State.RAMPING: (130, 320),
}
WIDTH, HEIGHT, HALF_WIDTH, HALF_HEIGHT, LINE = 800, 390, 60, 24, 17


def drawing() -> str:
    """The breaker's moves as an SVG picture. An arrow that only a person can take is dashed."""
    arrows: dict[tuple[State, State], list[Move]] = {}
    for (before, move), after in MOVES.items():
        arrows.setdefault((before, after), []).append(move)
    shapes = [_arrow(before, after, moves) for (before, after), moves in arrows.items()]
    boxes = [_box(state) for state in State]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
        "<title>The states of a breaker, and the moves between them</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">',
        '<path d="M0 0 8 4 0 8z" fill="#456"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        *(line for line, _ in shapes),
        *(label for _, label in shapes),
        *boxes,
        "</svg>",
    ]) + "\n"  # fmt: skip


def _box(state: State) -> str:
    x, y = PLACES[state]
    frame = f'x="{x - HALF_WIDTH}" y="{y - HALF_HEIGHT}" width="{2 * HALF_WIDTH}" height="{2 * HALF_HEIGHT}"'
    text = f'<text x="{x}" y="{y + 5}" text-anchor="middle" font-size="15" font-weight="bold">{state.value}</text>'
    return f'<rect {frame} rx="8" fill="#e8eef6" stroke="#456"/>{text}'


def _arrow(before: State, after: State, moves: list[Move]) -> tuple[str, str]:
    """One arrow and its words, both a little to the right of the straight way, so that there and back are apart."""
    (x1, y1), (x2, y2) = PLACES[before], PLACES[after]
    far = hypot(x2 - x1, y2 - y1)
    along_x, along_y = (x2 - x1) / far, (y2 - y1) / far
    side_x, side_y = -along_y, along_x
    # From the middle of a box to its edge, along the arrow.
    gap = min(HALF_WIDTH / abs(along_x) if along_x else far, HALF_HEIGHT / abs(along_y) if along_y else far) + 6
    start = x1 + along_x * gap + side_x * 12, y1 + along_y * gap + side_y * 12
    stop = x1 + along_x * (far - gap) + side_x * 12, y1 + along_y * (far - gap) + side_y * 12
    dashes = ' stroke-dasharray="5 4"' if moves == [Move.RESET] else ""
    line = f'<path d="M{start[0]:.0f} {start[1]:.0f} {stop[0]:.0f} {stop[1]:.0f}" stroke="#456"{dashes} marker-end="url(#tip)"/>'
    is_slanted = bool(along_x and along_y)
    where = 0.3 if is_slanted else 0.5
    x, y = x1 + along_x * far * where + side_x * 12, y1 + along_y * far * where + side_y * 12
    if is_slanted:
        anchor = "middle"
    elif along_x:
        anchor, y = "middle", y + side_y * 12 + 4
    else:
        anchor, x = ("start" if side_x > 0 else "end"), x + side_x * 8
    words = [move.value for move in moves]
    top = y - (len(words) - 1) * LINE / 2
    texts = [
        f'<text x="{x:.0f}" y="{top + number * LINE:.0f}" text-anchor="{anchor}" fill="#234" stroke="#fff" stroke-width="5"'
        f' paint-order="stroke">{word}</text>'
        for number, word in enumerate(words)
    ]
    return line, "".join(texts)


def main() -> None:
    DRAWING.write_text(drawing(), encoding="utf-8")


if __name__ == "__main__":
    main()
