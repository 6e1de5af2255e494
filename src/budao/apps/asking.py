"""The least of HTTP/1.1 that a load needs: one request, one reply with a length, on a connection that may be kept."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back. `body` is the JSON it held."""

    status: int
    body: Any
    can_stay: bool
    """The connection may carry another request."""


async def connect(port: int) -> Connection:
    """A new connection to a server on this machine."""
    return await asyncio.open_connection("127.0.0.1", port)


async def exchange(connection: Connection, method: str, path: str) -> Reply:
    """Sends a request and reads the reply.

    Raises: OSError, EOFError or ValueError if the other side goes away or talks nonsense.
    """
    reader, writer = connection
    writer.write(f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(head.partition("\r\ncontent-length:")[2].partition("\r\n")[0])
    body = await reader.readexactly(length)
    is_json = "\r\ncontent-type: application/json" in head
    return Reply(
        status=int(head.split(" ", 2)[1]),
        body=json.loads(body) if is_json else None,
        can_stay="\r\nconnection: close" not in head,
    )


async def ask(port: int, method: str, path: str) -> Any:
    """One request on a connection of its own; the JSON of the reply."""
    connection = await connect(port)
    try:
        return (await exchange(connection, method, path)).body
    finally:
        connection[1].close()
