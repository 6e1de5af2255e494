"""The demo of push as a user runs it: real processes, a real browser, and nothing of either left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.chromium import Chromium, Page
from tests.live.test_demo import children_of, gone, is_there, ports_of

pytestmark = pytest.mark.live

PATIENCE_S = 30.0
NOTICES = """
import('/check.js').then(({ Checker }) => {
  const checker = new Checker();
  for (const [seq, n] of [[1, 7], [2, 8], [4, 10], [4, 10], [5, 11], [6, 13], [7, 15]]) {
    checker.message({ channel: 'c', position: { epoch: 'e', seq }, data: { run: 'r', n } });
  }
  return [checker.checked, checker.holes, checker.doubled, checker.gaps];
})
"""
"""The page's own check, fed with messages of which one of the log's and two of the publisher's are missing, and one came twice."""


class Demo:
    """One that runs: what it said when everything was up, and its processes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        assert process.stderr is not None
        said = process.stdout.readline()
        assert said, f"it ended with {process.wait(PATIENCE_S)}: {process.stderr.read()}"
        self.up: dict[str, Any] = json.loads(said)
        self.children = children_of(process.pid)
        self.ports = ports_of(self.children | {process.pid})

    @property
    def page(self) -> str:
        return str(self.up["page"])

    @property
    def pids(self) -> dict[str, int]:
        return {each["name"]: each["pid"] for each in self.up["gateways"]}

    def event(self, words: str) -> dict[str, Any]:
        """The next event that says so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said: dict[str, Any] = json.loads(line)
            if words in said.get("text", ""):
                self.children |= children_of(self.process.pid)
                return said
        raise AssertionError(f"the demo ended, and never said {words!r}")

    def ended(self) -> tuple[int, str]:
        """Its status, and what it complained of."""
        _, troubles = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, troubles


@contextmanager
def demo(*options: str) -> Iterator[Demo]:
    process = subprocess.Popen(
        [sys.executable, "-m", "budao", "demo", "push", "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Demo(process)
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


def get(url: str, *, method: str = "GET", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    asked = urllib.request.Request(url, headers=headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read(), dict(refused.headers)


def checked(page: Page) -> int:
    return int(page.text("checked").replace(",", "") or 0)


def goes_on(page: Page) -> None:
    before = checked(page)
    page.until(lambda: checked(page) >= before + 3, "messages go on")


def test_two_tabs_carry_on_when_a_gateway_is_killed(tmp_path: Path) -> None:
    with demo("--again", "1", "--data", str(tmp_path)) as running, Chromium() as browser:
        one, two = (browser.open(running.page) for _ in range(2))
        for page in (one, two):
            page.until(lambda page=page: page.text("standby").startswith("warm at g"), "it has a standby")
            page.until(lambda page=page: page.text("of").startswith("of 100"), "the gateway tells its health")
            goes_on(page)
        left = two.text("gateway")
        two.press("promote")
        two.until(lambda: two.text("promotions") == "1", "its standby takes over")
        two.until(lambda: two.text("gateway") not in {"–", left}, "so it is at the other one")
        two.until(lambda: two.text("switch").endswith("without a pause"), "and was never without one")
        assert two.text("state") == "online"
        goes_on(two)
        killed = one.text("gateway")
        os.kill(running.pids[killed], signal.SIGKILL)
        other = "g2" if killed == "g1" else "g1"
        for page in (one, two):
            page.until(lambda page=page: page.text("gateway") == other, "it is at the other one")
            page.until(lambda page=page: page.text("state") == "online", "and says so")
            goes_on(page)
        assert one.text("switch").startswith(f"{killed} → {other}, silent for ")
        running.event(f"{killed} was killed (SIGKILL)")
        back = running.event(f"{killed} is back")
        assert back["pids"][killed] not in {0, running.pids[killed]}

        one.value("document.getElementById('text').value = 'hello there'")
        one.value("document.getElementById('publish').requestSubmit()")
        two.until(lambda: "hello there" in two.text("messages"), "what one tab publishes comes to the other")
        one.until(lambda: one.text("published").startswith("durable"), "and the one is told that it is durable")

        one.until(lambda: one.text("standby") == f"warm at {killed}", "it has a standby again")
        one.press("drain")
        one.until(lambda: one.text("gateway") == killed, "a drain moves it")
        goes_on(one)
        for page in (one, two):
            goes_on(page)
            assert {name: page.text(name) for name in ("holes", "gaps", "doubled")} == dict.fromkeys(
                ("holes", "gaps", "doubled"), "0"
            )
            assert page.complaints == []
        assert one.value(NOTICES) == [7, 3, 1, 0]

        running.process.send_signal(signal.SIGINT)
        status, troubles = running.ended()
        assert (status, troubles) == (0, "")
        assert gone(running.children, running.ports)


def test_the_page_and_the_token_are_there_for_this_machine_only(tmp_path: Path) -> None:
    with demo("--data", str(tmp_path / "kept")) as running:
        assert len(running.children) == 3
        assert len(running.ports) == 4
        status, page, headers = get(running.page)
        assert (status, b"Kill a gateway" in page) == (200, True)
        assert "default-src 'none'" in headers["content-security-policy"]
        assert get(f"{running.page}client/index.js")[0] == get(f"{running.page}page.js")[0] == 200
        assert json.loads(get(f"{running.page}demo.json")[1])["token"] == running.up["token"]
        assert get(f"{running.page}demo.json", Host="evil.example")[0] == 421
        assert get(f"{running.page}../token")[0] == 404
        assert get(running.page, method="POST")[0] == 405
        assert get(running.page, Connection="Upgrade", Upgrade="websocket")[0] == 200

        token = (tmp_path / "kept" / "token").read_text(encoding="ascii")
        assert token == running.up["token"]
        assert (tmp_path / "kept" / "token").stat().st_mode & 0o777 == 0o600
        url = running.up["gateways"][0]["url"]
        asked = urllib.request.Request(
            f"{url}/v1/publish", data=b'{"channel": "room", "data": 1}', headers={"authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
            assert json.load(answer)["seq"] == 1
        running.process.send_signal(signal.SIGINT)
        assert running.ended() == (0, "")
        assert gone(running.children, running.ports)
        assert (tmp_path / "kept" / "log").is_dir()


def test_processes_leave_even_if_the_demo_is_killed(tmp_path: Path) -> None:
    with demo("--data", str(tmp_path)) as running:
        running.process.kill()
        running.ended()
        assert len(running.children) == 3
        assert gone(running.children, running.ports)


def test_what_it_says_on_a_terminal_can_be_pasted() -> None:
    command = [sys.executable, "-m", "budao", "demo", "push", "--seconds", "1"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout
    lines = [line.strip() for line in said.splitlines()]
    (kill,) = [line for line in lines if line.startswith("kill -9 ")]
    assert not is_there(int(kill.split()[2]))
    (publish,) = [line for line in lines if line.startswith("curl http://127.0.0.1:")]
    assert publish.endswith("""-d '{"channel": "room", "data": "hello from a terminal"}'""")
    assert lines[-1].endswith("and each is durable. Everything has ended.")


def test_a_folder_that_cannot_be_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="ascii")
    command = [sys.executable, "-m", "budao", "demo", "push", "--data", str(tmp_path / "file")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert told.returncode == 1
    assert len(told.stderr.splitlines()) == 1
    assert "file" in told.stderr
