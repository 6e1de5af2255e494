"""`budao gateway`: one gateway over one log, until somebody says that it is enough."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, TextIO
from urllib.parse import urlsplit

from budao.adapters.logs import open_log
from budao.adapters.stores import open_store
from budao.aio import (
    Access,
    Certificates,
    ChannelLog,
    ControlSocket,
    DurableLog,
    FollowedFile,
    Gateway,
    GatewayPolicy,
    Mover,
    Presence,
    Store,
    WatchPolicy,
    client_tls,
    read_ticket_keys,
    read_token,
    take_over,
)
from budao.model import BadSettings, RemoteWireError, Wall
from budao.push import (
    ChannelRules,
    Grant,
    LeavingPolicy,
    PacePolicy,
    PresencePolicy,
    SessionPolicy,
    StandbyPolicy,
    TakeoverPolicy,
    Target,
    TicketPolicy,
    check_patterns,
    rules_of,
)
from budao.settings import Stated, read_text, typed
from budao.wire import TicketKeys, tokens

PORT: Final = 7440
SETTINGS_BYTES_MAX: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line asks for."""

    host: str = "127.0.0.1"
    port: int = PORT
    tcp_port: int | None = None
    log: str = ""
    """As `budao.adapters.logs` has it; empty with `data`."""
    log_token_file: Path | None = None
    log_authority: Path | None = None
    store: str = ""
    """Where gateways tell each other who reads their channels; empty if each knows its own readers only."""
    data: Path | None = None
    """A folder: the log is in this process, and durable."""
    name: str = ""
    peers: Sequence[str] = ()
    """Each a URL, or NAME=URL: tickets need the name."""
    ticket_keys: Path | None = None
    token_key: Path | None = None
    jwks: Path | None = None
    issuer: str = ""
    """What tokens must name as `iss`, if not empty."""
    audience: str = ""
    """Among whom tokens must name us as `aud`; empty for nobody, and then tokens for an audience are not taken."""
    anonymous_subscribe: Sequence[str] = ()
    anonymous_publish: Sequence[str] = ()
    origins: Sequence[str] = ()
    hosts: Sequence[str] = ()
    settings: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    control: Path | None = None
    take_over: Path | None = None
    as_json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tables:
    gateway: GatewayPolicy = field(default_factory=GatewayPolicy)
    session: SessionPolicy = field(default_factory=SessionPolicy)
    pace: PacePolicy = field(default_factory=PacePolicy)
    presence: PresencePolicy = field(default_factory=PresencePolicy)
    leaving: LeavingPolicy = field(default_factory=LeavingPolicy)
    watch: WatchPolicy = field(default_factory=WatchPolicy)
    """With the tables `watch.heartbeat`, `watch.health` and `watch.block`."""
    ticket: TicketPolicy = field(default_factory=TicketPolicy)
    standby: StandbyPolicy = field(default_factory=StandbyPolicy)
    takeover: TakeoverPolicy = field(default_factory=TakeoverPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings(_Tables):
    """What a settings file may state."""

    rules: ChannelRules = field(default_factory=ChannelRules)


def read_settings(text: str | bytes, source: str) -> GatewaySettings:
    """Settings of a gateway: a table for each policy, and `channels` with a table for each pattern, first match first.

    Raises:  BadSettings with every problem.
    """
    stated = read_text(text, source=source)
    channels = stated.tables.get("channels", {})
    rest = Stated(
        tables={name: table for name, table in stated.tables.items() if name != "channels"},
        places=stated.places,
        source=source,
    )
    problems: list[tuple[str, str]] = []
    tables, rules = _Tables(), ChannelRules()
    try:
        tables = typed(_Tables, rest)
    except BadSettings as bad:
        problems += bad.problems
    try:
        rules = rules_of(channels)
    except BadSettings as bad:
        problems += bad.problems
    if problems:
        raise BadSettings(problems)
    found = {each.name: getattr(tables, each.name) for each in fields(_Tables)}
    watch = stated.tables.get("watch", {})
    if "outbox_bytes_max" not in watch:  # who has no room left is blocked, however much room that is
        found["watch"] = replace(tables.watch, outbox_bytes_max=tables.gateway.write_high_bytes)
    return GatewaySettings(rules=rules, **found)


async def serve(wanted: Wanted) -> None:
    """Serves until SIGTERM or SIGINT, then moves its clients to its peers and ends; told again, it hurries.

    Prints one line once it listens. With `take_over` it goes on for another process, which ends then.

    Raises:  BadSettings, LogError, OSError, TakeOverFailed, before anybody is served.
    """
    settings = read_settings("", "no file") if wanted.settings is None else _settings_of(wanted.settings)
    token_keys = _token_keys(wanted)
    access = _access(wanted, None if token_keys is None else token_keys.value)
    certificates = _certificates(wanted)
    targets = [_target(each) for each in wanted.peers]
    ticket_keys = _ticket_keys(wanted)
    async with AsyncExitStack() as stack:
        if certificates is not None:
            await stack.enter_async_context(certificates)
        if token_keys is not None:
            await stack.enter_async_context(token_keys.telling(access.renew))
        followed = (certificates, token_keys, ticket_keys)
        stack.enter_context(_on_hangup([each.reload for each in followed if each is not None]))
        taking = None if wanted.take_over is None else await take_over(wanted.take_over)
        if taking is not None:
            stack.callback(taking.close)
        about = None if taking is None else taking.about
        log = await stack.enter_async_context(_open_log(wanted, settings.rules))
        gateway = Gateway(
            log,
            host=wanted.host,
            port=wanted.port,
            tcp_port=wanted.tcp_port,
            policy=settings.gateway,
            session_policy=settings.session,
            pace_policy=settings.pace,
            watch_policy=settings.watch,
            access=access,
            tls=certificates,
            rules=settings.rules,
            name=wanted.name or ("" if about is None else str(about["name"])),
            peers=[each.url for each in targets],
            inherited=() if taking is None else taking.listening,
        )
        mover = Mover(
            gateway,
            keys=None if ticket_keys is None else ticket_keys.value,
            targets=targets,
            leaving_policy=settings.leaving,
            standby_policy=settings.standby,
            takeover_policy=settings.takeover,
            ticket_policy=settings.ticket,
            about=about,
            log_is_shared=wanted.data is None and wanted.log != "memory:",
        )
        await stack.enter_async_context(gateway)
        store = await _open_store(wanted, stack)
        await stack.enter_async_context(Presence(gateway, store, policy=settings.presence))
        stack.callback(mover.close)
        if ticket_keys is not None:
            await stack.enter_async_context(ticket_keys.telling(mover.office.renew))
        control = None
        if wanted.control is not None:
            control = ControlSocket(wanted.control, mover, replaces=taking is not None)
            await stack.enter_async_context(control)
        if taking is not None:
            taken = await taking.receive(mover)
            if control is not None:
                control.appear()
            print(
                f"took over {taken.served} connections in {taken.took_s:.3f} s, {taken.failed} failed", file=sys.stderr
            )
        with _signals(mover.drain, as_json=wanted.as_json):
            for remark in _remarks(wanted, targets):
                _say(remark, sys.stderr)
            _say(_listening(gateway, access, as_json=wanted.as_json), sys.stdout)
            await mover.over.wait()


@contextmanager
def _signals(leave: Callable[[], None], *, as_json: bool) -> Iterator[None]:
    """SIGTERM and SIGINT make it leave; again, and it hurries."""

    def told() -> None:
        if not as_json:
            _say("leaving: clients are told where to go on", sys.stderr)
        leave()

    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, told)
    try:
        yield
    finally:
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)


