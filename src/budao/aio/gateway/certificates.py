"""The certificate of a gateway, which may change while it serves.

    async with Certificates(Path("tls.pem"), Path("tls.key")) as certificates: ...

Changed files are tried in a context of their own, since loading a pair that does not fit breaks the context it is loaded into. Only
a pair that is good takes the place of the old one, for handshakes from then on; live connections are not touched.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from budao.aio.gateway.followed_file import LOOKS_EVERY_S, SETTLES_S, Stamp, stamp_of
from budao.aio.gateway.metrics import GatewayMetrics
from budao.aio.security import END, server_tls
from budao.model import BadSettings, RemoteWireError, Wall
from budao.wire import parse_validity

log = logging.getLogger("budao.gateway")


class HasContext(Protocol):
    """Whoever knows the context of the next handshake."""

    @property
    def context(self) -> ssl.SSLContext:
        """May be another one each time."""


class Fixed:
    """One context, for as long as it lasts."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context


class Certificates:
    """The TLS context of new handshakes, kept up with its files.

    Raises:  BadSettings where the first pair is not good: missing, unreadable, of another key, expired.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path,
        *,
        authority: Path | None = None,
        alpn: Sequence[str] | None = None,
        every_s: float = LOOKS_EVERY_S,
        on_hangup: bool = False,
    ) -> None:
        """`on_hangup`: SIGHUP reloads as well, for programs that own their signals; it would end them otherwise."""
        self.certificate = certificate
        self.key = key
        self.authority = authority
        self.metrics = GatewayMetrics()
        self.every_s = every_s
        self.on_hangup = on_hangup
        self._alpn = list(_spoken() if alpn is None else alpn)
        self._stamp = self._look_at()
        self._bad_since: float | None = None
        self._told = ""
        self._task: asyncio.Task[None] | None = None
        self.context, self.until = self._made()
        """What the next handshake uses, and until when it is valid."""
        self.metrics.certificate_until = self.until

    def reload(self) -> str:
        """Take the files as they are now, also if they look unchanged; the problem if they are not good, else empty."""
        self._bad_since = None
        problem = self._try()
        if problem:
            self._tell(problem)
        return problem

    def look(self, now: float) -> None:
        """Take the files if they changed. Bad ones are tried again until they are good, and told of once they have settled.

        Units:   `now` in seconds of any clock that does not go back.
        """
        if self._bad_since is None and self._look_at() == self._stamp:
            return
        problem = self._try()
        if not problem:
            self._bad_since = None
        elif self._bad_since is None:
            self._bad_since = now
        elif now - self._bad_since >= SETTLES_S and problem != self._told:
            self._tell(problem)

    def _try(self) -> str:
        stamp = self._look_at()
        try:
            context, until = self._made()
        except BadSettings as problem:
            return str(problem)
        if self._look_at() != stamp:
            return "the files change while they are read"
        self.context, self.until, self._stamp = context, until, stamp
        self._told = ""
        self.metrics.certificate_until = until
        self.metrics.count_reload(True)
        log.info("the certificate %s is in use for new connections", self.certificate)
        return ""

    def _tell(self, problem: str) -> None:
        self._told = problem
        self.metrics.count_reload(False)
        log.error("the changed certificate is not used, new connections get the one from before: %s", problem)

    def _made(self) -> tuple[ssl.SSLContext, Wall]:
        context = server_tls(self.certificate, self.key, authority=self.authority)
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.num_tickets = 1  # a client has one connection, and two tickets cost twice as much
        if self._alpn:
            context.set_alpn_protocols(self._alpn)
        return context, _until(self.certificate)

    def _look_at(self) -> tuple[Stamp | None, ...]:
        return tuple(stamp_of(path) for path in (self.certificate, self.key, self.authority) if path is not None)

    def count_in(self, metrics: GatewayMetrics) -> None:
        """Count what happens there from now on."""
        self.metrics = metrics
        metrics.certificate_until = self.until

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.every_s)
            try:
                self.look(time.monotonic())
            except Exception:
                log.exception("the certificate %s could not be looked at", self.certificate)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        if self.on_hangup:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.on_hangup:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None


def _spoken() -> Sequence[str]:
    """What is agreed on by ALPN: what nobody here can speak is not offered."""
    return ("h2", "http/1.1") if find_spec("h2") is not None else ("http/1.1",)


def _until(certificate: Path) -> Wall:
    try:
        text = certificate.read_text(encoding="ascii")
        end = text.index(END) + len(END)
        return parse_validity(ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN CERTIFICATE") : end])).until
    except (OSError, ValueError, RemoteWireError) as problem:  # it was good a moment ago
        raise BadSettings([("tls.certificate", f"{certificate} changed while it was read: {problem}")]) from problem
