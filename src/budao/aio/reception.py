"""Who comes to a server of ours: a listener, clients that say who they are in time, beats, and a goodbye that arrives."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from errno import EADDRINUSE
from typing import Any, Final, Generic, Protocol, TypeVar

from budao.aio.link import BEAT_S, Link
from budao.push import LogRefused
from budao.store import StoreRefused

FULL_PAUSE_S: Final = 0.2
WARN_EVERY_S: Final = 60.0


class Client(Protocol):
    """One client of a server."""

    link: Link[Any]
    known: asyncio.Event
    """Set once it has said who it is, or has gone."""
    gone: asyncio.Event
    is_known: bool
    is_stopping: bool
    waiting: set[asyncio.Future[Any]]
    """What it is still to be answered."""

    def deny(self, problem: str, *, is_for_good: bool = True) -> None: ...

    def lost(self, why: str) -> None: ...

    def beat(self) -> bytes: ...

    def say_goodbye(self) -> None: ...


C = TypeVar("C", bound=Client)


class Reception(Generic[C]):
    """Takes clients in. Made by `listen`; `open` begins to accept.

    Units:   `hello_s` is how long a newcomer may take to say who it is, TLS included; `stop_s` how long stopping waits.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        connect: Callable[[], C],
        tls: ssl.SSLContext | None,
        connections_max: int,
        hello_s: float,
        stop_s: float,
        log: logging.Logger,
    ) -> None:
        self.clients: set[C] = set()
        self.port: int = listener.getsockname()[1]
        self.name = ""
        """What to call the server in a message."""
        self._listener = listener
        self._connect = connect
        self._tls = tls
        self._connections_max = connections_max
        self._hello_s = hello_s
        self._stop_s = stop_s
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, name: str) -> None:
        """Accepts from here on."""
        self.name = name
        self._accepting = asyncio.create_task(self._accept())
        self._own(self._accepting)
        self._own(asyncio.create_task(self._beat()))

    async def close(self) -> None:
        """Takes nobody new, waits for the answers in flight, and says goodbye."""
        self._accepting.cancel()
        await asyncio.sleep(0)  # a task that never began could not send away who was accepted a moment ago
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listener.close()
        for client in self.clients:
            client.is_stopping = True
        waiting = [answer for client in self.clients for answer in client.waiting]
        if waiting:
            await asyncio.wait(waiting, timeout=self._stop_s)
        await asyncio.sleep(0)  # their answers are sent
        clients = tuple(self.clients)
        for client in clients:
            if client.is_known and not client.waiting:
                # The client hangs up: if we did, with a request of its own still unread, TCP would drop the goodbye.
                client.say_goodbye()
            else:  # whoever was not answered must not be told that nothing was done
                client.link.close("the server stops")
        with suppress(TimeoutError):
            async with asyncio.timeout(self._stop_s):
                for client in clients:
                    await client.gone.wait()
        for client in clients:
            client.link.cut("the server stops")

    def _own(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        warn_at = loop.time()
        while True:
            try:
                accepted, _ = await loop.sock_accept(self._listener)
            except OSError as problem:  # most often there are no more descriptors
                if loop.time() >= warn_at:  # it is tried five times a second, and can last
                    warn_at = loop.time() + WARN_EVERY_S
                    advice = "raise its limit of open files (`ulimit -n`), or connect fewer"
                    said, count = problem.strerror, len(self.clients)
                    self._log.warning("%s: cannot accept: %s; %d are connected; %s", self.name, said, count, advice)
                await asyncio.sleep(FULL_PAUSE_S)
                continue
            with suppress(OSError):  # it may have left already
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = self._connect()
            self.clients.add(client)
            self._own(asyncio.create_task(self._welcome(accepted, client)))

    async def _welcome(self, accepted: socket.socket, client: C) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._hello_s):
                await loop.connect_accepted_socket(lambda: client.link, accepted, ssl=self._tls)
                if len(self.clients) > self._connections_max:
                    client.deny(f"{self._connections_max} clients are connected", is_for_good=False)
                await client.known.wait()
        except TimeoutError:
            client.link.cut(f"it did not say who it is within {self._hello_s:g} s")
            client.lost("")
        except OSError:  # the handshake failed, or it has left already
            client.lost("")
        except BaseException:
            client.link.cut("the server stops")
            client.lost("")
            raise

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            for client in tuple(self.clients):
                if client.is_known:
                    client.link.beat(client.beat)


def listen(host: str, port: int, refused: type[StoreRefused | LogRefused]) -> socket.socket:
    """A socket that listens. With port 0 the system chooses.

    Raises:  what `refused` makes.
    """
    tried = f"listen on {host}:{port}"
    try:
        return _listening(host, port)
    except UnicodeError as problem:
        raise refused(tried, "that is no name of a host; give an address of this machine") from problem
    except OSError as problem:
        happened = problem.strerror or str(problem)
        if problem.errno == EADDRINUSE:
            happened = "another process listens there already; stop it, or choose another port"
        raise refused(tried, happened) from problem


def _listening(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
