"""Scales, and the markup of the few shapes."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from budao.apps.plot import Box, cross, logarithmic, path, rect, straight, tag, text


def test_a_straight_scale_meets_both_ends_and_keeps_what_lies_outside_at_the_edge() -> None:
    y = straight(0.0, 1.0, 100.0, 0.0)
    assert [y(value) for value in (0.0, 0.25, 1.0, -3.0, 9.0)] == [100.0, 75.0, 0.0, 100.0, 0.0]


def test_a_logarithmic_scale_gives_each_power_of_ten_the_same_room() -> None:
    x = logarithmic(0.01, 10.0, 0.0, 300.0)
    assert [round(x(value), 6) for value in (0.01, 0.1, 1.0, 10.0, 0.0)] == [0.0, 100.0, 200.0, 300.0, 0.0]


def test_a_line_breaks_where_nothing_was_measured_and_a_lone_point_is_a_dot() -> None:
    assert 'd="M0 0L1 1M3 3L3 3"' in path([(0.0, 0.0), (1.0, 1.0), None, (3.0, 3.0)], "p99")
    assert path([None, None], "p99") == ""


@given(words=st.text(alphabet=st.characters(exclude_categories=("Cs", "Cc"))))
def test_any_words_are_well_formed_and_come_back(words: str) -> None:
    assert (ET.fromstring(text(words, 1.0, 2.0)).text or "") == words
    title = ET.fromstring(rect(0.0, 0.0, 1.0, 1.0, words, words)).find("title")
    assert (title.text if title is not None else "") == words


def test_attributes_read_as_svg_names_them_and_none_leaves_one_out() -> None:
    assert (
        tag("text", "a", text_anchor="end", class_="x", rx=None, x=1.26)
        == '<text text-anchor="end" class="x" x="1.3">a</text>'
    )


def test_a_cross_is_around_its_point() -> None:
    assert 'd="M7 17L13 23M7 23L13 17"' in cross(10.0, 20.0, "error")


def test_a_box_knows_its_far_edges() -> None:
    box = Box(left=1.0, top=2.0, width=10.0, height=20.0)
    assert (box.right, box.bottom) == (11.0, 22.0)
