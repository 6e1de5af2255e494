from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from math import inf, isfinite, nan
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from budao.guard.pauses import NEVER, TEXT_MAX, parse_pushback, parse_retry_after, pause_s
from budao.model import RetryPolicy, Wall

POLICY = RetryPolicy(pause_first_s=0.05, pause_max_s=2.0, retry_after_max_s=10.0)
NOW = Wall(datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC).timestamp())


class Highest(Random):
    """A die that always shows the most."""

    def random(self) -> float:
        return 1.0 - 2.0**-53


class Lowest(Random):
    def random(self) -> float:
        return 0.0


def ceiling(attempt: int, asked_s: float | None = None) -> float | None:
    return pause_s(attempt, POLICY, Highest(), asked_s)


def test_the_ceiling_doubles_with_each_try_and_stops_at_the_longest_pause() -> None:
    ceilings = [ceiling(attempt) for attempt in (1, 2, 3, 6, 7, 8, 5000)]
    assert ceilings == [pytest.approx(each) for each in (0.05, 0.1, 0.2, 1.6, 2.0, 2.0, 2.0)]


def test_jitter_is_full() -> None:
    assert pause_s(3, POLICY, Lowest()) == 0.0
    rng = Random(1)
    drawn = [pause_s(3, POLICY, rng) or 0.0 for _ in range(2000)]
    assert all(0.0 <= each <= 0.2 for each in drawn)
    assert sum(drawn) / len(drawn) == pytest.approx(0.1, rel=0.05)


def test_a_policy_without_pauses_does_not_pause() -> None:
    assert pause_s(9, RetryPolicy(pause_first_s=0.0, pause_max_s=0.0), Highest()) == 0.0


def test_a_pause_that_was_asked_for_is_kept_and_jitter_comes_on_top() -> None:
    assert pause_s(1, POLICY, Lowest(), 4.0) == 4.0
    assert ceiling(1, 4.0) == pytest.approx(4.4)
    assert ceiling(6, 4.0) == pytest.approx(5.6), "the usual jitter where that is more"
    assert ceiling(1, 0.0) == pytest.approx(0.05), "asked to come back at once, clients still spread"
    assert ceiling(1, -3.0) == pytest.approx(0.05)


def test_nobody_waits_for_longer_than_the_longest_pause_that_may_be_asked_for() -> None:
    assert pause_s(1, POLICY, Lowest(), 10.0) == 10.0
    assert [pause_s(1, POLICY, Lowest(), each) for each in (10.001, 3600.0, NEVER, inf, nan)] == [None] * 5


@given(st.integers(1, 10_000), st.none() | st.floats(-10.0, 20.0), st.integers())
def test_a_pause_is_never_shorter_than_asked_nor_longer_than_its_bounds(
    attempt: int, asked_s: float | None, seed: int
) -> None:
    pause = pause_s(attempt, POLICY, Random(seed), asked_s)
    if asked_s is not None and asked_s > 10.0:
        assert pause is None
        return
    assert pause is not None
    assert max(0.0, asked_s or 0.0) <= pause <= max(0.0, asked_s or 0.0) + 2.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7\t", 7.0),
        ("007", 7.0),
        ("1.5", 1.5),
        ("-5", 0.0),
        ("-0.1", 0.0),
        ("Sat, 21 Nov 2026 08:00:30 GMT", 30.0),
        ("Saturday, 21-Nov-26 08:00:30 GMT", 30.0),
        ("Sat Nov 21 08:00:30 2026", 30.0),
        ("Tue Dec  1 08:00:00 2026", 864_000.0),
        ("Sat, 21 Nov 2026 08:00:60 GMT", 60.0),
        ("Sat, 21 Nov 2026 07:59:59 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
        ("Sun Nov  6 08:49:37 1994", 0.0),
        ("Mon, 21 Nov 2026 08:00:30 GMT", 30.0),
    ],
)
def test_a_retry_after_header_in_each_form_of_the_rfc(text: str, seconds: float) -> None:
    assert parse_retry_after(text, NOW) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "soon",
        "1e3",
        "+5",
        "--5",
        "5 s",
        "5,5",
        ".5",
        "5.",
        "١٢٠",  # digits, and not ASCII
        "inf",
        "nan",
        "0x10",
        "1_000",
        "Sat, 30 Feb 2026 08:00:30 GMT",
        "Saturday, 30-Feb-26 08:00:30 GMT",
        "Sat, 21 Nov 2026 24:00:00 GMT",
        "Sat, 21 Nov 2026 08:00:61 GMT",
        "Sat, 21 Nov 0000 08:00:30 GMT",
        "Sat, 21 nov 2026 08:00:30 GMT",
        "Sat, 21 Nov 2026 08:00:30 CET",
        "Sat, 21 Nov 2026 08:00:30",
        "Sat, 1 Nov 2026 08:00:30 GMT",
        "2026-11-21T08:00:30Z",
        "9" * (TEXT_MAX + 1),
        "5" + "\n",
    ],
)
def test_a_retry_after_header_that_is_garbage_asks_for_nothing(text: str) -> None:
    assert parse_retry_after(text, NOW) is None


