"""What a server says about its load in a reply: a header over HTTP, trailing metadata over gRPC.

    budao-load: in-flight=3;service-ms=12.500

More fields may follow in a later version; a reader of today passes over them.
"""

from __future__ import annotations

import re
from math import isfinite

from budao.model import Load

LOAD = "budao-load"
"""The name of the header, and of the metadata."""

LOAD_CHARACTERS_MAX = 256
"""A longer text is not looked at."""
IN_FLIGHT_MAX = 999_999_999
SERVICE_MAX_S = 86_400.0
"""A day. More is read, and written, as a day."""

_LOAD = re.compile(r"in-flight=([0-9]{1,9});service-ms=([0-9]{1,9}(?:\.[0-9]{1,9})?)(?:;.*)?")


def parse_load(text: str) -> Load | None:
    """The load a reply tells; None for anything that is not one."""
    if len(text) > LOAD_CHARACTERS_MAX:
        return None
    found = _LOAD.fullmatch(text.strip(" \t"))
    if found is None:
        return None
    in_flight, service_ms = found.groups()
    return Load(int(in_flight), min(float(service_ms) / 1000.0, SERVICE_MAX_S))


def format_load(load: Load) -> str:
    """The text for a load, to a microsecond.

    Never fails, since it runs in every reply: a number below 0, or none at all, is written as 0.
    """
    return load_text(load.in_flight, load.service_s)


def load_text(in_flight: int, service_s: float) -> str:
    """The same of the bare numbers: a frozen value costs as much to make as its text."""
    if not (0 <= in_flight <= IN_FLIGHT_MAX and 0.0 <= service_s <= SERVICE_MAX_S):
        in_flight = min(max(in_flight, 0), IN_FLIGHT_MAX)
        service_s = min(max(service_s, 0.0), SERVICE_MAX_S) if isfinite(service_s) else 0.0
    return f"in-flight={in_flight};service-ms={service_s * 1000.0:.3f}"
