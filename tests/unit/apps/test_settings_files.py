"""`budao settings check` and `budao settings show`."""

from __future__ import annotations

from pathlib import Path

import pytest

from budao.apps import main

GOOD = """
[guard.inventory]
objective = { latency = 0.99, under_s = 0.2 }
hedge = false

[guard.inventory.breaker]
rest_s = 3
"""
BAD = """
[guard.inventory.breaker]
rest_s = -1
hegde = 3
"""


def file(folder: Path, text: str) -> str:
    path = folder / "budao.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_good_file_is_called_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "check", file(tmp_path, GOOD)]) == 0
    assert "good; guards: inventory" in capsys.readouterr().out


def test_every_problem_of_a_bad_file_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "check", file(tmp_path, BAD)]) == 1
    said = capsys.readouterr().err
    assert "guard.inventory.breaker.rest_s" in said
    assert "guard.inventory.breaker.hegde" in said


def test_numbers_that_cannot_work_with_what_the_objective_gives_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "[guard.a]\nobjective = { latency = 0.99, under_s = 0.2 }\n[guard.a.timeout]\ncall_s = 50\n"
    assert main(["settings", "check", file(tmp_path, text)]) == 1
    assert "guard.a.timeout" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["check"], ["show"]])
def test_a_file_that_is_not_there_is_a_sentence(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = ["inventory"] if command == ["show"] else []
    assert main(["settings", *command, str(tmp_path / "none.toml"), *name]) == 1
    assert "cannot be read: No such file" in capsys.readouterr().err


def test_show_prints_every_number_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(tmp_path, GOOD)
    assert main(["settings", "show", path, "inventory"]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = {line.split()[0]: line for line in lines[1:]}
    assert "99 % of calls succeed within 200 ms" in lines[0]
    assert f"set in {path}, line 7" in said["breaker.rest_s"]
    assert "is the objective" in said["breaker.slow_s"]
    assert f"switched off in {path}, line 4" in said["hedge"]


def test_a_guard_the_file_does_not_name_gets_the_written_defaults_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["settings", "show", file(tmp_path, GOOD), "payments"]) == 0
    said = capsys.readouterr().out
    assert "no table [guard.payments]" in said
    assert "written default" in said


def test_show_says_the_problems_of_a_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "show", file(tmp_path, BAD), "inventory"]) == 1
    assert "nothing was changed" in capsys.readouterr().err
