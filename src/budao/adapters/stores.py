"""A store from one line of text, as a setting or a command line has it.

    memory:                                              in this process, for tests and trials
    budao://host:port[,host:port]                        `budao store serve`
    etcd://[user:password@]host[:2379][,host[:2379]]     an etcd cluster, version 3.4 or newer

"budaos" and "etcds" are the same over TLS, which may say more: `etcds://host?authority=ca.pem&certificate=me.pem&key=me.key`
and `&server_name=`. A password or token is better kept out of the line: as an argument, or in the environment as
`BUDAO_STORE_USERNAME`, `BUDAO_STORE_PASSWORD` and `BUDAO_STORE_TOKEN`. An argument wins over the line, and the line over
the environment. No message shows a password or token.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import parse_qsl, unquote

from budao.aio import MemoryStore, Store
from budao.model import BadSettings

__all__ = ["TlsFiles", "open_store"]

SCHEMES: Final = ("memory", "budao", "budaos", "etcd", "etcds")
ETCD_PORT: Final = 2379
ENDPOINTS_MAX: Final = 64
OPTIONS: Final = ("authority", "certificate", "key", "server_name")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """How to speak TLS with a store: files in PEM form."""

    authority: Path | None = None
    """Who signs the servers' certificates; None for those that are trusted anyway."""
    certificate: Path | None = None
    """Our own certificate, if the servers ask for one."""
    key: Path | None = None
    """The key of it."""
    server_name: str | None = None
    """The name in the servers' certificates, if it is not in the URL. For etcd only."""


@dataclass(frozen=True, slots=True)
class _Line:
    """What the text says."""

    scheme: str
    username: str | None
    password: str | None = field(repr=False)
    endpoints: tuple[str, ...]
    tls: TlsFiles | None


