"""A unix socket between two processes of one user, over which frames and open descriptors go."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from array import array
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from budao.model import RemoteWireError
from budao.wire import handover as wire

CHUNK_BYTES: Final = 256 * 1024
_CREDENTIALS: Final = struct.Struct("3i")


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end, as the kernel knows it."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])


class FdLink:
    """One end. Owns its socket, and every descriptor that has come and was not handed out."""

    def __init__(self, connection: socket.socket, unread: bytes = b"") -> None:
        connection.setblocking(False)
        self._socket = connection
        self._unread = bytearray(unread)
        self._came: deque[int] = deque()
        self._has_ended = False

    def close(self) -> None:
        self._socket.close()
        while self._came:
            os.close(self._came.popleft())

    async def send(self, said: wire.Said, descriptors: Sequence[int] = ()) -> None:
        """Sends a frame; the descriptors stay open here.

        Raises:  OSError if the other end is gone.
        """
        raw = memoryview(wire.encode(said, len(descriptors)))
        beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        while raw:
            try:
                sent = self._socket.sendmsg([raw], beside)
            except BlockingIOError:
                await self._until(writable=True)
                continue
            raw, beside = raw[sent:], []

    async def receive(self) -> tuple[wire.Said, list[int]] | None:
        """The next frame and its descriptors, which belong to the caller; None once the other end is gone.

        Raises:  RemoteWireError for what is no frame; OSError, also where there is no room for a descriptor.
        """
        if not await self._fill(wire.HEADER.size):
            return None
        length, count = wire.decode_header(bytes(self._unread[: wire.HEADER.size]))
        if not await self._fill(wire.HEADER.size + length):
            return None
        body = bytes(self._unread[wire.HEADER.size : wire.HEADER.size + length])
        del self._unread[: wire.HEADER.size + length]
        if len(self._came) < count:
            raise RemoteWireError(f"a frame promised {count} descriptors, {len(self._came)} came")
        said = wire.decode(body, count)
        return said, [self._came.popleft() for _ in range(count)]

    async def _fill(self, count: int) -> bool:
        while len(self._unread) < count:
            if self._has_ended:
                return False
            room = socket.CMSG_SPACE(wire.DESCRIPTORS_MAX * array("i").itemsize)
            try:
                data, beside, flags, _ = self._socket.recvmsg(CHUNK_BYTES, room, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                await self._until(writable=False)
                continue
            except ConnectionError:
                data, beside, flags = b"", [], 0
            for level, kind, raw in beside:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    came = array("i")
                    came.frombytes(raw[: len(raw) - len(raw) % came.itemsize])
                    self._came.extend(came)
            if flags & socket.MSG_CTRUNC:
                raise OSError("not all descriptors could be received: the limit of open files (ulimit -n) is too low")
            self._has_ended = not data
            self._unread += data
        return True

    async def _until(self, *, writable: bool) -> None:
        loop = asyncio.get_running_loop()
        woken = loop.create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        descriptor = self._socket.fileno()
        (loop.add_writer if writable else loop.add_reader)(descriptor, wake)
        try:
            await woken
        finally:
            with suppress(ValueError, OSError):  # closed meanwhile
                (loop.remove_writer if writable else loop.remove_reader)(descriptor)
