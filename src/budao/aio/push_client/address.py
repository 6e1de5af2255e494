"""Where a gateway is, from its URL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from budao.model import BadSettings

STREAM: Final = "/v1/stream"
_SCHEMES: Final = {
    "ws": ("ws", 80),
    "http": ("ws", 80),
    "wss": ("wss", 443),
    "https": ("wss", 443),
    "tcp": ("tcp", 7441),
    "tcps": ("tcps", 7441),
}


@dataclass(frozen=True, slots=True)
class Address:
    """One gateway, as it is dialled. The scheme says how: `ws`, `wss`, `tcp` or `tcps`."""

    scheme: str
    host: str
    port: int
    path: str = STREAM

    @property
    def is_tls(self) -> bool:
        """Whether nobody else can listen."""
        return self.scheme in {"wss", "tcps"}

    @property
    def is_websocket(self) -> bool:
        """Whether it speaks WebSocket; otherwise frames travel over plain TCP."""
        return self.scheme in {"ws", "wss"}

    @property
    def authority(self) -> str:
        """Host and port, as a head names them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The one URL for it, however it was written."""
        return f"{self.scheme}://{self.authority}" + (self.path if self.is_websocket else "")


def parse_address(url: str) -> Address:
    """The gateway of a URL such as `https://push.example.org`, `ws://127.0.0.1:7440` or `tcp://127.0.0.1:7441`.

    Raises:  BadSettings. What stands before an `@` or behind a `?` could be a secret, and is not repeated.
    """
    shown = str(url).partition("?")[0].rpartition("@")[2][:200]
    try:
        parts = urlsplit(url)
        scheme, default_port = _SCHEMES[parts.scheme]
        host, port = parts.hostname, parts.port or default_port
    except (ValueError, KeyError, AttributeError, TypeError):
        raise BadSettings([("urls", f"{shown!r} is no URL with one of {', '.join(_SCHEMES)} and a host")]) from None
    if not host or not host.isprintable() or " " in host:
        raise BadSettings([("urls", f"{shown!r} names no host")])
    if parts.query or parts.fragment or parts.username is not None:
        raise BadSettings([("urls", f"{shown!r} has more than a host and a path; a token is given as token=")])
    path = parts.path.rstrip("/")
    if not path.isprintable() or " " in path or not path.isascii():
        raise BadSettings([("urls", f"the path of {shown!r} is not one that can be asked for")])
    return Address(scheme, host, port, path if path.endswith(STREAM) else path + STREAM)
