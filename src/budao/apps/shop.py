"""The shop whose customers we count: a page per product, which needs the inventory service."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from budao import Guard
from budao.apps.terms import BY_HAND, OBJECTIVE
from budao.guard import NOTHING, Event, State, Turned
from budao.settings import parse

MOVES_KEPT = 256
KNOWN_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """How many there are, and which rung of the ladder says so."""

    count: int
    rung: str = "direct"


def shop(inventory_url: str, *, is_guarded: bool) -> Starlette:
    """`GET /product/{sku}`, and of a guarded shop `GET /guard` and `GET /guard/explain`.

    With the guard or without, it is the same program: the guard wraps one function.
    """
    client = httpx.AsyncClient(base_url=inventory_url)  # with its ordinary limits: 5 s, 100 connections
    known: dict[str, Stock] = {}

    async def stock(sku: str) -> Stock:
        reply = await client.get(f"/stock/{sku}")
        reply.raise_for_status()
        found = Stock(count=reply.json()["stock"])
        if sku in known or len(known) < KNOWN_MAX:
            known[sku] = found
        return found

    def last_known(sku: str) -> object:
        return replace(known[sku], rung="cache") if sku in known else NOTHING

    routes: list[Route] = []
    ask: Callable[[str], Awaitable[Stock]] = stock
    if is_guarded:
        guard = Guard("inventory", objective=OBJECTIVE)
        guard.reconfigure(parse(BY_HAND, source="the demo"))
        ask = guard.ladder(cache=last_known, template=Stock(count=0, rung="template"))(stock)
        routes += _windows(guard)

    async def product(request: Request) -> Response:
        sku = request.path_params["sku"]
        try:
            found = await ask(sku)
        except httpx.HTTPError as problem:
            return JSONResponse({"error": type(problem).__name__}, status_code=502)
        return JSONResponse({"sku": sku, "stock": found.count, "from": found.rung})

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    return Starlette(routes=[Route("/product/{sku}", product), *routes], lifespan=lifespan)


def _windows(guard: Guard) -> list[Route]:
    """Where the demo looks into the guard. Ages, not instants, leave the process: clocks are its own."""
    moves: deque[Turned] = deque(maxlen=MOVES_KEPT)

    def hear(event: Event) -> None:
        if isinstance(event, Turned):
            moves.append(event)

    guard.listen(hear)

    async def look(_: Request) -> Response:
        now = guard.clock()
        keys = guard.snapshot().keys
        state = keys[0].state if keys else State.CLOSED
        told: list[dict[str, Any]] = [
            {"age_s": now - turned.at, "state": turned.moved.after.value, "why": turned.moved.reason}
            for turned in moves
        ]
        return JSONResponse({"state": state.value, "moves": told})

    async def explain(_: Request) -> Response:
        return JSONResponse({"explain": guard.explain()})

    return [Route("/guard", look), Route("/guard/explain", explain)]
