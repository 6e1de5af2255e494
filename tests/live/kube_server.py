"""The part of the Kubernetes API that serves EndpointSlices, as the API concepts page describes it.

Lists in pages from one moment, watches from a version, bookmarks, 410 for what is forgotten (as a status, or inside a
watch), tokens, and watches that end after their time.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

SERVICE = "kubernetes.io/service-name"


def slice_of(
    name: str, service: str, addresses: dict[str, tuple[str, dict[str, Any]]], ports: dict[str, int]
) -> dict[str, Any]:
    """An EndpointSlice; `addresses` are pods by name, each with its address and conditions."""
    return {
        "metadata": {"name": name, "labels": {SERVICE: service}},
        "addressType": "IPv4",
        "ports": [{"name": port, "port": number, "protocol": "TCP"} for port, number in ports.items()],
        "endpoints": [
            {
                "addresses": [address],
                "conditions": conditions,
                "targetRef": {"kind": "Pod", "name": pod},
                "nodeName": "node-1",
                "zone": "eu-1a",
            }
            for pod, (address, conditions) in addresses.items()
        ],
    }


class KubeServer:
    """One API server on a loopback port."""

    def __init__(self, *, token: str = "", page: int = 500) -> None:
        self.token = token
        self.page = page
        self.version = 1000
        self.forgotten = 1000
        self.slices: dict[str, dict[str, Any]] = {}
        self.events: list[tuple[int, str, dict[str, Any]]] = []
        self.requests: list[str] = []
        self.says_gone_in_the_watch = True
        self.pages: dict[str, list[dict[str, Any]]] = {}
        self._moved = asyncio.Event()
        self._watches: set[web.StreamResponse] = set()
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Breaks every connection."""
        assert self._runner is not None
        self.cut()
        await self._runner.cleanup()
        self._runner = None

    def cut(self) -> None:
        """Breaks every watch, as a proxy does that was restarted."""
        for watch in list(self._watches):
            if watch._req is not None and watch._req.transport is not None:
                watch._req.transport.abort()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, thing: dict[str, Any]) -> None:
        name = thing["metadata"]["name"]
        kind = "MODIFIED" if name in self.slices else "ADDED"
        self.version += 1
        thing["metadata"]["resourceVersion"] = str(self.version)
        self.slices[name] = thing
        self._say(kind, thing)

    def delete(self, name: str) -> None:
        self.version += 1
        thing = self.slices.pop(name)
        thing["metadata"]["resourceVersion"] = str(self.version)
        self._say("DELETED", thing)

    def bookmark(self) -> None:
        self.version += 1
        self._say("BOOKMARK", {"kind": "EndpointSlice", "metadata": {"resourceVersion": str(self.version)}})

    def forget(self) -> None:
        """What was before now can no longer be watched from."""
        self.forgotten = self.version
        self.events.clear()
        self.pages.clear()

    def _say(self, kind: str, thing: dict[str, Any]) -> None:
        self.events.append((self.version, kind, json.loads(json.dumps(thing))))
        self._moved.set()
        self._moved = asyncio.Event()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.query_string)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response(status(401, "Unauthorized"), status=401)
        label = request.query.get("labelSelector", "").partition("=")[2]
        return await (self._watch if "watch" in request.query else self._list)(request, label)

    async def _list(self, request: web.Request, service: str) -> web.StreamResponse:
        token = request.query.get("continue", "")
        if token:
            if token not in self.pages:
                return web.json_response(status(410, "the provided continue parameter is too old"), status=410)
            left = self.pages.pop(token)
        else:
            left = [each for each in self.slices.values() if each["metadata"]["labels"][SERVICE] == service]
        size = min(self.page, int(request.query.get("limit", "500")))
        shown, left = left[:size], left[size:]
        metadata = {"resourceVersion": str(self.version)}
        if left:
            metadata["continue"] = f"page-{len(self.requests)}"
            self.pages[metadata["continue"]] = left
        return web.json_response({"kind": "EndpointSliceList", "metadata": metadata, "items": shown})

    async def _watch(self, request: web.Request, service: str) -> web.StreamResponse:
        seen = int(request.query["resourceVersion"])
        if seen < self.forgotten and not self.says_gone_in_the_watch:
            return web.json_response(status(410, "too old resource version"), status=410)
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        self._watches.add(answer)
        try:
            while True:
                if seen < self.forgotten:
                    await answer.write(line("ERROR", status(410, "too old resource version")))
                    return answer
                moved = self._moved
                for version, kind, thing in list(self.events):
                    labels = thing["metadata"].get("labels", {SERVICE: service})
                    if version > seen and labels[SERVICE] == service:
                        seen = version
                        await answer.write(line(kind, thing))
                await moved.wait()
        finally:
            self._watches.discard(answer)


def status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message, "metadata": {}}


def line(kind: str, thing: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": thing}).encode() + b"\n"
