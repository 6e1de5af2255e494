"""One connection to a NATS server, or to one of a cluster's, made again whenever it breaks.

Why not nats-py: a publish has to say truthfully whether it may have been taken, so nothing may be kept and sent later by somebody
else; a frozen server has to be noticed in 2.5 s; and a gateway follows thousands of subjects, each a task and a queue there.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from base64 import b32decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

from budao.aio import Link, explain_tls
from budao.guard import pause_s
from budao.model import BadSettings, RemoteWireError, RetryPolicy
from budao.wire import nats

log = logging.getLogger("budao.nats")

BEAT_S: Final = 0.5
CONNECT_S: Final = 2.5
"""How long one server may take until it answers the first ping."""
PAUSES: Final = RetryPolicy(pause_first_s=0.02, pause_max_s=1.0)
STEADY_S: Final = 1.0
OUTBOX_BYTES_MAX: Final = 128 * 1024 * 1024
SERVERS_MAX: Final = 64
COMPLAINTS_TOLD: Final = 20

Heard = Callable[[nats.Delivered], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """How to reach NATS, and as whom."""

    servers: tuple[tuple[str, int], ...]
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    credentials: Path | None = None
    """A file with a JWT and the seed of its key, as `nsc` writes it."""

    @property
    def name(self) -> str:
        """What to call it, without a secret."""
        return ("tls://" if self.tls else "nats://") + ",".join(f"{host}:{port}" for host, port in self.servers)

    @property
    def has_secret(self) -> bool:
        return self.token is not None or self.password is not None


class Gone(Exception):  # it is caught next door, and never leaves this adapter
    """The connection is not there. `was_sent` says whether what was asked may have been heard."""

    def __init__(self, problem: str, *, was_sent: bool) -> None:
        super().__init__(problem)
        self.problem = problem
        self.was_sent = was_sent


class Denied(Exception):
    """The server is there, and does not let us in."""


class NatsLink:
    """Requests and subscriptions over one connection. `came` and `went` are told of it; subscriptions outlive it."""

    def __init__(
        self, where: Where, *, name: str, rng: Random, came: Callable[[], None], went: Callable[[str], None]
    ) -> None:
        self.where = where
        self.name = name
        self.problem = "not connected yet"
        self.is_denied = False
        """Whether it is there, and the problem is that it does not let us in."""
        self.info: dict[str, Any] = {}
        self.connected = 0
        self._rng = rng
        self._came, self._went = came, went
        self._up: asyncio.Event = asyncio.Event()
        self._link: Link[nats.Said] | None = None
        self._over: asyncio.Future[str] | None = None
        self._ponged: asyncio.Future[None] | None = None
        self._servers = list(where.servers)
        self._inbox = f"_INBOX.{rng.getrandbits(96):024x}"
        self._number = 0
        self._asked: dict[int, asyncio.Future[nats.Delivered]] = {}
        self._subscribed: dict[int, tuple[str, Heard]] = {1: (f"{self._inbox}.*", self._answered)}
        self._sid = 1
        self._complaints = 0
        self._running: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------------------------------- what owners do

    def start(self) -> None:
        """Connects, if it does not yet."""
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run(), name=f"link of {self.name}")

    async def aclose(self) -> None:
        """Hangs up."""
        if self._running is not None:
            running, self._running = self._running, None
            running.cancel()
            await asyncio.wait([running])
        self._down("it is closed")

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    @property
    def payload_bytes_max(self) -> int:
        """What the server takes at once, with headers."""
        return int(self.info.get("max_payload", 1024 * 1024))

    @property
    def version(self) -> tuple[int, ...]:
        """Of the server."""
        words = str(self.info.get("version", "0")).partition("-")[0].split(".")
        return tuple(int(word) if word.isdigit() else 0 for word in words)

    async def up(self, timeout_s: float) -> None:
        """Waits until it is connected.

        Raises:  Gone.
        """
        if self._up.is_set():
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            raise Gone(self.problem, was_sent=False) from None

    async def request(self, subject: str, data: bytes, *, headers: bytes = b"", timeout_s: float) -> nats.Delivered:
        """Asks, and waits for the one answer.

        Raises:  Gone; TimeoutError, and then it may have been heard.
        """
        link = self._link
        self._number += 1
        number = self._number
        frame = nats.publish(subject, data, reply=f"{self._inbox}.{number:x}", headers=headers)
        if link is None or not link.post(frame):
            raise Gone(self.problem, was_sent=False)
        answered: asyncio.Future[nats.Delivered] = asyncio.get_running_loop().create_future()
        self._asked[number] = answered
        try:
            async with asyncio.timeout(timeout_s):
                return await answered
        finally:
            del self._asked[number]

    def post(self, subject: str, data: bytes, reply: str = "") -> None:
        """Says something that nobody answers, or that a subscription hears the answer of."""
        if self._link is not None:
            self._link.post(nats.publish(subject, data, reply=reply))

    def subscribe(self, subject: str, heard: Heard) -> int:
        """Calls `heard` with whatever is published there, until `unsubscribe`."""
        self._sid += 1
        self._subscribed[self._sid] = subject, heard
        if self._link is not None:
            self._link.post(nats.subscribe(subject, self._sid))
        return self._sid

    def unsubscribe(self, sid: int) -> None:
        """No more of it."""
        if self._subscribed.pop(sid, None) is not None and self._link is not None:
            self._link.post(nats.unsubscribe(sid))

    def inbox(self) -> str:
        """A subject of one's own. It is not below that of `request`."""
        self._number += 1
        return f"{self._inbox}x.{self._number:x}"

    # ---------------------------------------------------------------------------------------------- connections

    async def _run(self) -> None:
        turn = attempt = 0
        loop = asyncio.get_running_loop()
        while True:
            host, port = self._servers[turn % len(self._servers)]
            try:
                self._over = loop.create_future()
                link = await self._open(host, port)
            except (OSError, UnicodeError, RemoteWireError, Denied, TimeoutError) as problem:
                self.is_denied = isinstance(problem, Denied)
                said = (
                    f"no answer within {CONNECT_S:g} s" if isinstance(problem, TimeoutError) else explain_tls(problem)
                )
                self._down(f"{host}:{port}: {said}")
            else:
                since, attempt = loop.time(), 0
                self.is_denied = False
                self._link = link
                self.connected += 1
                self._up.set()
                self._came()
                try:
                    await self._keep(link, self._over)
                finally:
                    link.cut("it is closed")
                    self._link = None
                self._down(f"{host}:{port}: {self._over.result()}")
                if loop.time() - since < STEADY_S:
                    attempt = 1
            turn += 1
            attempt += 1
            await asyncio.sleep(pause_s(attempt, PAUSES, self._rng) or 0.0)

    def _down(self, problem: str) -> None:
        self.problem = problem
        was_up = self._up.is_set()
        self._up.clear()
        self._link = None
        for answered in tuple(self._asked.values()):
            if not answered.done():
                answered.set_exception(Gone(problem, was_sent=True))
                answered.exception()
        if was_up or not self.connected or self.is_denied:
            self._went(problem)

    async def _keep(self, link: Link[nats.Said], over: asyncio.Future[str]) -> None:
        while not over.done():
            await asyncio.wait([over], timeout=BEAT_S)
            if not over.done():
                link.send(nats.PING)  # also while we speak: only its answers say that the server hears
                link.beat(lambda: b"")

    async def _open(self, host: str, port: int) -> Link[nats.Said]:
        loop, where = asyncio.get_running_loop(), self.where
        over = self._over
        assert over is not None, "it was made by the caller"
        self._ponged = loop.create_future()
        link = Link(
            decoder=nats.Decoder(),
            outbox_bytes_max=OUTBOX_BYTES_MAX,
            received=self._receive,
            lost=partial(_settle, over),
            has_room=lambda: None,
            garbage=lambda _: None,
        )
        try:
            async with asyncio.timeout(CONNECT_S):
                stream = await _dial(host, port)
                try:
                    info, rest = await _greeting(stream)
                    self.info = dict(info.fields)
                    if self.info.get("tls_required") and where.tls is None:
                        raise Denied("it wants TLS; write tls:// instead of nats://")
                    if where.tls is not None and not (self.info.get("tls_required") or self.info.get("tls_available")):
                        raise Denied("it has no TLS; nothing was sent to it")
                    name = where.server_name or host
                    tls = {"ssl": where.tls, "server_hostname": name} if where.tls is not None else {}
                    await loop.create_connection(lambda: link, sock=stream, **tls)  # type: ignore[call-overload]
                except BaseException:
                    stream.close()
                    raise
                hello = nats.connect(self._hello()) + nats.PING
                for sid, (subject, _) in self._subscribed.items():
                    hello += nats.subscribe(subject, sid)
                link.send(hello)
                if rest and where.tls is None:
                    link.data_received(rest)
                answers: list[asyncio.Future[Any]] = [self._ponged, over]
                await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
                if self._ponged.done():
                    self._ponged.result()
                else:
                    raise ConnectionResetError(f"it hung up before it answered: {over.result()}")
        except BaseException:
            link.cut("it is closed")
            raise
        self._learn(self.info)
        return link

    def _hello(self) -> dict[str, Any]:
        where = self.where
        said: dict[str, Any] = {
            "verbose": False,
            "pedantic": False,
            "headers": True,
            "no_responders": True,
            "protocol": 1,
            "lang": "python",
            "version": "1",
            "name": self.name[:200],
        }
        if where.credentials is not None:
            said |= _signed(where.credentials, str(self.info.get("nonce", "")))
        if where.token is not None:
            said["auth_token"] = where.token
        if where.username is not None:
            said["user"] = where.username
            said["pass"] = where.password or ""
        return said

    def _receive(self, said: nats.Said) -> None:
        if isinstance(said, nats.Delivered):
            found = self._subscribed.get(said.sid)
            if found is not None:
                found[1](said)
        elif isinstance(said, nats.Pinged):
            if self._link is not None:
                self._link.post(nats.PONG)
        elif isinstance(said, nats.Ponged):
            if self._ponged is not None and not self._ponged.done():
                self._ponged.set_result(None)
        elif isinstance(said, nats.Info):
            self.info |= said.fields
            self._learn(said.fields)
            if said.fields.get("ldm") and self._link is not None:
                self._link.close("the server is about to stop")
        else:
            self._complained(said.problem)

    def _complained(self, problem: str) -> None:
        if self._ponged is not None and not self._ponged.done():
            said = problem.lower()
            is_for_good = any(word in said for word in ("auth", "secure", "tls"))  # and not, say, that it is full
            self._ponged.set_exception(Denied(said) if is_for_good else ConnectionAbortedError(said))
            self._ponged.exception()
        elif self._complaints < COMPLAINTS_TOLD:
            self._complaints += 1
            log.warning("%s says: %s", self.where.name, problem)

    def _learn(self, fields: Any) -> None:
        """The servers of the cluster, of which those that were named stay."""
        found = fields.get("connect_urls")
        if not isinstance(found, list):
            return
        named = list(self.where.servers)
        for each in found[:SERVERS_MAX]:
            host, _, port = str(each).rpartition(":")
            server = (host.strip("[]"), int(port) if port.isdigit() else 0)
            if server not in named and host and 0 < server[1] < 65_536:
                named.append(server)
        self._servers = named[: max(SERVERS_MAX, len(self.where.servers))]

    def _answered(self, said: nats.Delivered) -> None:
        word = said.subject.rpartition(".")[2]
        try:
            answered = self._asked.get(int(word, 16))
        except ValueError:
            return
        if answered is not None and not answered.done():
            answered.set_result(said)


