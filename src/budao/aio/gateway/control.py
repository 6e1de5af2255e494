"""The control socket of a gateway: a unix socket for its own user, over which it is asked how it is, told to leave, and taken over.

One line of JSON each way: `{"do": "status"}` is answered with `{"ok": true, …}`, or `{"ok": false, "error": {"why", "happened"}}`.
`{"do": "drain", "wait": true}` is answered twice: at once, and with the proof when the leave is over.
After `{"do": "take-over"}` and its answer, the connection is the link of `handover`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from budao.aio.gateway.fd_link import FdLink, peer_uid
from budao.aio.gateway.mover import Mover
from budao.model import BadSettings

log = logging.getLogger("budao.gateway")

LINE_BYTES_MAX: Final = 64 * 1024
LINE_S: Final = 5.0
"""How long a question may take to come, and its answer to be read."""
CLIENTS_MAX: Final = 32
PATH_BYTES_MAX: Final = 107
"""What the address of a unix socket may hold."""
_GIVES: Final[Mapping[str, Any]] = {"ok": True, "take_over": True}
"""The answer after which the connection is a link. It is known by itself: other answers have a "take_over" of their own."""


class ControlSocket:
    """Listens on a path that only its own user can open, as an async context manager.

    Raises:  BadSettings on entering, if it cannot listen there; a path that another gateway listens on is taken over only by the
             process that takes over that gateway (`replaces`), and only from `appear` on.
    """

    def __init__(self, path: Path, mover: Mover, *, replaces: bool = False) -> None:
        self.path = path
        self.mover = mover
        self._replaces = replaces
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Task[None]] = set()
        """Those of the tasks that wait for the end of a leave, to tell it."""
        self._inode = 0
        self._made = path
        self._uid = os.getuid()

    async def __aenter__(self) -> Self:
        self._listener = self._bind()
        self._own(self._accept(self._listener))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Listens no more. Who waits for the end of a leave is told it first; a take-over that is under way is given up."""
        if self._waiting and self.mover.over.is_set():
            await asyncio.wait(tuple(self._waiting), timeout=LINE_S)
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            with suppress(OSError):
                if self._made.stat().st_ino == self._inode:  # else it is the successor's by now
                    self._made.unlink()

    def appear(self) -> None:
        """Stands at its path from now on, in place of whoever did: nobody ever finds the path without one who answers."""
        self._made.rename(self.path)
        self._made = self.path

    def _bind(self) -> socket.socket:
        path = self.path
        made = path.with_name(f"{path.name}.{os.getpid()}")
        if len(os.fsencode(made)) > PATH_BYTES_MAX:
            raise BadSettings(
                [("control", f"{path} is too long for a unix socket; at most some 95 bytes are possible")]
            )
        if not self._replaces and self._is_alive():
            raise BadSettings(
                [("control", f"another gateway listens on {path}; choose another path, or take over with --take-over")]
            )
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            listener.setblocking(False)
            made.unlink(missing_ok=True)
            listener.bind(str(made))
            made.chmod(0o600)
            listener.listen(CLIENTS_MAX)
            self._inode = made.stat().st_ino
            self._made = made
            if not self._replaces:
                self.appear()
        except OSError as problem:
            listener.close()
            with suppress(OSError):
                made.unlink()
            raise BadSettings([("control", f"cannot listen on {path}: {problem.strerror or problem}")]) from problem
        finally:
            os.umask(mask)
        return listener

    def _is_alive(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(self.path))
            except (ConnectionRefusedError, FileNotFoundError):
                return False
            except OSError as problem:
                raise BadSettings(
                    [("control", f"{self.path} cannot be used: {problem.strerror or problem}")]
                ) from problem
        return True

    def _own(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as problem:
                log.warning("the control socket cannot take anybody: %s", problem)
                await asyncio.sleep(0.5)
                continue
            if len(self._tasks) > CLIENTS_MAX or peer_uid(connection) != self._uid:
                connection.close()  # the mode of the path keeps others out already; this is the kernel's word for it
                continue
            connection.setblocking(False)
            self._own(self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            try:
                async with asyncio.timeout(LINE_S):
                    line = b""
                    while not line.endswith(b"\n") and len(line) <= LINE_BYTES_MAX:
                        more = await loop.sock_recv(connection, 4_096)
                        if not more:
                            return
                        line += more
                said = _read(line)
                answer = self._answer(said)
                async with asyncio.timeout(LINE_S):
                    await loop.sock_sendall(connection, json.dumps(answer).encode() + b"\n")
                if said is not None and answer["ok"] and said.get("do") == "drain" and said.get("wait") is True:
                    await self._tell_the_end(connection)
            except (OSError, TimeoutError):
                return
            if answer is _GIVES:
                await self.mover.give(FdLink(connection))
        finally:
            connection.close()

    async def _tell_the_end(self, connection: socket.socket) -> None:
        """The process ends right after the leave, so nobody could ask for the proof then: it is sent to who waits."""
        task = asyncio.current_task()
        assert task is not None, "each connection has a task"
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        await self.mover.over.wait()
        proof = {"ok": True, **self.mover.status()["leaving"]}
        async with asyncio.timeout(LINE_S):
            await asyncio.get_running_loop().sock_sendall(connection, json.dumps(proof).encode() + b"\n")

    def _answer(self, said: Mapping[str, Any] | None) -> Mapping[str, Any]:
        if said is None:
            return _no("bad-request", 'one line of JSON is wanted, such as {"do": "status"}')
        verb = said.get("do")
        if verb == "take-over":
            problem = self.mover.take_over_problem()
            return _no("refused", problem) if problem else _GIVES
        control = self.mover.gateway.controls.get(verb) if isinstance(verb, str) else None
        if control is None:
            known = ", ".join(sorted((*self.mover.gateway.controls, "take-over")))
            return _no("not-found", f"there is no {str(verb)[:50]!r}; there are {known}")
        status, answer = control(said)
        return {"ok": status < 400, **answer}


def _read(line: bytes) -> Mapping[str, Any] | None:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _no(why: str, happened: str) -> Mapping[str, Any]:
    return {"ok": False, "error": {"why": why, "happened": happened}}
