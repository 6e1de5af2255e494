"""What the kernel is told about the sockets of a gateway, once: connections inherit it from the socket that accepts them."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final

from budao.model import Checks

KIB: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketPolicy:
    """When the kernel gives a connection up by itself, and how much it buffers.

    Units:   seconds, bytes.
    Raises:  BadSettings with every problem.
    """

    keepalive_idle_s: int = 30
    """After so long without a byte the kernel asks the peer's kernel whether it is there. 0 switches it off."""
    keepalive_every_s: int = 5
    """How often it asks again."""
    keepalive_count: int = 3
    """So many questions without an answer end the connection."""
    unacknowledged_s: float = 30.0
    """Data that is not acknowledged, or not taken by a reader whose window is closed, for so long ends the connection: that bounds
    how long one stays parked. 0 leaves it to the kernel, which takes a quarter of an hour."""
    send_buffer_bytes: int = 256 * KIB
    """What the kernel holds for a slow reader; it counts its own overhead too, and doubles the number for that. 0 lets it grow as
    it likes, up to 4 MiB each."""

    def __post_init__(self) -> None:
        check = Checks("sockets")
        check.count("keepalive_idle_s", self.keepalive_idle_s, 0, 32_767)
        check.count("keepalive_every_s", self.keepalive_every_s, 1, 32_767)
        check.count("keepalive_count", self.keepalive_count, 1, 127)
        check.number("unacknowledged_s", self.unacknowledged_s, 0.0, 86_400.0)
        check.count("send_buffer_bytes", self.send_buffer_bytes, 0, 1024 * 1024 * KIB)
        check.done()


def apply_socket_policy(listener: socket.socket, policy: SocketPolicy) -> tuple[str, ...]:
    """Set it on a listening socket, or on one that is connected. Answers what this system cannot do."""
    # A loop sets this by itself only on sockets that say they are TCP, which an accepted one need not.
    wanted: list[tuple[str, int, int]] = [("TCP_NODELAY", socket.IPPROTO_TCP, 1)]
    if policy.keepalive_idle_s:
        wanted += [
            ("SO_KEEPALIVE", socket.SOL_SOCKET, 1),
            ("TCP_KEEPIDLE", socket.IPPROTO_TCP, policy.keepalive_idle_s),
            ("TCP_KEEPINTVL", socket.IPPROTO_TCP, policy.keepalive_every_s),
            ("TCP_KEEPCNT", socket.IPPROTO_TCP, policy.keepalive_count),
        ]
    if policy.unacknowledged_s:
        wanted.append(("TCP_USER_TIMEOUT", socket.IPPROTO_TCP, int(policy.unacknowledged_s * 1000)))
    if policy.send_buffer_bytes:
        wanted.append(("SO_SNDBUF", socket.SOL_SOCKET, policy.send_buffer_bytes))
    missing: list[str] = []
    for name, level, value in wanted:
        option = getattr(socket, name, None)
        if option is None:
            missing.append(name)
            continue
        try:
            listener.setsockopt(level, option, value)
        except OSError as problem:
            missing.append(f"{name} ({problem.strerror})")
    return tuple(missing)
