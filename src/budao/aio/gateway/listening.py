"""Sockets that listen, and how to go on when the system has no more descriptors."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections.abc import Callable, Mapping
from typing import Final

from budao.aio.gateway.certificates import HasContext
from budao.aio.gateway.movable import Listening
from budao.aio.gateway.sockets import SocketPolicy, apply_socket_policy
from budao.aio.gateway.tls import TlsListener

log = logging.getLogger("budao.gateway")

ACCEPTS_MAX: Final = 16
"""Newcomers that asyncio lets in at a time. It takes the backlog for that number, and logs so many failures at once."""
SPARE: Final = 64
"""Descriptors that are not for connections: the log, files, listeners."""
SPARE_OF_HANDSHAKES: Final = 48
"""Of those, what is left also by handshakes that nobody ends: a gateway that lost its log needs one to come back."""


def connections_possible() -> int:
    """How many connections the limit of open files allows."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 if soft == resource.RLIM_INFINITY else max(16, soft - SPARE)


def _descriptors_max() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 if soft == resource.RLIM_INFINITY else max(16, soft - SPARE_OF_HANDSHAKES)


def bind(kind: str, host: str, port: int, backlog: int, *, is_tls: bool) -> Listening:
    """A socket that listens.

    Raises:  OSError, which says where.
    """
    try:
        return _bind(kind, host, port, backlog, is_tls=is_tls)
    except OSError as problem:
        said = problem.strerror or str(problem)
        raise OSError(problem.errno, f"cannot listen on {host} port {port}: {said}") from problem


def _bind(kind: str, host: str, port: int, backlog: int, *, is_tls: bool) -> Listening:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, protocol, _, address = found[0]
    listener = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        apply_socket_policy(listener, SocketPolicy())
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return Listening(kind, listener, is_tls)


class Listener:
    """One listening socket with a server on it, the loop's or that of `tls.py`, which can be paused: newcomers then wait in the kernel.

    Shapes:  `factories` by the name of ALPN; "" is for the others, and all there is without TLS.
    """

    def __init__(
        self,
        name: str,
        listening: Listening,
        factories: Mapping[str, Callable[[], asyncio.Protocol]],
        backlog: int,
        tls: HasContext | None,
        *,
        handshake_s: float,
        failed: Callable[[str, str], None],
    ) -> None:
        self.name = name
        self.listening = listening
        self._factory = factories[""]
        self._backlog = backlog
        self._secure: TlsListener | None = None
        if listening.is_tls and tls is not None:
            self._secure = TlsListener(
                listening.socket,
                tls,
                factories,
                handshake_s=handshake_s,
                descriptors_max=_descriptors_max(),
                failed=failed,
            )
        self._server: asyncio.Server | None = None
        self._opening: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        found: int = self.listening.socket.getsockname()[1]
        return found

    async def open(self) -> None:
        """Lets newcomers in. The loop closes what it listens on, so it gets a duplicate."""
        if self._secure is not None:
            self._secure.open()
        elif self._server is None:
            duplicate = self.listening.socket.dup()
            try:
                self._server = await asyncio.get_running_loop().create_server(
                    self._factory, sock=duplicate, backlog=ACCEPTS_MAX
                )
                self.listening.socket.listen(self._backlog)
            except BaseException:
                duplicate.close()
                raise

    def pause(self) -> None:
        """Newcomers wait in the kernel."""
        if self._secure is not None:
            self._secure.pause()
        if self._server is not None:
            server, self._server = self._server, None
            server.close()

    def look(self) -> None:
        """Some loops give up a listener when there are no descriptors left: it is opened again, once there are some."""
        server = self._server
        if server is None or (server.is_serving() and server.sockets):
            return
        log.warning(
            "%s: the listener gave up, most likely for want of descriptors (`ulimit -n`); it is opened again", self.name
        )
        self.pause()
        self._opening = asyncio.get_running_loop().create_task(self.open())

    def close(self) -> None:
        """Listens no more."""
        self.pause()
        if self._opening is not None:
            self._opening.cancel()
        self.listening.socket.close()

    def abort(self) -> None:
        """Nobody is left to shake hands with."""
        if self._secure is not None:
            self._secure.abort()
