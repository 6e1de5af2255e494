"""Connections to the endpoints of an etcd cluster: one is in use, and is left for the next when it does not answer.

HTTP/2 pings are a slow second line here: etcd tells a client to go that pings more often than every 5 s, so a peer that
is frozen is noticed by asking it something.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any, Final

import grpc
from grpc import ChannelConnectivity, StatusCode, aio
from grpc.aio import AioRpcError

from budao.adapters._etcd_said import Lost, happened
from budao.wire import etcd, protobuf

Metadata = tuple[tuple[str, str], ...]

CONNECT_S: Final = 1.0
"""How long an endpoint has to connect, TLS and the first HTTP/2 frame included."""
PULSE_S: Final = 1.0
"""An endpoint that has been silent for so long while something is under way is asked whether it lives."""
TICK_S: Final = 0.25
SETTLE_S: Final = 0.02
PAUSE_MIN_S: Final = 0.02
PAUSE_MAX_S: Final = 0.5

STATUS: Final = "/etcdserverpb.Maintenance/Status"


def options(reply_bytes_max: int, server_name: str | None) -> list[tuple[str, Any]]:
    """What a channel is told."""
    found: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", reply_bytes_max),
        ("grpc.max_send_message_length", -1),  # etcd has a bound of its own, and says so
        # More often than every 5 s, and etcd (--grpc-keepalive-min-time) ends the connection: "too many pings".
        ("grpc.keepalive_time_ms", 6_000),
        ("grpc.keepalive_timeout_ms", 1_500),
        # Without this the timeout above is not what counts: a ping is then waited for a minute.
        ("grpc.http2.ping_timeout_ms", 1_500),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", int(CONNECT_S * 1000)),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # A connection that was given up must not come back out of a pool.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),  # what may be repeated is decided here
        ("grpc.enable_http_proxy", 0),
    ]
    if server_name is not None:
        found.append(("grpc.ssl_target_name_override", server_name))
    return found


class Link:
    """One connection, until it is given up."""

    def __init__(self, links: Links, address: str) -> None:
        self.address = address
        self.is_over = False
        self.why = ""
        self.calls: set[Any] = set()
        """What is under way, so that it can be ended."""
        self._links = links
        self._busy = 0
        self._heard_at = 0.0
        self._tick: asyncio.TimerHandle | None = None
        self._probe: asyncio.Task[None] | None = None
        self._connecting: asyncio.Task[bool] | None = None
        self._loop = asyncio.get_running_loop()
        self._channel = (
            aio.insecure_channel(address, options=links.options)
            if links.credentials is None
            else aio.secure_channel(address, links.credentials, options=links.options)
        )
        self._unary: dict[str, Any] = {}

    async def is_connected(self) -> bool:
        """Whether it can be used; connects first if it must."""
        if self.is_over:
            return False
        if self._channel.get_state() is ChannelConnectivity.READY:
            return True
        if self._connecting is None or self._connecting.done():
            self._connecting = self._loop.create_task(self._connect())
        try:
            return await asyncio.shield(self._connecting)
        except asyncio.CancelledError:
            if self._ended_by_itself():
                return False
            raise

    async def ask(self, method: str, request: bytes, metadata: Metadata, timeout_s: float) -> bytes:
        """One request and its answer.

        Raises:  Lost if the connection was given up meanwhile; AioRpcError.
        """
        send = self._unary.get(method)
        if send is None:
            send = self._unary[method] = self._channel.unary_unary(method)
        call = send(request, timeout=timeout_s, metadata=metadata)
        self.calls.add(call)
        self.begin()
        try:
            reply: bytes = await call
        except asyncio.CancelledError:
            self.lost()
            raise
        finally:
            self.end()
            self.calls.discard(call)
        self.heard()
        return reply

    def stream(self, method: str, requests: Any, metadata: Metadata) -> Any:
        """A stream both ways. Whoever opens it closes it, with `shut`."""
        opened: Any = self._channel.stream_stream(method)
        call = opened(requests, metadata=metadata)
        self.calls.add(call)
        return call

    def shut(self, call: Any) -> None:
        """Ends a stream."""
        self.calls.discard(call)
        call.cancel()

    def lost(self) -> None:
        """Tells an end that this link made from one that the task itself was asked for.

        Raises:  Lost in the first case.
        """
        if self._ended_by_itself():
            raise Lost(self.why) from None

    def _ended_by_itself(self) -> bool:
        task = asyncio.current_task()
        return self.is_over and (task is None or not task.cancelling())

    # -- is it alive?

    def begin(self) -> None:
        """An answer is due from now on."""
        if not self._busy:
            self.heard()
        self._busy += 1
        if self._tick is None:
            self._tick = self._loop.call_later(TICK_S, self._look)

    def end(self) -> None:
        """It is no longer due."""
        self._busy -= 1

    def heard(self) -> None:
        """Something came."""
        self._heard_at = self._loop.time()

    def _look(self) -> None:
        self._tick = None
        if self.is_over or not self._busy:
            return
        if self._loop.time() - self._heard_at >= PULSE_S and (self._probe is None or self._probe.done()):
            self._probe = self._loop.create_task(self._ask_whether_it_lives())
        self._tick = self._loop.call_later(TICK_S, self._look)

    async def _ask_whether_it_lives(self) -> None:
        """A member answers this by itself, also while the cluster has no leader."""
        wait_s = max(0.1, self._links.silence_max_s - PULSE_S)
        send: Any = self._channel.unary_unary(STATUS)
        try:
            await send(protobuf.encode(etcd.StatusRequest()), timeout=wait_s)
        except AioRpcError as error:
            if error.code() in {StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED}:
                self._links.leave(self, f"it has not answered for {self._links.silence_max_s:g} s")
                return
        self.heard()

    async def _connect(self) -> bool:
        try:
            async with asyncio.timeout(CONNECT_S):
                state = self._channel.get_state(try_to_connect=True)
                while state not in {
                    ChannelConnectivity.READY,
                    ChannelConnectivity.TRANSIENT_FAILURE,
                    ChannelConnectivity.SHUTDOWN,
                }:
                    await self._channel.wait_for_state_change(state)
                    state = self._channel.get_state(try_to_connect=True)
        except TimeoutError:
            return False
        return state is ChannelConnectivity.READY

    async def close(self) -> None:
        """Ends everything that is under way."""
        if self._tick is not None:
            self._tick.cancel()
        for call in list(self.calls):
            call.cancel()
        for task in (self._probe, self._connecting):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        with suppress(Exception):
            await self._channel.close()
        # What was cancelled is handed in by a thread of gRPC a moment later, and a loop that is closed by then logs it.
        await asyncio.sleep(SETTLE_S)


class Links:
    """The endpoints, and which of them is in use. Every part of a store uses the same one."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        credentials: grpc.ChannelCredentials | None,
        reply_bytes_max: int,
        server_name: str | None,
        silence_max_s: float,
        rng: Random,
    ) -> None:
        self.addresses = list(addresses)
        rng.shuffle(self.addresses)  # or all clients meet at the first
        self.credentials = credentials
        self.options = options(reply_bytes_max, server_name)
        self.silence_max_s = silence_max_s
        self.rng = rng
        self.is_closed = False
        self.troubles: dict[str, str] = defaultdict(lambda: "it does not connect")
        """What was wrong with each endpoint last."""
        self._at = 0
        self._links: dict[str, Link] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def reach(self, until: float) -> Link:
        """A link that is connected; every endpoint is tried in turn, until the loop's time says `until`.

        Raises:  Lost, and then nothing was sent.
        """
        loop = asyncio.get_running_loop()
        tries = 0
        while not self.is_closed:
            link = self._current()
            if await link.is_connected():
                return link
            self.leave(link, "it does not connect")
            tries += 1
            if loop.time() >= until:
                raise Lost(self.said())
            if tries % len(self.addresses) == 0:
                await self.pause(tries // len(self.addresses))
        raise Lost("it is closed")

    def leave(self, link: Link, why: str) -> None:
        """Gives a link up for good, with all that is under way on it."""
        self.skip(link, why)
        if not link.is_over:
            link.is_over, link.why = True, f"{link.address}: {why}"
            if self._links.get(link.address) is link:
                del self._links[link.address]
            closing = asyncio.get_running_loop().create_task(link.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def skip(self, link: Link, why: str) -> None:
        """Goes on with the next endpoint; what is under way on this one may end by itself."""
        self.troubles[link.address] = why
        if link.address == self.addresses[self._at]:
            self._at = (self._at + 1) % len(self.addresses)

    def said(self) -> str:
        """What every endpoint said last, for a message."""
        return ", ".join(f"{address}: {self.troubles[address]}" for address in self.addresses)

    async def pause(self, tries: int) -> None:
        """Lets some time pass before another round."""
        ceiling_s = min(PAUSE_MAX_S, PAUSE_MIN_S * 2 ** min(tries, 10))
        await asyncio.sleep(self.rng.uniform(ceiling_s / 2, ceiling_s))

    async def aclose(self) -> None:
        self.is_closed = True
        for link in list(self._links.values()):
            self.leave(link, "it is closed")
        while self._closing:
            await asyncio.wait(self._closing)

    def _current(self) -> Link:
        address = self.addresses[self._at]
        link = self._links.get(address)
        if link is None:
            link = self._links[address] = Link(self, address)
        return link


__all__ = ["Link", "Links", "Metadata", "happened"]
