"""The four panels, read back from the markup."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from budao.apps.charts import HEIGHT, WIDTH, charts
from tests.unit.apps.recordings import recording


def of_class(svg: ET.Element, name: str, *classes: str) -> list[ET.Element]:
    return [each for each in svg.iter(name) if set(classes) <= set((each.get("class") or "").split())]


def drawn(**options: int) -> ET.Element:
    return ET.fromstring(charts(recording(**options)))


@pytest.mark.parametrize(("seconds", "recorded"), [(60, 60), (5, 5), (600, 600), (60, 0), (60, 1), (60, 23)])
def test_nothing_is_drawn_outside_the_picture(seconds: int, recorded: int) -> None:
    svg = drawn(seconds=seconds, recorded=recorded)
    for each in svg.iter("rect"):
        left, top = float(each.get("x", 0)), float(each.get("y", 0))
        assert left >= 0
        assert left + float(each.get("width", 0)) <= WIDTH
        assert top + float(each.get("height", 0)) <= HEIGHT


def test_ill_phases_are_shaded_and_all_phases_named() -> None:
    svg = drawn()
    assert len(of_class(svg, "rect", "illness")) == 3
    assert [each.text for each in of_class(svg, "text", "phase")] == [
        "healthy", "slow", "hanging", "failing", "recovered",
    ]  # fmt: skip


def test_a_phase_too_narrow_for_its_name_is_not_named() -> None:
    assert of_class(drawn(seconds=60, recorded=11), "text", "phase")[-1].text == "healthy"
    shortened = replace(recording(), phases=tuple(replace(phase, name="x" * 60) for phase in recording().phases))
    assert of_class(ET.fromstring(charts(shortened)), "text", "phase") == []


def test_a_second_of_errors_is_a_cross_and_not_part_of_the_line() -> None:
    svg = drawn()
    ill = recording().phases[2:4]
    assert len(of_class(svg, "path", "error", "bare")) == sum(phase.end_s - phase.start_s for phase in ill)
    assert of_class(svg, "path", "error", "guarded") == []


def test_each_state_of_the_breaker_is_a_span_that_says_its_times() -> None:
    spans = [each.find("title") for each in drawn().iter("rect") if each.get("class") in {"open", "probing", "closed"}]
    said = [title.text for title in spans if title is not None]
    assert said[:2] == ["closed, 0.0 to 11.6 s", "open, 11.6 to 47.0 s"]


def test_rungs_are_stacked_to_the_requests_of_the_second() -> None:
    svg = drawn()
    stacks = [
        each for each in svg.iter("rect") if each.get("class") in {"direct", "cache", "template"} and not each.get("rx")
    ]
    by_second: dict[str, float] = {}
    for each in stacks:
        by_second[each.get("x", "")] = by_second.get(each.get("x", ""), 0.0) + float(each.get("height", 0))
    assert len(by_second) == 60
    assert all(abs(height - 130.0) < 0.3 for height in by_second.values())


def test_pointing_at_a_second_says_its_numbers() -> None:
    said = [title.text or "" for each in of_class(drawn(), "rect", "hover") for title in each.iter("title")]
    assert said[0] == (
        "second 0\nwithout guard: 50 requests, 100 % in time, p50 22 ms, p99 40 ms (direct 50)\n"
        "with guard: 50 requests, 100 % in time, p50 6 ms, p99 130 ms (direct 50)"
    )
