"""What a command needs beyond the package itself."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence


def missing(modules: Sequence[str]) -> list[str]:
    """Those of the modules that are not installed."""
    return [name for name in modules if importlib.util.find_spec(name) is None]


def lacks(modules: Sequence[str], extra: str) -> bool:
    """Whether a command cannot run for want of a package; says which, and how to get it."""
    lacking = missing(modules)
    if lacking:
        print(f"this command needs {', '.join(lacking)}: pip install 'budao[{extra}]'", file=sys.stderr)
    return bool(lacking)
