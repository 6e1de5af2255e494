"""A page in a real Chromium, served by the test that looks at it, and telling it what it found."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self

from tests.live.redis_server import PATIENCE_S

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update"),
    *("--disable-background-networking", "--disable-sync", "--disable-dev-shm-usage"),
)
TYPES = {".js": "text/javascript", ".html": "text/html; charset=utf-8"}


class Pages:
    """Serves a folder and some pages on a free port of this machine, and gathers what is posted to `/report`."""

    def __init__(self, folder: Path, pages: Mapping[str, str]) -> None:
        self._reports: queue.SimpleQueue[Any] = queue.SimpleQueue()
        reports = self._reports

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                file = (folder / path.lstrip("/")).resolve()
                if path in pages:
                    self._answer(200, pages[path].encode(), TYPES[".html"])
                elif file.is_file() and file.is_relative_to(folder) and file.suffix in TYPES:
                    self._answer(200, file.read_bytes(), TYPES[file.suffix])
                else:
                    self._answer(404, b"", "text/plain")

            def do_POST(self) -> None:
                reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self._answer(204, b"", "text/plain")

            def _answer(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *said: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.origin = f"http://127.0.0.1:{self._server.server_port}"

    def report(self, name: str) -> Any:
        """Waits for what a page reports under a name; what it reports as `failed` fails the test."""
        while True:
            try:
                said = self._reports.get(timeout=PATIENCE_S)
            except queue.Empty:
                raise AssertionError(f"the page has not reported {name!r} within {PATIENCE_S:g} s") from None
            assert said["name"] != "failed", said["value"]
            if said["name"] == name:
                return said["value"]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def chromium(url: str, profile: Path) -> Iterator[None]:
    """A browser that shows a page, in a group of processes of its own, which ends with it."""
    binary = shutil.which("chromium")
    assert binary is not None, "no chromium on this machine: `make servers` installs it, and this test needs it"
    profile.mkdir()
    process = subprocess.Popen(
        [binary, *FLAGS, f"--user-data-dir={profile}", url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_S)
