"""The diagram in the docs says what the code says."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from budao.guard import MOVES, State
from tools import diagrams

SVG = "{http://www.w3.org/2000/svg}"


def test_the_drawing_on_the_page_is_the_one_drawn_from_the_moves() -> None:
    assert diagrams.DRAWING.read_text(encoding="utf-8") == diagrams.drawing(), "run python tools/diagrams.py"


def test_the_drawing_has_every_state_every_arrow_and_every_word() -> None:
    picture = ET.fromstring(diagrams.drawing())
    words = [text.text for text in picture.iter(SVG + "text")]
    assert sorted(words) == sorted([state.value for state in State] + [move.value for _, move in MOVES])
    arrows = [path for path in picture.iter(SVG + "path") if "marker-end" in path.attrib]
    assert len(arrows) == len({(before, after) for (before, _), after in MOVES.items()})
    dashed = [path for path in arrows if "stroke-dasharray" in path.attrib]
    assert len(dashed) == 2, "only a person leads straight from open or probing to closed"
