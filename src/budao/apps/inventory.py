"""The service the shop depends on: it answers how many of a thing are in stock, in whatever manner it was told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from budao.apps.script import Manner


def inventory(rng: Random) -> Starlette:
    """`GET /stock/{sku}` is the service; `POST /manner/{manner}` is the script's hand on it."""
    service = _Inventory(rng)
    return Starlette(
        routes=[
            Route("/stock/{sku}", service.stock),
            Route("/manner/{manner}", service.change, methods=["POST"]),
        ]
    )


class _Inventory:
    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._manner = Manner.WELL
        self._treat: dict[Manner, Callable[[], float]] = {
            Manner.WELL: lambda: rng.lognormvariate(-3.9, 0.25),  # a median of 20 ms
            Manner.SLOW: lambda: rng.uniform(0.6, 1.2),
            Manner.FAILING: lambda: 0.01,
        }

    async def change(self, request: Request) -> Response:
        self._manner = Manner(request.path_params["manner"])
        return JSONResponse({"manner": self._manner.value})

    async def stock(self, request: Request) -> Response:
        manner = self._manner
        if manner is Manner.HANGING:
            # What hangs stays hung, whatever comes after; only the asker can end it.
            while (await request.receive())["type"] != "http.disconnect":
                pass
            return Response(status_code=499)
        await asyncio.sleep(self._treat[manner]())
        if manner is Manner.FAILING:
            return JSONResponse({"error": "the stock table is locked"}, status_code=500)
        return JSONResponse({"stock": sum(request.path_params["sku"].encode()) % 90 + 1})
