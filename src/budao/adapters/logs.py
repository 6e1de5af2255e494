"""Opens the log of channels that one line names, as a command line or a setting has it.

    memory:                                                   in this process, for tests and trials
    budao://host[:7430][,host[:7430]]                         `budao log serve`; budaos:// over TLS
    nats://[user:password@|token@]host[:4222][,host[:4222]]   NATS with JetStream, 2.9 or newer; tls:// over TLS

Behind a `?`, TLS may say more: `authority=ca.pem&certificate=me.pem&key=me.key`, for NATS also `server_name=`. For NATS, the
stream is set there as well: `stream=BUDAO&prefix=budao&replicas=3`, and `credentials=FILE` names what `nsc` wrote.

A secret is better kept out of the line: as an argument, or in the environment as `BUDAO_LOG_TOKEN`, `BUDAO_LOG_USERNAME` and
`BUDAO_LOG_PASSWORD`, `BUDAO_LOG_CREDENTIALS` for the path of that file. An argument wins over the line, and the line over the
environment. No message shows a secret.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import parse_qsl, unquote

from budao.aio import ChannelLog, MemoryLog, RemoteLog, check_sending, client_tls
from budao.model import BadSettings
from budao.push import ChannelRules

__all__ = ["open_log"]

SCHEMES: Final = ("memory", "budao", "budaos", "nats", "tls")
PORTS: Final = {"budao": 7430, "budaos": 7430, "nats": 4222, "tls": 4222}
SERVERS_MAX: Final = 64
TLS_OPTIONS: Final = ("authority", "certificate", "key")
NATS_OPTIONS: Final = ("stream", "prefix", "replicas", "bytes_max", "credentials")


@dataclass(frozen=True, slots=True)
class _Line:
    """What the text says."""

    scheme: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    servers: tuple[tuple[str, int], ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


def open_log(
    url: str,
    *,
    rules: ChannelRules | None = None,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
    environment: Mapping[str, str] | None = None,
) -> AbstractAsyncContextManager[ChannelLog]:
    """The log that `url` names, to be entered with `async with`. One that cannot be reached says so at the first request.

    `tls` alone switches TLS on as well. `rules` are how channels are kept where the log is not a server of ours, which has its own.

    Raises:  BadSettings: a line that cannot be understood, a file that cannot be read, a secret that would travel in the clear.
    """
    around = os.environ if environment is None else environment
    line = _parse(url)
    if line.scheme == "memory":
        return MemoryLog(rules=rules)
    token = token or around.get("BUDAO_LOG_TOKEN") or None
    context = tls or _tls(line)
    hosts = [host for host, _ in line.servers]
    if line.scheme.startswith("budao"):
        if line.username is not None:
            _bad("a budao log takes a token, and not in the line; give `token` or set BUDAO_LOG_TOKEN")
        check_sending(hosts, tls=context is not None, token=token is not None)
        (host, port), *more = line.servers
        return RemoteLog(host, port, token=token, tls=context, more=more)
    return _nats(line, rules, token, context, around)


def _nats(
    line: _Line,
    rules: ChannelRules | None,
    token: str | None,
    context: ssl.SSLContext | None,
    around: Mapping[str, str],
) -> AbstractAsyncContextManager[ChannelLog]:
    from budao.adapters.nats import NatsLog, StreamPolicy, Where

    options = line.options
    username = line.username or around.get("BUDAO_LOG_USERNAME") or None
    password = line.password or (around.get("BUDAO_LOG_PASSWORD") if username else None) or None
    if line.username is not None and line.password is None and password is None:
        username, token = None, token or line.username  # nats://token@host, as other clients of NATS have it
    if username is not None and password is None:
        _bad("a user name needs a password; set BUDAO_LOG_PASSWORD")
    credentials = options.get("credentials") or around.get("BUDAO_LOG_CREDENTIALS") or None
    where = Where(
        servers=line.servers,
        tls=context,
        server_name=options.get("server_name"),
        username=username,
        password=password,
        token=None if username is not None else token,
        credentials=None if credentials is None else Path(credentials),
    )
    check_sending([host for host, _ in line.servers], tls=context is not None, token=where.has_secret)
    numbers = {name: _count(name, options[name]) for name in ("replicas", "bytes_max") if name in options}
    words = {name: options[name] for name in ("stream", "prefix") if name in options}
    policy = StreamPolicy(**words, **numbers)  # type: ignore[arg-type]  # each is a setting of its kind
    return NatsLog(where, rules=rules, policy=policy)


def _tls(line: _Line) -> ssl.SSLContext | None:
    if line.scheme not in {"budaos", "tls"}:
        return None
    authority, certificate, key = (Path(line.options[name]) if name in line.options else None for name in TLS_OPTIONS)
    return client_tls(authority, certificate=certificate, key=key)


def _parse(url: str) -> _Line:
    scheme, colon, rest = url.partition(":")
    if not colon or scheme not in SCHEMES:
        # What comes before a colon may be a password, in a line that was mangled: only known words are shown.
        _bad("this is no log: one is named " + ", ".join(f'"{each}:..."' for each in SCHEMES))
    if scheme == "memory":
        if rest.strip("/"):
            _bad('nothing follows "memory:"')
        return _Line(scheme)
    if not rest.startswith("//"):
        _bad(f'"{scheme}:" is followed by //host:port')
    where, _, query = rest[2:].partition("?")
    if "@" in query:  # most likely the end of a password, so nothing of the line is shown
        _bad("an @ stands behind the ?; write %3F in a password, and %40 behind the ?")
    if "#" in rest:
        _bad("a # begins a fragment, which a log has not; write %23 in a password")
    who, at, hosts = where.rpartition("@")
    hosts = hosts.removesuffix("/")
    if "/" in hosts:
        _bad("a log has no path; write %2F in a password")
    name, _, secret = who.partition(":")
    if at and not name:
        _bad("a user name or a token comes before the @")
    servers = tuple(_server(each, scheme) for each in hosts.split(","))
    if len(servers) > SERVERS_MAX:
        _bad(f"{len(servers)} servers, the bound is {SERVERS_MAX}")
    username, password = (unquote(name) or None, unquote(secret) or None) if at else (None, None)
    return _Line(scheme, username, password, servers, _options(scheme, query))


def _server(text: str, scheme: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):  # no port, or the colon is one of an IPv6 address
        host, port = text, str(PORTS[scheme])
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        _bad(f"{text[:255]!r}: an IPv6 address goes in brackets, as in [::1]:{PORTS[scheme]}")
    if not host or not host.isprintable() or any(letter.isspace() for letter in host):
        _bad(f"{text[:255]!r} is no host:port")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        _bad(f"{text[:255]!r}: the port is a number from 1 to 65535")
    return host.strip("[]"), int(port)


def _options(scheme: str, query: str) -> dict[str, str]:
    allowed: tuple[str, ...] = TLS_OPTIONS if scheme in {"budaos", "tls"} else ()
    if scheme == "tls":
        allowed += ("server_name",)
    if scheme in {"nats", "tls"}:
        allowed += NATS_OPTIONS
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in allowed:
            such = f"is not one of {', '.join(allowed)}" if allowed else "is no option here"
            hint = "; TLS is spoken with budaos: and tls:" if name in TLS_OPTIONS else ""
            _bad(f"{name[:32]!r} {such}{hint}")
        if not value or not value.isprintable():
            _bad(f"{name} is empty, or holds a character that does not print")
        found[name] = value
    return found


def _count(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        _bad(f"{name} is a number")
    return int(text)


def _bad(problem: str) -> NoReturn:
    raise BadSettings([("log", problem)])
