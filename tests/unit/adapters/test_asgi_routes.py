from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar, Router, asgi, get, post
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Host, Mount, Route, WebSocketRoute

from budao.adapters.asgi_routes import METHODS, route_key


async def answer(request: Request) -> Response:
    return Response()


async def talk(socket: Any) -> None:
    await socket.close()


async def plain(scope: Any, receive: Any, send: Any) -> None:
    await Response()(scope, receive, send)


def scope_of(method: str, path: str, **more: Any) -> dict[str, Any]:
    return {"type": "http", "method": method, "path": path, "headers": [(b"host", b"Shop.example:8000")], **more}


def with_starlette() -> Starlette:
    return Starlette(
        routes=[
            Route("/", answer),
            Route("/items", answer, methods=["GET"]),
            Route("/items", answer, methods=["POST"]),
            WebSocketRoute("/both/{name}", talk),
            Route("/both/{name}", answer),
            Route("/items/{number:int}", answer),
            Route("/items/{name}", answer),
            Mount(
                "/admin/{tenant}", routes=[Route("/users/{user}", answer), Mount("/deep", routes=[Route("/x", answer)])]
            ),
            Mount("/files", app=plain),
            Host("api.example", app=Starlette(routes=[Route("/v{version:int}", answer)])),
            Host("shop.example", app=Starlette(routes=[Route("/cart/{cart}", answer)])),
        ]
    )


STARLETTE = [
    ("GET", "/", "GET /"),
    ("GET", "/items", "GET /items"),
    ("POST", "/items", "POST /items"),
    ("HEAD", "/items", "HEAD /items"),
    ("GET", "/items/4711", "GET /items/{number}"),
    ("GET", "/items/blue", "GET /items/{name}"),
    ("GET", "/both/a", "GET /both/{name}"),
    ("GET", "/admin/acme/users/7", "GET /admin/{tenant}/users/{user}"),
    ("GET", "/admin/acme/deep/x", "GET /admin/{tenant}/deep/x"),
    ("GET", "/admin/acme/nothing", "GET <unmatched>"),
    ("GET", "/files/a/b.css", "GET /files/{path}"),
    ("GET", "/cart/12", "GET /cart/{cart}"),
    ("GET", "/v1", "GET <unmatched>"),
    ("DELETE", "/items", "DELETE <unmatched>"),
    ("GET", "/nothing/here", "GET <unmatched>"),
    ("BREW", "/items", "<other> <unmatched>"),
]


@pytest.mark.parametrize(("method", "path", "key"), STARLETTE)
def test_a_starlette_route_is_found_wherever_it_is_mounted(method: str, path: str, key: str) -> None:
    app = with_starlette()
    assert route_key(scope_of(method, path, app=app)) == key
    assert route_key(scope_of(method, path), GZipMiddleware(GZipMiddleware(app))) == key


def test_the_path_is_matched_without_the_root_path() -> None:
    app = with_starlette()
    assert route_key(scope_of("GET", "/shop/items/7", root_path="/shop", app=app)) == "GET /items/{number}"
    assert route_key(scope_of("GET", "/items/7", root_path="/shop", app=app)) == "GET /items/{number}"
    assert route_key(scope_of("GET", "/items/7", root_path="/it", app=app)) == "GET /items/{number}"


def with_fastapi() -> FastAPI:
    app = FastAPI()
    router = APIRouter(prefix="/orders")
    inner = APIRouter(prefix="/{order}/lines")
    sub = FastAPI()

    @app.get("/items/{number}")
    async def item(number: int) -> int:
        return number

    @app.post("/items")
    async def add() -> int:
        return 1

    @router.get("/{order}")
    async def order(order: str) -> str:
        return order

    @inner.get("/{line}")
    async def line(order: str, line: int) -> int:
        return line

    @inner.websocket("/{line}/live")
    async def live(order: str, line: int) -> None: ...

    @sub.get("/things/{thing}")
    async def thing(thing: str) -> str:
        return thing

    router.include_router(inner)
    app.include_router(router, prefix="/v1")
    app.mount("/sub", sub)
    return app


