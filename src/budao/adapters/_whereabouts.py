"""At which address others reach this process."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import closing
from ipaddress import ip_address
from urllib.parse import urlsplit

from budao.model import BadSettings

POD_IP = "POD_IP"
"""Set this in a pod from `status.podIP`."""


def advertised_host(
    host: str = "", *, bound: str = "", store: str = "", environ: Mapping[str, str] = os.environ
) -> str:
    """The host to register: the one given, that of the pod, the one listened on, or this side of the way to the store.

    Raises:  BadSettings if nothing says it; an address that means "any" is never registered.
    """
    if host:
        if _is_any(host):
            raise BadSettings([("registration.host", f"{host} means any address, and nobody can call that")])
        return host
    if bound.startswith("/"):
        raise BadSettings([("registration.host", "a server on a Unix socket cannot be reached from elsewhere")])
    for found in (environ.get(POD_IP, ""), bound):
        if found and not _is_any(found):
            return found
    found = _towards(store)
    if found:
        return found
    raise BadSettings(
        [
            (
                "registration.host",
                (
                    f"nothing says where others reach this process: it listens on {bound or 'an address of its own choice'}, "
                    f"{POD_IP} is not set, and the store ({store or 'none'}) is no host to look towards; give host=..."
                ),
            )
        ]
    )


def _is_any(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def _towards(store: str) -> str:
    """The address of this side of the way to the store. Sends nothing: a datagram socket only looks up the route."""
    try:
        authority = urlsplit(store).netloc.rpartition("@")[2].partition(",")[0]
        parts = urlsplit(f"//{authority}")
        if not parts.hostname:
            return ""
        found = socket.getaddrinfo(parts.hostname, parts.port or 1, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        with closing(socket.socket(family, kind, protocol)) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except (OSError, ValueError):
        return ""
