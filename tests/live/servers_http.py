"""A real HTTP server on a raw socket that misbehaves on request: the path says how."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BufferedReader

PATIENCE_S = 20.0
"""How long to wait for something that must happen."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class MisbehavingServer:
    """Threads on loopback, one for each connection.

    /ok                answers 200 "ok" and keeps the connection
    /status/N          answers N with a short body; /status/N/S adds `Retry-After: S`
    /mend/N/K          answers 503 K times, then 200; N tells tests apart
    /hang              reads the request and says nothing
    /hang-once/N       the same the first time for each N, then 200
    /late-once/N       answers 200 two seconds late the first time for each N, then at once
    /reset             reads the request and resets the connection
    /reset-body        promises 100 bytes, sends 10, and resets
    /half              promises 100 bytes, sends 10, and says it will send no more (half-close)
    /half-head         closes in the middle of the headers
    /trickle           a body without an end, a byte at a time
    /trickle-head      headers without an end, a byte at a time
    /stall             sends 10 of 100 bytes and then nothing
    /large             a megabyte
    """

    listener: socket.socket
    seen: list[Seen] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    _open: dict[int, socket.socket] = field(default_factory=dict)
    _asked: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: set[threading.Thread] = field(default_factory=set)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections the server still holds."""
        with self._lock:
            return len(self._open)

    def paths(self) -> list[str]:
        return [each.path for each in self.seen]

    def accept(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:
                self._open[id(connection)] = connection
                self._threads.add(thread)
            thread.start()

    def close(self) -> None:
        self.stopping.set()
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self._lock:
            threads = list(self._threads)
            for connection in self._open.values():
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(PATIENCE_S)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, suppress(OSError):
                reader = connection.makefile("rb")
                with reader:
                    while (request := _read(reader)) is not None:
                        self.seen.append(request)
                        if not self._answer(connection, request):
                            return
        finally:
            with self._lock:
                self._open.pop(id(connection), None)
                self._threads.discard(threading.current_thread())

    def _answer(self, connection: socket.socket, request: Seen) -> bool:  # noqa: C901, PLR0912 - one case for each way
        """Misbehaves as asked. True if the connection may be used again."""
        what, *details = request.path.strip("/").split("/")
        match what:
            case "ok":
                connection.sendall(_reply(200, b"ok"))
                return True
            case "echo":
                told = {"method": request.method, "headers": request.headers, "body": request.body.decode()}
                connection.sendall(_reply(200, json.dumps(told).encode()))
                return True
            case "status":
                more = f"Retry-After: {details[1]}\r\n" if len(details) > 1 else ""
                body = b"" if details[0] == "304" else b"so it is"
                connection.sendall(_reply(int(details[0]), body, more))
                return True
            case "mend":
                good = self._times_before(request.path) >= int(details[1])
                connection.sendall(_reply(200, b"mended") if good else _reply(503, b"ill", "Retry-After: 0\r\n"))
                return True
            case "large":
                connection.sendall(_reply(200, b"x" * 1_000_000))
                return True
            case "hang-once" | "late-once":
                if self._times_before(request.path) == 0:
                    if what == "hang-once":
                        self._until_left(connection)
                        return False
                    self.stopping.wait(2.0)
                connection.sendall(_reply(200, b"ok"))
                return True
            case "hang":
                self._until_left(connection)
            case "reset":
                _reset(connection)
            case "reset-body":
                connection.sendall(_promise(100) + b"x" * 10)
                self.stopping.wait(0.05)  # a reset overtakes what is still in the buffers
                _reset(connection)
            case "half":
                connection.sendall(_promise(100) + b"x" * 10)
                connection.shutdown(socket.SHUT_WR)
                self._until_left(connection)
            case "half-head":
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-")
            case "trickle":
                connection.sendall(_promise(1_000_000))
                self._trickle(connection)
            case "trickle-head":
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                self._trickle(connection)
            case "stall":
                connection.sendall(_promise(100) + b"x" * 10)
                self._until_left(connection)
        return False

    def _times_before(self, path: str) -> int:
        """How often a path has been asked for before."""
        with self._lock:
            before = self._asked.get(path, 0)
            self._asked[path] = before + 1
            return before

    def _trickle(self, connection: socket.socket) -> None:
        while not self.stopping.wait(0.02):
            connection.sendall(b"x")

    def _until_left(self, connection: socket.socket) -> None:
        """Says nothing until the client is gone."""
        while connection.recv(4096):
            pass


@contextmanager
def misbehaving_server() -> Iterator[MisbehavingServer]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    server = MisbehavingServer(listener)
    acceptor = threading.Thread(target=server.accept, daemon=True)
    acceptor.start()
    try:
        yield server
    finally:
        server.close()
        acceptor.join(PATIENCE_S)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _read(reader: BufferedReader) -> Seen | None:
    """The next request, or None at the end of the connection."""
    line = reader.readline()
    if not line:
        return None
    method, path, _ = line.decode("latin-1").split()
    headers: dict[str, str] = {}
    while (line := reader.readline()) not in {b"\r\n", b""}:
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(reader.readline(), 16):
            body += reader.read(size)
            reader.readline()
        reader.readline()
    else:
        body = reader.read(int(headers.get("content-length", "0")))
    return Seen(method, path, headers, body)


def _reply(status: int, body: bytes, more: str = "") -> bytes:
    return f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


def _promise(size: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()


def _reset(connection: socket.socket) -> None:
    """Closes with a reset instead of an orderly end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
