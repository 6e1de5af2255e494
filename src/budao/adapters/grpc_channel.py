"""A channel for `grpc.aio` over all endpoints of a service, with a pick for each call.

    async with Directory(source, "inventory") as directory:
        async with channel("budao:///inventory", directory, guard=guard, safe={"/shop.Inventory/Stock"}) as inventory:
            await InventoryStub(inventory).Stock(request)

It is a `grpc.aio.Channel`, so stubs and interceptors take it as it is. Each endpoint has a channel of its own beneath.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Container, Sequence
from contextvars import ContextVar
from functools import partial
from math import inf
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import grpc
from grpc import ChannelConnectivity, StatusCode, aio
from grpc.aio import AioRpcError, Metadata

from budao.adapters._grpc import FAILURES, as_rpc
from budao.adapters._pool import CONNECT_MAX_S, CONNECTS_MAX, Trip, gives_up, tried_so_far
from budao.adapters.grpc_aio import client_interceptors
from budao.aio import HasRoster, Pool
from budao.model import BadSettings, Endpoint, NobodyThere
from budao.protect import Guard
from budao.wire import LOAD

__all__ = ["CHANNELS_MAX", "SCHEME", "BalancedChannel", "channel"]

SCHEME: Final = "budao:///"
CHANNELS_MAX: Final = 256
"""Endpoints one channel stays connected to; beyond, the one unused for longest is closed if it is idle."""

SWEEP_S: Final = 2.0
"""How often the connections to endpoints that are gone are closed, once their calls have ended."""

_OPTIONS: Final = {
    # The balancer keeps calls away from an endpoint that fails; the channel only has to notice when it is back.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 1000,
    "grpc.max_reconnect_backoff_ms": 5000,
}
_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}")
_POLL_S = 0.02
# What grpc says of a call it found no connection for. It was never sent, which the status alone does not tell.
_NEVER_SENT = "failed to connect to all addresses"


def channel(
    target: str,
    where: Pool | HasRoster,
    *,
    guard: Guard | None = None,
    safe: Container[str] | Callable[[str], bool] = frozenset(),
    credentials: grpc.ChannelCredentials | None = None,
    options: Sequence[tuple[str, Any]] = (),
    interceptors: Sequence[aio.ClientInterceptor] = (),
    connects_max: int = CONNECTS_MAX,
    connect_max_s: float = CONNECT_MAX_S,
) -> BalancedChannel:
    """A channel to a service, such as "budao:///inventory". Made on the event loop it is used on.

    - `where` is a directory, whose addresses for "grpc" are then used, or a pool.
    - `guard` protects the calls outside of the pick: its retries and hedges go to an endpoint that was not tried yet. `safe`
      is as for `budao.adapters.grpc_aio.client_interceptors`.
    - `credentials` makes it TLS; the certificates must be for the name of the service.
    - A call that could not be sent since there was no connection goes to another endpoint at once, `connects_max` in all;
      each gets `connect_max_s`. No other call is repeated without a guard. With `wait_for_ready` the first pick stands.

    Raises:  BadSettings for a target that is not the service of `where`.
    """
    service = target.removeprefix(SCHEME)
    pool = where if isinstance(where, Pool) else Pool(where, protocol="grpc", service=service)
    if not target.startswith(SCHEME) or not service:
        raise BadSettings([("target", f"{target!r} is not {SCHEME}<service>")])
    if pool.service not in {"", service}:
        raise BadSettings([("target", f"{target!r} is not the service of the pool, {pool.service!r}")])
    guarding = [] if guard is None else client_interceptors(guard, safe=safe)
    subs = _Subchannels(pool, service, credentials, options, connects_max, connect_max_s)
    return BalancedChannel(subs, [*interceptors, *guarding])


class _Shape(NamedTuple):
    """How a kind of call is made on a channel."""

    kind: str
    method: str
    serializer: Any
    deserializer: Any


# Interceptors are told neither the kind of a call nor how its messages are written; the task of a call inherits this.
_shape: ContextVar[_Shape] = ContextVar("budao_grpc_shape")


class BalancedChannel(aio.Channel):
    """A channel that picks an endpoint for each call. Made by `channel`."""

    def __init__(self, subs: _Subchannels, interceptors: Sequence[aio.ClientInterceptor]) -> None:
        self._subs = subs
        # Never connects. It runs the interceptors, and the last of them makes the call somewhere else.
        self._shell = aio.insecure_channel(
            "passthrough:///budao",
            interceptors=[
                *interceptors,
                _UnaryUnary(subs),
                _UnaryStream(subs),
                _StreamUnary(subs),
                _StreamStream(subs),
            ],
        )

    @property
    def pool(self) -> Pool:
        """Where it picks."""
        return self._subs.pool

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_more: Any
    ) -> Any:
        return self._multi("unary_unary", method, request_serializer, response_deserializer)

    def unary_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_more: Any
    ) -> Any:
        return self._multi("unary_stream", method, request_serializer, response_deserializer)

    def stream_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_more: Any
    ) -> Any:
        return self._multi("stream_unary", method, request_serializer, response_deserializer)

    def stream_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_more: Any
    ) -> Any:
        return self._multi("stream_stream", method, request_serializer, response_deserializer)

    def _multi(self, kind: str, method: str, serializer: Any, deserializer: Any) -> Any:
        shape = _Shape(kind, method, serializer, deserializer)
        start = getattr(self._shell, kind)(method, serializer, deserializer)

        def call(*args: Any, **kwargs: Any) -> Any:
            token = _shape.set(shape)
            try:
                return start(*args, **kwargs)
            finally:
                _shape.reset(token)

        return call

    async def close(self, grace: float | None = None) -> None:
        """Ends all calls, those under way after `grace` seconds, and lets go of all connections."""
        await self._shell.close(grace)
        await self._subs.close(grace)

    def get_state(self, try_to_connect: bool = False) -> ChannelConnectivity:
        """The state of the best connected endpoint; IDLE if there is none."""
        return self._subs.state(try_to_connect=try_to_connect)

    async def wait_for_state_change(self, last_observed_state: ChannelConnectivity) -> None:
        while self.get_state() is last_observed_state:  # noqa: ASYNC110 - no event tells of many channels
            await asyncio.sleep(_POLL_S)

    async def channel_ready(self) -> None:
        """Waits until one endpoint is connected."""
        while self.get_state(try_to_connect=True) is not ChannelConnectivity.READY:  # noqa: ASYNC110 - see above
            await asyncio.sleep(_POLL_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Sub:
    """The channel of one endpoint."""

    def __init__(self, made: aio.Channel) -> None:
        self.channel = made
        self.calls = 0
        self._multis: dict[_Shape, Any] = {}
        self._connecting: asyncio.Task[bool] | None = None

    def multi(self, shape: _Shape) -> Any:
        found = self._multis.get(shape)
        if found is None:
            make = getattr(self.channel, shape.kind)
            found = self._multis[shape] = make(shape.method, shape.serializer, shape.deserializer)
        return found

    async def connected(self, wait_s: float) -> bool:
        """Whether it is connected, or is so soon. Nothing is sent."""
        state = self.channel.get_state(try_to_connect=True)
        if state is ChannelConnectivity.READY:
            return True
        if state is ChannelConnectivity.TRANSIENT_FAILURE:
            return False
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect(state))
        done, _ = await asyncio.wait({self._connecting}, timeout=wait_s)
        return bool(done) and not self._connecting.cancelled() and self._connecting.result()

    async def _connect(self, state: ChannelConnectivity) -> bool:
        while state in {ChannelConnectivity.IDLE, ChannelConnectivity.CONNECTING}:
            await self.channel.wait_for_state_change(state)
            state = self.channel.get_state(try_to_connect=True)
        return state is ChannelConnectivity.READY

    async def close(self, grace: float | None) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        await self.channel.close(grace)


class _Subchannels:
    """Makes the calls: picks, connects, sends, settles."""

    def __init__(
        self,
        pool: Pool,
        service: str,
        credentials: grpc.ChannelCredentials | None,
        options: Sequence[tuple[str, Any]],
        connects_max: int,
        connect_max_s: float,
    ) -> None:
        self.pool = pool
        self._credentials = credentials
        named: dict[str, Any] = dict(_OPTIONS)
        if _NAME.fullmatch(service):
            named["grpc.default_authority"] = service
            if credentials is not None:
                named["grpc.ssl_target_name_override"] = service
        self._options = [*{**named, **dict(options)}.items()]
        self._connects_max = connects_max
        self._connect_max_s = connect_max_s
        self._subs: dict[tuple[str, str], _Sub] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def start(self, details: Any, request: Any) -> tuple[Any, Trip]:
        """The call, on its way.

        Raises:  an RPC error if there is nobody, or nobody who could be reached; UsageError if the channel is closed.
        """
        if self._is_closed:
            raise aio.UsageError(f"the channel to {self.pool.service} is closed; make another")
        clock, shape = self.pool.clock, _shape.get()
        until = inf if details.timeout is None else clock() + details.timeout
        tried, here = tried_so_far(), set[str]()
        while True:
            try:
                trip = Trip(self.pool, tried)
            except NobodyThere as error:
                raise as_rpc(error) from None
            sub = self._sub(trip.endpoint)
            if not details.wait_for_ready:
                try:
                    is_reached = await sub.connected(min(self._connect_max_s, until - clock()))
                except BaseException:
                    trip.cancelled()
                    raise
                if not is_reached:
                    trip.end(failed=True)
                    if gives_up(self.pool, here, trip.endpoint, self._connects_max):
                        raise _unreached(self.pool.service, trip.endpoint, len(here), is_late=clock() >= until)
                    continue
            try:
                call = sub.multi(shape)(
                    request,
                    timeout=None if until == inf else max(0.0, until - clock()),
                    metadata=details.metadata,
                    credentials=details.credentials,
                    wait_for_ready=details.wait_for_ready,
                )
            except BaseException:
                trip.drop()
                raise
            sub.calls += 1
            call.add_done_callback(partial(_over, sub, trip, shape.kind))
            return call, trip

    def _sub(self, endpoint: Endpoint) -> _Sub:
        assert not self._is_closed, "the channel is closed"
        key = endpoint.id, endpoint.authority
        sub = self._subs.pop(key, None)
        if sub is None:
            self._make_room()
            credentials, target = self._credentials, endpoint.authority
            sub = _Sub(
                aio.insecure_channel(target, options=self._options)
                if credentials is None
                else aio.secure_channel(target, credentials, options=self._options)
            )
            if self._sweeping is None:
                self._sweeping = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        self._subs[key] = sub  # the last one is the one used last
        return sub

    def _make_room(self) -> None:
        if len(self._subs) >= CHANNELS_MAX:
            idle = next((key for key, sub in self._subs.items() if not sub.calls), None)
            if idle is not None:
                self._let_go(self._subs.pop(idle))

    def _sweep(self) -> None:
        self._sweeping = None
        there = {(each.id, each.authority) for each in self.pool.endpoints()}
        for key in [key for key, sub in self._subs.items() if key not in there and not sub.calls]:
            self._let_go(self._subs.pop(key))
        if self._subs:
            self._sweeping = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _let_go(self, sub: _Sub) -> None:
        task = asyncio.get_running_loop().create_task(sub.close(None))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def state(self, *, try_to_connect: bool) -> ChannelConnectivity:
        if try_to_connect and not self._is_closed:
            for endpoint in self.pool.endpoints()[:CHANNELS_MAX]:
                self._sub(endpoint)
        states = {sub.channel.get_state(try_to_connect) for sub in self._subs.values()}
        if self._is_closed:
            return ChannelConnectivity.SHUTDOWN
        ranked = (
            ChannelConnectivity.READY,
            ChannelConnectivity.CONNECTING,
            ChannelConnectivity.IDLE,
            ChannelConnectivity.TRANSIENT_FAILURE,
        )
        return next((state for state in ranked if state in states), ChannelConnectivity.IDLE)

    async def close(self, grace: float | None) -> None:
        self._is_closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        subs, self._subs = list(self._subs.values()), {}
        await asyncio.gather(*(sub.close(grace) for sub in subs), *self._closing)


def _over(sub: _Sub, trip: Trip, kind: str, call: Any) -> None:
    """The end of a call, whoever brought it about."""
    sub.calls -= 1
    code = _stepped(call.code())
    if code is None or code is StatusCode.CANCELLED:
        if kind == "unary_unary":
            trip.cancelled()
        else:
            trip.drop()  # a stream is left when its reader has enough
    elif code in FAILURES:
        trip.end(failed=True)
    elif kind in {"unary_unary", "unary_stream"}:
        load = _load_in(_stepped(call.trailing_metadata()))
        if kind == "unary_unary":
            trip.answered(load, failed=False)
        else:
            trip.told(load)
        trip.end()
    else:
        trip.drop()  # it took as long as its caller had something to say


def _stepped(asked: Any) -> Any:
    """What a coroutine of a call that is over answers; it does so in one step."""
    try:
        asked.send(None)
    except StopIteration as stop:
        return stop.value
    except Exception:  # noqa: BLE001 - a callback of grpc must not raise; what nobody can tell teaches nothing
        return None
    asked.close()
    return None


def _load_in(metadata: Any) -> str | None:
    for name, value in metadata or ():
        if name == LOAD:
            return value if isinstance(value, str) else bytes(value).decode("ascii", "replace")
    return None


def _unreached(service: str, last: Endpoint, count: int, *, is_late: bool) -> AioRpcError:
    said = f"service {service}: not sent, no connection to {count} endpoints, the last one {last.authority}"
    code = StatusCode.DEADLINE_EXCEEDED if is_late else StatusCode.UNAVAILABLE
    return AioRpcError(code, Metadata(), Metadata(), f"{said}; it is safe to try again")


class _UnaryUnary(aio.UnaryUnaryClientInterceptor):
    def __init__(self, subs: _Subchannels) -> None:
        self._subs = subs

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:  # noqa: ARG002
        call, _ = await self._subs.start(client_call_details, request)
        for _ in range(CONNECTS_MAX - 1):
            try:
                await call
            except AioRpcError as error:
                # The connection was there a moment ago. Nothing went out, so another endpoint may have the call.
                if error.code() is StatusCode.UNAVAILABLE and (error.details() or "").startswith(_NEVER_SENT):
                    call, _ = await self._subs.start(client_call_details, request)
                    continue
            break
        return call


class _UnaryStream(aio.UnaryStreamClientInterceptor):
    def __init__(self, subs: _Subchannels) -> None:
        self._subs = subs

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:  # noqa: ARG002
        call, trip = await self._subs.start(client_call_details, request)
        asyncio.ensure_future(call.initial_metadata()).add_done_callback(partial(_began, trip))
        return call


def _began(trip: Trip, asked: asyncio.Future[Any]) -> None:
    """The first message of an answer is here; its latency is what counts, since a stream may last for days."""
    if not asked.cancelled() and asked.exception() is None:
        trip.answered(None, failed=False)


class _StreamUnary(aio.StreamUnaryClientInterceptor):
    def __init__(self, subs: _Subchannels) -> None:
        self._subs = subs

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:  # noqa: ARG002
        return (await self._subs.start(client_call_details, request_iterator))[0]


class _StreamStream(aio.StreamStreamClientInterceptor):
    def __init__(self, subs: _Subchannels) -> None:
        self._subs = subs

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:  # noqa: ARG002
        return (await self._subs.start(client_call_details, request_iterator))[0]
