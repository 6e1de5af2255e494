"""The page of the push demo, served on loopback: files of this package, the JavaScript client, and how the demo stands."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

from budao.model import BudaoError
from budao.wire import http1

STATE: Final = "/demo.json"
NAMES: Final = ("127.0.0.1", "localhost")
"""What a browser may call us. A page elsewhere can make a name of its own lead here, and would read the token."""
IDLE_S: Final = 60.0
TYPES: Final[Mapping[str, str]] = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
}

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

Assets = Mapping[str, tuple[str, bytes]]
"""By path: the type and the bytes."""


class NoClient(BudaoError):
    """The JavaScript client is not where it should be."""


def read_assets() -> Assets:
    """Everything the page is made of.

    Raises:  NoClient.
    """
    page = files("budao.apps") / "push_page"
    found = {f"/{each.name}": _asset(each) for each in page.iterdir() if _is_asset(each)}
    found["/"] = found["/index.html"]
    found |= {f"/client/{each.name}": _asset(each) for each in _client_folder(page).iterdir() if _is_asset(each)}
    return found


def _client_folder(page: Traversable) -> Traversable:
    shipped = page / "client"
    if shipped.is_dir():
        return shipped
    beside = Path(__file__).parents[3] / "clients" / "js" / "src"  # a checkout: it is not copied there
    if beside.is_dir():
        return beside
    raise NoClient("the JavaScript client is missing from this installation of budao; install it again")


def _is_asset(file: Traversable) -> bool:
    return file.is_file() and file.name.rpartition(".")[2] in TYPES


def _asset(file: Traversable) -> tuple[str, bytes]:
    return TYPES[file.name.rpartition(".")[2]], file.read_bytes()


@contextlib.asynccontextmanager
async def page_server(
    port: int, assets: Assets, state: Callable[[], Mapping[str, Any]], *, talks_to: Sequence[str]
) -> AsyncIterator[None]:
    """Serves the page on loopback for as long as the block lasts. `talks_to` are the gateways, `http://…`, that it may reach."""
    answer = _Answers(port, assets, state, talks_to)
    talks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "it is one"
        talks.add(task)
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
                await _talk(reader, writer, answer)
        finally:
            talks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
        ending = tuple(talks)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


class _Answers:
    """What is answered to whom."""

    def __init__(
        self, port: int, assets: Assets, state: Callable[[], Mapping[str, Any]], talks_to: Sequence[str]
    ) -> None:
        self.assets = assets
        self.state = state
        self.hosts = {f"{name}:{port}" for name in NAMES}
        reached = " ".join(f"{url} {url.replace('http', 'ws', 1)}" for url in talks_to)
        self.headers = {
            "content-security-policy": f"{POLICY}; connect-src 'self' {reached}",
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
        }

    def __call__(self, request: http1.Request) -> bytes:
        headers = self.headers
        if request.headers.get("host") not in self.hosts:
            return http1.format_response(421, headers, b"this page is reached by its address only\n")
        if request.method not in {"GET", "HEAD"}:
            return http1.format_response(405, {**headers, "allow": "GET, HEAD"}, b"")
        if request.path == STATE:
            kind, body = "application/json", json.dumps(self.state()).encode()
        elif request.path in self.assets:
            kind, body = self.assets[request.path]
        else:
            return http1.format_response(404, headers, b"there is nothing here\n")
        return http1.format_response(200, {**headers, "content-type": kind}, body, with_body=request.method == "GET")


async def _talk(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Callable[[http1.Request], bytes]
) -> None:
    requests = http1.RequestReader(http1.HeadPolicy(body_bytes_max=0))
    while True:
        async with asyncio.timeout(IDLE_S):
            data = await reader.read(16 * 1024)
        if not data:
            return
        try:
            found = requests.feed(data)
        except http1.BadRequest as bad:
            writer.write(http1.format_response(bad.status, {}, b"", keeps_alive=False))
            return
        for each in found:
            if isinstance(each, http1.Request):
                writer.write(answer(each))
                if not each.keeps_alive or each.wants_upgrade:
                    return
        await writer.drain()