def test_a_two_digit_year_is_never_more_than_fifty_years_ahead() -> None:
    assert parse_retry_after("Friday, 20-Nov-76 08:00:00 GMT", NOW) == pytest.approx(50 * 365.25 * 86_400, rel=0.001)
    assert parse_retry_after("Monday, 21-Nov-77 08:00:00 GMT", NOW) == 0.0, "that was in 1977"
    late_2099 = Wall(datetime(2099, 12, 31, 23, 59, 0, tzinfo=UTC).timestamp())
    assert parse_retry_after("Friday, 01-Jan-00 00:00:00 GMT", late_2099) == 60.0


def test_a_huge_number_of_seconds_is_a_pause_nobody_waits_for() -> None:
    asked_s = parse_retry_after("9" * TEXT_MAX, NOW)
    assert asked_s is not None
    assert pause_s(1, POLICY, Lowest(), asked_s) is None


@given(st.integers(631_152_000, 3_155_760_000), st.sampled_from([0.0, 0.25, 1e9]))
@example(951_782_400, 0.0)  # February 29th, 2000: there is none in 2100
def test_a_date_reads_back_as_it_was_written(second: int, early_s: float) -> None:
    instant = datetime.fromtimestamp(second, UTC)
    now = Wall(second - early_s)
    fixed = format_datetime(instant, usegmt=True)
    assert parse_retry_after(fixed, now) == early_s
    assert parse_retry_after(f"{instant:%a %b} {instant.day:>2} {instant:%H:%M:%S %Y}", now) == early_s
    if early_s < 1e9:
        assert parse_retry_after(f"{instant:%A, %d-%b-%y %H:%M:%S} GMT", now) == early_s


# Pieces of headers in every order, which random characters alone would never hit.
PIECES = st.lists(
    st.sampled_from(
        ["Sat", "Saturday", ", ", " ", "-", "21", "Nov", "Feb", "2026", "26", "08:00:30", "99", "GMT", "\t"]
    )
    | st.text(max_size=3),
    max_size=12,
).map("".join)


@given(PIECES | st.text(max_size=100), st.floats(allow_nan=True, allow_infinity=True))
@example("Sunday, 06-Nov-94 08:49:37 GMT", nan)
@example("Sunday, 06-Nov-94 08:49:37 GMT", inf)
@example("Sunday, 06-Nov-94 08:49:37 GMT", -1e300)
@example("Sunday, 06-Nov-94 08:49:37 GMT", 2.5e11)
def test_no_text_and_no_clock_makes_a_parser_raise(text: str, now: float) -> None:
    found = parse_retry_after(text, Wall(now))
    assert found is None or found >= 0.0
    pushed = parse_pushback(text)
    assert pushed is not None
    assert pushed >= 0.0


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0.0), ("1", 0.001), ("250", 0.25), (" 250 ", 0.25), ("2147483647", 2_147_483.647)]
)
def test_a_pushback_is_in_milliseconds(text: str, seconds: float) -> None:
    assert parse_pushback(text) == seconds


@pytest.mark.parametrize("text", ["-1", "-0", "", "soon", "1.5", "+1", "007", "2147483648", "9" * 500, "٣", "1\n"])
def test_a_pushback_below_zero_or_unreadable_means_never(text: str) -> None:
    assert parse_pushback(text) == NEVER
    assert pause_s(1, POLICY, Lowest(), parse_pushback(text)) is None


def test_no_pushback_is_not_the_same_as_never() -> None:
    assert parse_pushback(None) is None
    assert isfinite(pause_s(1, POLICY, Lowest(), parse_pushback(None)) or 0.0)
