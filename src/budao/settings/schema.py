"""What may stand in a settings file: every part of a guard's policy, its numbers and their kinds.

Read off the policies themselves, so that a new field is a new key without another word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import MappingProxyType
from typing import Any, get_type_hints

from budao.model import PARTS, Mode

KINDS: Mapping[str, Mapping[str, type]] = MappingProxyType(
    {part: MappingProxyType(get_type_hints(kind)) for part, (kind, _) in PARTS.items()}
)
"""Per part, per field: float, int, bool or Mode."""

DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        part: MappingProxyType({each.name: each.default for each in fields(kind) if each.default is not MISSING})
        for part, (kind, _) in PARTS.items()
    }
)
"""Per part, the written default of each field that has one."""

NEEDED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {part: tuple(name for name in KINDS[part] if name not in DEFAULTS[part]) for part in PARTS}
)
"""Per part, the fields that have none."""

MODES: Mapping[str, Mode] = MappingProxyType({mode.value: mode for mode in Mode})

# Numbers that must grow in this order. A file may state one of them and leave the others to the code, so what is not
# stated is given the benefit of the doubt when a file is read, and judged when the file is laid over a policy.
RISING: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "breaker": ("rest_s", "rest_max_s"),
        "timeout": ("call_s", "total_s"),
        "retry": ("pause_first_s", "pause_max_s"),
        "limit": ("calls_min", "calls_first", "calls_max"),
        "threshold": ("samples_min", "samples"),
    }
)

# Stands in for what is not stated and cannot be ordered: one bucket fits every window, and every bucket a long window.
KINDEST: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"breaker": {"buckets": 1, "window_s": 86_400.0}, "rate": {"calls_per_s": 1.0}}
)


def kindest(part: str, stated: Mapping[str, Any]) -> dict[str, Any]:
    """A whole part that holds what is stated, and elsewhere whatever suits it best."""
    whole = {**DEFAULTS[part], **KINDEST.get(part, {}), **stated}
    rising = RISING.get(part, ())
    for index, name in enumerate(rising):
        if name not in stated:
            whole[name] = max([whole[name], *(stated[below] for below in rising[:index] if below in stated)])
            whole[name] = min([whole[name], *(stated[above] for above in rising[index + 1 :] if above in stated)])
    return whole
