"""The schema is read off the policies."""

from __future__ import annotations

from dataclasses import fields

import pytest

from budao.model import PARTS, Mode
from budao.settings.schema import DEFAULTS, KINDS, NEEDED, RISING, kindest


@pytest.mark.parametrize("part", PARTS)
def test_every_field_of_every_part_is_of_a_kind_a_file_can_state(part: str) -> None:
    assert list(KINDS[part]) == [each.name for each in fields(PARTS[part][0])]
    assert set(KINDS[part].values()) <= {float, int, bool, Mode}
    assert set(DEFAULTS[part]) | set(NEEDED[part]) == set(KINDS[part])


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_which_nothing_is_stated_can_be_built(part: str) -> None:
    PARTS[part][0](**kindest(part, {}))


@pytest.mark.parametrize(("part", "names"), RISING.items())
def test_one_stated_number_never_meets_another_that_was_only_guessed(part: str, names: tuple[str, ...]) -> None:
    kind = PARTS[part][0]
    for name in names:
        for value in (10, 40, 90):
            kind(**kindest(part, {name: value}))


def test_numbers_in_between_stand_between_the_stated_ones() -> None:
    assert kindest("limit", {"calls_min": 30, "calls_max": 50})["calls_first"] == 30
    assert kindest("limit", {"calls_max": 3})["calls_first"] == 3
    assert kindest("limit", {"calls_first": 2})["calls_min"] == 2


def test_a_short_window_is_given_one_bucket_and_many_buckets_a_long_window() -> None:
    PARTS["breaker"][0](**kindest("breaker", {"window_s": 0.002}))
    PARTS["breaker"][0](**kindest("breaker", {"buckets": 1000}))
