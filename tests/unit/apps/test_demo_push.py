"""What the demo of push is told on the command line, and the ports it takes."""

from __future__ import annotations

import socket

import pytest

from budao.apps import main
from budao.apps.charges import free_ports
from budao.apps.demo_push_page import read_assets


@pytest.mark.parametrize(
    "options", [("--port", "0"), ("--port", "65536"), ("--seconds", "0"), ("--again", "soon"), ("--again", "nan")]
)
def test_what_makes_no_sense_is_refused(options: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo", "push", *options])
    assert ended.value.code == 2
    assert options[1] in capsys.readouterr().err


def test_a_port_that_is_taken_is_passed_over_and_none_is_given_twice() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        found = free_ports(port - 1, port, port) if port < 65_530 else []
        assert port not in found
        assert len(set(found)) == len(found)


def test_the_page_has_everything_it_names() -> None:
    assets = read_assets()
    texts = {path: body.decode() for path, (_, body) in assets.items()}
    assert texts["/"] == texts["/index.html"]
    for name in ("page.css", "page.js"):
        assert f'"{name}"' in texts["/"]
        assert f"/{name}" in assets
    for name in ("check.js", "strip.js", "view.js", "client/index.js"):
        assert f"'./{name}'" in texts["/page.js"]
        assert f"/{name}" in assets
    assert not [path for path, text in texts.items() if "http" in text and not path.startswith("/client/")]
