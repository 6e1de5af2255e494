"""What is answered over HTTP, whichever version of it: publishing, streams, health, metrics, control.

An `Exchange` is one request as its protocol sees it: `door.py` has one for HTTP/1.1, and HTTP/2 brings its own. `serve` is called
once the body is whole, and answers at once or later, exactly once, unless the client is gone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from budao.aio.gateway.metrics import CONTENT_TYPE
from budao.aio.gateway.sse import SseConnection, Wish
from budao.model import RemoteWireError
from budao.push import Draft, Grant, Members, Placed, Problem, prefix_of
from budao.wire import format_retry_after, http1, parse_traceparent, publish_body

if TYPE_CHECKING:
    from budao.aio.gateway.gateway import Gateway

JSON_TYPE: Final = "application/json"
EVENT_STREAM: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
}
CORS_S: Final = "600"
STATUS: Final[Mapping[str, int]] = {
    "log-away": 503,
    "going-away": 503,
    "paced": 503,
    "full": 503,
    "no-room": 503,
    "no-space": 507,
    "rate": 429,
    "forbidden": 403,
    "unauthorized": 401,
    "expired": 401,
    "too-large": 413,
    "bad-data": 400,
    "bad-request": 400,
    "not-found": 404,
    "method": 405,
    "mistake": 500,
}
"""The status of a problem as a whole, by its word; 400 for others."""


class Exchange(Protocol):
    """One request that wants an answer."""

    transport: str
    """The label of `metrics.TRANSPORTS` of a stream that begins here: `sse` or `h2`."""

    @property
    def peer(self) -> str:
        """The address at the other end, without its port; empty if that is not known."""

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits for the answer any more."""

    def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """The whole answer."""

    def stream(self, connection: SseConnection, headers: Mapping[str, str]) -> None:
        """Answer 200, and from there on be the transport of this connection: `begin` it, then `open` it."""


Handler = Callable[["Gateway", Exchange, http1.Request, bytes, "Ask"], None]


class Ask:
    """What is known of a request beside its bytes."""

    __slots__ = ("cors", "grant", "query")

    def __init__(self, query: dict[str, list[str]], grant: Grant | None, cors: Mapping[str, str]) -> None:
        self.query = query
        self.grant = grant
        self.cors = cors


def serve(gateway: Gateway, exchange: Exchange, request: http1.Request, body: bytes) -> None:
    """Answers a request."""
    methods = ROUTES.get(request.path)
    if methods is None and request.path.startswith("/v1/control/"):
        methods = CONTROL
    headers = request.headers
    if methods is None:
        refuse(exchange, Problem(why="not-found", happened=f"there is nothing at {request.path[:200]!r}"))
        return
    if headers.get("origin") and (said := gateway.access.origin_problem(headers)):
        refuse(exchange, Problem(why="forbidden", happened=said))
        return
    cors = cors_headers(headers)
    if request.method == "OPTIONS" and cors:
        allowed = {"access-control-allow-methods": ", ".join(methods), "access-control-max-age": CORS_S}
        wanted = "authorization, content-type, last-event-id, traceparent"
        exchange.answer(204, {**cors, **allowed, "access-control-allow-headers": wanted}, b"")
        return
    handler = methods.get("GET" if request.method == "HEAD" else request.method)
    if handler is None:
        problem = Problem(
            why="method", happened=f"{request.path} takes {', '.join(methods)}, not {request.method[:20]}"
        )
        refuse(exchange, problem, {**cors, "allow": ", ".join(methods)})
        return
    try:
        query = http1.parse_query(request.query)
    except http1.BadRequest as bad:
        gateway.metrics.count_error("head")
        refuse(exchange, Problem(why="bad-request", happened=bad.problem), cors)
        return
    if handler in OPEN:
        handler(gateway, exchange, request, body, Ask(query, None, cors))
        return
    grant = who(gateway, headers, query)
    if isinstance(grant, Problem):
        gateway.metrics.count_error(grant.why)
        if handler is _publish:
            gateway.metrics.count_publish_refusal(grant.why)
        refuse(exchange, grant, {**cors, "www-authenticate": "Bearer"})
        return
    handler(gateway, exchange, request, body, Ask(query, grant, cors))


def takes_body(gateway: Gateway, request: http1.Request) -> bool:
    """Whether a body is read at all: only of those who may say something. Others would fill our memory with what is refused anyway."""
    if request.method != "POST" or request.body_bytes == 0:
        return False
    try:
        return isinstance(who(gateway, request.headers, http1.parse_query(request.query)), Grant)
    except http1.BadRequest:
        return False


