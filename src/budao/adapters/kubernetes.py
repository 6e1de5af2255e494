"""Services of a Kubernetes cluster, read from their EndpointSlices: list, watch, bookmarks, 410.

Read only: Kubernetes registers pods by itself, and has no place where a watcher could acknowledge what it has seen.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import aiohttp

from budao.adapters._http_source import ELSEWHERE, PAUSES, open_session, read_all, said
from budao.discovery import CameBack, Listed, Sighting, WentAway, compared
from budao.guard import pause_s
from budao.model import BadSettings, RemoteWireError
from budao.wire import (
    GONE,
    LINE_BYTES_MAX,
    SERVICE_LABEL,
    Bookmark,
    Slice,
    SliceDeleted,
    SlicePut,
    WatchEnded,
    joined,
    parse_slice_event,
    parse_slice_list,
)

__all__ = ["KubernetesSource"]

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token, its namespace and the authority of the API server."""
PAGE: Final = 500
PAGE_BYTES_MAX: Final = 67_108_864
"""Of one page of a list: five hundred slices of a thousand endpoints each are well below it."""
WATCH_S: Final = 290.0
"""A watch is asked to end after so long, in seconds; servers and proxies between end it after five minutes or so."""
LIST_S: Final = 15.0
REPEAT_MIN_S: Final = 0.02
"""A server that ends every watch at once must not make a busy loop."""

_HERE: Final = {("http", "127.0.0.1"), ("http", "::1"), ("http", "localhost")}
_log = logging.getLogger("budao.discovery")


class _Relist(Exception):
    """The watch cannot go on from where it was."""


class KubernetesSource:
    """Follows services by their EndpointSlices.

    `token` is asked anew for each request, since Kubernetes renews the tokens of a pod in place. Needs the right to list
    and watch "endpointslices" in the API group "discovery.k8s.io".
    """

    def __init__(
        self,
        api: str,
        *,
        namespace: str = "default",
        token: Callable[[], str] | None = None,
        tls: ssl.SSLContext | None = None,
        rng: Random | None = None,
    ) -> None:
        if not api.startswith("https://") and (urlsplit(api).scheme, urlsplit(api).hostname) not in _HERE:
            raise BadSettings(
                [("api", "must be https, unless it is on this machine: a token travels with each request")]
            )
        self.name = f"Kubernetes at {api}, namespace {namespace}"
        self._namespace = namespace
        self._token = token
        self._session = open_session(api, tls)
        self._rng = Random() if rng is None else rng

    @classmethod
    def in_cluster(cls, *, namespace: str | None = None, account: Path = ACCOUNT) -> KubernetesSource:
        """From within a pod, with the account it was given.

        Raises:  BadSettings if this is no pod, or it was given no account.
        """
        try:
            tls = ssl.create_default_context(cafile=str(account / "ca.crt"))
            (account / "token").read_text()
            here = (account / "namespace").read_text().strip()
        except OSError as error:
            problem = f"{error}; outside a pod give the address of the API server and a token"
            raise BadSettings([("account", problem)]) from error
        return cls(
            "https://kubernetes.default.svc",
            namespace=namespace or here,
            token=lambda: (account / "token").read_text().strip(),
            tls=tls,
        )

    async def follow(self, service: str) -> AsyncIterator[Sighting]:
        """What the API server says about a service, for ever."""
        following = _Following(self, service)
        problem, failures = "", 0
        while True:
            try:
                async for sighting in following.run():
                    problem, failures = "", 0
                    yield sighting
            except (aiohttp.ClientError, TimeoutError, OSError, RemoteWireError) as error:
                failures += 1
                happened = said(error)
                # A watch that breaks off is ordinary; only what the next try says too is worth telling.
                if failures > 1 and happened != problem:
                    problem = happened
                    following.is_away = True
                    yield WentAway(happened)
                await asyncio.sleep(pause_s(failures, PAUSES, self._rng) or 0.0)

    async def acknowledge(self, service: str, watcher: str, revision: int) -> bool:  # noqa: ARG002 -- there is no place
        """Kubernetes has no place to say it."""
        return False

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def get(self, query: dict[str, str], *, total_s: float) -> aiohttp.ClientResponse:
        """The answer to one request about EndpointSlices; whoever asks closes it.

        Raises:  _Relist for 410, RemoteWireError for any other answer that is not 200.
        """
        headers = {"Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token()}"
        answer = await self._session.get(
            f"/apis/discovery.k8s.io/v1/namespaces/{self._namespace}/endpointslices",
            params=query,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=total_s, connect=LIST_S),
            allow_redirects=False,
        )
        if answer.status == GONE:
            answer.release()
            raise _Relist
        if answer.status != 200:
            answer.release()
            raise RemoteWireError(f"{self.name} answers {answer.status}: {_advice(answer.status)}")
        return answer


