"""Bytes and text from strangers into typed values, and values into what goes out.

A parser here never raises for what a header says: it answers None or "", and the caller goes on without. Nothing here
sends, waits, or decides what a value means.
"""

from budao.wire.headers import (
    PRIORITY,
    TIMEOUT,
    TRACEPARENT,
    format_priority,
    format_retry_after,
    format_timeout,
    parse_priority,
    parse_timeout,
    parse_traceparent,
)

__all__ = [
    "PRIORITY", "TIMEOUT", "TRACEPARENT", "format_priority", "format_retry_after", "format_timeout", "parse_priority",
    "parse_timeout", "parse_traceparent",
]  # fmt: skip
