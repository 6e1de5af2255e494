"""A policy as the text of a settings file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from budao.model import PARTS, GuardPolicy, Mode
from budao.settings.schema import KINDS

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def dump(policy: GuardPolicy, *, name: str = "defaults") -> str:
    """TOML that states every number of `policy` for the guard `name`, and switches off what is off.

    Laid over any policy it gives back `policy`, unless that one holds a conflict, which `parse` then names.
    """
    where = f"guard.{key(name)}"
    off = [f"{part} = false\n" for part in PARTS if getattr(policy, part) is None]
    head = f"[{where}]\nkeys_max = {policy.keys_max}\n{''.join(off)}"
    return head + "".join(_table(where, part, getattr(policy, part)) for part in PARTS if getattr(policy, part))


def key(name: str) -> str:
    """A key as TOML wants it written: bare where it may be, quoted elsewhere."""
    if _BARE.fullmatch(name):
        return name
    # JSON escapes as TOML does, and leaves alone only the delete sign.
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")


def written(path: Iterable[str]) -> str:
    """A path as a message shows it: short, printable, and as it would stand in the file."""
    return ".".join(key(_shown(each)) for each in path)


def _shown(name: str) -> str:
    short = name if len(name) <= 64 else f"{name[:64]}..."
    return short if short.isprintable() else ascii(short)[1:-1]


def _table(where: str, part: str, policy: object) -> str:
    lines = [f"{each} = {_value(getattr(policy, each), kind)}\n" for each, kind in KINDS[part].items()]
    return f"\n[{where}.{part}]\n{''.join(lines)}"


def _value(value: object, kind: type) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mode):
        return f'"{value.value}"'
    # A whole number where a span belongs is written as the span it is read back as.
    return repr(float(value) if kind is float and isinstance(value, int) else value)