class _Following:
    """One service: where its watch stands."""

    def __init__(self, source: KubernetesSource, service: str) -> None:
        self.source = source
        self.service = service
        self.version = ""
        """Where the next watch begins; "" before the first list, and after a 410."""
        self.slices: dict[str, Slice] = {}
        self.revision = 0
        """Counts what was said. The server's own versions are opaque."""
        self.is_away = False

    async def run(self) -> AsyncIterator[Sighting]:
        """Lists if it must, and then watches, until something breaks."""
        if not self.version:
            yield await self.listed()
        while True:
            try:
                async for sighting in self.watched():
                    yield sighting
            except _Relist:
                yield await self.listed()
            await asyncio.sleep(REPEAT_MIN_S)

    async def listed(self) -> Listed:
        """All slices, page by page, from one moment."""
        slices: dict[str, Slice] = {}
        query = {"labelSelector": f"{SERVICE_LABEL}={self.service}", "limit": str(PAGE)}
        while True:
            try:
                answer = await self.source.get(query, total_s=LIST_S)
            except _Relist:  # the pages took longer than the server keeps that moment
                slices.clear()
                if not query.pop("continue", ""):
                    raise RemoteWireError(f"{self.source.name} answers 410 to a fresh list") from None
                continue
            async with answer:
                page = parse_slice_list(await read_all(answer, PAGE_BYTES_MAX, self.source.name), self.service)
            self.log(page.skipped)
            slices.update({each.name: each for each in page.slices})
            if not page.more:
                break
            query["continue"] = page.more
        self.slices, self.version, self.is_away = slices, page.version, False
        self.revision += 1
        return Listed(self.revision, tuple(joined(tuple(slices.values())).values()))

    async def watched(self) -> AsyncIterator[Sighting]:
        """What changes, until the server ends the watch, as it does every few minutes."""
        query = {
            "labelSelector": f"{SERVICE_LABEL}={self.service}",
            "watch": "true",
            "resourceVersion": self.version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(WATCH_S)),
        }
        async with AsyncExitStack() as closing:
            answer = await self.source.get(query, total_s=WATCH_S + LIST_S)
            closing.callback(answer.close)  # not released: a watch that is left has an end that nobody will read
            if self.is_away:
                self.is_away = False
                yield CameBack()
            async for line in _lines(answer):
                before = joined(tuple(self.slices.values()))
                self.take(line)
                self.revision += 1
                changed = compared(before, joined(tuple(self.slices.values())), self.revision)
                if changed is not None:
                    yield changed

    def take(self, line: bytes) -> None:
        """One event into what is known.

        Raises:  _Relist if the watch cannot go on.
        """
        event = parse_slice_event(line, self.service)
        if isinstance(event, WatchEnded):
            if event.code == GONE:
                raise _Relist
            raise RemoteWireError(f"{self.source.name} ends the watch with {event.code}: {event.message}")
        self.version = event.version
        if isinstance(event, SlicePut):
            self.slices[event.slice.name] = event.slice
            self.log(event.skipped)
        elif isinstance(event, SliceDeleted):
            self.slices.pop(event.name, None)
        else:
            assert isinstance(event, Bookmark), "there is no other event"

    def log(self, skipped: tuple[str, ...]) -> None:
        for each in skipped[:10]:
            _log.warning("%s: left out: %s", self.source.name, each)


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The lines of a watch, each whole. A line of many megabytes is refused."""
    kept = bytearray()
    async for part in answer.content.iter_any():
        kept += part
        while (end := kept.find(b"\n")) >= 0:
            line = bytes(kept[:end])
            del kept[: end + 1]
            if line.strip():
                yield line
        if len(kept) > LINE_BYTES_MAX:
            raise RemoteWireError(f"a watch event is longer than {LINE_BYTES_MAX} bytes")


def _advice(status: int) -> str:
    return {
        301: ELSEWHERE,
        307: ELSEWHERE,
        401: "the token is missing or has expired",
        403: "the account may not list and watch endpointslices; give it a Role that may",
        404: "there is no such namespace, or no API discovery.k8s.io/v1",
        429: "it asks to come back later",
    }.get(status, "nothing more is known")
