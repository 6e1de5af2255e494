"""A real browser without a window, driven over its debugging port."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import ClientConnection, connect

from tests.live.redis_server import PATIENCE_S

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--mute-audio"),
    *("--disable-background-timer-throttling", "--disable-renderer-backgrounding", "--remote-debugging-port=0"),
    *("--disable-backgrounding-occluded-windows", "--no-proxy-server"),
)


class Chromium:
    """Entered, it runs; left, it is gone with all its pages."""

    def __init__(self, *flags: str) -> None:
        self._flags = flags
        self._links = ExitStack()

    def __enter__(self) -> Self:
        found = shutil.which("chromium")
        assert found is not None, "chromium is installed"
        self._folder = tempfile.TemporaryDirectory(prefix="budao-chromium-", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [found, *FLAGS, *self._flags, f"--user-data-dir={self._folder.name}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        told = Path(self._folder.name) / "DevToolsActivePort"
        until = time.monotonic() + PATIENCE_S
        while not (told.exists() and "\n" in told.read_text(encoding="ascii")):
            assert time.monotonic() < until, "chromium did not start"
            assert self._process.poll() is None, "chromium ended"
            time.sleep(0.05)
        self.port = int(told.read_text(encoding="ascii").split()[0])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._links.close()
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def open(self, url: str) -> Page:
        """Another tab."""
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}/json/new?{url}", method="PUT")
        with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
            link = connect(json.load(answer)["webSocketDebuggerUrl"], max_size=None, proxy=None)
        return Page(self._links.enter_context(link))


class Page:
    """One tab."""

    def __init__(self, link: ClientConnection) -> None:
        self._link = link
        self._number = 0
        self.complaints: list[str] = []
        """What its console was told as an error, and what nobody caught."""
        self.ask("Runtime.enable")
        self.ask("Page.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        self._number += 1
        self._link.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            said = json.loads(self._link.recv(timeout=PATIENCE_S))
            if said.get("method") == "Runtime.exceptionThrown":
                details = said["params"]["exceptionDetails"]
                self.complaints.append(details.get("exception", {}).get("description") or details["text"])
            elif said.get("method") == "Runtime.consoleAPICalled" and said["params"]["type"] == "error":
                self.complaints.append(json.dumps(said["params"]["args"]))
            elif said.get("id") == self._number:
                assert "error" not in said, said["error"]
                result: dict[str, Any] = said["result"]
                return result

    def value(self, expression: str) -> Any:
        """What an expression has become in the page; a promise is waited for."""
        said = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def text(self, element: str) -> str:
        """What an element says, by its id; empty if it is not there yet."""
        return str(self.value(f"document.getElementById({element!r})?.textContent ?? ''")).strip()

    def press(self, button: str) -> None:
        """Clicks an element, by its id."""
        self.value(f"document.getElementById({button!r}).click()")

    def until(self, claim: Callable[[], object], what: str) -> None:
        """Waits until something is so."""
        until = time.monotonic() + PATIENCE_S
        while not claim():
            assert time.monotonic() < until, f"{what}; the page complains of {self.complaints}"
            time.sleep(0.05)

    def screenshot(self, file: Path) -> None:
        """As a person would see it, the whole height."""
        found = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(found["data"]))