@contextmanager
def _on_hangup(reloads: Sequence[Callable[[], object]]) -> Iterator[None]:
    """SIGHUP reads all files again that may change. Where there are none it ends the process, as it does by default."""

    def told() -> None:
        for reload in reloads:
            reload()

    if not reloads:
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, told)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def _remarks(wanted: Wanted, targets: Sequence[Target]) -> Iterator[str]:
    """What serves, and yet not as somebody may think."""
    if wanted.ticket_keys is None:
        return
    for each in targets:
        if not each.name:
            yield f"peer: {each.url} has no name, so clients get no tickets for it; write --peer NAME={each.url} with its --name"
    if not wanted.name and wanted.take_over is None:
        yield "name: without --name nobody knows whom to write tickets for, and none is good here"


def _target(said: str) -> Target:
    """A peer: URL, or NAME=URL. Clients add the path of their transport themselves, so that is left out."""
    name, equals, url = said.partition("=")
    if not equals or "://" in name:
        name, url = "", said
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in {"http", "https", "ws", "wss"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise BadSettings([("peer", f"{said!r} is neither URL nor NAME=URL, such as b=https://b.example:7440")])
    return Target(name, url.rstrip("/").removesuffix("/v1/stream"))


def _listening(gateway: Gateway, access: Access, *, as_json: bool) -> str:
    if as_json:
        said: Mapping[str, Any] = {
            "url": gateway.url,
            "host": gateway.host,
            "port": gateway.port,
            "tcp_port": gateway.tcp_port,
            "name": gateway.name,
            "log": gateway.log.name,
            "pid": os.getpid(),
        }
        return json.dumps(said)
    safety = f"{'TLS' if gateway.tls else 'no TLS'}, {'tokens' if access.keys else 'no tokens'}"
    safety += ", anonymous allowed" if access.anonymous else ""
    tcp = f" and on port {gateway.tcp_port} for plain TCP" if gateway.tcp_port is not None else ""
    return f"gateway {gateway.name} listens on {gateway.url}{tcp} ({safety}), log {gateway.log.name}, process {os.getpid()}"


def _settings_of(file: Path) -> GatewaySettings:
    try:
        with file.open("rb") as opened:
            text = opened.read(SETTINGS_BYTES_MAX + 1)
    except OSError as problem:
        raise BadSettings([("settings", f"{file} cannot be read: {problem.strerror}")]) from problem
    if len(text) > SETTINGS_BYTES_MAX:
        raise BadSettings([("settings", f"{file} has more than {SETTINGS_BYTES_MAX} bytes")])
    return read_settings(text, str(file))


def _token_keys(wanted: Wanted) -> FollowedFile[tokens.TokenKeys] | None:
    """What tokens are checked with; the file may change."""
    secret, jwks = wanted.token_key, wanted.jwks
    named = {"issuer": wanted.issuer or None, "audience": wanted.audience or None}
    if secret is not None and jwks is not None:
        raise BadSettings([("token", "both a key and a JWKS file are named; choose one")])
    if secret is not None:
        return FollowedFile(
            secret, lambda: tokens.TokenKeys.of_secret(read_token(file=secret) or "", **named), "the keys of tokens"
        )
    if jwks is not None:
        return FollowedFile(jwks, lambda: tokens.TokenKeys.of_jwks(_text_of(jwks), **named), "the keys of tokens")
    if wanted.issuer or wanted.audience:
        raise BadSettings([("access", "--issuer and --audience say what tokens must hold; name --token-key or --jwks")])
    return None


def _text_of(jwks: Path) -> str:
    try:
        return jwks.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise BadSettings([("jwks", f"{jwks} cannot be read: {problem}")]) from problem


def _ticket_keys(wanted: Wanted) -> FollowedFile[TicketKeys] | None:
    file = wanted.ticket_keys
    return None if file is None else FollowedFile(file, lambda: read_ticket_keys(file), "the keys of tickets")


def _access(wanted: Wanted, keys: tokens.TokenKeys | None) -> Access:
    anonymous = None
    if wanted.anonymous_subscribe or wanted.anonymous_publish:
        try:
            check_patterns([*wanted.anonymous_subscribe, *wanted.anonymous_publish])
            anonymous = Grant.anonymous(subscribe=wanted.anonymous_subscribe, publish=wanted.anonymous_publish)
        except RemoteWireError as problem:
            raise BadSettings([("anonymous", str(problem))]) from problem
    if keys is None and anonymous is None:
        raise BadSettings(
            [("access", "nobody could do anything: name --token-key or --jwks, or what --anonymous-subscribe may read")]
        )
    return Access(keys=keys, anonymous=anonymous, origins=tuple(wanted.origins), hosts=tuple(wanted.hosts))


def _certificates(wanted: Wanted) -> Certificates | None:
    if (wanted.certificate is None) != (wanted.key is None):
        raise BadSettings([("tls", "a certificate and its key go together, only one of them is given")])
    if wanted.certificate is None or wanted.key is None:
        return None
    return Certificates(wanted.certificate, wanted.key)


def _open_log(wanted: Wanted, rules: ChannelRules) -> AbstractAsyncContextManager[ChannelLog]:
    if (wanted.data is None) == (not wanted.log):
        raise BadSettings([("log", "name one of --data FOLDER (a log in this process) and --log URL")])
    if wanted.data is not None:
        return DurableLog(wanted.data, rules=rules)
    tls = None if wanted.log_authority is None else client_tls(authority=wanted.log_authority)
    return open_log(wanted.log, rules=rules, token=read_token(file=wanted.log_token_file), tls=tls)


async def _open_store(wanted: Wanted, stack: AsyncExitStack) -> Store | None:
    if not wanted.store:
        return None
    store = open_store(wanted.store)
    stack.push_async_callback(store.aclose)
    return store


def _say(text: str, file: TextIO) -> None:
    """Says it to whoever listens. That nobody does, or a log is full, is no reason not to serve."""
    try:
        print(text, file=file, flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, file.fileno())  # what could not be written would be tried once more at the end
        os.close(nowhere)


def sign_token(
    key: Path,
    *,
    subject: str,
    subscribe: Sequence[str],
    publish: Sequence[str],
    presence: Sequence[str],
    operate: bool,
    now: Wall,
    lives_s: float,
    issuer: str = "",
    audience: str = "",
) -> str:
    """A token that a gateway with this key takes.

    Raises:  BadSettings, RemoteWireError for what is no pattern.
    """
    check_patterns([*subscribe, *publish, *presence])
    return tokens.sign_development_token(
        read_token(file=key) or "",
        subject=subject,
        subscribe=tuple(subscribe),
        publish=tuple(publish),
        presence=tuple(presence),
        operate=operate,
        now=now,
        lives_s=lives_s,
        issuer=issuer,
        audience=audience,
    )
