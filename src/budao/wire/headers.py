"""The headers a guarded call carries: how long somebody still waits, how much it matters, which trace it belongs to.

The same names serve HTTP headers and gRPC metadata, so they are lower case. A remaining time travels, never an instant:
two machines do not share a clock.
"""

from __future__ import annotations

import re
from math import ceil, isfinite, isnan

from budao.model import Priority

TIMEOUT = "budao-timeout-ms"
"""How long the caller still waits: whole milliseconds, as digits."""

PRIORITY = "budao-priority"
"""The name of a `Priority`, in lower case."""

TRACEPARENT = "traceparent"
"""W3C Trace Context."""

TIMEOUT_MAX_S = 86_400.0
"""A day. Longer is read as a day, so that no header makes an instant that arithmetic or a timer chokes on."""

TIMEOUT_DIGITS_MAX = 12
"""More digits than thirty years need are a mistake, not a wish; it also bounds what `int` is given."""

_DIGITS = re.compile(rf"[0-9]{{1,{TIMEOUT_DIGITS_MAX}}}")
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)


def parse_timeout(text: str) -> float | None:
    """Seconds somebody still waits, 0.0 to a day; None for anything but digits, and for absurdly many of them."""
    digits = text.strip(" \t")
    if _DIGITS.fullmatch(digits) is None:
        return None
    return min(int(digits) / 1000.0, TIMEOUT_MAX_S)


def format_timeout(remaining_s: float) -> str | None:
    """The header for that many seconds; None when there is no deadline to pass on.

    Rounded down, so that nobody further on believes in time that is not there; but never below "1", since a caller that
    found the time used up would not have sent the call.
    """
    if not isfinite(remaining_s):
        return None
    return str(max(int(min(remaining_s, TIMEOUT_MAX_S) * 1000.0), 1))


def parse_priority(text: str) -> Priority | None:
    """The priority a header names; None for anything else."""
    return Priority.of(text)


def format_priority(priority: Priority) -> str:
    """The header for a priority."""
    return priority.name.lower()


def parse_traceparent(text: str) -> str:
    """A `traceparent` this side may pass on, as version 00, or "" for one that must be ignored.

    Source: W3C Trace Context, sections 3.2 (format) and 4.3 (a version that is not known yet).
    """
    found = _TRACEPARENT.fullmatch(text.strip(" \t"))
    if found is None:
        return ""
    version, trace_id, parent_id, flags, more = found.groups()
    if version == "ff" or not trace_id.strip("0") or not parent_id.strip("0"):
        return ""
    if version == "00":
        return "" if more is not None else f"00-{trace_id}-{parent_id}-{flags}"
    # Of a later version only the first flag is known to mean what it means today.
    return f"00-{trace_id}-{parent_id}-{int(flags, 16) & 1:02x}"


def format_retry_after(wait_s: float) -> str:
    """A `Retry-After` in whole seconds: rounded up, at least "1".

    Source: RFC 9110, section 10.2.3: the delay is a number of seconds without a fraction; 0 would invite a storm.
    """
    if isnan(wait_s):
        return "1"
    return str(ceil(min(max(wait_s, 1.0), TIMEOUT_MAX_S)))
