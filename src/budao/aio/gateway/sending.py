"""One piece of bytes to many readers: straight to the kernel, by a loop in Python or the one of `budao-native`.

Both write past a transport, so they are only for those whose transport holds nothing back; what the kernel does not take goes to the
transport, which says `pause_writing` as ever. The native loop is free of the GIL meanwhile.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

    from budao.aio.gateway.connection import Connection

log = logging.getLogger("budao.gateway")

Write = Callable[[bytes], None]
SendAll = Callable[[list[int], bytes], list[tuple[int, int]]]
"""(descriptors, data) -> who did not take all of it, by index, and how many bytes each of them took. Never waits."""

NOT_ASKED: Final = -2
NONE: Final = -1
READERS_MIN: Final = 8
"""For fewer, gathering them costs more than it saves."""


def find_send_all() -> SendAll:
    """The native loop if its distribution is installed, else its twin."""
    try:
        from budao_native import send_all as native  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        log.info(
            "budao-native is not installed: messages go out by a loop in Python, which takes more CPU for each reader"
        )
        return send_all
    found: SendAll = native
    return found


def send_all(descriptors: list[int], data: bytes) -> list[tuple[int, int]]:
    """The twin of the native loop: the same bytes to every descriptor, which must not block.

    Whatever goes wrong with one of them counts as nothing taken: whoever owns it finds out when it writes the rest.
    """
    short: list[tuple[int, int]] = []
    size = len(data)
    for index, descriptor in enumerate(descriptors):
        try:
            taken = os.write(descriptor, data)
        except OSError:
            taken = 0
        if taken < size:
            short.append((index, taken))
    return short


def is_plain(transport: asyncio.Transport) -> bool:
    """Whether what is written is what goes over the wire: a transport of the loop, without TLS."""
    return (
        transport.get_extra_info("sslcontext") is None
        and transport.get_extra_info("ssl_object") is None
        and type(transport).__module__.partition(".")[0] in {"asyncio", "uvloop"}
    )


def descriptor_of(connection: Connection) -> int:
    """The kernel's end of a connection, if bytes may be handed to it directly; `NONE` if not."""
    transport, found = connection.transport, connection.socket
    return NONE if transport is None or found is None or not is_plain(transport) else int(found.fileno())


def send(
    writers: Mapping[Connection, Write],
    data: bytes,
    through: SendAll | None,
    failed: Callable[[Write, Exception], None],
) -> None:
    """The hot path: the same bytes to every reader. `failed` is told of a transport that refuses; the others go on.

    A transport of the loop spends more on keeping its books than the kernel on sending, so who has nothing waiting is sent to directly.
    """
    if through is None or len(writers) < READERS_MIN:
        _write(writers.values(), data, failed)
        return
    descriptors: list[int] = []
    theirs: list[Write] = []
    others: list[Write] = []
    for connection, write in writers.items():
        transport = connection.transport
        descriptor = connection.descriptor
        if descriptor == NOT_ASKED:
            descriptor = connection.descriptor = descriptor_of(connection)
        if descriptor < 0 or transport is None or transport.get_write_buffer_size() or transport.is_closing():
            others.append(write)
        else:
            descriptors.append(descriptor)
            theirs.append(write)
    for index, taken in through(descriptors, data):
        _write([theirs[index]], data[taken:], failed)
    _write(others, data, failed)


def _write(writes: Iterable[Write], data: bytes, failed: Callable[[Write, Exception], None]) -> None:
    each = iter(writes)
    write: Write | None = None
    while True:
        try:
            for write in each:
                write(data)
        except Exception as problem:  # noqa: BLE001 - told to `failed`
            assert write is not None, "iterating raises nothing"
            failed(write, problem)
        else:
            return