@pytest.mark.parametrize(
    ("method", "path", "key"),
    [
        ("GET", "/items/7", "GET /items/{number}"),
        ("GET", "/items/blue", "GET /items/{number}"),  # FastAPI answers 422 on that route
        ("POST", "/items", "POST /items"),
        ("GET", "/v1/orders/a7", "GET /v1/orders/{order}"),
        ("GET", "/v1/orders/a7/lines/3", "GET /v1/orders/{order}/lines/{line}"),
        ("GET", "/v1/orders/a7/lines/3/live", "GET <unmatched>"),
        ("GET", "/sub/things/x", "GET /sub/things/{thing}"),
        ("GET", "/openapi.json", "GET /openapi.json"),
        ("PUT", "/v1/orders/a7", "PUT <unmatched>"),
        ("GET", "/v2/orders/a7", "GET <unmatched>"),
    ],
)
def test_a_fastapi_route_is_found_through_included_routers_and_mounted_apps(method: str, path: str, key: str) -> None:
    app = with_fastapi()
    assert route_key(scope_of(method, path, app=app)) == key
    assert route_key(scope_of(method, path), app) == key


def with_litestar() -> Litestar:
    @get("/items/{number:int}")
    async def item() -> int:
        return 1

    @post("/items")
    async def add() -> int:
        return 1

    @get("/{order:str}/lines/{line:int}")
    async def line() -> int:
        return 1

    @asgi("/files", is_mount=True, copy_scope=True)
    async def files(scope: Any, receive: Any, send: Any) -> None:
        await Response()(scope, receive, send)

    return Litestar([item, add, Router("/orders", route_handlers=[line]), files])


@pytest.mark.parametrize(
    ("method", "path", "key"),
    [
        ("GET", "/items/7", "GET /items/{number}"),
        ("GET", "//items/7/", "GET /items/{number}"),
        ("GET", "/items/blue", "GET <unmatched>"),
        ("POST", "/items", "POST /items"),
        ("GET", "/orders/a7/lines/3", "GET /orders/{order}/lines/{line}"),
        ("GET", "/files/a/b.css", "GET /files/{path}"),
        ("DELETE", "/items", "DELETE <unmatched>"),
        ("GET", "/nothing", "GET <unmatched>"),
    ],
)
def test_a_litestar_app_is_asked_for_the_template_from_outside(method: str, path: str, key: str) -> None:
    assert route_key(scope_of(method, path), with_litestar()) == key


def test_an_application_without_routes_has_one_key_per_method() -> None:
    assert route_key(scope_of("GET", "/a"), plain) == "GET <unmatched>"
    assert route_key(scope_of("GET", "/b")) == "GET <unmatched>"


SHOPS = (with_starlette(), with_fastapi(), with_litestar())


@given(
    method=st.sampled_from(sorted(METHODS)) | st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ-", min_size=1, max_size=8),
    parts=st.lists(
        st.sampled_from(["items", "admin", "users", "v1", "orders", "lines", "files", "sub", "things", "", "7"])
        | st.text(max_size=6),
        max_size=6,
    ),
)
def test_strangers_cannot_make_keys(method: str, parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    for app in SHOPS:
        key = route_key(scope_of(method, path), app)
        verb, _, template = key.partition(" ")
        assert verb in METHODS | {"<other>"}
        assert template in TEMPLATES


TEMPLATES = {key.partition(" ")[2] for _, _, key in STARLETTE} | {
    "/items/{number}", "/v1/orders/{order}", "/v1/orders/{order}/lines/{line}", "/sub/things/{thing}", "/openapi.json",
    "/docs", "/redoc", "/docs/oauth2-redirect", "/orders/{order}/lines/{line}", "/sub/openapi.json", "/sub/docs",
    "/sub/redoc", "/sub/docs/oauth2-redirect", "/schema",
}  # fmt: skip
