"""Files: what documents promise exists, and what no file may hold."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.shape import tree

BINARY = {".png", ".jpg", ".ico", ".woff2", ".gz", ".bin", ".der"}
TEXTS = [path for path in tree.tracked() if path.suffix not in BINARY]
DOCUMENTS = [path for path in TEXTS if path.suffix == ".md" or path.name in {"Makefile", "run"}]
TESTS = [path for path in TEXTS if path.suffix == ".py" and path.is_relative_to(tree.ROOT / "tests")]

# The brackets keep this file from finding itself.
UNFINISHED = re.compile(r"\b([T]ODO|[F]IXME|[X]XX|[H]ACK)\b")
HOMES = re.compile(r"(?<![\w.$}~])/([r]oot|[h]ome|[U]sers|[w]ork)/\w")
REGISTRIES = re.compile(r"[p]ypi\.org|files\.[p]ythonhosted|registry\.[n]pmjs|deb\.[d]ebian")
KEYS = re.compile(r"-----BEGIN [A-Z ]*[P]RIVATE KEY-----")


def where(path: Path) -> str:
    return path.relative_to(tree.ROOT).as_posix()


def lines_with(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    return [
        f"{where(path)}:{number} {line.strip()[:100]}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]


def test_no_file_holds_a_promise_instead_of_code() -> None:
    assert lines_with(UNFINISHED, TEXTS) == []


def test_no_file_names_a_place_on_one_persons_machine() -> None:
    assert lines_with(HOMES, TEXTS) == []


def test_no_file_names_the_host_of_a_package_registry() -> None:
    assert lines_with(REGISTRIES, TEXTS) == []


def test_no_file_holds_a_private_key() -> None:
    assert lines_with(KEYS, TEXTS) == []


def test_every_make_target_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (tree.ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    # Inside backticks or alone on a line of a code block; "make sure" in prose is not a command.
    command = re.compile(r"(?:`|^\s*\$?\s*)make ([a-z0-9-]+)(?=`|\s*(?:#.*)?$)", re.MULTILINE)
    unknown = [
        f"{where(path)} names make {target}"
        for path in DOCUMENTS
        if path.suffix == ".md"
        for target in command.findall(path.read_text(encoding="utf-8"))
        if target not in targets
    ]
    assert unknown == []


def test_the_readme_shows_the_two_commands_that_set_a_machine_up() -> None:
    readme = (tree.ROOT / "README.md").read_text(encoding="utf-8")
    assert "make up" in readme
    assert "make test" in readme


def test_links_between_documents_lead_somewhere() -> None:
    link = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)\s]*)?\)")
    lost = [
        f"{where(path)} links to {target}"
        for path in DOCUMENTS
        for target in link.findall(path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]
    assert lost == []


def test_the_version_is_written_the_same_everywhere() -> None:
    version = tree.configuration()["project"]["version"]
    assert f"## {version}" in (tree.ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("[", "").replace("]", "")


def test_every_extra_is_part_of_all() -> None:
    extras = tree.configuration()["project"]["optional-dependencies"]
    inside = set(re.findall(r"[a-z]+", extras["all"][0].partition("[")[2]))
    assert set(extras) - inside == {"all", "demo", "dev", "mutants", "test"}


@pytest.mark.parametrize("path", TESTS, ids=where)
def test_a_test_neither_skips_nor_sleeps_nor_patches(path: Path) -> None:
    waits = path.is_relative_to(tree.ROOT / "tests" / "live")
    wrong = []
    for node in ast.walk(tree.parsed(path)):
        if not isinstance(node, ast.Attribute):
            continue
        said = ast.unparse(node)
        if said.startswith(("pytest.mark.skip", "pytest.mark.xfail", "pytest.skip", "pytest.xfail", "mock.patch")):
            wrong.append(f"{where(path)}:{node.lineno} {said}")
        # sleep(0) only lets other tasks run.
        if said in {"time.sleep", "asyncio.sleep"} and not waits:
            wrong.append(f"{where(path)}:{node.lineno} {said}")
    lets_others_run = {
        f"{where(path)}:{node.func.lineno} asyncio.sleep"
        for node in ast.walk(tree.parsed(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "asyncio.sleep"
        and [ast.unparse(argument) for argument in node.args] == ["0"]
    }
    assert [found for found in wrong if found not in lets_others_run] == []


@pytest.mark.parametrize("path", [path for path in TESTS if path.name.startswith("test_")], ids=where)
def test_a_test_file_stands_beside_the_module_it_tests(path: Path) -> None:
    parts = path.relative_to(tree.ROOT / "tests").parts
    if parts[0] != "unit":
        assert parts[0] in {"laws", "papers", "stories", "worlds", "wires", "live", "shape", "typing"}
        return
    assert len(parts) == 3, "tests/unit/<room>/test_<module>.py"
    assert parts[1] in tree.rooms()
