"""The JavaScript client: its own tests by Node's runner, and a page in a real Chromium whose gateway is killed and frozen."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pytest

from tests.live.chromium_page import Pages, chromium
from tests.live.log_process import log_serving
from tests.live.redis_server import PATIENCE_S

PACKAGE = Path(__file__).resolve().parents[2] / "clients" / "js"
COUNT = 240
KILLED_AT = 80
SETTINGS = """
[session]
publishes_per_s = 1e5
publishes_burst = 100000
"""
PAGE = """<!doctype html><title>budao</title><script type="module">
const report = (name, value) => fetch('/report', { method: 'POST', body: JSON.stringify({ name, value }) });
const { urls, source, standby, count } = JSON.parse(decodeURIComponent(location.hash.slice(1)));
try {
  const { Client } = await import(source);
  const client = new Client({ urls, standby, policy: { standbySpreadS: 0 } });
  client.on('error', (error) => report('failed', String(error)));
  const down = [];
  const gaps = [];
  const numbers = client.subscribe('down', {
    onMessage: ({ data }) => down.push([data, performance.timeOrigin + performance.now()]),
    onGap: (gap) => gaps.push(gap),
  });
  const echo = client.subscribe('up');
  await Promise.all([numbers.ready, echo.ready]);
  const places = [];
  const publishing = (async () => {
    for (let number = 0; number < count; number++) places.push((await client.publish('up', number)).seq);
  })();
  while (standby && !client.health.hasStandby) await new Promise((resolve) => setTimeout(resolve, 5));
  await report('online', client.gateway);
  const up = [];
  for await (const { data } of echo) if (up.push(data) === count) break;
  await publishing;
  while (down.length + gaps.length < count) await new Promise((resolve) => setTimeout(resolve, 5));
  await report('done', { down, up, places, gaps, gateway: client.gateway, metrics: client.metrics });
} catch (error) {
  await report('failed', String(error.stack));
}
</script>"""


class Gateway:
    """`budao gateway` over a log, for pages of one origin."""

    def __init__(self, log_port: int, origin: str, settings: Path) -> None:
        command = ["gateway", "--port", "0", "--log", f"budao://127.0.0.1:{log_port}", "--origin", origin, "--json"]
        command += ["--settings", str(settings), "--anonymous-subscribe", "**", "--anonymous-publish", "**"]
        self._process = subprocess.Popen([sys.executable, "-m", "budao", *command], stdout=subprocess.PIPE)
        self.port = 0

    def ready(self) -> None:
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said, f"the gateway ended with {self._process.wait(PATIENCE_S)} before it listened"
        self.port = int(json.loads(said)["port"])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_S)
        if self._process.stdout is not None:
            self._process.stdout.close()


def publish(connection: http.client.HTTPConnection, channel: str, value: object) -> None:
    body = json.dumps({"channel": channel, "data": value})
    connection.request("POST", "/v1/publish", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    said = answer.read()
    assert answer.status == 200, said


@contextmanager
def a_page(folder: Path, source: str, *, standby: bool) -> Iterator[tuple[Pages, list[Gateway]]]:
    settings = folder / "settings.toml"
    settings.write_text(SETTINGS)
    with ExitStack() as stack:
        log = stack.enter_context(log_serving(folder / "log"))
        pages = stack.enter_context(Pages(PACKAGE, {"/page": PAGE}))
        gateways = [stack.enter_context(Gateway(log.port, pages.origin, settings)) for _ in range(2)]
        for each in gateways:
            each.ready()
        wanted = {"urls": [each.url for each in gateways], "source": source, "standby": standby, "count": COUNT}
        stack.enter_context(chromium(f"{pages.origin}/page#{quote(json.dumps(wanted))}", folder / "profile"))
        yield pages, gateways


def carry_on(folder: Path, source: str, *, standby: bool, by: signal.Signals) -> tuple[dict[str, Any], float]:
    """What a page found whose gateway was ended under it, and how long it heard nothing then, in seconds."""
    with a_page(folder, source, standby=standby) as (pages, gateways):
        used = pages.report("online")
        (home,) = [each for each in gateways if f":{each.port}/" in used]
        (other,) = [each for each in gateways if each is not home]
        connection = http.client.HTTPConnection("127.0.0.1", other.port, timeout=PATIENCE_S)
        ended_at = 0.0
        for number in range(COUNT):
            if number == KILLED_AT:
                ended_at = time.time()
                home.signal(by)
            publish(connection, "down", number)
            time.sleep(0.002)
        connection.close()
        found = pages.report("done")
        home.signal(signal.SIGCONT)
        assert f":{other.port}/" in found["gateway"]
    silent_s = next(at for _, at in found["down"] if at / 1000 > ended_at) / 1000 - ended_at
    return found, silent_s


@pytest.mark.parametrize(
    ("source", "standby", "by"),
    [
        ("/src/index.js", False, signal.SIGKILL),
        ("/dist/budao.js", True, signal.SIGKILL),
        ("/src/index.js", True, signal.SIGSTOP),
    ],
    ids=["killed cold", "killed with a standby, the file for pages", "frozen with a standby"],
)
def test_a_page_whose_gateway_ends_carries_on_at_the_other(
    tmp_path: Path, source: str, standby: bool, by: signal.Signals
) -> None:
    found, _ = carry_on(tmp_path, source, standby=standby, by=by)
    assert [number for number, _ in found["down"]] == list(range(COUNT))
    assert found["up"] == list(range(COUNT))
    assert found["places"] == list(range(1, COUNT + 1))
    assert found["gaps"] == []
    metrics = found["metrics"]
    assert (metrics["promotions"] > 0) == standby  # a busy machine may make it change its mind
    assert metrics["brokenPromises"] == 0
    assert metrics["messages"] == 2 * COUNT


def test_its_own_tests_pass() -> None:
    node = shutil.which("node")
    assert node is not None, "no node on this machine: `make servers` installs it, and this test needs it"
    files = sorted(str(each) for each in (PACKAGE / "test").glob("*.test.js"))
    done = subprocess.run(
        [node, "--experimental-websocket", "--no-warnings", "--test", "--test-reporter=tap", *files],
        env={**os.environ, "BUDAO_PYTHON": sys.executable},
        capture_output=True,
        timeout=10 * PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()[-6_000:] + done.stderr.decode()[-2_000:]
    assert b"# skipped 0" in done.stdout
    assert b"# todo 0" in done.stdout
