"""The commands of push: a gateway, a log for gateways, tokens to try them with."""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from budao.apps.extras import lacks
from budao.apps.gateway_control import add_control_commands
from budao.model import BadSettings, BudaoError, Wall

GATEWAY_NEEDS = ("msgpack",)
PORT = 7440

Commands = Any  # what `add_subparsers` gives has no public type


def add_push(commands: Commands) -> None:
    """`budao gateway` with its `status`, `drain` and `promote`, `budao token`."""
    _add_gateway(commands.add_parser("gateway", help="push messages to browsers and services over long connections"))
    _add_token(commands.add_parser("token", help="sign a token, to try a gateway with"))


def _add_gateway(gateway: argparse.ArgumentParser) -> None:
    add = gateway.add_argument
    add("--host", default="127.0.0.1", help="where to listen; anything but loopback needs TLS and keys for tokens")
    add("--port", type=_port, default=PORT, metavar="N", help=f"default {PORT}; 0 for any that is free")
    add("--tcp-port", type=_port, metavar="N", help="listen there for plain TCP as well")
    add(
        "--log",
        default="",
        metavar="URL",
        help="the log that gateways share: budao://HOST:PORT or nats://HOST,...; memory: forgets",
    )
    add("--log-token-file", type=Path, metavar="FILE", help="what the log wants to see")
    add("--log-authority", type=Path, metavar="FILE", help="reach the log by TLS, with a certificate of this authority")
    add(
        "--store",
        default="",
        metavar="URL",
        help="where gateways share who is there: budao://HOST:PORT, etcd://HOST:PORT",
    )
    add("--data", type=Path, metavar="FOLDER", help="a log in this process instead, durable in a folder")
    add("--name", default="", metavar="NAME", help="what clients and logs call it")
    add(
        "--peer", action="append", default=[], metavar="[NAME=]URL", help="another gateway to go on at; may be repeated"
    )
    add(
        "--ticket-keys",
        type=Path,
        metavar="FILE",
        help="shared by the gateways: lines of an id and a key in hexadecimal",
    )
    add("--token-key", type=Path, metavar="FILE", help="the secret that tokens are signed with (HS256)")
    add("--jwks", type=Path, metavar="FILE", help="public keys of tokens (RS256, EdDSA), as JWKS")
    add("--issuer", default="", metavar="NAME", help="take only tokens of this issuer (iss)")
    add("--audience", default="", metavar="NAME", help="take only tokens for this audience (aud)")
    add(
        "--anonymous-subscribe", action="append", default=[], metavar="PATTERN", help="channels to read without a token"
    )
    add(
        "--anonymous-publish", action="append", default=[], metavar="PATTERN", help="channels to publish to without one"
    )
    add(
        "--origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="pages that may use it, such as https://app.example",
    )
    add("--allow-host", action="append", default=[], metavar="NAME", help="names for browsers without a token")
    add(
        "--settings",
        type=Path,
        metavar="FILE.toml",
        help="tables gateway, session, pace, leaving, presence, watch, ticket, standby, takeover, and channels by pattern",
    )
    add("--tls-certificate", type=Path, metavar="FILE", help="who we are (PEM); switches TLS on")
    add("--tls-key", type=Path, metavar="FILE", help="its private key")
    add("--control", type=Path, metavar="PATH", help="a socket for `drain`, `status` and a successor")
    add("--take-over", type=Path, metavar="PATH", help="go on for the gateway with this control socket")
    add("--json", action="store_true", help="say as JSON where it listens")
    gateway.set_defaults(run=_gateway)
    add_control_commands(gateway.add_subparsers(metavar="WHAT", title="a gateway that runs here"))


def _add_token(token: argparse.ArgumentParser) -> None:
    add = token.add_argument
    add("--key", type=Path, required=True, metavar="FILE", help="the secret of the gateway's --token-key")
    add("--subject", default="developer", metavar="NAME", help="who it is for")
    add("--subscribe", action="append", default=[], metavar="PATTERN", help="channels it may read; may be repeated")
    add("--publish", action="append", default=[], metavar="PATTERN", help="channels it may publish to")
    add("--presence", action="append", default=[], metavar="PATTERN", help="channels where it may see who is there")
    add("--operate", action="store_true", help="it may drain and promote")
    add("--issuer", default="", metavar="NAME", help="who it is from, for gateways with an --issuer")
    add("--audience", default="", metavar="NAME", help="whom it is for, for gateways with an --audience")
    add(
        "--for",
        dest="lives_s",
        type=_span,
        default=3_600.0,
        metavar="SECONDS",
        help="how long it is good (default 3600)",
    )
    token.set_defaults(run=_token)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65_536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def _span(text: str) -> float:
    try:
        span_s = float(text)
    except ValueError:
        span_s = -1.0
    if not 0.0 < span_s <= 10 * 365 * 86_400.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0 and up to ten years")
    return span_s


def _gateway(options: argparse.Namespace) -> int:
    if lacks(GATEWAY_NEEDS, "push"):
        return 2
    from budao.apps.gateway import Wanted, serve

    wanted = Wanted(
        host=options.host,
        port=options.port,
        tcp_port=options.tcp_port,
        log=options.log,
        log_token_file=options.log_token_file,
        log_authority=options.log_authority,
        store=options.store,
        data=options.data,
        name=options.name,
        peers=tuple(options.peer),
        ticket_keys=options.ticket_keys,
        token_key=options.token_key,
        jwks=options.jwks,
        issuer=options.issuer,
        audience=options.audience,
        anonymous_subscribe=tuple(options.anonymous_subscribe),
        anonymous_publish=tuple(options.anonymous_publish),
        origins=tuple(options.origin),
        hosts=tuple(options.allow_host),
        settings=options.settings,
        certificate=options.tls_certificate,
        key=options.tls_key,
        control=options.control,
        take_over=options.take_over,
        as_json=options.json,
    )
    return run_program(lambda: serve(wanted))


def _token(options: argparse.Namespace) -> int:
    from budao.apps.gateway import sign_token

    try:
        signed = sign_token(
            options.key,
            subject=options.subject,
            subscribe=options.subscribe,
            publish=options.publish,
            presence=options.presence,
            operate=options.operate,
            now=Wall(time.time()),
            lives_s=options.lives_s,
            issuer=options.issuer,
            audience=options.audience,
        )
    except BudaoError as problem:
        return told(problem)
    print(signed)
    return 0


def run_program(program: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Runs a program that serves, on uvloop where that is installed; what it cannot do is said in a line for each problem."""
    factory = None
    try:
        import uvloop
    except ImportError:
        pass
    else:
        factory = uvloop.new_event_loop
    # Connections are many objects that live long: looking through all of them again and again costs a storm a sixth of its time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(program())
    except (BudaoError, OSError) as problem:
        return told(problem)
    except KeyboardInterrupt:
        return 130
    return 0


def told(problem: BaseException) -> int:
    """Says what is wrong, in a line for each problem."""
    if isinstance(problem, BadSettings):
        for path, happened in problem.problems:
            print(f"{path}: {happened}", file=sys.stderr)
    else:
        print(problem, file=sys.stderr)
    return 1
