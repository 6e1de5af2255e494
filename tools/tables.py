"""Writes the tables of docs/reference/policies/ from the code: `python tools/tables.py`. A shape test holds them equal."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import MISSING, fields
from enum import Enum
from math import inf
from pathlib import Path

from budao import model
from budao.guard import MOVES
from budao.model import policy

PAGES = Path(__file__).parents[1] / "docs" / "reference" / "policies"
TABLE = re.compile(r"<!-- (table|moves) (\w+) -->\n.*?<!-- end -->", re.DOTALL)

UNITS = (
    ("_per_s", "per second"),
    ("_s", "seconds"),
    ("share", "share, 0 to 1"),
    ("quantile", "share, 0 to 1"),
    ("calls_min", "calls"),
    ("calls_first", "calls"),
    ("calls_max", "calls"),
    ("waiting_max", "calls"),
    ("burst", "calls"),
    ("samples", "calls"),
    ("samples_min", "calls"),
    ("probes_max", "calls"),
    ("probes_good", "calls"),
    ("attempts_max", "tries"),
    ("keys_max", "keys"),
    ("buckets", "buckets"),
)


def rewritten(page: str) -> str:
    """The page with every table as the code says it now."""

    def table(found: re.Match[str]) -> str:
        kind, name = found.groups()
        text = moves() if kind == "moves" else settings_of(name)
        return f"<!-- {kind} {name} -->\n\n{text}\n\n<!-- end -->"

    return TABLE.sub(table, page)


def settings_of(name: str) -> str:
    """The settings of one policy: name, default, unit, and the sentence that stands under the field."""
    kind = getattr(model, name)
    said = {name: str(part.__doc__).partition("\n")[0] for name, (part, _) in model.PARTS.items()}
    said = sentences(kind) | (said if kind is model.GuardPolicy else {})
    rows = ["| setting | default | unit | what it says |", "|---|---|---|---|"]
    for each in fields(kind):
        default = each.default_factory() if each.default_factory is not MISSING else each.default
        rows.append(f"| `{each.name}` | {shown(default)} | {unit_of(each.name)} | {said.get(each.name, '')} |")
    return "\n".join(rows)


def shown(default: object) -> str:
    if default is MISSING:
        return "must be said"
    if default is None:
        return "off"
    if default == inf:
        return "`inf`"
    if isinstance(default, Enum):
        return default.value
    if type(default).__module__ == policy.__name__:
        return "on"
    return f"{default:g}" if isinstance(default, float) else str(default).lower()


def unit_of(name: str) -> str:
    return next((unit for end, unit in UNITS if name.endswith(end)), "")


def sentences(kind: type) -> dict[str, str]:
    """The docstring under each field; Python throws them away, the source has them."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(after.value.value).split())
    return found


def moves() -> str:
    """The legal moves of the breaker."""
    rows = ["| from | when | to |", "|---|---|---|"]
    rows += [f"| {before.value} | {move.value} | {after.value} |" for (before, move), after in MOVES.items()]
    return "\n".join(rows)


if __name__ == "__main__":
    for path in sorted(PAGES.glob("*.md")):
        before = path.read_text(encoding="utf-8")
        after = rewritten(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print("rewritten:", path.name)
