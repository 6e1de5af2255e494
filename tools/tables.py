"""Writes the tables of settings, moves and metrics in docs/ from the code: `python tools/tables.py`. A shape test holds them equal."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from math import inf
from pathlib import Path

from budao import model, push
from budao.adapters import nats
from budao.aio import gateway, logs
from budao.aio.gateway import sampler, sockets
from budao.guard import MOVES
from budao.push import leaving, prefixes, standby, takeover

DOCS = Path(__file__).parents[1] / "docs"
PUSH = (DOCS / "reference" / "push-settings.md", DOCS / "guides" / "push-health.md")
PAGES = (*sorted((DOCS / "reference" / "policies").glob("*.md")), *PUSH)
HOMES = (model, push, gateway, logs, leaving, standby, takeover, prefixes, sampler, sockets, nats)
"""Where policies are looked for by their name."""
TABLE = re.compile(r"<!-- (table|moves|metrics) (\w+) -->\n.*?<!-- end -->", re.DOTALL)

UNITS = (
    ("_per_s", "per second"),
    ("_s", "seconds"),
    ("_bytes", "bytes"),
    ("bytes_max", "bytes"),
    ("connections_max", "connections"),
    ("standbys_max", "connections"),
    ("per_session_max", "connections"),
    ("cohort_max", "connections"),
    ("channels_max", "channels"),
    ("subscriptions_max", "channels"),
    ("history_count", "messages"),
    ("recent_count", "messages"),
    ("queue_count_max", "messages"),
    ("begins_with", "messages"),
    ("batch_max", "messages"),
    ("publishing_max", "messages"),
    ("frames_burst", "frames"),
    ("held_max", "frames"),
    ("publishes_burst", "messages"),
    ("publishes_max", "calls of the log"),
    ("reads_max", "calls of the log"),
    ("ids_max", "ids"),
    ("members_max", "names"),
    ("replicas", "servers"),
    ("spare_count", "messages"),
    ("prefixes_max", "prefixes"),
    ("peers_max", "gateways"),
    ("missed_max", "beats"),
    ("late_max", "pings"),
    ("ends_max", "ends per minute"),
    ("remembered_max", "tickets"),
    ("batch_count", "sockets"),
    ("backlog", "connections"),
    ("requests_max", "requests"),
    ("window", "messages on their way"),
    ("keepalive_count", "questions"),
    ("alpha", "weight, 0 to 1"),
    ("strays_min", "share of the round trip"),
    ("strays_max", "share of the round trip"),
    ("stretch_max", "times"),
    ("retrans_weight", "factor"),
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


UNITS_OF = {("PacePolicy", "burst"): "connections"}
"""Where the name of a setting means something else than elsewhere."""


def rewritten(page: str) -> str:
    """The page with every table as the code says it now."""

    def table(found: re.Match[str]) -> str:
        kind, name = found.groups()
        text = {"moves": lambda _: moves(), "metrics": lambda _: metrics(), "table": settings_of}[kind](name)
        return f"<!-- {kind} {name} -->\n\n{text}\n\n<!-- end -->"

    return TABLE.sub(table, page)


def settings_of(name: str) -> str:
    """The settings of one policy: name, default, unit, and the sentence that stands under the field."""
    kind = next(getattr(home, name) for home in HOMES if hasattr(home, name))
    said = {name: str(part.__doc__).partition("\n")[0] for name, (part, _) in model.PARTS.items()}
    said = sentences(kind) | (said if kind is model.GuardPolicy else {})
    rows = ["| setting | default | unit | what it says |", "|---|---|---|---|"]
    for each in fields(kind):
        default = each.default_factory() if each.default_factory is not MISSING else each.default
        rows.append(
            f"| `{each.name}` | {shown(default)} | {UNITS_OF.get((name, each.name)) or unit_of(each.name)} | {said.get(each.name, '')} |"
        )
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
    if is_dataclass(default):
        return "on" if hasattr(model, type(default).__name__) else f"`{type(default).__name__}`"
    return (
        f"{default:g}"
        if isinstance(default, float)
        else str(default).lower()
        if isinstance(default, bool)
        else str(default)
    )


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


def metrics() -> str:
    """What a gateway answers to a scrape, with every value of every label."""
    rows = ["| name | kind | label | what it says |", "|---|---|---|---|"]
    for family in gateway.GatewayMetrics().families():
        name = f"{family.name}_total" if family.kind == "counter" else family.name
        values = ", ".join(family.values) if family.label and family.kind != "histogram" else ""
        label = f"`{family.label}`: {values}" if values else ""
        rows.append(f"| `{name}` | {family.kind} | {label} | {family.says} |")
    return "\n".join(rows)


if __name__ == "__main__":
    for path in PAGES:
        before = path.read_text(encoding="utf-8")
        after = rewritten(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print("rewritten:", path.name)
