"""Which route a request is for, found before the framework looks: `GET /items/{id}`, never `GET /items/4711`.

A guard keeps one breaker and one window per key, so a key must be something there are few of. The template is read from
the framework's own table of routes by the names its parts have, so no framework is imported here and none is required.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
"""Any token is a legal method, so one that is not listed here is called `<other>`: strangers make no keys."""

WRAPPERS_MAX = 64
"""How many layers of middleware are looked through for the application that has the routes."""

_REST = "/{path}"


def route_key(scope: Any, app: Any = None) -> str:
    """Method and route template of an HTTP request, or `GET <unmatched>` when no route answers it.

    Starlette and FastAPI are matched against the routes of `scope["app"]`, mounted applications and included routers
    within; Litestar says its template itself, or is asked for it when the middleware stands outside of it. Without
    `scope["app"]`, the routes are those of `app` or of what it wraps.
    """
    method = scope["method"] if scope["method"] in METHODS else "<other>"
    template = _template(scope, method, app)
    return f"{method} {template or '<unmatched>'}"


def _template(scope: Any, method: str, app: Any) -> str | None:
    """The template of the route that will answer, or None."""
    if "path_template" in scope:  # inside Litestar, which has matched already
        return scope["path_template"] or _mounted_in_litestar(scope.get("route_handler"))
    owner = scope.get("app") or _innermost(app)
    path = _path_below_root(scope)
    if hasattr(owner, "asgi_router"):
        return _asked_of_litestar(owner.asgi_router, method, path)
    return _first(getattr(owner, "routes", ()), method, path, _host(scope))


def _first(routes: Iterable[Any], method: str, path: str, host: str) -> str | None:
    """The template of the first of Starlette's routes that answers `method` at `path`.

    Cost: one regular expression for each route before it, about half of what the framework then spends on the same.
    """
    for route in routes:
        if (regex := getattr(route, "path_regex", None)) is not None:
            if (match := regex.match(path)) is None:
                continue
            if hasattr(route, "routes"):
                return _below(route, method, "/" + match["path"], host)
            if _takes(route, method):
                return str(route.path_format)
        elif (host_regex := getattr(route, "host_regex", None)) is not None:
            if host_regex.match(host):
                return _first(route.routes, method, path, host)
        elif (found := _first(_included(route), method, path, host)) is not None:
            return found
    return None


def _included(route: Any) -> Iterable[Any]:
    """What stands in FastAPI's list for an included router, or for one of its routes: each has its full path there."""
    if hasattr(route, "effective_candidates"):
        return list(route.effective_candidates())
    stand_in = getattr(route, "starlette_route", None)
    return () if stand_in is None else (stand_in,)


def _takes(route: Any, method: str) -> bool:
    """Whether a route whose path fits answers `method`.

    A WebSocket's route has no methods. One that has the path but not the method would answer 405, which is no more a
    route of this method than a 404 is.
    """
    if not hasattr(route, "methods"):
        return False
    return not route.methods or method in route.methods


def _below(mount: Any, method: str, rest: str, host: str) -> str | None:
    """The template inside a mounted application; an application that shows no routes is one route."""
    whole = str(mount.path_format)
    inside = mount.routes
    if not inside:
        return whole
    found = _first(inside, method, rest, host)
    return None if found is None else whole.removesuffix(_REST) + found


def _asked_of_litestar(router: Any, method: str, path: str) -> str | None:
    """What Litestar's router would choose; its answers are cached there, so the second look costs it nothing."""
    plain = "/" + "/".join(part for part in path.split("/") if part)
    try:
        _, handler, _, _, template = router.handle_routing(path=plain, method=method)
    except Exception:  # noqa: BLE001 - its own way to say 404, 405 and 400; it will say so again to the client
        return None
    return template or _mounted_in_litestar(handler)


def _mounted_in_litestar(handler: Any) -> str | None:
    """Where the application that `handler` mounts stands: Litestar gives no template for what lies below."""
    paths = sorted(getattr(handler, "paths", ()))
    return paths[0].rstrip("/") + _REST if paths else None


def _innermost(app: Any) -> Any:
    """The application with routes that `app` is, or wraps."""
    for _ in range(WRAPPERS_MAX):
        if hasattr(app, "routes") or not hasattr(app, "app"):
            break
        app = app.app
    return app


def _path_below_root(scope: Any) -> str:
    """The path a route sees: without the prefix a proxy or a mount has taken off."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) :][:1] in {"", "/"}:
        return path[len(root) :]
    return path


def _host(scope: Any) -> str:
    """The host a request names, in lower case and without a port."""
    host = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1").lower()
    return host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
