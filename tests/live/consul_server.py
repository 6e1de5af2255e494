"""The part of Consul's HTTP API that serves healthy instances, with blocking queries as the feature page describes them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from aiohttp import web


def entry(
    name: str, port: int, *, node: str = "node-1", address: str = "", status: str = "passing", **meta: str
) -> dict[str, Any]:
    return {
        "Node": {"Node": node, "Address": "10.0.0.9", "Datacenter": "dc1"},
        "Service": {
            "ID": name,
            "Address": address,
            "Port": port,
            "Meta": meta,
            "Weights": {"Passing": 2, "Warning": 1},
        },
        "Checks": [{"CheckID": "alive", "Status": status}],
    }


class ConsulServer:
    """One agent on a loopback port."""

    def __init__(self, *, token: str = "") -> None:
        self.token = token
        self.index = 100
        self.services: dict[str, list[dict[str, Any]]] = {}
        self.requests: list[str] = []
        self.port = 0
        self._moved = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/health/service/{name}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        assert self._runner is not None
        self.touch()
        await self._runner.cleanup()
        self._runner = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, name: str, *entries: dict[str, Any]) -> None:
        self.services[name] = list(entries)
        self.touch()

    def touch(self, index: int | None = None) -> None:
        """The index moves, with or without news."""
        self.index = self.index + 1 if index is None else index
        self._moved.set()
        self._moved = asyncio.Event()

    async def _answer(self, request: web.Request) -> web.Response:
        self.requests.append(request.query_string)
        if self.token and request.headers.get("X-Consul-Token") != self.token:
            return web.Response(status=403, text="Permission denied")
        asked = int(request.query.get("index", "0"))
        wait_s = float(request.query.get("wait", "300s").removesuffix("s"))
        moved = self._moved
        if asked > 0 and asked == self.index:
            with suppress(TimeoutError):
                await asyncio.wait_for(moved.wait(), wait_s)
        found = self.services.get(request.match_info["name"], [])
        return web.json_response(found, headers={"X-Consul-Index": str(self.index)})
