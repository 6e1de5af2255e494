"""How long to wait before a call is tried again."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from math import inf
from random import Random
from typing import Final

from budao.model import RetryPolicy, Wall

NEVER: Final = inf
"""A pause that means "do not try again". As `asked_s` it makes `pause_s` answer None."""

TEXT_MAX: Final = 64
"""A header longer than this says nothing; the longest form that means something has 34 characters."""

_ASKED_SPREAD_SHARE = 0.1
_PUSHBACK_MAX_MS = 2**31 - 1
_FIFTY_YEARS_S = 50 * 365.2425 * 86_400

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = "(?P<month>" + "|".join(_MONTHS) + ")"
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_SECONDS = re.compile(r"(?P<sign>-?)(?P<seconds>[0-9]+(?:\.[0-9]+)?)")
_PUSHBACK = re.compile(r"0|[1-9][0-9]{0,9}")
_DATES = (
    # IMF-fixdate, then the two obsolete forms that a recipient must still read: RFC 850's and asctime's.
    re.compile(rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    re.compile(
        rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"
    ),
    re.compile(rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) {_MONTH} (?P<day>[ 0-9][0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)


def pause_s(attempt: int, policy: RetryPolicy, rng: Random, asked_s: float | None = None) -> float | None:
    """The pause before the next try, or None if there should be none.

    Full jitter: evenly drawn between 0 and a ceiling that doubles with each try. A pause the other side asked for is
    never cut short, only lengthened by jitter, so that its clients do not all come back at the same moment; if it asked
    for more than `retry_after_max_s`, there is no next try.

    Units:  `attempt` counts the tries made so far, from 1; spans in seconds.
    Source: Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), full jitter.
    """
    assert attempt >= 1, "a pause comes after a try"
    doublings = min(attempt - 1, 64)  # a float power of two overflows near 1024; no ceiling is that far away
    ceiling_s = min(policy.pause_max_s, policy.pause_first_s * 2.0**doublings)
    if asked_s is None:
        return rng.uniform(0.0, ceiling_s)
    if not asked_s <= policy.retry_after_max_s:  # in this form "not a number" is too long as well
        return None
    asked_s = max(0.0, asked_s)
    # The longer the wait, the more clients were told the same: they spread over a tenth of it.
    return asked_s + rng.uniform(0.0, max(ceiling_s, asked_s * _ASKED_SPREAD_SHARE))


def parse_retry_after(text: str, now: Wall) -> float | None:
    """The pause an HTTP `Retry-After` header asks for; None if it asks for nothing we understand. Never raises.

    A date that has passed, like a number below 0, asks for no pause at all. A decimal fraction is not in the grammar
    but is sent, and can mean only one thing. The name of the day is not checked against the date.

    Units:  seconds from `now`.
    Source: RFC 9110, sections 10.2.3 (Retry-After) and 5.6.7 (dates).
    """
    if len(text) > TEXT_MAX:
        return None
    text = text.strip(" \t")
    if found := _SECONDS.fullmatch(text):
        return 0.0 if found["sign"] else float(found["seconds"])
    for form in _DATES:
        if found := form.fullmatch(text):
            try:
                return max(0.0, _instant(found.groupdict(), now) - now)
            except (ValueError, OverflowError):  # February 30th, or a `now` beyond any calendar
                return None
    return None


def parse_pushback(text: str | None) -> float | None:
    """The pause a gRPC server asks for in `grpc-retry-pushback-ms`: a span, `NEVER`, or None if there is no such header.

    What is negative or unreadable asks the client not to try again, so it must not look like an absent header: the
    answer is `NEVER`, which `pause_s` turns into "no next try".

    Units:  the text is in milliseconds, the answer in seconds.
    Source: gRFC A6, "Pushback": a signed 32-bit integer without unnecessary leading zeros.
    """
    if text is None:
        return None
    if len(text) > TEXT_MAX or not _PUSHBACK.fullmatch(text.strip(" \t")):
        return NEVER
    milliseconds = int(text)
    return milliseconds / 1000.0 if milliseconds <= _PUSHBACK_MAX_MS else NEVER


def _instant(parts: dict[str, str], now: Wall) -> float:
    """The Unix seconds of a matched date."""
    second = int(parts["second"])
    leap_s = 1 if second == 60 else 0  # the grammar has leap seconds and `datetime` has not
    month = _MONTHS.index(parts["month"]) + 1
    rest = (month, int(parts["day"]), int(parts["hour"]), int(parts["minute"]), second - leap_s)

    def in_year(year: int) -> float:
        return datetime(year, *rest, tzinfo=UTC).timestamp() + leap_s

    if len(parts["year"]) == 4:
        return in_year(int(parts["year"]))
    # Two digits mean the latest such year that is not more than 50 years ahead.
    year_now = 1970 + int(now // (365.2425 * 86_400))
    year = year_now - year_now % 100 + int(parts["year"])
    for each in (year + 100, year, year - 100):
        try:
            instant = in_year(each)
        except ValueError:  # February 29th, which not each of these years has
            continue
        if instant <= now + _FIFTY_YEARS_S:
            return instant
    raise ValueError("no such day in any of these years")
