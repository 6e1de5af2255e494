"""The tree as the shape tests see it: tracked files, rooms, and the imports written in them."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "budao"
LEFT_OUT = {".git", ".venv", ".venv-3.13", "build", "dist", "mutants", "__pycache__"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One name brought into one file."""

    file: str
    line: int
    module: str
    name: str | None
    """None for `import module`."""

    @property
    def room(self) -> str | None:
        """The room a name is taken from, or None if it comes from outside or from the package's own door."""
        root, _, rest = self.module.partition(".")
        return rest.partition(".")[0] or None if root == "budao" else None

    @property
    def is_past_the_door(self) -> bool:
        """Whether it names a module inside a room instead of the room."""
        return self.module.count(".") > 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line} takes {self.name or 'the whole'} from {self.module}"


@cache
def tracked() -> tuple[Path, ...]:
    """Every file a reader gets: what git tracks or would add; in an unpacked archive, everything that is not made."""
    asked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if asked.returncode == 0:
        found = (ROOT / name for name in asked.stdout.decode().split("\0") if name)
        return tuple(sorted(path for path in found if path.is_file()))
    return tuple(
        sorted(path for path in ROOT.rglob("*") if path.is_file() and not LEFT_OUT & set(path.relative_to(ROOT).parts))
    )


def rooms() -> list[str]:
    """Rooms that are open: folders of the package that hold Python."""
    return sorted(folder.name for folder in PACKAGE.iterdir() if any(folder.glob("*.py")))


def files_of(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def door_of(room: str) -> ast.Module:
    """A room's front door; an empty module if it has none yet, which another test then says."""
    path = PACKAGE / room / "__init__.py"
    return parsed(path) if path.exists() else ast.Module(body=[], type_ignores=[])


def imports(path: Path) -> Iterator[Import]:
    """Every import in a file, wherever it stands: at the top, in a function, under TYPE_CHECKING."""
    file = path.relative_to(ROOT).as_posix()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file=file, line=node.lineno, module=alias.name, name=None)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(file=file, line=node.lineno, module=node.module or ".", name=alias.name)


def public_names(module: ast.Module) -> list[str] | None:
    """What `__all__` lists, or None if the module has none that can be read without running it."""
    for node in module.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "__all__" and isinstance(node, ast.Assign | ast.AnnAssign):
            value = node.value
            if isinstance(value, ast.List | ast.Tuple):
                return [
                    item.value for item in value.elts if isinstance(item, ast.Constant) and isinstance(item.value, str)
                ]
    return None


@cache
def configuration() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@cache
def ranks() -> dict[str, int]:
    """How high each room stands, read from the layers contract: 1 is the ground."""
    contracts = configuration()["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["id"] == "layers")
    return {
        room.strip(" ()"): height for height, layer in enumerate(reversed(layers), start=1) for room in layer.split("|")
    }
