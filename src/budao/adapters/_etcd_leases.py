"""Renewals of any number of leases on one long-lived stream."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Final

from grpc import aio
from grpc.aio import AioRpcError

from budao.adapters._etcd_links import Link, Metadata
from budao.adapters._etcd_said import Lost
from budao.model import RemoteWireError
from budao.wire import etcd, protobuf

KEEP_ALIVE: Final = "/etcdserverpb.Lease/LeaseKeepAlive"


class Outbox:
    """What a stream still has to send, in order. As long as the parts that use it have requests open."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()

    def send(self, request: object) -> None:
        self._queue.put_nowait(protobuf.encode(request))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield await self._queue.get()


class _Stream:
    """One life of the stream. Ends with its link, or with the first error."""

    def __init__(self, link: Link, metadata: Metadata) -> None:
        self.link = link
        self.ended: Exception | None = None
        self._outbox = Outbox()
        self._waiting: defaultdict[int, deque[asyncio.Future[int]]] = defaultdict(deque)
        self._call = link.stream(KEEP_ALIVE, self._outbox.__aiter__(), metadata)
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def renew(self, lease: int) -> int:
        """The time to live that etcd grants, in seconds; 0 if the lease is gone."""
        if self.ended is not None:
            raise self.ended
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting = self._waiting[lease]
        waiting.append(answer)
        self.link.begin()
        try:
            self._outbox.send(etcd.LeaseKeepAliveRequest(lease))
            return await answer
        finally:
            # What gave up waiting keeps its place, or the answer to it would be taken for the answer to the next.
            self.link.end()

    async def _read(self) -> None:
        ended: Exception = Lost(f"{self.link.address}: it ended the stream of renewals")
        try:
            while (message := await self._call.read()) is not aio.EOF:
                self.link.heard()
                reply = protobuf.decode(etcd.LeaseKeepAliveResponse, message)
                waiting = self._waiting.get(reply.id)
                if not waiting:
                    continue
                answer = waiting.popleft()
                if not waiting:
                    del self._waiting[reply.id]
                if not answer.done():
                    answer.set_result(reply.ttl)
        except asyncio.CancelledError:
            ended = Lost(self.link.why or "it is closed")
            with suppress(Lost):
                self.link.lost()
                raise
        except (AioRpcError, RemoteWireError) as error:
            ended = error
        finally:
            self.ended = ended
            self.link.shut(self._call)
            for waiting in self._waiting.values():
                for answer in waiting:
                    if not answer.done():
                        answer.set_exception(ended)
                        answer.exception()  # who waited for it may have gone away
            self._waiting.clear()

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.wait([self._reading])


class Renewals:
    """Keeps the stream, and opens it anew where it ended."""

    def __init__(self, open_on: Callable[[], Awaitable[tuple[Link, Metadata]]]) -> None:
        self._open_on = open_on
        self._stream: _Stream | None = None
        self._opening = asyncio.Lock()

    async def renew(self, lease: int) -> tuple[Link, int]:
        """The link that was asked and the time to live; 0 if the lease is gone.

        Raises:  Lost, AioRpcError, RemoteWireError: nobody knows whether it was renewed.
        """
        stream = self._stream
        if stream is None or stream.ended is not None or stream.link.is_over:
            async with self._opening:
                stream = self._stream
                if stream is None or stream.ended is not None or stream.link.is_over:
                    link, metadata = await self._open_on()
                    stream = self._stream = _Stream(link, metadata)
        return stream.link, await stream.renew(lease)

    async def drop(self) -> None:
        """Lets go of a stream that does not answer; the next renewal opens another."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()