def token_of(headers: Mapping[str, str], query: Mapping[str, Sequence[str]]) -> str | None:
    """The token of a request, if it has one."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    found = query.get("token", ())
    return found[0] if found else None


def who(gateway: Gateway, headers: Mapping[str, str], query: Mapping[str, Sequence[str]]) -> Grant | Problem:
    """What a request may do, or why nothing."""
    token = token_of(headers, query)
    if token is None and (said := gateway.access.host_problem(headers)):
        return Problem(why="forbidden", happened=said)
    found = gateway.access.grant(token, gateway.wall())
    if isinstance(found, Grant):
        return found
    if found is None:
        return Problem(why="unauthorized", happened="this needs a token: Authorization: Bearer …, or ?token=…")
    return Problem(why=found.why, happened=found.happened)


def refuse(exchange: Exchange, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
    """Answers that it is not done, and why."""
    said = {"content-type": JSON_TYPE, **(headers or {})}
    if problem.after_s > 0:
        said["retry-after"] = format_retry_after(problem.after_s)
    exchange.answer(STATUS.get(problem.why, 400), said, publish_body.format_error(problem))


def cors_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """For a page of another host, which may read the answer only if it is named there. The origin was checked before."""
    origin = headers.get("origin")
    if origin is None:
        return {}
    return {"access-control-allow-origin": origin, "vary": "origin", "access-control-expose-headers": "retry-after"}


# ------------------------------------------------------------------------------------------------------ handlers


class _Gathering:
    """The results of one request to publish, until the last one is there."""

    __slots__ = ("exchange", "headers", "left", "publishing", "results")

    def __init__(
        self, exchange: Exchange, publishing: publish_body.Publishing, headers: Mapping[str, str], count: int
    ) -> None:
        self.exchange = exchange
        self.publishing = publishing
        self.headers = headers
        self.results: list[Placed | Problem | None] = [None] * count
        self.left = count

    def done(self, index: int, result: Placed | Problem) -> None:
        self.results[index] = result
        self.left -= 1
        if not self.left:
            self.answer()

    def answer(self) -> None:
        if self.exchange.is_gone:
            return
        results = [result for result in self.results if result is not None]
        only = results[0] if len(results) == 1 and not self.publishing.is_batch else None
        if isinstance(only, Problem):
            refuse(self.exchange, only, self.headers)
            return
        body = publish_body.format_publish(self.publishing, results)
        self.exchange.answer(200, {"content-type": JSON_TYPE, **self.headers}, body)


def _publish(gateway: Gateway, exchange: Exchange, request: http1.Request, body: bytes, ask: Ask) -> None:
    grant = ask.grant
    assert grant is not None, "it was asked for"
    said = request.headers.get("traceparent")
    trace = parse_traceparent(said) or None if said is not None else None
    if said is not None and trace is None:
        gateway.metrics.traces_dropped += 1
    try:
        publishing = publish_body.parse_publish(body, messages_max=gateway.policy.batch_max, trace=trace)
    except RemoteWireError as problem:
        gateway.metrics.count_publish_refusal("bad-request")
        refuse(exchange, Problem(why="bad-request", happened=str(problem)), ask.cors)
        return
    drafts = publishing.drafts
    if not publishing.is_batch and not drafts:
        item = publishing.items[0]
        assert isinstance(item, Problem), "it is no draft"
        gateway.metrics.count_publish_refusal("bad-data")
        refuse(exchange, item, ask.cors)
        return
    gathering = _Gathering(exchange, publishing, ask.cors, len(drafts))
    if not drafts:
        gathering.answer()
    name = f"prefix {prefix_of(exchange.peer)}" if grant is gateway.access.anonymous else f"subject {grant.subject}"
    now = gateway.now()
    for index, draft in enumerate(drafts):
        done = partial(gathering.done, index)
        refused = _refusal(grant, draft)
        if refused is None and (after_s := gateway.rates.take(name, now)) > 0.0:
            happened = f"more than {gateway.policy.publishes_per_s:g} messages a second; it was not published"
            refused = Problem(why="rate", happened=happened, after_s=after_s)
        if refused is not None:
            gateway.metrics.count_publish_refusal(refused.why)
        else:
            refused = gateway.publisher.add(draft, done)
        if refused is not None:
            done(refused)


def _refusal(grant: Grant, draft: Draft) -> Problem | None:
    if grant.may_publish(draft.channel):
        return None
    return Problem(why="forbidden", happened=f"this token does not allow to publish to {draft.channel!r}")


def _events(gateway: Gateway, exchange: Exchange, request: http1.Request, _: bytes, ask: Ask) -> None:
    grant = ask.grant
    assert grant is not None, "it was asked for"
    try:
        wish = Wish(ask.query, request.headers, channels_max=gateway.session_policy.subscriptions_max)
    except RemoteWireError as bad:
        refuse(exchange, Problem(why="bad-request", happened=str(bad)), ask.cors)
        return
    for channel in wish.channels:
        if not grant.may_subscribe(channel):
            gateway.metrics.count_error("forbidden")
            happened = f"this token does not allow to read {channel!r}"
            refuse(exchange, Problem(why="forbidden", happened=happened), ask.cors)
            return
    unwelcome = gateway.refusal()
    if unwelcome is not None:
        refuse(exchange, unwelcome, ask.cors)
        return
    exchange.stream(SseConnection(gateway, grant, wish, transport=exchange.transport), {**EVENT_STREAM, **ask.cors})


def _stream(_: Gateway, exchange: Exchange, __: http1.Request, ___: bytes, ask: Ask) -> None:
    problem = Problem(why="bad-request", happened="this is a WebSocket: ask for an upgrade, with GET and HTTP/1.1")
    exchange.answer(
        426,
        {"content-type": JSON_TYPE, "upgrade": "websocket", **ask.cors},
        publish_body.format_error(problem),
    )


def _presence(gateway: Gateway, exchange: Exchange, _: http1.Request, __: bytes, ask: Ask) -> None:
    grant = ask.grant
    assert grant is not None, "it was asked for"
    channel = ask.query.get("channel", [""])[0]
    if not grant.may_see_presence(channel):
        refuse(
            exchange,
            Problem(why="forbidden", happened=f"this token does not allow to see who reads {channel[:200]!r}"),
            ask.cors,
        )
        return

    def done(found: Members | None) -> None:
        if found is None:
            happened = f"the channel {channel[:200]!r} keeps no presence"
            refuse(exchange, Problem(why="not-found", happened=happened), ask.cors)
        else:
            said = {"channel": channel, "count": found.count, "present": list(found.names)}
            _say(exchange, 200, said, ask.cors)

    gateway.presence(channel, done)


def _healthz(gateway: Gateway, exchange: Exchange, _: http1.Request, __: bytes, ___: Ask) -> None:
    _say(exchange, 200, {"gateway": gateway.name, "connections": len(gateway.connections)})


def _readyz(gateway: Gateway, exchange: Exchange, _: http1.Request, __: bytes, ___: Ask) -> None:
    problems = gateway.unready()
    _say(exchange, 503 if problems else 200, {"ready": not problems, "problems": problems})


def _metrics(gateway: Gateway, exchange: Exchange, request: http1.Request, _: bytes, ask: Ask) -> None:
    if not gateway.shows_metrics:
        grant = who(gateway, request.headers, ask.query)
        if isinstance(grant, Problem) or not grant.operate:
            happened = "metrics of a gateway that others can reach need a token that may operate"
            refuse(exchange, Problem(why="forbidden", happened=happened))
            return
    exchange.answer(200, {"content-type": CONTENT_TYPE}, gateway.metrics.text())


def _control(gateway: Gateway, exchange: Exchange, request: http1.Request, body: bytes, ask: Ask) -> None:
    grant = ask.grant
    if grant is None or not grant.operate:
        refuse(exchange, Problem(why="forbidden", happened="this token may not operate the gateway"), ask.cors)
        return
    verb = request.path.removeprefix("/v1/control/")
    control = gateway.controls.get(verb)
    if control is None or not gateway.policy.allows_control:
        refuse(exchange, Problem(why="not-found", happened=f"this gateway has no control {verb[:50]!r}"), ask.cors)
        return
    try:
        said = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        refuse(exchange, Problem(why="bad-request", happened="the body is no JSON object"), ask.cors)
        return
    status, answer = control(said)
    _say(exchange, status, answer, ask.cors)


def _say(exchange: Exchange, status: int, value: object, headers: Mapping[str, str] | None = None) -> None:
    exchange.answer(
        status,
        {"content-type": JSON_TYPE, "cache-control": "no-store", **(headers or {})},
        json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(),
    )


OPEN: Final = frozenset({_healthz, _readyz, _metrics, _stream})
"""They need no grant, or look for one themselves."""
CONTROL: Final[Mapping[str, Handler]] = {"POST": _control}
ROUTES: Final[Mapping[str, Mapping[str, Handler]]] = {
    "/v1/publish": {"POST": _publish},
    "/v1/events": {"GET": _events},
    "/v1/stream": {"GET": _stream},
    "/v1/presence": {"GET": _presence},
    "/healthz": {"GET": _healthz},
    "/readyz": {"GET": _readyz},
    "/metrics": {"GET": _metrics},
}
