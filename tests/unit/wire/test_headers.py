from __future__ import annotations

import re
from math import inf, isfinite, nan

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from budao.model import Priority
from budao.wire import (
    format_priority,
    format_retry_after,
    format_timeout,
    parse_priority,
    parse_timeout,
    parse_traceparent,
)

DAY_S = 86_400.0
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
HEX = "0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250", 0.25), ("0", 0.0), ("0001", 0.001), (" 1500\t", 1.5), ("86400000", DAY_S), ("999999999999", DAY_S)],
)
def test_a_timeout_is_read_in_milliseconds_and_no_longer_than_a_day(text: str, seconds: float) -> None:
    assert parse_timeout(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "-1", "+1", "1.5", "1e3", "1_000", "0x10", "nan", "inf", "1 2", "1,1", "٣", "²", "1\n", "\x00", "9" * 13],
)
def test_a_timeout_that_is_not_a_plain_number_is_no_timeout(text: str) -> None:
    assert parse_timeout(text) is None


@given(text=st.text() | st.text("0123456789 -+._eE\t", max_size=20))
@example(text="9" * 10_000)  # int() refuses so many digits with an exception
def test_no_text_makes_a_parser_raise(text: str) -> None:
    seconds = parse_timeout(text)
    assert seconds is None or 0.0 <= seconds <= DAY_S
    parse_priority(text)
    assert parse_traceparent(text) == ""


@given(remaining_s=st.floats(min_value=0.001, max_value=DAY_S))
def test_a_timeout_passed_on_is_never_more_than_was_left_and_at_most_a_millisecond_less(remaining_s: float) -> None:
    text = format_timeout(remaining_s)
    assert text is not None
    arrived_s = parse_timeout(text)
    assert arrived_s is not None
    assert remaining_s - 0.001 - 1e-9 <= arrived_s <= remaining_s + 1e-9


@given(remaining_s=st.floats())
def test_any_remaining_time_becomes_a_header_that_can_be_read_or_none(remaining_s: float) -> None:
    text = format_timeout(remaining_s)
    if text is None:
        assert not isfinite(remaining_s)
    else:
        assert parse_timeout(text) is not None
        assert int(text) >= 1


def test_a_deadline_that_has_passed_is_passed_on_as_one_millisecond() -> None:
    assert format_timeout(0.0) == "1"
    assert format_timeout(-3.0) == "1"
    assert format_timeout(inf) is None
    assert format_timeout(nan) is None


@pytest.mark.parametrize("priority", list(Priority))
def test_a_priority_comes_back_as_it_went(priority: Priority) -> None:
    assert parse_priority(format_priority(priority)) is priority


def test_a_priority_nobody_knows_is_none() -> None:
    assert parse_priority("urgent!!") is None


def test_a_traceparent_is_taken_as_it_is() -> None:
    text = f"00-{TRACE}-{PARENT}-01"
    assert parse_traceparent(text) == text
    assert parse_traceparent(f" {text}\t") == text


@pytest.mark.parametrize(
    "text",
    [
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-01\n",
        f"01-{TRACE}-{PARENT}-01more",
        f"00-{TRACE}-{PARENT}",
        f"00{TRACE}{PARENT}01",
    ],
)
def test_a_broken_traceparent_is_ignored(text: str) -> None:
    assert parse_traceparent(text) == ""


def test_a_traceparent_of_a_later_version_is_passed_on_as_version_00_with_the_flag_we_know() -> None:
    assert parse_traceparent(f"cc-{TRACE}-{PARENT}-ff-what-comes-later") == f"00-{TRACE}-{PARENT}-01"
    assert parse_traceparent(f"cc-{TRACE}-{PARENT}-fe") == f"00-{TRACE}-{PARENT}-00"


@given(
    version=st.text(HEX, min_size=2, max_size=2),
    trace=st.text(HEX, min_size=32, max_size=32),
    parent=st.text(HEX, min_size=16, max_size=16),
    flags=st.text(HEX, min_size=2, max_size=2),
)
def test_what_is_passed_on_is_always_canonical(version: str, trace: str, parent: str, flags: str) -> None:
    passed = parse_traceparent(f"{version}-{trace}-{parent}-{flags}")
    if passed:
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", passed)
        assert parse_traceparent(passed) == passed
        assert trace in passed
    else:
        assert version == "ff" or int(trace, 16) == 0 or int(parent, 16) == 0


@pytest.mark.parametrize(
    ("wait_s", "text"),
    [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (59.9, "60"), (-5.0, "1"), (inf, "86400"), (nan, "1")],
)
def test_a_retry_after_is_whole_seconds_rounded_up_and_at_least_one(wait_s: float, text: str) -> None:
    assert format_retry_after(wait_s) == text
