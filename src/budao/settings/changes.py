"""What a new policy changes in an old one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from budao.model import PARTS, GuardPolicy, Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One number, or one whole part, that is not what it was."""

    path: str
    """Such as "breaker.rest_s"; "hedge" for a part that went on or off."""
    old: object
    new: object
    """None for a part that is off, and its policy for one that is on."""

    def __str__(self) -> str:
        if self.path not in PARTS:
            return f"{self.path}: {_shown(self.old)} -> {_shown(self.new)}"
        if self.new is None:
            return f"{self.path}: on -> off"
        return f"{self.path}: off -> on ({_numbers(self.new)})"


def diff(old: GuardPolicy, new: GuardPolicy) -> tuple[Change, ...]:
    """Every difference, in the order of the fields; empty if the policies are equal."""
    found = []
    for part in PARTS:
        before, after = getattr(old, part), getattr(new, part)
        if before is None or after is None:
            if before is not after:
                found.append(Change(path=part, old=before, new=after))
            continue
        found += _differences(f"{part}.", before, after, [each.name for each in fields(before)])
    return (*found, *_differences("", old, new, ["keys_max"]))


def describe(changes: Iterable[Change]) -> str:
    """All changes on one line, for a log."""
    return "; ".join(map(str, changes)) or "nothing changed"


def _differences(prefix: str, old: object, new: object, names: Iterable[str]) -> list[Change]:
    pairs = ((name, getattr(old, name), getattr(new, name)) for name in names)
    return [Change(path=prefix + name, old=before, new=after) for name, before, after in pairs if before != after]


def _numbers(part: Any) -> str:
    return ", ".join(f"{each.name} = {_shown(getattr(part, each.name))}" for each in fields(part))


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mode):
        return value.value
    return f"{value:.12g}" if isinstance(value, float) else str(value)
