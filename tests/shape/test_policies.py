"""The reference of the policies: a page for each, all with the same parts, and tables that say what the code says."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from budao.model import PARTS
from tests.shape import tree

PAGES = sorted((tree.ROOT / "docs" / "reference" / "policies").glob("*.md"))
PUSH = [tree.ROOT / "docs" / "reference" / "push-settings.md", tree.ROOT / "docs" / "guides" / "push-health.md"]
POLICIES = {name: kind for name, (kind, _) in PARTS.items()}
SECTIONS = ["What it protects", "Settings", "Readings", "A good use", "A bad use", "Sources"]


def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", tree.ROOT / "tools" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_part_of_a_guard_has_its_page() -> None:
    assert {path.stem for path in PAGES} == {*POLICIES, "guard"}


@pytest.mark.parametrize("path", [*PAGES, *PUSH], ids=lambda path: path.stem)
def test_a_table_says_what_the_code_says(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert "<!-- table " in page or "<!-- metrics " in page
    assert tables().rewritten(page) == page, "run: python tools/tables.py"


@pytest.mark.parametrize("path", [path for path in PAGES if path.stem != "guard"], ids=lambda path: path.stem)
def test_a_policy_page_has_the_same_parts_as_every_other(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    titles = [title for title in re.findall(r"^## (.+)$", page, re.MULTILINE) if title != "Moves"]
    assert titles == SECTIONS
    assert f"<!-- table {POLICIES[path.stem].__name__} -->" in page


@pytest.mark.parametrize("kind", POLICIES.values(), ids=lambda kind: kind.__name__)
def test_every_setting_has_a_sentence_unless_its_name_says_it_all(kind: type) -> None:
    said = tables().sentences(kind)
    assert {each.name for each in fields(kind)} - set(said) == set()
