"""The command line: what it refuses, and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from budao.apps import main
from budao.apps.extras import missing


def refused(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    code = left.value.code
    assert isinstance(code, int)
    return code


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused("--version") == 0
    assert capsys.readouterr().out.startswith("budao ")


@pytest.mark.parametrize("seconds", ["4", "601", "-5", "1.5", "many", "٦٠"])
def test_a_length_that_makes_no_demo_is_refused(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused("demo", "guard", "--seconds", seconds) == 2
    assert "whole number from 5 to 600" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["demo"], ["settings"], ["demo", "nothing"], ["settings", "check"]])
def test_half_a_command_is_wrong_usage(arguments: list[str]) -> None:
    assert refused(*arguments) == 2


def test_a_page_that_could_not_be_written_is_said_before_the_demo_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "guard", "--out", str(tmp_path / "none" / "page.html")]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_what_is_not_installed_is_named() -> None:
    assert missing(["json", "surely_not_installed_anywhere", "asyncio"]) == ["surely_not_installed_anywhere"]
