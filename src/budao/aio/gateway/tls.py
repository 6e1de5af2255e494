"""TLS for a gateway: our own transport right over the socket.

    listener = TlsListener(sock, certificates, {"h2": Http2Connection, "": door}, failed=count)
    listener.open()

Why not the loop's own: it tells nobody why a handshake failed, and takes more. Measured with 1,000 connections and messages of 128
bytes on one busy core: 23.8 KiB a connection with uvloop and 277.6 KiB without, and 11.5 us a delivery; here 15.5 KiB and 14.8 KiB, and
10.5 us. A layer of memory BIOs over the loop's transport needs 18.0 KiB and 10.2 us. The plain transport takes 1.3 KiB and 5.8 us.

Writes of one turn of the loop leave together at its end, as few records. What the kernel does not take waits here, and the protocol
hears `pause_writing` as from any transport.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from budao.aio.gateway.certificates import HasContext
from budao.aio.gateway.handshakes import TALKS_HTTP, name_failure

log = logging.getLogger("budao.gateway")

RECORD_BYTES: Final = 16_384
"""A record never holds more. Reading so much at a time leaves nothing inside OpenSSL that the kernel would not tell of."""
READS_MAX: Final = 8
"""Full records that one peer may have read before the others have their turn."""
ACCEPTS_MAX: Final = 16
"""A handshake costs a third of a millisecond: so many begin in one turn of the loop."""
ACCEPT_PAUSE_S: Final = 0.5
"""How long nobody is accepted after the system had no descriptor left."""
PLAIN_ANSWER: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n"
    b"This port speaks TLS: use https: or wss:\n"
)

Failed = Callable[[str, str], None]
"""Called with the cause of a failed handshake and the address of the peer."""


class TlsTransport(asyncio.Transport):
    """One TLS connection, from its first byte. Its protocol begins when the handshake is done."""

    __slots__ = (
        "_high",
        "_is_closing",
        "_is_lost",
        "_is_paused",
        "_is_reading",
        "_is_waiting",
        "_listener",
        "_loop",
        "_low",
        "_out",
        "_peer",
        "_pending",
        "_protocol",
        "_size",
        "_sock",
    )

    def __init__(self, listener: TlsListener, sock: ssl.SSLSocket, peer: Any) -> None:
        # `Transport.__init__` would make a dict for each; `get_extra_info` looks things up instead.
        self._listener = listener
        self._loop = listener.loop
        self._sock = sock
        self._peer = peer
        self._protocol: asyncio.Protocol | None = None
        self._out: list[bytes] | None = None
        self._pending: bytes | memoryview | None = None
        """What OpenSSL was given and did not get rid of; it insists on being given the same again."""
        self._size = 0
        self._high, self._low = 65_536, 16_384
        self._is_paused = False
        self._is_closing = False
        self._is_lost = False
        self._is_waiting = False
        """For the kernel to take more."""
        self._is_reading = True
        self._loop.add_reader(sock, self._shake_hands)

    # ------------------------------------------------------------------------------------------- the handshake

    def _shake_hands(self) -> None:
        if self._is_lost:
            return
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLWantWriteError:
            # A first flight of some KiB fits into a fresh socket; a peer that reads nothing of it runs into the deadline.
            self._loop.add_writer(self._sock, self._shake_hands)
            return
        except (OSError, ValueError) as problem:
            cause = name_failure(problem)
            if cause == TALKS_HTTP:
                self._answer_in_the_clear()
            self._fail(cause, problem)
            return
        self._loop.remove_writer(self._sock)
        self._listener.is_shaken(self)
        self._protocol = self._listener.protocol_for(self._sock.selected_alpn_protocol())
        self._loop.add_reader(self._sock, self._readable)
        self._protocol.connection_made(self)

    def _answer_in_the_clear(self) -> None:
        with suppress(OSError, ValueError):  # a courtesy, past OpenSSL
            socket.socket.recv(self._sock, RECORD_BYTES)  # what is unread when we close would take the answer with it
            socket.socket.send(self._sock, PLAIN_ANSWER)

    def give_up(self, cause: str) -> None:
        """Its handshake has taken its time."""
        self._fail(cause, None)

    def _fail(self, cause: str, problem: Exception | None) -> None:
        self._listener.has_failed(self, cause, str(self._peer[0]) if isinstance(self._peer, tuple) else "", problem)
        self._lose(problem)

    # ---------------------------------------------------------------------------------------------- reading

    def _readable(self) -> None:
        for _ in range(READS_MAX):
            if self._is_lost or not self._is_reading:
                return
            try:
                data = self._sock.recv(RECORD_BYTES)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except (OSError, ValueError) as problem:
                self._lose(problem)
                return
            protocol = self._protocol
            assert protocol is not None, "who reads has a protocol"
            if not data:
                self._loop.remove_reader(self._sock)
                self._is_reading = False
                if not protocol.eof_received():  # or it has something to say yet
                    self.close()
                return
            protocol.data_received(data)
            if len(data) < RECORD_BYTES:
                return  # the kernel says if there is more

    def is_reading(self) -> bool:
        return self._is_reading and not self._is_closing

    def pause_reading(self) -> None:
        if self._is_reading and not self._is_lost:
            self._is_reading = False
            self._loop.remove_reader(self._sock)

    def resume_reading(self) -> None:
        if not self._is_reading and not self._is_lost and not self._is_closing:
            self._is_reading = True
            self._loop.add_reader(self._sock, self._readable)

    # ---------------------------------------------------------------------------------------------- writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing or not data:
            return
        if type(data) is not bytes:
            data = bytes(data)
        self._size += len(data)
        out = self._out
        if out is not None:
            out.append(data)
        else:
            self._out = [data]
            if not self._is_waiting:
                self._listener.is_dirty(self)
        if self._size > self._high and not self._is_paused:
            self.flush()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def flush(self) -> None:
        """Hands what was written to the kernel, as far as it takes it."""
        while not self._is_lost:
            data = self._pending
            if data is None:
                out = self._out
                if not out:
                    self._is_drained()
                    return
                self._out = None
                data = out[0] if len(out) == 1 else b"".join(out)
            try:
                sent = self._sock.send(data)
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                self._pending = data
                self._wait()
                return
            except (OSError, ValueError) as problem:
                self._lose(problem)
                return
            self._size -= sent
            self._pending = None if sent == len(data) else memoryview(data)[sent:]

    def _wait(self) -> None:
        if not self._is_waiting:
            self._is_waiting = True
            self._loop.add_writer(self._sock, self.flush)
        if self._is_paused:
            if self._size <= self._low:
                self._resume()
        elif self._size > self._high and self._protocol is not None:
            self._is_paused = True
            self._protocol.pause_writing()

    def _is_drained(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self._loop.remove_writer(self._sock)
        if self._is_closing:
            self._say_goodbye()
        elif self._is_paused:
            self._resume()

    def _resume(self) -> None:
        self._is_paused = False
        if self._protocol is not None and not self._is_closing:
            # Not from within `write`: whoever writes there would be called back in the middle.
            self._loop.call_soon(self._resumed, self._protocol)

    def _resumed(self, protocol: asyncio.Protocol) -> None:
        if not (self._is_lost or self._is_closing or self._is_paused):
            protocol.resume_writing()

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self._size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = 65_536 if low is None else 4 * low
        self._high, self._low = high, high // 4 if low is None else low

    # ----------------------------------------------------------------------------------------------- ending

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._sock)
        if not self._is_waiting:
            # With what was written in this turn, at its end.
            self._listener.is_dirty(self)

    def abort(self) -> None:
        self._lose(None)

    def _say_goodbye(self) -> None:
        with suppress(OSError, ValueError):  # the peer's answer is not waited for
            self._sock.unwrap()
        self._lose(None)

    def _lose(self, problem: Exception | None) -> None:
        if self._is_lost:
            return
        self._is_lost = self._is_closing = True
        self._is_reading = False
        self._out = self._pending = None
        self._size = 0
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._listener.is_gone(self)
        self._loop.call_soon(self._lost, problem)

    def _lost(self, problem: Exception | None) -> None:
        protocol, self._protocol = self._protocol, None
        try:
            if protocol is not None:
                protocol.connection_lost(problem)
        finally:
            self._sock.close()

    # ------------------------------------------------------------------------------------------------ asking

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "socket":
            return self._sock
        if name == "peername":
            return self._peer
        if self._is_lost:
            return default
        if name == "sockname":
            return self._sock.getsockname()
        if name == "ssl_object":
            return self._sock
        if name == "sslcontext":
            return self._sock.context
        if name == "cipher":
            return self._sock.cipher()
        if name == "peercert":
            return self._sock.getpeercert()
        return default

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None, "the handshake is done"
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol), "a protocol of streams"
        self._protocol = protocol

    def __repr__(self) -> str:
        return f"<TlsTransport {self._peer}{' closing' if self._is_closing else ''}>"


class TlsListener:
    """Accepts connections of one listening socket, and gives those that can speak TLS to a protocol by what they agreed on.

    Shapes:  `protocols` by the name of ALPN; "" for who agreed on nothing else.
    """

    def __init__(
        self,
        sock: socket.socket,
        certificates: HasContext,
        protocols: Mapping[str, Callable[[], asyncio.Protocol]],
        *,
        handshake_s: float = 10.0,
        handshakes_max: int = 2_000,
        descriptors_max: int = 2**31,
        failed: Failed | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.sock = sock
        self.certificates = certificates
        self.handshake_s = handshake_s
        self.handshakes_max = handshakes_max
        self.descriptors_max = descriptors_max
        """The system gives the lowest descriptor that is free: from this one on, what is left is not for handshakes."""
        self._protocols = protocols
        self._failed = failed
        self._shaking: dict[TlsTransport, float] = {}
        """Oldest first, until when."""
        self._live: set[TlsTransport] = set()
        self._dirty: list[TlsTransport] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._is_open = False
        sock.setblocking(False)

    def open(self) -> None:
        """Lets newcomers in."""
        if not self._is_open:
            self._is_open = True
            self.loop.add_reader(self.sock, self._accept)

    def pause(self) -> None:
        """Newcomers wait in the kernel. Handshakes that are under way go on, and who is in stays."""
        if self._is_open:
            self._is_open = False
            self.loop.remove_reader(self.sock)
            if self._pause is not None:
                self._pause.cancel()
                self._pause = None

    def abort(self) -> None:
        """Lets nobody in, and cuts everybody. The socket is the caller's to close."""
        self.pause()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        for transport in tuple(self._live):
            transport.abort()

    # -------------------------------------------------------------------------------------------- accepting

    def _accept(self) -> None:
        for _ in range(ACCEPTS_MAX):
            if not self._is_open:
                return
            try:
                plain, peer = self.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as problem:
                log.warning("no connection can be accepted for %.1f s: %s", ACCEPT_PAUSE_S, problem)
                self.loop.remove_reader(self.sock)
                self._pause = self.loop.call_later(ACCEPT_PAUSE_S, self._go_on)
                return
            self._begin(plain, peer)

    def _go_on(self) -> None:
        self._pause = None
        if self._is_open:
            self.loop.add_reader(self.sock, self._accept)

    def _begin(self, plain: socket.socket, peer: Any) -> None:
        is_short = plain.fileno() >= self.descriptors_max
        if is_short or len(self._shaking) >= self.handshakes_max:
            if not self._shaking:
                plain.close()
                return
            # Who is quick gets in also while somebody opens connections and says nothing.
            next(iter(self._shaking)).give_up("timeout")
        try:
            plain.setblocking(False)
            if plain.family != socket.AF_UNIX:
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock = self.certificates.context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        except (OSError, ValueError):
            plain.close()  # it is gone already
            return
        transport = TlsTransport(self, sock, peer)
        self._live.add(transport)
        self._shaking[transport] = self.loop.time() + self.handshake_s
        if self._alarm is None:
            self._alarm = self.loop.call_later(self.handshake_s, self._look)

    def _look(self) -> None:
        self._alarm = None
        now = self.loop.time()
        for transport, until in tuple(self._shaking.items()):
            if until > now:
                self._alarm = self.loop.call_at(until, self._look)
                return
            transport.give_up("timeout")

    def is_shaken(self, transport: TlsTransport) -> None:
        """The handshake of this one is done."""
        self._shaking.pop(transport, None)

    def has_failed(self, transport: TlsTransport, cause: str, peer: str, problem: Exception | None) -> None:
        """The handshake of this one failed."""
        if self._shaking.pop(transport, None) is not None:
            log.debug("a TLS handshake with %s failed: %s (%s)", peer, cause, problem)
            if self._failed is not None:
                self._failed(cause, peer)

    def protocol_for(self, agreed: str | None) -> asyncio.Protocol:
        """Who goes on with a connection."""
        protocols = self._protocols
        return (protocols.get(agreed or "") or protocols[""])()

    # ------------------------------------------------------------------------------------------- one turn

    def is_dirty(self, transport: TlsTransport) -> None:
        """It has something to flush at the end of this turn."""
        if not self._dirty:
            self.loop.call_soon(self._flush)
        self._dirty.append(transport)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for transport in dirty:
            try:
                transport.flush()
            except Exception:
                log.exception("a connection could not be written to")
                transport.abort()

    def is_gone(self, transport: TlsTransport) -> None:
        """It ended."""
        self._shaking.pop(transport, None)
        self._live.discard(transport)

    @property
    def handshakes(self) -> int:
        """How many are under way."""
        return len(self._shaking)
