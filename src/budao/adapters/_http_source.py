"""What the sources that speak HTTP share: a session that notices a dead peer, bounds, and pauses."""

from __future__ import annotations

import socket
import ssl
from typing import Any, Final

import aiohttp

from budao.model import RemoteWireError, RetryPolicy

PAUSES: Final = RetryPolicy(pause_first_s=0.4, pause_max_s=10.0)
"""Between one failure and the next try."""
DEAD_AFTER_S: Final = 3.0
"""A peer that acknowledges nothing for so long is dead; an answer may still take as long as it is allowed to."""

ELSEWHERE: Final = "it sends us elsewhere, where no token follows; give that address itself"


def open_session(base: str, tls: ssl.SSLContext | None) -> aiohttp.ClientSession:
    """A session whose connections notice a peer that vanished without a word, also while a long answer is awaited."""
    connector = aiohttp.TCPConnector(ssl=tls if tls is not None else True, socket_factory=_socket, limit=100)
    return aiohttp.ClientSession(base, connector=connector, auto_decompress=True)


def _socket(address: Any) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 1), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", int(DEAD_AFTER_S) - 1)):
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made


async def read_all(answer: aiohttp.ClientResponse, bytes_max: int, who: str) -> bytes:
    """The whole of an answer.

    Raises:  RemoteWireError if it is longer than anybody should read.
    """
    parts, size = [], 0
    async for part in answer.content.iter_any():
        size += len(part)
        if size > bytes_max:
            raise RemoteWireError(f"{who} answers with more than {bytes_max} bytes")
        parts.append(part)
    return b"".join(parts)


def said(error: BaseException) -> str:
    """What happened, for a person; an error without words is named by its kind."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