def _settle(over: asyncio.Future[str], why: str) -> None:
    if not over.done():
        over.set_result(why)


async def _dial(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    problem: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        stream = socket.socket(family, kind, protocol)
        try:
            stream.setblocking(False)
            await loop.sock_connect(stream, address)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as failed:
            stream.close()
            problem = failed
        except BaseException:
            stream.close()
            raise
        else:
            return stream
    raise problem


async def _greeting(stream: socket.socket) -> tuple[nats.Info, bytes]:
    """The line a server begins with, in the clear also where TLS follows, and what came with it."""
    loop = asyncio.get_running_loop()
    held = b""
    while b"\r\n" not in held:
        piece = await loop.sock_recv(stream, 65_536)
        if not piece:
            raise RemoteWireError("it hung up before it said what it is")
        held += piece
        if len(held) > nats.LINE_BYTES_MAX or not b"INFO ".startswith(held[:5]):
            raise RemoteWireError(f"it does not begin as a NATS server does, but with {held[:20]!r}")
    line, _, rest = held.partition(b"\r\n")
    if rest.startswith(b"-ERR"):  # it is full, say
        raise ConnectionAbortedError(rest[4:300].decode(errors="replace").strip(" '\r\n").lower())
    return nats.parse_info(line), rest


def read_credentials(file: Path) -> tuple[str, bytes]:
    """The JWT and the seed of the key in a file that `nsc` wrote.

    Raises:  BadSettings, which never shows what is in it.
    """
    try:
        text = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as problem:
        raise BadSettings([("log", f"the credentials {file} cannot be read: {type(problem).__name__}")]) from problem
    blocks: list[str] = []
    is_inside = False
    for line in text.splitlines():
        if line.startswith("---"):
            is_inside = "BEGIN" in line
        elif is_inside and line.strip():
            blocks.append(line.strip())
    try:
        jwt, words = blocks
        seed = b32decode(words + "=" * (-len(words) % 8))[2:34]
        if not words.startswith("SU") or len(seed) != 32:
            raise ValueError
    except ValueError:
        raise BadSettings([("log", f"the credentials {file} hold no JWT with the seed of a user's key")]) from None
    return jwt, seed


def _signed(file: Path, nonce: str) -> dict[str, str]:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as missing:
        raise Denied("credentials need the package cryptography: pip install 'budao[nats]'") from missing
    try:
        jwt, seed = read_credentials(file)
    except BadSettings as problem:
        raise Denied(str(problem)) from problem
    signature = Ed25519PrivateKey.from_private_bytes(seed).sign(nonce.encode())
    return {"jwt": jwt, "sig": urlsafe_b64encode(signature).decode().rstrip("=")}