def open_store(
    url: str,
    *,
    token: str | None = None,
    tls: TlsFiles | ssl.SSLContext | None = None,
    username: str | None = None,
    password: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Store:
    """The store that `url` names, not yet connected: a store that cannot be reached says so at the first request.

    `tls` alone switches TLS on as well; a context of the `ssl` module serves a budao store only, since gRPC reads files
    itself. Close the store with `aclose`.

    Raises:  BadSettings: a line that cannot be understood, an extra that is not installed, a file that cannot be read.
    """
    around = os.environ if environment is None else environment
    line = _parse(url)
    if line.scheme == "memory":
        return MemoryStore()
    files = tls or line.tls
    token = token or around.get("BUDAO_STORE_TOKEN") or None
    if line.scheme.startswith("budao"):
        if line.username is not None:
            _bad("a budao store takes a token, not a name and a password; give `token` or set BUDAO_STORE_TOKEN")
        return _remote(line.endpoints, token, files)
    username = username or line.username or around.get("BUDAO_STORE_USERNAME") or None
    password = password or line.password or (around.get("BUDAO_STORE_PASSWORD") if username else None) or None
    if username is not None and password is None:
        _bad("a user name needs a password; give `password` or set BUDAO_STORE_PASSWORD")
    if password is not None and username is None:
        _bad("a password needs a user name; give `username` or set BUDAO_STORE_USERNAME")
    if isinstance(files, ssl.SSLContext):
        _bad("TLS with etcd takes files in PEM form, not a context of the ssl module; give TlsFiles(...)")
    return _etcd(line.endpoints, username, password, files)


def _remote(endpoints: tuple[str, ...], token: str | None, files: TlsFiles | ssl.SSLContext | None) -> Store:
    try:
        from budao.aio import RemoteStore, client_tls
    except ImportError as missing:
        _missing("store", missing)
    context = files if isinstance(files, ssl.SSLContext) else None
    if isinstance(files, TlsFiles):
        if files.server_name is not None:
            _bad("server_name is for etcd; a budao store is checked by the name in the URL")
        context = client_tls(files.authority, certificate=files.certificate, key=files.key)
    first, *more = (_host_and_port(each) for each in endpoints)
    return RemoteStore(*first, token=token, tls=context, more=more)


def _etcd(endpoints: tuple[str, ...], username: str | None, password: str | None, files: TlsFiles | None) -> Store:
    try:
        from budao.adapters.etcd import EtcdStore, Tls
    except ImportError as missing:
        _missing("etcd", missing)
    tls = None
    if files is not None:
        tls = Tls(
            authority=_pem(files.authority, "authority"),
            certificate=_pem(files.certificate, "certificate"),
            key=_pem(files.key, "key"),
            server_name=files.server_name,
        )
    return EtcdStore(endpoints, username=username, password=password, tls=tls)


def _parse(url: str) -> _Line:
    scheme, colon, rest = url.partition(":")
    if not colon or scheme not in SCHEMES:
        # What comes before a colon may be a password, in a line that was mangled: only known words are shown.
        _bad("a store is named " + ", ".join(f'"{each}:..."' for each in SCHEMES) + "; this line begins otherwise")
    if scheme == "memory":
        if rest.strip("/"):
            _bad('nothing follows "memory:"')
        return _Line(scheme, None, None, (), None)
    if not rest.startswith("//"):
        _bad(f'"{scheme}:" is followed by //host:port')
    where, _, query = rest[2:].partition("?")
    if "@" in query:  # most likely the end of a password, so nothing of the line is shown
        _bad("an @ stands behind the ?; write %3F in a password, and %40 behind the ?")
    if "#" in rest:
        _bad("a # begins a fragment, which a store has not; write %23 in a password")
    who, at, hosts = where.rpartition("@")
    hosts = hosts.removesuffix("/")
    if "/" in hosts:
        _bad("a store has no path; write %2F in a password, and a prefix elsewhere")
    name, _, secret = who.partition(":")
    endpoints = tuple(_endpoint(each, scheme) for each in hosts.split(","))
    if len(endpoints) > ENDPOINTS_MAX:
        _bad(f"{len(endpoints)} endpoints, the bound is {ENDPOINTS_MAX}")
    username, password = (unquote(name) or None, unquote(secret) or None) if at else (None, None)
    if at and username is None:
        _bad("a user name comes before the @")
    return _Line(scheme, username, password, endpoints, _tls_in(scheme, query))


def _endpoint(text: str, scheme: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):  # no port, or the colon is one of an IPv6 address
        host, port = text, str(ETCD_PORT) if scheme.startswith("etcd") else ""
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        _bad(f"{text!r}: an IPv6 address goes in brackets, as in [::1]:2379")
    if not host or not host.isprintable() or any(letter.isspace() for letter in host):
        _bad(f"{text!r} is no host:port")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        _bad(f"{text[:255]!r}: the port is a number from 1 to 65535")
    return f"{host}:{port}"


def _host_and_port(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.rpartition(":")
    return host.strip("[]"), int(port)


def _tls_in(scheme: str, query: str) -> TlsFiles | None:
    if not scheme.endswith("s"):
        if query:
            _bad(f'what follows the ? is about TLS; for TLS write "{scheme}s:"')
        return None
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS:
            _bad(f"{name[:32]!r} is not one of {', '.join(OPTIONS)}")
        if not value:
            _bad(f"{name} is empty")
        if not value.isprintable():
            _bad(f"{name} holds a character that does not print")
        found[name] = value
    authority, certificate, key = (Path(found[name]) if name in found else None for name in OPTIONS[:3])
    return TlsFiles(authority=authority, certificate=certificate, key=key, server_name=found.get("server_name"))


def _pem(path: Path | None, name: str) -> bytes | None:
    if path is None:
        return None
    try:
        found = path.read_bytes()
    except OSError as error:
        raise BadSettings([(f"store.tls.{name}", f"{path} cannot be read: {error.strerror}")]) from error
    if b"-----BEGIN " not in found:
        raise BadSettings([(f"store.tls.{name}", f"{path} holds nothing in PEM form")])
    return found


def _bad(problem: str) -> NoReturn:
    raise BadSettings([("store", problem)])


def _missing(extra: str, error: ImportError) -> NoReturn:
    problem = f"this kind of store needs an extra ({error.name} is missing): pip install 'budao[{extra}]'"
    raise BadSettings([("store", problem)]) from error
