"""`budao settings`: what a settings file says, before a program is told to obey it."""

from __future__ import annotations

import sys
from pathlib import Path

from budao.model import PARTS, BadSettings, GuardPolicy, numbers_in
from budao.settings import BYTES_MAX, EVERY, Settings, parse
from budao.slo import derive


def check_file(path: Path) -> int:
    """Says every problem, or that there is none. The value is the exit status."""
    settings = _read(path)
    if settings is None:
        return 1
    problems: list[tuple[str, str]] = []
    for name in settings.guards:
        try:
            _in_force(settings, name)
        except BadSettings as bad:
            problems += bad.problems
    if problems:
        print(BadSettings(list(dict.fromkeys(problems))), file=sys.stderr)
        return 1
    names = ", ".join(name for name in settings.guards if name != EVERY) or "none by name"
    print(f"{path}: good; guards: {names}")
    return 0


def show_file(path: Path, name: str) -> int:
    """Prints every number the guard `name` would have, each with its reason. The value is the exit status."""
    settings = _read(path)
    if settings is None:
        return 1
    try:
        policy, reasons = _in_force(settings, name)
    except BadSettings as bad:
        print(bad, file=sys.stderr)
        return 1
    objective = settings.objective_for(name)
    print(f"{name}: {objective if objective is not None else 'no objective in the file, so the written defaults'}")
    if name not in settings.guards:
        print(f"the file has no table [guard.{name}]; what it says about every guard holds")
    numbers = numbers_in(policy)
    for path_, value in numbers.items():
        shown = f"{value:g}" if isinstance(value, float) else getattr(value, "value", value)
        print(f"  {path_:<26} {shown!s:<10} {reasons.get(path_, 'written default')}")
    for part in PARTS:
        if getattr(policy, part) is None:
            print(f"  {part:<26} {'off':<10} {reasons.get(part, 'written default').removeprefix('off: ')}")
    return 0


def _read(path: Path) -> Settings | None:
    try:
        with path.open("rb") as file:
            text = file.read(BYTES_MAX + 1)
    except OSError as problem:
        print(f"{path}: cannot be read: {problem.strerror}", file=sys.stderr)
        return None
    try:
        return parse(text, source=str(path))
    except BadSettings as bad:
        print(bad, file=sys.stderr)
        return None


def _in_force(settings: Settings, name: str) -> tuple[GuardPolicy, dict[str, str]]:
    """What a guard of this name obeys if the code states nothing, and why."""
    objective = settings.objective_for(name)
    if objective is None:
        base, reasons = GuardPolicy(), dict[str, str]()
    else:
        derived = derive(objective)
        base, reasons = derived.policy, dict(derived.reasons)
    return settings.policy_for(name, base), reasons | dict(settings.reasons_for(name))
