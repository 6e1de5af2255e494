"""Any policy a guard can have."""

from __future__ import annotations

from dataclasses import fields
from math import inf
from typing import Any

from hypothesis import strategies as st

from budao.model import PARTS, BadSettings, GuardPolicy, Mode
from budao.settings.schema import KINDS

NUMBERS = {
    float: st.one_of(st.floats(0, 1), st.floats(0, 100), st.integers(0, 100), st.just(inf)),
    int: st.one_of(st.integers(0, 30), st.integers(0, 2_000)),
    bool: st.booleans(),
    Mode: st.sampled_from(Mode),
}


@st.composite
def policies(draw: st.DrawFn) -> GuardPolicy:
    built: dict[str, Any] = {"keys_max": draw(st.integers(1, 1_000_000))}
    for part, (kind, optional) in PARTS.items():
        if optional and draw(st.booleans()):
            built[part] = None
            continue
        # Numbers that do not fit are left out one by one until the rest fit together.
        numbers = {each.name: draw(NUMBERS[KINDS[part][each.name]]) for each in fields(kind)}
        if part == "rate":
            numbers["calls_per_s"] = draw(st.floats(0.001, 1e9))
        while part not in built:
            try:
                built[part] = kind(**numbers)
            except BadSettings as bad:
                name = bad.problems[0][0].partition(".")[2]
                numbers.pop(name if name in numbers else next(iter(numbers)))
    return GuardPolicy(**built)
