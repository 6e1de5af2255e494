"""Rooms: who may import whom, by which door, and what a room that decides never touches."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from tests.shape import tree

ROOMS = tree.rooms()
SHELLS = {"aio", "threads", "sim", "protect", "adapters", "testkit", "lab", "apps"}
PURE = [room for room in ROOMS if room not in SHELLS]

# A room may hold things that stand side by side and share no door: each adapter needs other people's package, so
# importing one must not import the rest.
SIDE_BY_SIDE = {"adapters"}

# Longer than this and a file holds more than one idea (STYLE.md, section 3).
LINES_MAX = 700


def test_import_linter_keeps_every_contract() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()", "--no-cache"],
        cwd=tree.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_open_room_has_a_place_in_the_layers() -> None:
    assert set(ROOMS) <= set(tree.ranks())


def test_every_pure_room_is_forbidden_to_wait_or_send() -> None:
    contracts = tree.configuration()["tool"]["importlinter"]["contracts"]
    listed = next(contract["source_modules"] for contract in contracts if contract["id"] == "pure")
    assert sorted(listed) == [f"budao.{room}" for room in PURE]


def test_layers_in_the_contract_are_the_layers_in_the_style_page() -> None:
    style = (tree.ROOT / "STYLE.md").read_text(encoding="utf-8")
    written = {room: int(number) for number, room in re.findall(r"^ +(\d+) +(\w+)/ ", style, re.MULTILINE)}
    drawn = tree.ranks()
    assert set(written) == set(drawn)
    for one, other in product(written, repeat=2):
        assert (written[one] < written[other]) == (drawn[one] < drawn[other]), (one, other)


@pytest.mark.parametrize("room", ROOMS)
def test_a_front_door_says_what_lives_here_and_lists_its_names(room: str) -> None:
    door = tree.door_of(room)
    assert ast.get_docstring(door), f"{room}/__init__.py has no docstring"
    names = tree.public_names(door)
    assert names is not None, f"{room}/__init__.py has no __all__"
    assert len(names) == len(set(names))


@pytest.mark.parametrize("room", ROOMS)
def test_other_rooms_are_entered_by_the_front_door(room: str) -> None:
    around = [
        str(found)
        for path in tree.files_of(room)
        for found in tree.imports(path)
        if found.room not in {None, room, *SIDE_BY_SIDE} and found.is_past_the_door
    ]
    assert around == []


@pytest.mark.parametrize("room", ROOMS)
def test_names_taken_from_another_room_are_names_it_offers(room: str) -> None:
    offered = {other: tree.public_names(tree.door_of(other)) or [] for other in ROOMS}
    hidden = [
        str(found)
        for path in tree.files_of(room)
        for found in tree.imports(path)
        if found.room in offered and found.room not in {room, *SIDE_BY_SIDE} and found.name is not None
        if not found.is_past_the_door and found.name not in offered[found.room]
    ]
    assert hidden == []


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "apps"])
def test_no_room_goes_out_and_in_again_through_the_packages_own_door(room: str) -> None:
    # `from budao import Guard` in a low room would import every room below the guard; `from budao import slo` names one.
    out = [
        str(found)
        for path in tree.files_of(room)
        for found in tree.imports(path)
        if found.module == "budao" and (found.name is None or found.name not in ROOMS)
    ]
    assert out == []


@pytest.mark.parametrize("room", PURE)
def test_a_pure_room_takes_only_the_type_from_random(room: str) -> None:
    dice = [
        str(found)
        for path in tree.files_of(room)
        for found in tree.imports(path)
        if found.module == "random" and found.name != "Random"
    ]
    assert dice == []


@pytest.mark.parametrize("path", sorted(tree.PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_a_file_stays_short_enough_to_hold_one_idea(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LINES_MAX, f"{path.relative_to(tree.ROOT)} has {lines} lines"


def test_the_core_imports_without_any_extra() -> None:
    # -S and -I leave out site-packages and whatever the environment adds, so only the standard library is there.
    ran = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(tree.PACKAGE.parent)!r}); import budao; from budao.aio import *",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
