"""Who may come in, from which pages, and by which name of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from budao.aio.security import is_loopback
from budao.model import Wall
from budao.push import Grant
from budao.wire import tokens

REMEMBERED_MAX: Final = 4_096
"""Tokens whose grants are remembered: checking one is a hundred times what remembering it is."""
HOSTS_MAX: Final = 64


@dataclass(slots=True, kw_only=True)
class Access:
    """What a gateway asks of those who come.

    Without keys and without an anonymous grant nobody gets anything, except by a ticket.
    """

    keys: tokens.TokenKeys | None = None
    """What tokens are checked with."""
    anonymous: Grant | None = None
    """What somebody without a token may do; None for nothing."""
    origins: tuple[str, ...] = ()
    """Pages of other hosts that may use this gateway from a browser, such as `https://app.example`; `*` for all."""
    hosts: tuple[str, ...] = ()
    """Names under which browsers without a token may reach this gateway, beside addresses and localhost.

    A page can make its own name resolve to this machine, and would then read as if it came from here.
    """
    _known: dict[str, Grant] = field(default_factory=dict, repr=False)
    _good_hosts: set[str] = field(default_factory=set, repr=False)

    def grant(self, token: str | None, wall: Wall) -> Grant | tokens.Unauthorized | None:
        """What a token grants, or why nothing; without a token the anonymous grant, or None."""
        if token is None:
            return self.anonymous
        known = self._known.get(token)
        if known is not None:
            if not known.has_expired(wall):
                return known
            del self._known[token]
        if self.keys is None:
            return tokens.Unauthorized("unauthorized", "this gateway knows no keys, so no token is good here")
        found = self.keys.check(token, wall)
        if isinstance(found, Grant):
            if len(self._known) >= REMEMBERED_MAX:
                del self._known[next(iter(self._known))]
            self._known[token] = found
        return found

    def renew(self, keys: tokens.TokenKeys | None) -> None:
        """Other keys from now on. Sessions that are open go on until their grant ends."""
        self._known.clear()
        self.keys = keys

    def origin_problem(self, headers: Mapping[str, str]) -> str:
        """Why a page may not do this; empty if it may, or if no page asks."""
        origin = headers.get("origin")
        if origin is None or origin in self.origins or "*" in self.origins:
            return ""
        host = headers.get("host", "")
        if origin.partition("://")[2].lower() == host.lower() and host and not self.host_problem(headers):
            return ""
        return f"pages of {origin[:100]!r} may not use this gateway; name it among its origins"

    def host_problem(self, headers: Mapping[str, str]) -> str:
        """Why somebody without a token may not come by this name; empty if it may."""
        host = headers.get("host", "")
        if host in self._good_hosts:
            return ""
        name = _without_port(host)
        if not name or is_loopback(name) or _is_address(name) or name in self.hosts or "*" in self.hosts:
            if len(self._good_hosts) < HOSTS_MAX:
                self._good_hosts.add(host)
            return ""
        return f"without a token this gateway is reached by address or localhost only, not as {name[:100]!r}; name it among its hosts"


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
